"""Folder names as labels: what each level of a tree means."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from a3gan.data import prepare_folders, prepare_layouts
from a3gan.data.prepare_sources import Source, list_sources
from a3gan.errors import UserError


def _tree(root: Path, *names: str) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "JPEG")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(buffer.getvalue())
    return root


def _by_name(sources: list[Source]) -> dict[str, tuple[str, str, dict[str, str]]]:
    return {source.name: (source.split, source.identity, source.labels) for source in sources}


def test_numbered_classes_below_splits_are_expressions(tmp_path: Path) -> None:
    names = [f"{split}/{code}/{split}_{code}.jpg" for split in ("train", "test") for code in range(1, 8)]
    found = _by_name(list_sources(_tree(tmp_path, *names), layout="auto"))
    assert found["train/4/train_4.jpg"] == ("train", "", {"expression": "happiness"})
    assert found["test/7/test_7.jpg"] == ("test", "", {"expression": "neutral"})


def test_numbers_alone_are_people(tmp_path: Path) -> None:
    found = _by_name(list_sources(_tree(tmp_path, *(f"{i}/a.jpg" for i in range(1, 8))), layout="auto"))
    assert found["4/a.jpg"] == ("train", "4", {})


def test_named_classes_below_a_wrapper(tmp_path: Path) -> None:
    tree = _tree(tmp_path, "DATASET/Test/Happy/1.jpg", "DATASET/Test/neutral/2.jpg", "DATASET/Train/sad/3.jpg")
    found = _by_name(list_sources(tree, layout="auto"))
    assert found["DATASET/Test/Happy/1.jpg"] == ("test", "", {"expression": "happiness"})
    assert found["DATASET/Train/sad/3.jpg"] == ("train", "", {"expression": "sadness"})


def test_splits_above_people(tmp_path: Path) -> None:
    found = _by_name(list_sources(_tree(tmp_path, "train/Ann/1.jpg", "test/Bob/1.jpg", "val/Eve/1.jpg"), layout="auto"))
    assert [found[n][:2] for n in sorted(found)] == [("test", "Bob"), ("train", "Ann"), ("val", "Eve")]


def test_a_folder_for_each_person_stays_plain(tmp_path: Path) -> None:
    tree = _tree(tmp_path, "Ann/1.jpg", "Bob/1.jpg", "Happy/1.jpg")
    assert prepare_layouts.detect(tree) == "plain"
    assert _by_name(list_sources(tree, layout="auto"))["Happy/1.jpg"] == ("train", "Happy", {})


def test_yawns_and_eyes(tmp_path: Path) -> None:
    found = _by_name(list_sources(_tree(tmp_path, "yawn/1.jpg", "no yawn/2.jpg"), layout="auto"))
    assert [found[n][2] for n in sorted(found)] == [{"label": "no_yawn"}, {"label": "yawn"}]
    found = _by_name(list_sources(_tree(tmp_path / "b", "Closed_Eyes/1.jpg", "Open_Eyes/2.jpg"), layout="auto"))
    assert [found[n][2] for n in sorted(found)] == [{"label": "closed"}, {"label": "open"}]


def test_frames_of_clips_give_person_and_gender_but_no_label(tmp_path: Path) -> None:
    tree = _tree(
        tmp_path, "3-MaleGlasses-Yawning/1.jpg", "03-MaleGlasses-Normal/1.jpg", "3-FemaleNoGlasses-Talking/1.jpg"
    )
    found = _by_name(list_sources(tree, layout="auto"))
    assert {value[1] for value in found.values()} == {"male-3", "female-3"}
    assert found["3-MaleGlasses-Yawning/1.jpg"][2] == {"gender": "male"}


def test_the_list_of_raf_db(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "aligned", "train_00001_aligned.jpg", "test_0001_aligned.jpg", "test_0002_aligned.jpg")
    (tmp_path / "EmoLabel").mkdir()
    listed = tmp_path / "EmoLabel" / "list_patition_label.txt"
    listed.write_text("train_00001.jpg 5\ntest_0001.jpg 4\n", encoding="utf-8")
    found = _by_name(list_sources(tree, layout="auto"))
    assert found["train_00001_aligned.jpg"] == ("train", "", {"expression": "sadness"})
    assert found["test_0001_aligned.jpg"] == ("test", "", {"expression": "happiness"})
    assert found["test_0002_aligned.jpg"] == ("train", "", {})
    listed.write_text("train_00001.jpg 9\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: expected"):
        prepare_folders.raf_list(tree)


def test_a_zip_is_read_alike(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "t", "test/happy/1.jpg", "test/neutral/2.jpg")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as packed:
        for path in tree.rglob("*.jpg"):
            packed.write(path, path.relative_to(tree).as_posix())
    a, b = (_by_name(list_sources(src, layout="auto")) for src in (tree, tmp_path / "t.zip"))
    assert a == b and a["test/happy/1.jpg"][2] == {"expression": "happiness"}
