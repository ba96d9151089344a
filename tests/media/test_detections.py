from __future__ import annotations

import json

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.media.detect import Faces
from a3gan.media.detections import Detections, find_landmarks, load, save
from a3gan.media.track import Sighting, Track


def sample() -> Detections:
    points = np.arange(10, dtype=np.float64).reshape(5, 2) + 20.125
    sightings = {f: Sighting(np.array([10.5, 20, 60, 80]) + f, points + f, 0.98765, "filled") for f in (3, 4, 5)}
    hand = {0: Sighting(np.array([1.0, 2, 3, 4]), None, 1.0, "given")}
    tracks = [Track(0, sightings, person=2, doubtful={4}), Track(7, hand, keep=True, sure=False)]
    return Detections(tracks, "drive.mp4", (640, 480), 100, "30000/1001", [40], {"detector": "mtcnn"})


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "d.json", sample())
    assert [p.name for p in tmp_path.iterdir()] == ["d.json"]
    json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    back = load(tmp_path / "d.json", size=(640, 480), frames=100)
    assert (back.file, back.size, back.frames, back.rate, back.cuts) == (
        "drive.mp4", (640, 480), 100, "30000/1001", [40],
    )  # fmt: skip
    for a, b in zip(sample().tracks, back.tracks, strict=True):
        assert (a.number, a.person, a.keep, a.sure, a.doubtful) == (b.number, b.person, b.keep, b.sure, b.doubtful)
        for f, s in a.sightings.items():
            np.testing.assert_allclose(b.sightings[f].box, s.box, atol=0.01)
            assert b.sightings[f].source == s.source and b.sightings[f].score == pytest.approx(s.score, abs=1e-4)
    assert back.tracks[1].sightings[0].landmarks is None
    save(tmp_path / "empty.json", Detections([]))
    assert load(tmp_path / "empty.json").tracks == []


def test_the_least_that_a_hand_may_write(tmp_path):
    path = tmp_path / "hand.json"
    path.write_text('{"tracks": [{"sightings": [{"frame": 2, "box": [0, 0, 9, 9]}]}]}', encoding="utf-8")
    (track,) = load(path).tracks
    sighting = track.sightings[2]
    assert (track.number, track.person, track.keep) == (0, -1, False)
    assert (sighting.landmarks, sighting.score, sighting.source) == (None, 1.0, "given")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["tracks"][0]["sightings"][1].update(box=[1, 2, 3]), r"tracks\[0\].sightings\[1\].box: .*four"),
        (lambda d: d["tracks"][0]["sightings"][1].update(box=[9, 2, 3, 5]), "no area"),
        (lambda d: d["tracks"][0]["sightings"][0].update(landmarks=[[1, 2]]), "landmarks: .*five points"),
        (lambda d: d["tracks"][0]["sightings"][0].update(frame=100), "no frame number from 0 to 99"),
        (lambda d: d["tracks"][0]["sightings"][0].update(frame="3"), "no frame number"),
        (lambda d: d["tracks"][0]["sightings"][0].update(frame=4), "already has a face in frame 4"),
        (lambda d: d["tracks"][0]["sightings"][0].update(source="me"), "source: 'me'"),
        (lambda d: d["tracks"][0]["sightings"][0].update(score="high"), "score"),
        (lambda d: d["tracks"][0]["sightings"][0].pop("box"), 'needs "frame" and "box"'),
        (lambda d: d["tracks"][1].update(keep="yes"), r"tracks\[1\].keep: 'yes' must be true or false"),
        (lambda d: d["tracks"][1].update(track=0), "two tracks have the number 0"),
        (lambda d: d["tracks"][1].update(person=1.5), r"tracks\[1\].person"),
        (lambda d: d["tracks"].append(3), r"tracks\[2\]"),
        (lambda d: d.pop("tracks"), "no detections"),
        (lambda d: d.update(version=9), "version 9"),
        (lambda d: d.update(size=[640]), "size"),
        (lambda d: d.update(size=[64, 48]), "made for pictures of 64x48, this one is 640x480"),
        (lambda d: d.update(frames=50), "made for 50 frames, this video has 100"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, edit, message):
    path = tmp_path / "d.json"
    save(path, sample())
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load(path, size=(640, 480), frames=100)
    assert str(path) in str(caught.value)


def test_no_json_and_no_file(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"tracks": [,]}', encoding="utf-8")
    with pytest.raises(UserError, match="not JSON"):
        load(path)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none.json")


class Fixed:
    """Finds one face at a fixed place of the crop."""

    def __init__(self, x, y):
        points = np.array([[-5, -5], [5, -5], [0, 0], [-4, 5], [4, 5]], np.float32) + np.array([x, y], np.float32)
        box = np.array([[x - 10, y - 10, x + 10, y + 10]], np.float32)
        self.faces = Faces(box, np.ones(1, np.float32), points[None])

    def detect(self, images):
        return [self.faces for _ in images]


def test_landmarks_are_found_inside_a_box_drawn_by_hand():
    image, box = np.zeros((200, 300, 3), np.uint8), np.array([100.0, 80, 140, 120])
    points = find_landmarks(image, box, Fixed(40, 40))  # the crop starts at (80, 60)
    np.testing.assert_allclose(points[2], [120, 100])
    assert find_landmarks(image, box, Fixed(5, 5)) is None  # a face beside the box is another one
    assert find_landmarks(image, np.array([400.0, 10, 420, 30]), Fixed(5, 5)) is None
