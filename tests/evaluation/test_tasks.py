"""All tasks in one evaluation of rendered faces; what lacks labels is off with a line; the catalogue is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stubs import stubbed_run

from a3gan.errors import UserError
from a3gan.evaluation import catalogue, listing, protocol, run

CONFIG = """
method: [pixelate, identity]
judges: [{name: stub, kind: small, path: none}]
attributes_judge: stub
second_detector: null
attackers: []
far: 0.05
bootstrap: 20
degradations: [none]
heads: {images: 40}
data: {synthetic_count: 36, synthetic_people: 12}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stubbed_run(CONFIG, tmp_path, monkeypatch)


def test_all_tasks_in_one_run(config: Path) -> None:
    results = run.evaluate(config)
    folder = config.parent / "run"
    assert set(results["tasks"]) == {"fatigue", "quality", "attributes", "groups", "cost"}
    assert results["tasks"]["cost"]["pixelate"]["none"] == {"steps": 0, "parameters": 0, "mib": 0.0}
    for name, task in results["tasks"].items():
        if name == "cost":
            continue
        assert set(task) == {"original", "pixelate", "identity"} and all("none" in by for by in task.values())
    quality = results["tasks"]["quality"]
    assert quality["identity"]["none"]["landmarks"]["value"] == quality["identity"]["none"]["colour_face"]["value"] == 0
    assert quality["pixelate"]["none"]["colour_face"]["value"] > quality["pixelate"]["none"]["colour_around"]["value"]
    assert quality["pixelate"]["none"]["by_stub"]["frechet"]["value"] > 0
    kept = results["tasks"]["attributes"]
    assert kept["identity"]["none"]["all"]["same"] == 1.0 and "stranger" in kept["original"]["none"]
    rows = {row["method"]: row for row in results["rows"]}
    assert rows["identity"]["expression"]["head_agreement"]["value"] == 1.0
    assert 0 <= rows["pixelate"]["expression"]["within_results_f1"]["value"] <= 1
    assert rows["identity"]["identification"]["stub"]["rank5_included"]["value"] == 1.0
    assert rows["identity"]["detection"]["picture"]["score"] == 1.0
    assert any(line.startswith("calibration off") for line in results["off"])
    unknown = {f.name for f in listing.figures(results) if catalogue.meaning(f.name) is None}
    assert unknown == set()
    first = (folder / "results.json").read_bytes()
    speed = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
    assert set(speed["methods"]["pixelate"]) == {"1", "16"}
    assert speed["methods"]["pixelate"]["1"]["faces_per_second"] > 0
    run.evaluate(config)
    assert (folder / "results.json").read_bytes() == first


def test_only_the_tasks_that_are_asked_for(config: Path) -> None:
    results = run.evaluate(config, ["tasks=detection", "method=identity"])
    assert results["tasks"] == {} and results["thresholds"] == {}
    assert set(results["rows"][0]) >= {"detection"} and "expression" not in results["rows"][0]
    assert not (config.parent / "run" / "speed.json").exists()


def test_what_lacks_its_network_is_off(config: Path) -> None:
    results = run.evaluate(config, ["attributes_judge=null", "method=identity", "tasks=fatigue,attributes,groups"])
    assert set(results["tasks"]) == {"groups"}
    assert "task fatigue off: no attributes_judge" in results["off"]
    assert "task attributes off: no attributes_judge" in results["off"]


def test_a_list_of_archives_becomes_the_main_one_and_more(config: Path) -> None:
    cfg = protocol.load(config, ["data.path=[a.zip, b.zip]", "data.photos=[a, null]"])
    assert (cfg.data.path, cfg.data.photos) == ("a.zip", "a")
    assert [(one.path, one.photos) for one in cfg.data.archives] == [("a.zip", "a"), ("b.zip", None)]
    assert [one.path for one in protocol.load(config, ["data.path=c.zip"]).data.archives] == ["c.zip"]
    with pytest.raises(UserError, match="2 archives"):
        protocol.load(config, ["data.path=[a.zip, b.zip]", "data.photos=[a]"])
    with pytest.raises(UserError, match="tasks"):
        protocol.load(config, ["tasks=detecting"])


def test_archives_without_identities_feed_only_their_labels(config: Path, tmp_path: Path) -> None:
    from a3gan.data.synthetic import synthetic_faces

    main, more = tmp_path / "main.zip", tmp_path / "eyes.zip"
    faces = synthetic_faces(24, 64, 5, identities=8)
    faces.split = ["test"] * 24
    faces.columns.pop("label", None)
    faces.truth = {}
    faces.save(main)
    eyes = synthetic_faces(12, 64, 6)
    eyes.split, eyes.columns = ["test"] * 6 + ["val"] * 6, {"label": ["open", "closed"] * 6}
    eyes.truth, eyes.identity, eyes.identity_names = {}, torch.full((12,), -1), []
    eyes.save(more)
    options = [f"data.path=[{json.dumps(str(main))}, {json.dumps(str(more))}]", "method=identity"]
    results = run.evaluate(config, [*options, "tasks=fatigue,attributes,expression"])
    stills = results["tasks"]["fatigue"]["identity"]["none"]["stills"]
    assert stills["eyes_closed_agreement"]["value"] == 1.0 and stills["eyes_closed_agreement"]["count"] == 6
    assert "yawning_agreement" not in stills
    assert results["data"]["more"][0]["pictures"] == 6 and results["about"]["temperatures"]["pictures"] == 6
    assert any("heads off: no labels of expression in split train" in line for line in results["off"])


def test_directions_follow_the_policy() -> None:
    keep, change = (catalogue.meaning(f"tasks.attributes.{part}.gender_same") for part in ("keep", "change"))
    assert (keep.better, change.better) == ("higher", "lower")
    assert catalogue.meaning("verification.b.tar").better == "lower" and catalogue.meaning("no.such") is None
    assert {m.better for m in catalogue.FIGURES.values()} == {"lower", "higher", None}
    assert {m.side for m in catalogue.FIGURES.values()} == {"privacy", "use", None}
