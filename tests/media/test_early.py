"""A search that runs while networks are loaded gives what one after the other gives."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
from clips import write_clip  # noqa: E402
from fakes import BrightDetector  # noqa: E402

from a3gan import Anonymizer  # noqa: E402
from a3gan.anonymizers.classic import Solid  # noqa: E402
from a3gan.errors import UserError  # noqa: E402
from a3gan.media import run  # noqa: E402
from a3gan.media.early import EarlySearch  # noqa: E402
from a3gan.media.jobs import Job  # noqa: E402
from a3gan.media.pipeline import anonymize_video, find_tracks, name_people  # noqa: E402
from a3gan.media.run import anonymize_all  # noqa: E402
from a3gan.media.settings import Settings  # noqa: E402
from a3gan.media.video import VideoReader  # noqa: E402
from a3gan.media.whom import Whom  # noqa: E402


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "in.mp4", [np.full((96, 128, 3), 200, np.uint8)] * 12)


def boxes(found):
    return [(track.number, i, s.box.tolist()) for track in found.tracks for i, s in sorted(track.sightings.items())]


def test_the_same_is_found_and_progress_told(clip):
    told = []
    search = EarlySearch(clip, Settings(), BrightDetector)
    search.progress = lambda *seen: told.append(seen)
    with search:
        found = search.found()
    plain = find_tracks(clip, BrightDetector, Settings())
    assert boxes(found) == boxes(plain) != [] and found.frames == plain.frames == 12
    assert told[-1][:2] == ("scan", 12)


def test_errors_come_out_where_the_result_is_asked_for(tmp_path):
    with EarlySearch(tmp_path / "none.mp4", Settings(), BrightDetector) as search:
        with pytest.raises(UserError, match="none.mp4"):
            search.found()


def test_leaving_stops_it(tmp_path):
    clip = write_clip(tmp_path / "long.mp4", [np.full((96, 128, 3), 200, np.uint8)] * 400)
    looked, go = [], threading.Event()

    class Slow(BrightDetector):
        def detect(self, images):
            looked.append(len(images))
            go.wait(5)
            return super().detect(images)

    with pytest.raises(UserError, match="bad weights"), EarlySearch(clip, Settings(), Slow):
        go.set()
        raise UserError("bad weights")
    assert sum(looked) < 100 and not [t for t in threading.enumerate() if t.name == "a3gan-early"]


def test_only_a_video_that_must_be_searched(tmp_path):
    video = Job(Path("a.mp4"), tmp_path / "out.mp4", "video", tmp_path / "out.json")

    def early(jobs, settings=None, overwrite=False):
        return EarlySearch.of(jobs, settings or Settings(), overwrite, BrightDetector)

    assert early([video]).source == Path("a.mp4")
    assert early([Job(Path("a.png"), tmp_path / "b.png", "photo", tmp_path / "j"), video]) is None
    assert early([video], Settings(detections="tracks.json")) is None
    video.output.touch()
    assert early([video]) is None and early([video], overwrite=True) is not None


def test_a_whole_run_uses_it_for_the_first_video(clip, tmp_path, monkeypatch):
    write_clip(tmp_path / "next.mp4", [np.full((96, 128, 3), 200, np.uint8)] * 5)
    made = []
    monkeypatch.setattr(run, "_own_detector", lambda *_, **__: made.append(threading.current_thread().name) or Bright())

    class Bright(BrightDetector):
        pass

    anonymizer = Anonymizer(Solid(device="cpu"), detector=BrightDetector())
    report = anonymize_all([clip, tmp_path / "next.mp4"], tmp_path / "out", make=lambda: anonymizer)
    assert made == ["a3gan-early"] and [job.faces for job in report.jobs] == [12, 5] and report.exit_status == 0


@pytest.mark.parametrize("identity", ["person", "track"])
def test_a_clip_is_decoded_twice_and_no_more(clip, tmp_path, monkeypatch, identity):
    begun = []
    original = VideoReader.__iter__
    monkeypatch.setattr(VideoReader, "__iter__", lambda self: begun.append(self) or original(self))
    settings = Settings(identity=identity, method="solid")
    report = anonymize_video(clip, tmp_path / "out.mp4", Anonymizer(Solid(), detector=BrightDetector()), settings)
    assert report.totals["faces"] == 12 and len(begun) == 2


def test_crops_are_kept_only_where_somebody_will_look_at_them(clip):
    found = find_tracks(clip, BrightDetector, Settings())
    assert len(found.crops) > 0 and all(found.crops.of(track) for track in found.tracks)
    name_people(found, Whom(Settings(identity="track"), object))
    assert found.crops is None  # not through the second pass
    for settings in (Settings(identity="track"), Settings(identity="fixed")):
        assert find_tracks(clip, BrightDetector, settings).crops is None
