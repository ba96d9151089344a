"""Videos from file to file: real decoding, tracking and encoding of rendered clips."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from clips import rendered_clip, write_clip

from a3gan import Anonymizer
from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.anonymizers.classic import Solid
from a3gan.errors import UserError
from a3gan.media.detect import Faces
from a3gan.media.pipeline import anonymize_video
from a3gan.media.run import anonymize_all
from a3gan.media.settings import Settings
from a3gan.media.track import Sighting, Track
from a3gan.media.video import VideoReader
from a3gan.media.whom import Whom

ROOT = Path(__file__).resolve().parents[2]


class Inverting(FaceAnonymizer):
    """Another, strange face."""

    name, supports, synthesises, size = "inverting", frozenset({"seed", "alpha"}), True, 48

    def _anonymize(self, faces, policy, seeds, alpha):
        return -faces


class BlinkingDetector:
    """MTCNN that sees nothing in some of the pictures it is shown."""

    def __init__(self, blind=()):
        from a3gan.media.detect import load_detector

        self.detector, self.blind, self.count = load_detector(), blind, 0

    def detect(self, images):
        found = self.detector.detect(images)
        for i in range(len(images)):
            if self.count in self.blind:
                found[i] = Faces.none()
            self.count += 1
        return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("facenet_pytorch")
    path = tmp_path_factory.mktemp("clips") / "two.mp4"
    return rendered_clip(path, frames=26, people=2, size=(320, 200), face=120, audio_tracks=2)


def pictures(path):
    with VideoReader(path) as reader:
        return [frame.image.copy() for frame in reader], reader.info


def unchanged(clip, result, limit=15):
    """(frame, person) of every face whose middle looks as it did."""
    left = []
    for index, (old, new, people) in enumerate(zip(pictures(clip.path)[0], result, clip.truth, strict=True)):
        for seen in people:
            x0, y0 = seen.landmarks.min(0).astype(int)
            x1, y1 = seen.landmarks.max(0).astype(int)
            difference = np.abs(new[y0:y1, x0:x1].astype(float) - old[y0:y1, x0:x1]).mean()
            if difference < limit:
                left.append((index, seen.person))
    return left


def test_every_face_of_every_frame(clip, tmp_path):
    out, log = tmp_path / "out.mp4", []
    report = anonymize_video(
        clip.path, out, Anonymizer(Inverting(), seed=1), Settings(), account_path=tmp_path / "out.json",
        sheet_path=tmp_path / "sheet.png", batch=7, progress=lambda *a: log.append(a),
    )  # fmt: skip
    result, info = pictures(out)
    before = pictures(clip.path)[1]
    assert (info.width, info.height, len(result), info.audio) == (before.width, before.height, 26, 2)
    assert abs(info.duration - before.duration) < 0.05 and unchanged(clip, result) == []
    account = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert account == json.loads(json.dumps(report.account))
    totals = account["totals"]
    assert totals["sure_tracks"] == 2 and totals["replaced"] == totals["faces"] >= 52 and totals["fallback"] == 0
    assert account["video"]["frames"] == 26 and account["settings"]["alpha"] == 1.0 and account["versions"]["torch"]
    assert all("residual" in track for track in account["tracks"] if track["sure"])
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert {stage for stage, *_ in log} >= {"scan", "write"} and log[-1] == ("write", 26, 26)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.mp4", "sheet.png"]


def test_a_blind_detector_leaves_no_gap(clip, tmp_path):
    """Every third look sees nothing, and so do three in a row."""
    blind = {*range(1, 60, 3), 6, 7, 8}
    out = tmp_path / "out.mp4"
    anonymizer = Anonymizer(Solid(device="cpu"), BlinkingDetector(blind))
    anonymize_video(clip.path, out, anonymizer, Settings(stride=1))
    left = unchanged(clip, pictures(out)[0])
    assert left == []


@pytest.mark.parametrize("settings", [Settings(start=0.2, end=0.6, audio=False), Settings(track=False)])
def test_parts_and_single_frames(clip, tmp_path, settings):
    out = tmp_path / "out.mp4"
    report = anonymize_video(clip.path, out, Anonymizer(Solid(device="cpu")), settings, compare=False)
    result, info = pictures(out)
    assert len(result) == (10 if settings.end else 26) and info.audio == (2 if settings.audio else 0)
    assert report.totals["replaced"] == report.totals["faces"] > 0
    assert report.totals["filled"] == 0 or settings.track


def test_a_clip_without_a_face_is_written_and_named(tmp_path):
    random = np.random.default_rng(0)
    write_clip(tmp_path / "none.mp4", [random.integers(0, 60, (64, 96, 3), np.uint8) for _ in range(5)], audio_tracks=0)
    report = anonymize_all([tmp_path / "none.mp4"], anonymizer=Anonymizer(Solid(device="cpu")))
    assert report.jobs[0].status == "no face" and report.exit_status == 0
    assert (tmp_path / "none_anonymized.mp4").is_file() and (tmp_path / "none_anonymized.json").is_file()
    again = anonymize_all([tmp_path], anonymizer=Anonymizer(Solid(device="cpu")))
    assert [job.status for job in again.jobs] == ["skipped"]


def test_what_fails_leaves_nothing(clip, tmp_path):
    cut, empty = tmp_path / "cut.mp4", tmp_path / "empty.mp4"
    cut.write_bytes(clip.path.read_bytes()[:3000])
    empty.write_bytes(b"")
    good = tmp_path / "good.mp4"
    good.write_bytes(clip.path.read_bytes())
    report = anonymize_all([tmp_path], tmp_path / "out", anonymizer=Anonymizer(Solid(device="cpu")))
    assert [(job.source.name, job.status) for job in report.jobs] == [
        ("cut.mp4", "failed"), ("empty.mp4", "failed"), ("good.mp4", "done"),
    ]  # fmt: skip
    assert report.exit_status == 1 and all(job.error for job in report.having("failed"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.mp4", "good.mp4.json"]
    with pytest.raises(UserError, match="policy"):
        anonymize_video(good, tmp_path / "x.mp4", Anonymizer(Solid(device="cpu")), Settings(policy="everything"))
    assert not (tmp_path / "x.mp4").exists()


def test_a_method_that_breaks_redacts(clip, tmp_path):
    class Broken(Inverting):
        def _anonymize(self, faces, policy, seeds, alpha):
            raise RuntimeError("no luck")

    out = tmp_path / "out.mp4"
    report = anonymize_video(clip.path, out, Anonymizer(Broken()), Settings())
    assert report.totals["fallback"] == report.totals["faces"] and unchanged(clip, pictures(out)[0], 4) == []


def test_process_video(clip, tmp_path):
    anonymizer = Anonymizer(Inverting(), seed=9)
    report = anonymizer.process_video(clip.path, tmp_path / "out.mp4", end=0.3, identity="track", compare=False)
    assert report.account["settings"]["seed"] == 9 and report.account["video"]["frames"] == 8
    assert report.totals["replaced"] >= 16
    with pytest.raises(UserError, match="speed"):
        anonymizer.process_video(clip.path, tmp_path / "x.mp4", speed=3)


def test_seeds_of_tracks():
    one = Sighting(np.zeros(4), np.zeros((5, 2)), 1.0)
    tracks = [Track(i, {0: one}, person=p) for i, p in enumerate((3, 3, 4, -1))]

    def seeds(name="a.mp4", **settings):
        return list(Whom(Settings(**settings), object).track_seeds(tracks, name).values())

    a, b, c, d = seeds()
    assert a == b and len({a, c, d}) == 3 and seeds() == [a, b, c, d] == [*seeds("b.mp4")[:3], d]
    assert set(seeds(key="k")) & {a, c, d} == set() and seeds(seed=1) != seeds()
    assert len(set(seeds(identity="track"))) == 4
    assert len(set(seeds(identity="fixed"))) == 1
    assert not set(seeds(identity="random")) & set(seeds(identity="random"))


SCRIPT = """
    import sys, resource
    import numpy as np
    sys.path[:0] = [{root!r}, {tests!r}]
    from a3gan import Anonymizer
    from a3gan.data.align import template
    from a3gan.media.detect import Faces
    from a3gan.media.pipeline import anonymize_video
    from a3gan.media.settings import Settings
    from test_pipeline import Inverting

    class Corner:
        def detect(self, images):
            points = (template("face", 40).numpy() + (4.0, 4.0))[None].astype(np.float32)
            return [Faces(np.array([[8., 6., 38., 40.]], np.float32), np.ones(1, np.float32), points) for _ in images]

    anonymize_video({source!r}, {output!r}, Anonymizer(Inverting(), Corner()), Settings(), compare=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def script(source, output):
    text = textwrap.dedent(SCRIPT).format(
        root=str(ROOT), tests=str(Path(__file__).parent), source=str(source), output=str(output)
    )
    return [sys.executable, "-c", text]


def grey(count, size=(96, 64)):
    for i in range(count):
        yield np.full((size[1], size[0], 3), 60 + i % 120, np.uint8)


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_memory_does_not_grow_with_length(tmp_path):
    """As 5,000 frames against 500, scaled down; frames large enough that keeping them would show."""
    scale = int(os.environ.get("A3GAN_FRAMES", 400))
    peak = []
    for count in (scale // 10, scale):
        write_clip(tmp_path / f"{count}.mp4", grey(count, (320, 240)), audio_tracks=0, options={"preset": "ultrafast"})
        done = subprocess.run(
            script(tmp_path / f"{count}.mp4", tmp_path / f"out_{count}.mp4"), capture_output=True, text=True, check=True
        )
        peak.append(int(done.stdout))
    assert peak[1] < 1.1 * peak[0], peak


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_leaves_nothing_under_the_final_name(tmp_path):
    write_clip(tmp_path / "in.mp4", grey(300), audio_tracks=0, options={"preset": "ultrafast"})
    out = tmp_path / "out" / "in.mp4"
    out.parent.mkdir()
    process = subprocess.Popen(script(tmp_path / "in.mp4", out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.parent.iterdir()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert list(out.parent.iterdir())  # it is being written, under another name
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
