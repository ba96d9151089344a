"""Raw pictures in place of an archive, and what a dry run says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from a3gan.data.archive import FaceSet
from a3gan.data.prepare_sources import Source
from a3gan.data.ranges import to_pil
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.evaluation import protocol, sources
from a3gan.evaluation.dryrun import dry_run

LIMITS = "limits: {verification.b.tar: {max: 0.1}}\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with two drawn photos each, in a table with landmarks (no detector is needed) and without splits."""
    folder = tmp_path_factory.mktemp("raw")
    faces = synthetic_faces(20, 64, 5, identities=10)
    lines = ["file,identity,expression,left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y,mouth_left_x,"
             "mouth_left_y,mouth_right_x,mouth_right_y"]  # fmt: skip
    for i in range(20):
        to_pil(faces.images[i]).save(folder / f"{i}.png")
        points = ",".join(f"{v:.2f}" for v in (faces.landmarks[i] * 64 - 0.5).flatten().tolist())
        lines.append(f"{i}.png,p{int(faces.identity[i])},{'happiness' if i % 2 else 'neutral'},{points}")
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _config(folder: Path, data: str, more: str = "") -> protocol.EvalConfig:
    path = folder / "eval.yaml"
    run = f"run: {{dir: {json.dumps(str(folder / 'run'))}, device: cpu}}\n"
    path.write_text(f"method: [blur]\ndata: {data}\n{run}{more}", encoding="utf-8")
    return protocol.load(path)


def test_a_raw_table_is_prepared_once_with_people_set_aside(raw: Path, tmp_path: Path) -> None:
    cfg = _config(tmp_path, f"{{path: {json.dumps(str(raw / 'list.csv'))}, set_aside: 0.4}}")
    made = sources.prepared(cfg).data
    assert made.photos == str(raw) and Path(made.path).parent == tmp_path / "run" / "cache"
    faces = FaceSet.load(made.path)
    who = [faces.identity_names[i] for i in faces.identity.tolist()]
    train, test = (
        {name for name, split in zip(who, faces.split, strict=True) if split == w} for w in ("train", "test")
    )
    assert len(train) == 4 and len(test) == 6 and not train & test
    assert faces.columns["expression"].count("happiness") == 10 and faces.size == sources.SIZE
    before = Path(made.path).stat().st_mtime_ns
    assert sources.prepared(cfg).data == made and Path(made.path).stat().st_mtime_ns == before


def test_an_archive_stays_as_it_is(tmp_path: Path) -> None:
    synthetic_faces(4, 32, 0).save(tmp_path / "faces.zip")
    cfg = _config(tmp_path, f"{{path: {json.dumps(str(tmp_path / 'faces.zip'))}}}")
    assert sources.prepared(cfg) == cfg and not sources.is_raw(tmp_path / "faces.zip")


def test_people_are_set_aside_by_name_alone() -> None:
    def make(names: list[str]) -> list[Source]:
        return [Source(f"{name}/{i}.jpg", "", bytes, identity=name) for name in names for i in range(2)]

    people = [f"p{i}" for i in range(10)]
    one, other = make(people), make(people[::-1])
    assert sources.split_people(one, 0.3, "test") and sources.split_people(other, 0.3, "test")
    aside = {source.identity for source in one if source.split == "train"}
    assert len(aside) == 3 and aside == {source.identity for source in other if source.split == "train"}
    assert {source.split for source in one} == {"train", "test"}


def test_a_source_with_splits_keeps_them() -> None:
    some = [Source("a.jpg", "", bytes, split="train"), Source("b.jpg", "", bytes, split="test")]
    assert not sources.split_people(some, 0.5, "test") and [s.split for s in some] == ["train", "test"]


def test_a_folder_of_clips_means_its_videos(tmp_path: Path) -> None:
    for name in ("b.avi", "inside/a.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = sources.clips([str(tmp_path), "one.mp4"])
    assert [Path(p).name for p in found] == ["b.avi", "a.mp4", "one.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no videos in this folder"):
        sources.clips([str(tmp_path / "empty")])


def test_the_dry_run_names_tasks_that_are_off_and_what_is_missing(raw: Path, tmp_path: Path) -> None:
    judge = "judges: [{name: b, kind: mobilefacenet_b, path: nowhere.safetensors}]\n"
    cfg = _config(tmp_path, f"{{path: {json.dumps(str(raw / 'list.csv'))}, clips: [gone.avi]}}", judge + LIMITS)
    text = dry_run(cfg)
    assert "20 raw pictures of 10 named people, to be prepared; labels expression" in text
    assert "tasks     verification, detection, expression" in text and "limits    verification.b.tar" in text
    assert "task fatigue off: no attributes_judge" in text and "task verification off" not in text
    assert "judges.0.path: nowhere.safetensors" in text and "data.clips: gone.avi: no such file" in text
    assert not (tmp_path / "run").exists()


def test_the_dry_run_without_judges_and_labels(tmp_path: Path) -> None:
    faces = synthetic_faces(4, 32, 0)
    faces.identity[:] = -1
    faces.columns.clear()
    faces.save(tmp_path / "faces.zip")
    text = dry_run(
        _config(tmp_path, f"{{path: {json.dumps(str(tmp_path / 'faces.zip'))}, split: train}}", "attackers: [parrot]\n")
    )
    assert "task verification off: no judges" in text
    assert "task expression off: no labels of expression" in text and "attackers off: no judge" in text
    assert text.endswith("missing   nothing") and np.all(faces.identity.numpy() == -1)
