"""`a3gan detect`, and its files fed back."""

import json

import pytest
from clips import rendered_clip

from a3gan import Anonymizer
from a3gan.anonymizers.classic import Solid
from a3gan.errors import UserError
from a3gan.media.detection_files import detect_all, find_targets
from a3gan.media.run import anonymize_all
from a3gan.media.settings import Settings


def test_detect_edit_and_feed_back(tmp_path):
    pytest.importorskip("facenet_pytorch")
    clip = rendered_clip(tmp_path / "two.mp4", frames=14, people=2, size=(320, 200), face=120, audio_tracks=0).path
    lines, failed = detect_all([clip], tmp_path / "tracks.json", Settings(), device="cpu")
    assert not failed and "2 tracks" in lines[0]
    with pytest.raises(UserError, match="edits"):
        detect_all([clip], tmp_path / "tracks.json", Settings())
    data = json.loads((tmp_path / "tracks.json").read_text(encoding="utf-8"))
    data["tracks"] = [t for t in data["tracks"] if t["sure"]]
    data["tracks"][0]["keep"] = True
    data["tracks"].append({"track": 77, "sightings": [{"frame": 3, "box": [5, 5, 60, 60]}]})
    (tmp_path / "tracks.json").write_text(json.dumps(data), encoding="utf-8")

    class Never:
        def detect(self, images):
            raise AssertionError("the file says it all")

    settings = Settings(detections=str(tmp_path / "tracks.json"), identity="track")
    anonymizer = Anonymizer(Solid(device="cpu"), Never())
    report = anonymize_all([clip], tmp_path / "o.mp4", settings, anonymizer=anonymizer)
    assert report.exit_status == 0, report.lines()
    kept, other, given = report.jobs[0].record["tracks"]
    assert kept["kept"] and kept["replaced"] == 0 and other["replaced"] == other["faces"] >= 14
    assert given["replaced"] == 1 and given["sources"] == {"given": 1}
    with pytest.raises(UserError, match="one video"):
        anonymize_all([clip, clip.with_name("o.mp4")], tmp_path / "out", settings, anonymizer=object())


def test_targets(tmp_path):
    for name in ("a.mp4", "a.avi", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert [t.name for _, t in find_targets([tmp_path / "b.mp4"], None)] == ["b_tracks.json"]
    assert {t.name for _, t in find_targets([tmp_path], tmp_path / "out")} == {
        "a.avi_tracks.json", "a.mp4_tracks.json", "b.mp4_tracks.json",
    }  # fmt: skip
    assert find_targets([tmp_path / "b.mp4"], tmp_path / "x.json") == [(tmp_path / "b.mp4", tmp_path / "x.json")]
    with pytest.raises(UserError, match="names one file"):
        find_targets([tmp_path], tmp_path / "x.json")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="for videos"):
        find_targets([tmp_path / "p"], None)
    lines, failed = detect_all([tmp_path / "b.mp4"], tmp_path / "x.json", Settings(), device="cpu")
    assert failed and "empty" in lines[0] and not (tmp_path / "x.json").exists()
