"""A whole evaluation on rendered faces with a stub judge: files, cache, determinism, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stubs import StubDetector, StubJudge

from a3gan.errors import UserError
from a3gan.evaluation import protocol, run, sets
from a3gan.evaluation.pictures import Method, Originals, View, degraded

CONFIG = """
method: [pixelate, identity]
judges: [{name: stub, kind: small, path: none}]
far: 0.05
bootstrap: 30
degradations: [half]
second_detector: null
attackers: []
data: {synthetic_count: 24, synthetic_people: 8}
"""


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    calls = SimpleNamespace(judged=0)

    class Judge(StubJudge):
        def forward(self, x: torch.Tensor, frame: str = "face") -> torch.Tensor:
            calls.judged += len(x)
            return super().forward(x, frame)

    monkeypatch.setattr("a3gan.scorers.identity.load_recogniser", lambda path, kind: Judge())
    monkeypatch.setattr("a3gan.media.detect.load_detector", lambda name, device, min_face: StubDetector(min_face))
    return calls


def _config(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "eval.yaml"
    path.write_text(text + f"run: {{dir: {json.dumps(str(folder / 'run'))}, device: cpu}}\n", encoding="utf-8")
    return path


def test_a_whole_run_and_its_repetition(tmp_path: Path, stubs: SimpleNamespace) -> None:
    config = _config(tmp_path)
    results = run.evaluate(config)
    rows = {(row["method"], row["degradation"]): row for row in results["rows"]}
    assert list(rows) == [(m, d) for m in ("original", "pixelate", "identity") for d in ("none", "half")]
    original, same, pixelated = rows["original", "none"], rows["identity", "none"], rows["pixelate", "none"]
    assert original["verification"]["stub"]["same_picture"]["value"] == 1.0
    assert same["verification"] == original["verification"] and same["detection"] == original["detection"]
    was, now = (r["verification"]["stub"]["cosine_same_picture"] for r in (original, pixelated))
    assert now < was == pytest.approx(1.0)
    assert results["data"]["people"] == 8 and results["data"]["genuine_pairs"] == 24
    folder = tmp_path / "run"
    first = {name: (folder / name).read_bytes() for name in ("results.json", "results.md")}
    assert json.loads(first["results.json"])["rows"] == results["rows"]
    assert "| pixelate | half |" in str(results) == first["results.md"].decode()
    judged = stubs.judged
    assert judged == 2 * 2 * 24  # `identity` returns the originals, whose features are known
    run.evaluate(config)
    assert stubs.judged == judged  # all from the cache
    assert {name: (folder / name).read_bytes() for name in first} == first
    assert not [p for p in folder.rglob("*") if p.name.startswith(".")]


def test_the_plot_is_drawn_and_repeatable(tmp_path: Path, stubs: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    config = _config(tmp_path)
    run.evaluate(config, ["method=identity", "degradations=none"])
    first = (tmp_path / "run" / "roc.png").read_bytes()
    run.evaluate(config, ["method=identity", "degradations=none"])
    assert first[:4] == b"\x89PNG" and (tmp_path / "run" / "roc.png").read_bytes() == first


def test_a_cut_cache_file_is_made_again(tmp_path: Path, stubs: SimpleNamespace) -> None:
    config = _config(tmp_path)
    options = ["method=identity", "degradations=none"]
    results = run.evaluate(config, options)
    for path in (tmp_path / "run" / "cache").glob("judge-*"):
        path.write_bytes(path.read_bytes()[:100])
    assert run.evaluate(config, options) == results


def test_a_judge_of_the_training_is_refused(
    tmp_path: Path, stubs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(name: str, **options: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, path="w.safetensors", meta=meta)

    monkeypatch.setattr("a3gan.anonymizers.methods.create", create)
    meta = {"scorers": ["stub:0"]}
    with pytest.raises(UserError, match="used in a loss"):
        run.evaluate(_config(tmp_path), ["method=a3gan"])
    meta = {}
    with pytest.raises(UserError, match="does not say which scorers"):
        run.evaluate(_config(tmp_path), ["method=a3gan"])


def test_an_unchanged_picture_is_an_error() -> None:
    from a3gan.anonymizers.methods import create
    from a3gan.data.synthetic import synthetic_faces

    originals = Originals(synthetic_faces(2, 32, 0))
    lazy = create("identity", size=32)
    Method(lazy, None, 1.0, [0, 1]).apply(originals, [0, 1])
    lazy.name = "lazy"
    with pytest.raises(UserError, match="came back unchanged"):
        Method(lazy, None, 1.0, [0, 1]).apply(originals, [0, 1])


def test_faces_are_pasted_into_their_photos(tmp_path: Path) -> None:
    from PIL import Image

    from a3gan.anonymizers.methods import create
    from a3gan.data.align import POINTS
    from a3gan.data.archive import FaceSet
    from a3gan.data.prepare import prepare
    from a3gan.evaluation.pictures import Photos

    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    points = "90,80,130,80,110,100,95,125,125,125"
    names = ",".join(f"{point}_{axis}" for point in POINTS for axis in "xy")
    rows = ["file,identity,split," + names]
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
        coarse.resize((240, 200), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{i}.png")
        rows.append(f"photos/{i}.png,p{i},test,{points}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    prepare(tmp_path / "t.csv", tmp_path / "t_64.zip", size=64, progress=False)
    faces = FaceSet.load(tmp_path / "t_64.zip", split="test")
    originals = Originals(faces, Photos(tmp_path, faces))
    assert originals.points[0] == pytest.approx(np.array(points.split(","), float).reshape(5, 2), abs=0.02)
    before = originals.view([0, 1])
    after, failed = Method(create("solid", size=64), None, 1.0, [0, 1]).apply(originals, [0, 1])
    assert not failed.any()
    assert (after.pictures[0][100, 110] == 128).all()  # the nose
    assert np.array_equal(after.pictures[0][:, :35], before.pictures[0][:, :35])  # beside the face
    (tmp_path / "photos" / "0.png").write_bytes((tmp_path / "photos" / "1.png").read_bytes())
    with pytest.raises(UserError, match="not the photo that was prepared"):
        originals.view([0])


def test_half_size_moves_the_points_along() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:12, 20:22] = 200
    view = degraded(View([picture], np.full((1, 5, 2), [20.5, 10.5])), "half")
    assert view.pictures[0].shape == (20, 30, 3)
    x, y = view.points[0, 0]
    assert (x, y) == (10, 5) and (view.pictures[0][int(y), int(x)] == 200).all()
    jpeg = degraded(View([picture], view.points), "jpeg75")
    assert jpeg.pictures[0].shape == picture.shape and not np.array_equal(jpeg.pictures[0], picture)


def test_whole_people_are_taken_for_a_quick_look() -> None:
    from a3gan.data.synthetic import synthetic_faces

    faces = synthetic_faces(20, 16, 0, identities=5)
    few = sets.whole_people(faces, 9, seed=1)
    assert len(few) == 8 and few.identity.unique(return_counts=True)[1].tolist() == [4, 4]
    assert sets.whole_people(faces, 0, seed=1) is faces


def test_only_the_listed_pictures_are_judged(tmp_path: Path) -> None:
    from a3gan.data.synthetic import synthetic_faces

    faces = synthetic_faces(6, 32, 0)
    faces.columns["source"] = [f"photos/p{i // 2}/{i}.jpg" for i in range(6)]
    listed = tmp_path / "list.txt"
    listed.write_text("# two\n5.jpg\nphotos/p0/1.jpg  # by its path\n\n5.jpg\n", encoding="utf-8")
    assert sets.only(faces, str(listed), "a.zip").columns["source"] == ["photos/p0/1.jpg", "photos/p2/5.jpg"]
    listed.write_text("5.jpg\n7.jpg\n", encoding="utf-8")
    with pytest.raises(UserError, match="1 of 2 pictures are not among the judged ones of a.zip, first 7.jpg"):
        sets.only(faces, str(listed), "a.zip")
    with pytest.raises(UserError, match="data.only=none.txt: no such file"):
        sets.read_list("none.txt")
    shipped = sets.read_list("eval/lfw_200.txt")
    assert len(shipped) == 200 and len({name.rsplit("_", 1)[0] for name in shipped}) == 100


def test_weights_and_options_by_method(tmp_path: Path) -> None:
    cfg = protocol.load(_config(tmp_path), ["weights.pixelate=x", "options.pixelate.cells=4", "method=a3gan,pixelate"])
    assert (cfg.weights_of("pixelate"), cfg.weights_of("a3gan"), cfg.options) == ("x", None, {"pixelate": {"cells": 4}})
    assert protocol.load(_config(tmp_path), ["weights=y"]).weights_of("a3gan") == "y"
    with pytest.raises(UserError, match="no option cell; the nearest is cells"):
        protocol.load(_config(tmp_path), ["options.pixelate.cell=4"])
    with pytest.raises(UserError, match="options.pixelat"):
        protocol.load(_config(tmp_path), ["options.pixelat.cells=4"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_image=3", "unknown key data.max_image; the nearest valid key is data.max_images"),
        ("judge=[]", "the nearest valid key is judges"),
        ("method=blurr", "method"),
        ("far=0", "far: "),
        ("alpha=yes", "alpha: "),
    ],
)
def test_config_errors_name_the_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        protocol.load(_config(tmp_path), [override])


def test_config_reads_lists_and_puts_none_first(tmp_path: Path) -> None:
    cfg = protocol.load(_config(tmp_path), ["method=blur,solid", "degradations=jpeg75,none"])
    assert cfg.method == ["blur", "solid"] and cfg.degradations == ["none", "jpeg75"]


def test_shipped_configs_are_valid() -> None:
    assert protocol.load("eval/lfw").judges[0].kind == "mobilefacenet_b"
    full = protocol.load("eval/full").data
    assert len(full.archives) == 3 and all(archive.photos for archive in full.archives) and full.clips
