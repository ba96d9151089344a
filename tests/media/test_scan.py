from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from a3gan.media.detect import Faces
from a3gan.media.scan import is_cut, scan, unmatched
from a3gan.media.scan_whole import change
from a3gan.media.track import TrackConfig, link

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
SIZE = (320, 240)


class Fake:
    """A frame with a bright square per face; its brightness is the score."""

    def __init__(self, index, squares, background=40):
        self.index = index
        self.image = np.full((SIZE[1], SIZE[0], 3), background, np.uint8)
        for x, y, side, score in squares:
            self.image[y : y + side, x : x + side] = round(255 * score)

    def small(self, longest):
        from PIL import Image

        factor = longest / max(SIZE)
        size = (round(SIZE[0] * factor), round(SIZE[1] * factor))
        return np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BOX))

    def gray(self, longest):
        return self.small(longest)[..., 0]


class Squares:
    """Finds the bright squares; counts the pictures and pixels it was given."""

    def __init__(self):
        self.pictures, self.pixels = 0, 0

    def detect(self, images):
        from scipy.ndimage import find_objects, label

        self.pictures += len(images)
        self.pixels += sum(i.shape[0] * i.shape[1] for i in images)
        found = []
        for image in images:
            parts = find_objects(label(image[..., 0] > 70)[0])
            boxes = np.array([[s[1].start, s[0].start, s[1].stop, s[0].stop] for s in parts], np.float32).reshape(-1, 4)
            score = np.array([image[..., 0][s].max() / 255 for s in parts], np.float32)
            side = boxes[:, 2:] - boxes[:, :2]
            found.append(Faces(boxes, score, boxes[:, None, :2] + POINTS * side[:, None]))
        return found


def clip(count, squares, background=lambda f: 40):
    return [Fake(f, squares(f), background(f)) for f in range(count)]


def test_a_chunk_is_searched_while_the_one_before_is(monkeypatch):
    """The search of the first ends only when that of the second has begun; what is found is the same."""
    monkeypatch.setattr("a3gan.media.scan_whole.at_once", lambda: 2)

    class Waits(Squares):
        def __init__(self):
            super().__init__()
            self.began, self.met = [], threading.Event()

        def detect(self, images):
            self.began.append(len(images))
            if len(self.began) > 1:
                self.met.set()
            assert self.met.wait(20)
            return super().detect(images)

    frames = clip(17, lambda f: [(20 + 4 * f, 60, 40, 0.95)])
    result = scan(frames, Waits(), stride=4, batch=1)
    plain = scan(frames, Squares(), stride=4, batch=1)
    assert result.whole == {0, 4, 8, 12, 16} and result.frames == 17
    for i in range(0, 17, 4):
        assert (result.found[i].boxes == [[20 + 4 * i, 60, 60 + 4 * i, 100]]).all()
        assert (result.found[i].boxes == plain.found[i].boxes).all()


def test_every_nth_frame_is_searched_and_the_first_and_last():
    result = scan(clip(23, lambda f: [(50 + f, 60, 40, 1.0)]), Squares(), stride=5)
    assert result.frames == 23 and result.whole == set(result.found) == {0, 5, 10, 15, 20, 22}
    np.testing.assert_allclose(result.found[10].boxes, [[60, 60, 100, 100]])


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_face_that_comes_and_goes_is_looked_for_in_the_frames_between(batch):
    def squares(f):
        return [(20, 20, 40, 1.0)] + ([(200, 100, 40, 1.0)] if 6 <= f <= 17 else [])

    detector = Squares()
    result = scan(clip(32, squares), detector, stride=4, batch=batch)
    assert result.whole == {0, 4, 8, 12, 16, 20, 24, 28, 31}
    # Also the frames before it came, as it was there in 6 already: the whole search may have missed it before.
    assert set(result.found) - result.whole == {1, 2, 3, 5, 6, 7, 17, 18, 19}
    assert [len(result.found[f]) for f in (5, 6, 7, 17, 18)] == [0, 1, 1, 1, 0]
    np.testing.assert_allclose(result.found[6].boxes, [[200, 100, 240, 140]], atol=1.01)
    # The second looks see the surroundings of that face, not the frame.
    assert detector.pixels < (9 + 4) * SIZE[0] * SIZE[1]
    tracks = link(result.found, result.frames, result.cuts, TrackConfig(stride=4), SIZE)
    assert len(tracks) == 2 and all(f in tracks[1].sightings for f in range(6, 18))


def test_a_fast_face_is_followed_frame_by_frame_until_its_motion_is_known():
    result = scan(clip(17, lambda f: [(10 + 15 * f, 100, 40, 1.0)]), Squares(), stride=4)
    assert set(result.found) == {*range(9), 12, 16} and all(len(f) == 1 for f in result.found.values())
    tracks = link(result.found, 17, [], TrackConfig(stride=4))
    assert len(tracks) == 1
    for f in range(17):
        np.testing.assert_allclose(tracks[0].sightings[f].box, [10 + 15 * f, 100, 50 + 15 * f, 140], atol=8)


def test_large_pictures_are_searched_for_small_faces_in_every_second_look(monkeypatch):
    monkeypatch.setattr("a3gan.media.scan_whole.LARGE", SIZE[0] * SIZE[1])
    shapes = []

    class Coarse(Squares):
        def detect(self, images):
            shapes.extend(i.shape[:2] for i in images if i.shape[1] > i.shape[0])
            found = super().detect(images)
            large = [f.boxes[:, 2] - f.boxes[:, 0] > (14 if i.shape[1] > i.shape[0] else 0)
                     for f, i in zip(found, images, strict=True)]  # fmt: skip
            return [Faces(f.boxes[k], f.probability[k], f.landmarks[k]) for f, k in zip(found, large, strict=True)]

    squares = [(40, 60, 18, 1.0), (200, 100, 60, 1.0)]
    result = scan(clip(21, lambda f: squares), Coarse(), stride=4)
    assert sorted(shapes) == [(170, 227)] * 3 + [(240, 320)] * 3
    # The small one is looked for where it was; no other frame needs a second look for it.
    assert set(result.found) == {0, 4, 8, 12, 16, 20} and all(len(f) == 2 for f in result.found.values())


@pytest.mark.parametrize("cut", [12, 13])  # 12: the first frame of a chunk, whose other side is in the chunk before
def test_cuts_are_found_and_searched_on_both_sides(cut):
    rng = np.random.default_rng(0)
    other = rng.integers(0, 60, (SIZE[1], SIZE[0], 3), np.uint8)
    frames = clip(30, lambda f: [(50, 60, 40, 1.0)] if f < cut else [(200, 20, 40, 1.0)])
    for frame in frames[cut:]:
        frame.image[100:] = np.where(frame.image[100:] == 40, other[100:] + 100, frame.image[100:])
    for batch in (1, 2, 50):
        result = scan(frames, Squares(), stride=6, batch=batch)
        assert result.cuts == [cut] and result.whole == {0, 6, 18, 24, 29} | {12, cut - 1, cut}


def test_whole_frames_are_searched_ahead_and_errors_come_out():
    """The second looks at a chunk do not hold up the search of the next; what it raises names its stage."""
    from a3gan.media.flow import stage_of

    class Tired(Squares):
        def detect(self, images):
            if self.pictures > 4:
                raise RuntimeError("enough")
            return super().detect(images)

    done = []
    with pytest.raises(RuntimeError, match="enough") as caught:
        scan(clip(40, lambda f: []), Tired(), stride=4, batch=1, progress=lambda n, of: done.append(n))
    assert stage_of(caught.value) == "search" and done == [4, 8, 12, 16, 20][: len(done)]


def test_flashes_and_slow_changes_are_no_cuts():
    assert is_cut([0, 1, 2, 60, 2, 1], 3)
    assert not is_cut([0, 1, 60, 60, 2, 1], 2)  # there and back: a flash
    assert not is_cut([20, 30, 30, 30, 30], 2)  # a pan
    dark = np.tile(np.linspace(0, 100, 48, dtype=np.float32), (32, 1))
    assert change(dark, dark + 50) == pytest.approx(0, abs=1e-4) and change(dark, dark[:, ::-1]) > 20


def test_coordinates_are_of_the_full_frame_whatever_the_scale():
    frames = clip(5, lambda f: [(64, 96, 64, 1.0)])
    for scale in (80, (80, 1000), (1000, 60)):
        result = scan(frames, Squares(), stride=2, scale=scale)
        np.testing.assert_allclose(result.found[4].boxes, [[64, 96, 128, 160]], atol=2)


def test_weak_hints_are_looked_into_and_thresholds_hold():
    def squares(f):
        return [(100, 100, 40, 0.95 if f == 6 else 0.4)]

    result = scan(clip(12, squares), Squares(), stride=4)
    assert 6 not in result.found  # steady weak faces need no second look
    flicker = scan(clip(12, lambda f: [(100, 100, 40, 0.4 if f == 4 else 0.95)] * (f in (4, 6))), Squares())
    assert flicker.found[6].probability.max() > 0.9
    assert len(scan(clip(5, squares), Squares(), stride=4, thresh=0.5).found[4]) == 0


def test_unmatched_names_the_faces_of_one_frame_only():
    def one(*rows):
        x, side, score = np.array(rows, np.float32).reshape(-1, 3).T
        boxes = np.stack((x, x, x + side, x + side), 1)
        return Faces(boxes, score, boxes[:, None, :2] + POINTS * side[:, None, None])

    assert unmatched(one((0, 20, 1)), one((3, 20, 1))) == []
    assert [(box[0], side) for box, side in unmatched(one((0, 20, 1)), one((100, 20, 0.9)))] == [(0, 0), (100, 1)]
    assert unmatched(one((0, 20, 0.1)), one()) == [] and unmatched(one(), one()) == []


def test_an_empty_clip_and_progress():
    assert scan([], Squares()).frames == 0
    done = []
    reader = clip(9, lambda f: [])
    result = scan(reader, Squares(), stride=2, batch=2, progress=lambda n, total: done.append((n, total)))
    assert done[-1] == (9, None) and result.whole == {0, 2, 4, 6, 8}
    info = SimpleNamespace(frames=9, width=320, height=240)
    assert scan(SimpleReader(reader, info), Squares(), stride=3).size == (320, 240)


class SimpleReader(list):
    def __init__(self, frames, info):
        super().__init__(frames)
        self.info = info


@pytest.mark.parametrize("name", ["driver_1.avi"])
def test_no_face_of_a_shared_clip_is_left(shared, name):
    pytest.importorskip("facenet_pytorch")
    from a3gan.media.detect import load_detector
    from a3gan.media.track_link import overlap
    from a3gan.media.video import VideoReader

    detector = load_detector()
    with VideoReader(shared / "data" / "video" / name, end=1.2) as reader:
        result = scan(reader, detector)
        pictures = {frame.index: frame.image for frame in reader}
    tracks = link(result.found, result.frames, result.cuts, TrackConfig(stride=result.stride), result.size)
    assert sum(track.sure for track in tracks) in (1, 2)  # the driver, and a passer-by seen for half a second
    for index in range(0, result.frames, 5):
        faces = detector.detect([pictures[index]])[0]
        here = np.array([t.sightings[index].box for t in tracks if index in t.sightings]).reshape(-1, 4)
        for box, score in zip(faces.boxes.astype(np.float64), faces.probability, strict=True):
            assert score < 0.9 or overlap(box[None], here).max() > 0.5


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_faces_of_all_frames_looked_at_are_handed_on_once_in_order_from_the_full_picture(batch):
    def squares(f):
        return [(20, 20, 40, 1.0)] + ([(200, 100, 40, 1.0)] if 6 <= f <= 17 else [])

    class Noted:
        def __init__(self):
            self.seen = {}

        def add(self, frame, faces, image):
            assert frame not in self.seen and image().shape == (SIZE[1], SIZE[0], 3)
            self.seen[frame] = faces

    crops = Noted()
    result = scan(clip(32, squares), Squares(), stride=4, batch=batch, scale=240, crops=crops)
    assert list(crops.seen) == sorted(result.found) and len(crops.seen) > len(result.whole)
    for frame, faces in crops.seen.items():
        assert faces is result.found[frame]  # nothing was found there later
    plain = scan(clip(32, squares), Squares(), stride=4, batch=batch, scale=240)
    assert all((plain.found[f].boxes == result.found[f].boxes).all() for f in plain.found)
