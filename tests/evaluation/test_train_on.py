"""Task train-on-anonymised: accuracy, learning, the cache, one whole evaluation of rendered faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import StubDetector, StubJudge

from a3gan.data.ranges import to_uint8
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.evaluation import catalogue, listing, protocol, run, train_on
from a3gan.evaluation.page.page import headline_parts
from a3gan.evaluation.protocol import TrainOn

CONFIG = """
method: [pixelate, identity]
judges: [{name: stub, kind: small, path: none}]
tasks: [train-on-anonymised]
second_detector: null
far: 0.05
bootstrap: 20
degradations: [none]
attack: {per_person: 3}
train_on: {images: 36, per_person: 3, steps: 3, batch: 12, width: 8, dim: 16}
data: {synthetic_count: 30, synthetic_people: 10}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("a3gan.scorers.identity.load_recogniser", lambda path, kind: StubJudge())
    monkeypatch.setattr("a3gan.media.detect.load_detector", lambda name, device, min_face: StubDetector(picky=False))
    path = tmp_path / "eval.yaml"
    folder = json.dumps(str(tmp_path / "run"))
    path.write_text(CONFIG + f"run: {{dir: {folder}, device: cpu}}\n", encoding="utf-8")
    return path


def test_balanced_accuracy() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.8, 0.9, 0.7])
    assert train_on.balanced_accuracy(high, low) == 1.0
    assert train_on.balanced_accuracy(low, high) == 0.5  # no threshold is better than none
    assert train_on.balanced_accuracy(np.array([0.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.625)


def test_it_learns_people_from_nothing() -> None:
    faces = synthetic_faces(64, 64, 5, identities=16)
    pixels = to_uint8(faces.fetch(list(range(64))))
    own = TrainOn(steps=25, batch=32, width=8, dim=16)
    before = torch.get_rng_state()
    pupils = [train_on.learn(pixels, faces.identity, own, 3, torch.device("cpu")) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (pupil.embed(pixels) for pupil in pupils)
    assert np.array_equal(first, second) and first.shape == (64, 16)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    none = train_on.learn(pixels, faces.identity, own.model_copy(update={"steps": 0}), 3, torch.device("cpu"))

    def told(vectors: np.ndarray) -> float:
        genuine, impostor = train_on.pair_masks(faces.identity.numpy())
        scores = vectors @ vectors.T
        return train_on.statistics.auc(scores[genuine], scores[impostor])

    assert told(first) > told(none.embed(pixels)) + 0.1


def test_one_evaluation(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_on.NAME not in protocol.TASKS  # only if asked for
    learn, calls = train_on.learn, []

    def noted(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*args, **options)

    monkeypatch.setattr(train_on, "learn", noted)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(config)
    results = run.evaluate(config)
    # originals, pixelate, blur, untrained; `identity` has the originals' pictures, and what was learned is kept
    assert len(calls) == 3 + 2
    task = results["tasks"][train_on.NAME]
    assert set(task) == {"original", "pixelate", "identity"}
    own = {name: by["none"]["leak"]["stub"] for name, by in task.items()}
    assert (own["identity"]["own_rank1"]["value"], own["identity"]["own_rank1_chance"]) == (1.0, 0.027778)
    first, same = task["original"]["none"], task["identity"]["none"]
    assert {name: first[name] for name in same} == same
    assert {"auc_untrained", "auc_blurred", "accuracy_blurred"} <= set(first) and "auc_blurred" not in same
    assert 0.5 <= first["accuracy"] <= 1 and 0 <= first["auc"]["value"] <= 1
    about = results["about"]["train_on"]
    assert (about["pictures"], about["people"], about["tested"]) == (36, 12, 30)
    named = listing.figures(results)
    assert {f.name for f in named if catalogue.meaning(f.name) is None} == set()
    assert catalogue.meaning(f"tasks.{train_on.NAME}.auc").better == "higher"
    shown = {name for _, names in headline_parts(listing.table(results)) for name in names}
    assert {f"tasks.{train_on.NAME}.auc", f"tasks.{train_on.NAME}.leak.stub.own_rank1"} <= shown
    html = (config.parent / "run" / "report.html").read_text(encoding="utf-8")
    assert "A set to train on" in html and "learned from blur" in html
    monkeypatch.setattr(train_on, "learn", lambda *args, **options: pytest.fail("learned again"))
    bytes_of = (config.parent / "run" / "results.json").read_bytes
    before = bytes_of()
    run.evaluate(config)
    assert bytes_of() == before


def test_blur_among_the_methods_is_a_row_and_pairs_are_read(config: Path, tmp_path: Path) -> None:
    faces = synthetic_faces(30, 64, 1_000_003, identities=10)
    rows = faces.identity.tolist()
    lines = [f"{faces.files[i]},{faces.files[j]},{int(rows[i] == rows[j])}" for i in range(30) for j in range(i)]
    listed = tmp_path / "pairs.csv"
    listed.write_text("\n".join(["a,b,same", *lines]) + "\n", encoding="utf-8")
    results = run.evaluate(config, ["method=blur", f"data.pairs={json.dumps(str(listed))}", "judges=[]"])
    task = results["tasks"][train_on.NAME]
    assert set(task) == {"original", "blur"} and "auc_blurred" not in task["original"]["none"]
    assert 0 <= task["blur"]["none"]["pairs_auc"] <= 1 and "leak" not in task["blur"]["none"]
    assert 0.5 <= task["blur"]["none"]["pairs_accuracy"] <= 1


def test_without_people_it_is_off(config: Path) -> None:
    results = run.evaluate(config, ["data.synthetic_people=30", "method=identity"])
    assert any(line.startswith("task train-on-anonymised off: no person with two") for line in results["off"])
    results = run.evaluate(config, ["train_on.images=6", "method=identity"])
    assert any("fewer than 8 people" in line for line in results["off"])


def test_the_judged_split_is_refused(config: Path, tmp_path: Path) -> None:
    faces = synthetic_faces(30, 64, 5, identities=10)
    faces.split, archive = ["test"] * 30, tmp_path / "a.zip"
    faces.save(archive)
    with pytest.raises(UserError, match="is the judged split"):
        run.evaluate(config, [f"data.path={json.dumps(str(archive))}", "attack.split=test", "method=identity"])
