"""Which inputs become which outputs, and what is done already."""

import json
import os

import pytest
from fakes import BrightDetector
from PIL import Image

from a3gan import Anonymizer
from a3gan.anonymizers.classic import Identity, Solid
from a3gan.errors import UserError
from a3gan.media.jobs import JOURNAL, find_jobs, read_journal
from a3gan.media.run import anonymize_all
from a3gan.media.settings import Settings


@pytest.fixture
def anonymizer():
    return Anonymizer(Solid(size=32, device="cpu"), BrightDetector())


def bright(path, colour=(230, 200, 180)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (160, 100), colour).save(path)
    return path


def tree(root):
    for name in ("a.jpg", "deep/b.png", "deep/er/c.webp"):
        bright(root / name)
    (root / "clip.mp4").write_bytes(b"not opened here")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    (root / ".hidden.jpg").write_bytes(b"")
    return root


def names(jobs, root):
    return {job.output.relative_to(root).as_posix() for job in jobs}


def test_a_folder_keeps_its_tree(tmp_path):
    root, out = tree(tmp_path / "in"), tmp_path / "out"
    jobs, ignored = find_jobs([root], out)
    assert names(jobs, out) == {"a.jpg", "deep/b.png", "deep/er/c.webp", "clip.mp4"}
    assert {job.kind for job in jobs} == {"photo", "video"}
    video = next(job for job in jobs if job.kind == "video")
    assert video.account == out / "clip.mp4.json" and video.sheet == out / "clip.mp4.contact.png"
    assert sorted(path.name for path, _ in ignored) == [".hidden.jpg", "notes.txt"]
    assert names(find_jobs([root], out, recursive=False)[0], out) == {"a.jpg", "clip.mp4"}


def test_without_an_output_results_lie_beside_their_inputs(tmp_path):
    root = tree(tmp_path / "in")
    jobs, _ = find_jobs([root])
    assert names(jobs, root) == {
        "a_anonymized.jpg", "deep/b_anonymized.png", "deep/er/c_anonymized.webp", "clip_anonymized.mp4",
    }  # fmt: skip
    video = next(job for job in jobs if job.kind == "video")
    assert video.account == root / "clip_anonymized.json"
    assert names(find_jobs([root / "a.jpg"], suffix="_x")[0], root) == {"a_x.jpg"}
    with pytest.raises(UserError, match="suffix"):
        find_jobs([root], suffix="")


def test_one_input_may_name_its_output(tmp_path):
    root = tree(tmp_path / "in")
    assert find_jobs([root / "clip.mp4"], tmp_path / "x.mkv")[0][0].output == tmp_path / "x.mkv"
    with pytest.raises(UserError, match="names one file"):
        find_jobs([root / "clip.mp4", root / "a.jpg"], tmp_path / "x.mkv")
    with pytest.raises(UserError, match="names one file"):
        find_jobs([root], tmp_path / "x.mkv")
    with pytest.raises(UserError, match="no folder"):
        find_jobs([root], root / "notes.txt")


def test_own_results_are_never_inputs(tmp_path, anonymizer):
    root = tree(tmp_path / "in")
    (root / "clip.mp4").unlink()
    for _ in range(2):
        report = anonymize_all([root], anonymizer=anonymizer)
        assert len(report.jobs) == 3
    assert not list(root.rglob("*_anonymized_anonymized*"))
    bright(root / "clip_anonymized.mp4.contact.png")
    assert len(find_jobs(list(root.glob("*")))[0]) == 3  # as a shell expands it
    with pytest.raises(UserError, match="earlier runs"):
        find_jobs([root / "a_anonymized.jpg"])
    out = root / "out"
    for _ in range(2):
        assert len(anonymize_all([root], out, anonymizer=anonymizer).jobs) == 3
    assert not (out / "out").exists()


def test_patterns_are_expanded(tmp_path):
    root = tree(tmp_path / "in")
    assert names(find_jobs([str(root / "*.jpg")])[0], root) == {"a_anonymized.jpg"}
    assert len(find_jobs([str(root / "**" / "*.*p*g")])[0]) == 2
    with pytest.raises(UserError, match="no file is named"):
        find_jobs([str(root / "*.gif")])
    bright(root / "odd[1].png")
    assert len(find_jobs([str(root / "odd[1].png")])[0]) == 1


def test_clashes_and_overwritten_inputs_are_refused(tmp_path):
    one, two = bright(tmp_path / "x" / "same.png"), bright(tmp_path / "y" / "same.png")
    with pytest.raises(UserError, match="two output folders"):
        find_jobs([one, two], tmp_path / "out")
    with pytest.raises(UserError, match="overwrite"):
        find_jobs([one], tmp_path / "x")
    with pytest.raises(UserError, match="no such file"):
        find_jobs([tmp_path / "none.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photo or video"):
        find_jobs([tmp_path / "empty"])
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_bytes(b"")
    accounts = {job.account.name for job in find_jobs([tmp_path / "a.mp4", tmp_path / "a.avi"])[0]}
    assert accounts == {"a_anonymized.json", "a_anonymized.avi.json"}


def test_done_before_is_skipped_unless_something_changed(tmp_path, anonymizer):
    path, out = bright(tmp_path / "a.png"), tmp_path / "out"

    def run(**options):
        report = anonymize_all([path], out, anonymizer=anonymizer, **options)
        return report.jobs[0].status, report.exit_status

    assert run() == ("done", 0)
    before = (out / "a.png").read_bytes()
    assert run() == ("skipped", 0)
    assert run(settings=Settings(seed=5)) == ("failed", 1)  # other settings: not taken for done, not overwritten
    assert (out / "a.png").read_bytes() == before
    assert run(settings=Settings(seed=5), overwrite=True) == ("done", 0)
    assert run(settings=Settings(seed=5)) == ("skipped", 0)
    bright(path, (240, 240, 240))
    assert run(settings=Settings(seed=5)) == ("failed", 1)
    (out / JOURNAL).write_text("{broken\n", encoding="utf-8")
    assert read_journal(out / JOURNAL) == {} and run() == ("failed", 1)


def test_a_thousand_files_with_ten_broken(tmp_path, anonymizer, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand of them take a slow disk long
    root = tmp_path / "in"
    whole, dark = (bright(tmp_path / "one.png", (v, v, v)).read_bytes() for v in (230, 10))
    broken = [f"{i:03}.png" for i in range(7, 1000, 100)]
    root.mkdir()
    for i in range(1000):
        name = f"{i:03}.png"
        (root / name).write_bytes(whole[:60] if name in broken else whole if i % 100 else dark)
    report = anonymize_all([root], tmp_path / "out", anonymizer=anonymizer)
    assert report.exit_status == 1
    assert [job.source.name for job in report.having("failed")] == broken
    assert len(report.having("no face")) == 10 and len(report.having("done")) == 980
    text = "\n".join(report.lines())
    assert all(name in text for name in (*broken, "100.png", "1000 files: 980 anonymised", "10 failed"))
    written = [p for p in (tmp_path / "out").iterdir() if p.name != JOURNAL]
    # No half file and no temporary one either.
    assert {path.name for path in written} == {f"{i:03}.png" for i in range(1000)} - set(broken)
    assert json.loads(json.dumps(report.record()))["exit_status"] == 1


def test_strict_is_not_content_without_a_face(tmp_path, anonymizer):
    bright(tmp_path / "dark.png", (0, 0, 0))
    report = anonymize_all([tmp_path], tmp_path / "out", anonymizer=anonymizer)
    assert report.exit_status == 0 and "no face found" in report.lines()[0]
    report.strict = True
    assert report.exit_status == 3


def test_settings():
    with pytest.raises(UserError, match="identity"):
        Settings(identity="nobody")
    with pytest.raises(UserError, match="before end time"):
        Settings(start=3.0, end=2.0)
    with pytest.raises(UserError, match="thresh"):
        Settings(thresh=1.0)
    secret = Settings(key="much more", scale=(640, 360))
    assert "much more" not in json.dumps(secret.record()) and secret.record()["seed"] is None
    assert Settings().stamp() != Settings(seed=1).stamp() != secret.stamp() != Settings(key="x").stamp()
    assert secret.stamp("weights") != secret.stamp()
    plain = Settings(scale=(640, 360), end=3.0)
    again = json.loads(json.dumps(plain.record()))
    assert again["scale"] == [640, 360] and again["end"] == 3.0 and again["identity"] == plain.identity


def test_cameras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = find_jobs(["cam"], "x.mp4")[0][0]
    assert (job.kind, str(job.source), job.output.name, job.account.name) == ("camera", "camera 0", "x.mp4", "x.json")
    assert find_jobs(["1"], "there")[0][0].output.as_posix() == "there/camera1.mp4"
    with pytest.raises(UserError, match="by itself"):
        find_jobs(["cam", "cam1"], "there")
    bright(tmp_path / "0.png").rename(tmp_path / "0")
    assert find_jobs(["0"], "there")[0][0].kind == "photo"


def test_a_camera_that_is_not_there(tmp_path, anonymizer):
    report = anonymize_all(["cam77"], tmp_path / "x.mp4", anonymizer=anonymizer)
    assert report.exit_status == 1 and "camera 77" in report.lines()[0] and not list(tmp_path.iterdir())
    report = anonymize_all(["cam77"], tmp_path / "x.mp4", Settings(keep_ref="x"), anonymizer=anonymizer)
    assert "cameras" in report.lines()[0]


def test_edited_detections_and_references_are_other_settings(tmp_path):
    made = tmp_path / "tracks.json"
    made.write_text("{}")
    first = Settings(detections=str(made)).stamp()
    assert first == Settings(detections=str(made)).stamp()
    made.write_text('{"tracks": []}')
    assert first != Settings(detections=str(made)).stamp()
    folder = tmp_path / "people"
    folder.mkdir()
    before = Settings(keep_ref=str(folder)).stamp()
    (folder / "a.jpg").write_bytes(b"x")
    assert before != Settings(keep_ref=str(folder)).stamp()


def test_identity_leaves_photos_as_they_were_and_says_so(tmp_path):
    anonymizer = Anonymizer(Identity(device="cpu"), BrightDetector())
    last = anonymize_all([bright(tmp_path / "a.png")], anonymizer=anonymizer).lines()[-1]
    assert last == "1 files: 0 anonymised (1 faces, 0 by fallback, 1 left as they are), 1 left as they were"
