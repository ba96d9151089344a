"""Crops kept in pass 1: how many, of which faces, and how tracks find theirs."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.media.crops import Crops
from a3gan.media.detect import Faces
from a3gan.media.track import Sighting, Track

POINTS = np.array([[0.33, 0.35], [0.67, 0.35], [0.5, 0.54], [0.36, 0.74], [0.64, 0.74]], np.float32)
GRADIENT = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (96, 256, 3)).copy()  # column = grey level


def faces(*places, side=40, score=0.99):
    """Faces of that side with their upper left corner at (place, 30)."""
    boxes = np.array([[x, 30, x + side, 30 + side] for x in places], np.float32).reshape(-1, 4)
    return Faces(boxes, np.full(len(boxes), score, np.float32), boxes[:, None, :2] + POINTS * side)


def track(place, frames, source="detected", shift=0.0):
    one = faces(place)
    box, points = one.boxes[0].astype(np.float64), one.landmarks[0].astype(np.float64)
    return Track(0, {f: Sighting(box, points + shift, 0.99, source) for f in frames})


def test_a_track_finds_the_crops_of_its_own_face():
    crops = Crops()
    for frame in (0, 4, 8):
        crops.add(frame, faces(60, 160), lambda: GRADIENT)
    left, right = crops.of(track(60, range(10))), crops.of(track(160, (4, 8)))
    assert list(left) == [0, 4, 8] and list(right) == [4, 8] and len(crops) == 6
    assert left[0].shape == (64, 64, 3) and left[0].dtype == np.uint8
    # The middle of the crop is the nose's column or near it: 60 + 20 and 160 + 20.
    assert left[4][:, 31:33].mean() == pytest.approx(80, abs=2)
    assert right[4][:, 31:33].mean() == pytest.approx(180, abs=2)
    assert list(crops.of(track(60, range(10), shift=2.0))) == [0, 4, 8]  # a smoothed track is a little beside
    assert crops.of(track(60, range(10), shift=12.0)) == {} == crops.of(track(60, range(10), "filled"))


def test_what_says_nothing_is_not_cut_out_and_asks_for_no_picture():
    crops = Crops()
    crops.add(0, faces(60, side=20), None)  # 7 px between the eyes
    crops.add(1, faces(60, score=0.2), None)
    crops.add(2, Faces.none(), None)
    assert len(crops) == 0
    crops.add(3, faces(-30), lambda: GRADIENT)  # more than half outside: known to show nothing
    assert crops.of(track(-30, [3])) == {3: None}


def kept(most, frames, places):
    """Frames of the crops of each place, where all faces are there in all frames, and how many there were at most."""
    crops, largest = Crops(most), 0
    for frame in range(frames):
        crops.add(frame, faces(*places), lambda: GRADIENT)
        largest = max(largest, len(crops))
    return [list(crops.of(track(place, range(frames)))) for place in places], largest


def test_a_face_that_stays_is_cut_out_ever_more_rarely():
    (left, right), _ = kept(1000, 200, (20, 140))
    assert left == right and left[:6] == [0, 1, 3, 6, 10, 15] and set(np.diff(left)) == set(range(1, 17))


def test_however_long_the_clip_the_number_is_bounded_and_all_of_it_thinned_alike():
    (left, right), largest = kept(32, 2000, (20, 140))
    assert 24 < largest <= 32 and left == right and len(left) >= 6
    gaps = np.diff([*left, 2000])
    assert left[0] == 0 and gaps[:-1].min() > 20 and gaps.max() < 300
    assert kept(32, 2000, (20, 140)) == ([left, right], largest)


def test_a_face_seen_for_a_moment_late_in_a_long_clip_is_cut_out():
    crops = Crops(16)
    for frame in range(1001):
        crops.add(frame, faces(20) if frame != 999 else faces(20, 160), lambda: GRADIENT)
    assert crops.step >= 4 and list(crops.of(track(160, range(1001)))) == [999]


def test_more_places_than_crops_stay_bounded():
    crops, largest = Crops(4), 0
    for frame in range(60):
        crops.add(frame, faces(*range(10, 200, 45)), lambda: GRADIENT)  # five faces a frame
        largest = max(largest, len(crops))
    assert 0 < largest <= 4
