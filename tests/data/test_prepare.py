from __future__ import annotations

import csv
import logging
import shutil
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan.data import align
from a3gan.data.archive import FaceSet
from a3gan.data.archive_file import LANDMARK_COLUMNS, ArchiveReader
from a3gan.data.prepare import prepare
from a3gan.errors import UserError
from a3gan.media.detect import Faces


class FakeDetector:
    """The red channel of a picture's first pixel, divided by 50, is the number of faces it finds."""

    def __init__(self):
        self.calls = 0

    def detect(self, images):
        return [self._one(image) for image in images]

    def _one(self, image):
        self.calls += 1
        count = int(image[0, 0, 0]) // 50
        if not count:
            return Faces.none()
        side = min(image.shape[:2])
        points = align.template("face").numpy() * side * 0.6 + side * 0.2
        boxes = np.array([[0, 0, side, side * 0.8]] * count, dtype=np.float32)
        return Faces(boxes, np.ones(count, np.float32), np.stack([points] * count).astype(np.float32))


def picture(path, faces: int = 1, size=(90, 100), seed: int = 0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 5, size[0] // 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image.paste((faces * 50 + 25, 0, 0), (0, 0, 16, 16))  # a block, so that JPEG keeps its colour
    image.save(path, **options)
    return path


def write_table(path, rows):
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        writer.writerows(rows)
    return path


def landmarks(scale: float = 40.0, x: float = 25.0, y: float = 30.0):
    points = (align.template("face") * scale + torch.tensor([x, y])).flatten().tolist()
    return {c: f"{v:.3f}" for c, v in zip(LANDMARK_COLUMNS, points, strict=True)}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for i in range(4):
        picture(root / ("ann" if i % 2 else "bob") / "deep" / f"p{i}.jpg" if i > 1 else root / f"p{i}.png", seed=i)
    return root


def test_folder_tree_with_every_kind_of_bad_picture(folder, tmp_path, caplog):
    picture(folder / "none.png", faces=0)
    picture(folder / "two.png", faces=2)
    picture(folder / "small.png", size=(12, 12))
    picture(folder / "low.png", size=(40, 40))  # its eyes lie 8 px apart
    (folder / "text.jpg").write_text("not a picture")
    cut = picture(folder / "cut.jpg", quality=95)
    cut.write_bytes(cut.read_bytes()[:900])
    (folder / "notes.txt").write_text("no picture by its name: not counted")
    (folder / "._p0.png").write_text("hidden")
    with caplog.at_level(logging.WARNING):
        report = prepare(folder, tmp_path / "out.zip", size=32, detector=FakeDetector(), progress=False)
    assert (report.total, report.kept) == (10, 4)
    assert report.skipped == {"unreadable": ["cut.jpg", "text.jpg"], "tiny": ["low.png", "small.png"],
                              "faceless": ["none.png"], "multi-face": ["two.png"]}  # fmt: skip
    assert "faceless: none.png" in caplog.text and "1 multi-face: two.png" in str(report)
    reader = ArchiveReader(tmp_path / "out.zip")
    assert reader.meta["skipped"] == report.skipped and reader.meta["faces"] == 4
    faces = FaceSet.load(tmp_path / "out.zip")
    assert faces.columns["source"] == ["ann/deep/p3.jpg", "bob/deep/p2.jpg", "p0.png", "p1.png"]
    assert faces.identity_names == ["deep"] and faces.identity.tolist() == [0, 0, -1, -1]
    assert faces.split == ["train"] * 4
    torch.testing.assert_close(faces.landmarks[0], align.template("face").float(), atol=1e-3, rtol=0)
    assert not list(tmp_path.glob("*.partial"))


def test_table_with_landmarks_needs_no_detector(folder, tmp_path):
    rows = [{"file": f"photos/p{i}.png", "identity": "x" if i else "", "split": "test" if i else "",
             "label": f"l{i}", **landmarks()} for i in range(2)]  # fmt: skip
    rows.append({"file": "photos/absent.png", **landmarks()})
    rows.append({"file": "photos/p1.png", **landmarks(scale=8)})
    rows.append({"file": "photos/p1.png", **landmarks(x=400)})
    table = write_table(tmp_path / "set.csv", rows)
    report = prepare(table, tmp_path / "out.zip", size=48, frame="ffhq", progress=False)
    assert {k: len(v) for k, v in report.skipped.items()} == {"missing": 1, "tiny": 1, "unreadable": 1}
    faces = FaceSet.load(tmp_path / "out.zip")
    assert (faces.split, faces.columns["label"], faces.frame) == (["train", "test"], ["l0", "l1"], "ffhq")
    assert faces.identity.tolist() == [-1, 0] and faces.identity_names == ["x"]
    # The matrix of the index repeats the pictures.
    row = ArchiveReader(tmp_path / "out.zip").rows[0]
    matrix = torch.tensor([[float(row[f"m{i}{j}"]) for j in range(3)] for i in range(2)])
    expected, outside = align.warp(np.asarray(Image.open(folder / "p0.png")), matrix, 48)
    difference = faces.images[0].permute(1, 2, 0).float() - torch.from_numpy(expected).float()
    assert difference.abs().mean() < 2 and abs(float(row["outside"]) - outside) < 1e-3


def test_rows_without_landmarks_go_to_the_detector(folder, tmp_path):
    rows = [{"file": "photos/p0.png", **landmarks()}, {"file": "photos/p1.png", **landmarks(), "nose_x": ""}]
    detector = FakeDetector()
    prepare(write_table(tmp_path / "set.csv", rows), tmp_path / "out.zip", size=32, detector=detector, progress=False)
    assert detector.calls == 1


def test_zip_beside_the_table_zip_with_table_and_bare_zip(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as z:
        for i in range(2):
            z.write(folder / f"p{i}.png", f"in/ann/p{i}.png")
    rows = [{"file": f"in/ann/p{i}.png", "identity_cluster": "7", **landmarks()} for i in range(2)]
    table = write_table(tmp_path / "set.csv", rows)
    beside = prepare(table, tmp_path / "a.zip", size=32, progress=False)
    given = prepare(tmp_path / "set.zip", tmp_path / "b.zip", size=32, table=table, progress=False)
    bare = prepare(tmp_path / "set.zip", tmp_path / "c.zip", size=32, detector=FakeDetector(), progress=False)
    assert beside.kept == given.kept == bare.kept == 2
    assert FaceSet.load(tmp_path / "a.zip").identity_names == ["set:7"]
    assert FaceSet.load(tmp_path / "c.zip").identity_names == ["ann"]
    with pytest.raises(UserError, match="prepared archive already"):
        prepare(tmp_path / "a.zip", tmp_path / "d.zip", progress=False)


def test_a_stopped_run_continues_to_the_same_archive(folder, tmp_path):
    class Stops(FakeDetector):
        def _one(self, image):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super()._one(image)

    whole = tmp_path / "whole.zip"
    prepare(folder, whole, size=32, detector=FakeDetector(), progress=False)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out.zip", size=32, detector=Stops(), workers=1, progress=False)
    assert not (tmp_path / "out.zip").exists()
    partial = tmp_path / "out.zip.partial"
    with (partial / "journal.jsonl").open("ab") as handle:
        handle.write(b'{"key": "cut sho')
    with (partial / "pictures.bin").open("ab") as handle:
        handle.write(b"half a picture")
    other = tmp_path / "other.zip.partial"
    shutil.copytree(partial, other)
    detector = FakeDetector()
    report = prepare(folder, tmp_path / "out.zip", size=32, detector=detector, progress=False)
    assert (report.reused, detector.calls, report.kept) == (2, 2, 4)
    assert (tmp_path / "out.zip").read_bytes() == whole.read_bytes()
    # Other settings, or a changed picture, do not reuse what was made.
    picture(folder / "ann" / "deep" / "p3.jpg", seed=9, size=(100, 100))
    again = prepare(folder, tmp_path / "other.zip", size=48, detector=FakeDetector(), progress=False)
    assert again.reused == 0 and FaceSet.load(tmp_path / "other.zip").size == 48


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupted_process_leaves_no_archive(folder, tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from a3gan.data import prepare_face
        from a3gan.data.prepare import prepare
        # A shell that starts its jobs in the background has them ignore SIGINT, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        seen = []
        def detect(self, image):
            seen.append(1)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return prepare_face.align.template("face").numpy() * 60 + 10
        prepare_face.FaceWork._detect = detect
        prepare(sys.argv[1], sys.argv[2], size=32, workers=1, progress=False)
    """)
    done = subprocess.run([sys.executable, "-c", script, folder, tmp_path / "out.zip"], capture_output=True, timeout=60)
    assert done.returncode != 0
    assert not (tmp_path / "out.zip").exists() and not (tmp_path / "out.zip.tmp").exists()
    assert (tmp_path / "out.zip.partial").is_dir()


@pytest.mark.parametrize(
    ("src", "match"),
    [("absent", "no such folder"), ("empty", "no pictures found"), ("plain.txt", "expected a folder"),
     ("cut.zip", "cut short"), ("no_file.csv", "needs a column 'file'"), ("all_absent.csv", "none of its 2 files"),
     ("nothing.csv", "no pictures found")],
)  # fmt: skip
def test_hopeless_sources_say_why(tmp_path, src, match):
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain.txt").write_text("x")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "no_file.csv").write_text("name,label\na.jpg,1\n")
    (tmp_path / "all_absent.csv").write_text("file\na.jpg\nb.jpg\n")
    (tmp_path / "nothing.csv").write_text("file\n")
    with pytest.raises(UserError, match=match):
        prepare(tmp_path / src, tmp_path / "out.zip", progress=False)
    assert not (tmp_path / "out.zip").exists()


def test_bad_arguments_and_no_usable_face(folder, tmp_path):
    with pytest.raises(UserError, match="--frame oval"):
        prepare(folder, tmp_path / "out.zip", frame="oval")
    with pytest.raises(UserError, match="--size 8"):
        prepare(folder, tmp_path / "out.zip", size=8)
    with pytest.raises(UserError, match="is a folder"):
        prepare(folder, tmp_path)
    picture(tmp_path / "bad" / "a.png", faces=0)
    with pytest.raises(UserError, match=r"no usable face among 1 pictures \(1 faceless\)"):
        prepare(tmp_path / "bad", tmp_path / "out.zip", detector=FakeDetector(), progress=False)


def test_shared_sets_prepare(shared, tmp_path):
    rows = (shared / "data" / "lfw.csv").read_text(encoding="utf-8").splitlines()[:9]
    (tmp_path / "lfw.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    report = prepare(shared / "data" / "lfw.zip", tmp_path / "out.zip", table=tmp_path / "lfw.csv", progress=False)
    assert report.kept == 8 and not report.skipped
    faces = FaceSet.load(tmp_path / "out.zip")
    assert set(faces.columns) >= {"expression", "gender"} and faces.identity_names[0] == "AJ_Cook"
    assert (faces.landmarks - align.template("face")).abs().max() < 0.12
