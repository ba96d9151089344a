"""The one-pass path of cameras, on frames that pretend to come from one."""

import numpy as np
import pytest
from clips import rendered_frames

from a3gan import Anonymizer
from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.anonymizers.classic import Solid
from a3gan.errors import UserError
from a3gan.media.detect import Faces
from a3gan.media.live import AHEAD, LivePass, anonymize_camera, find_ahead
from a3gan.media.settings import Settings
from a3gan.media.video import CameraReader, Frame, VideoReader


class Truth:
    """Finds what is there by the frame's number, written into its first pixel; but not in `blind` frames."""

    def __init__(self, truth, blind=()):
        self.truth, self.blind = truth, blind

    def detect(self, images):
        found = []
        for image in images:
            index = int(image[0, 0, 0])
            seen = [] if index in self.blind else self.truth[index]
            if not seen:
                found.append(Faces.none())
                continue
            boxes = np.array([s.box for s in seen], np.float32)
            points = np.array([s.landmarks for s in seen], np.float32)
            found.append(Faces(boxes, np.full(len(seen), 0.99, np.float32), points))
        return found


@pytest.fixture(scope="module")
def scene():
    images, truth = rendered_frames(70, 2, (240, 120), face=90, absent={1: range(0, 25)})
    for index, image in enumerate(images):
        image[0, 0] = index
    return images, truth


class Negative(FaceAnonymizer):
    name, supports, synthesises, size = "negative", frozenset({"seed", "alpha"}), True, 48

    def _anonymize(self, faces, policy, seeds, alpha):
        return -faces


def test_every_face_even_in_gaps_and_one_number_each(scene):
    images, truth = scene
    known = {}
    detector = Truth(truth, blind=range(30, 40))
    numbers, handed = {}, []
    frames = (Frame(i, i * 40_000, image) for i, image in enumerate(images))
    for frame in find_ahead(frames, detector, known, Settings()):
        handed.append(frame.index)
        here = known.pop(frame.index)
        for seen in truth[frame.index]:
            middle = seen.landmarks.mean(0)
            holds = [t.number for t, s in here if (s.box[:2] < middle).all() and (middle < s.box[2:]).all()]
            assert holds, frame.index
            numbers.setdefault(seen.person, set()).update(holds)
    assert handed == list(range(len(images))) and not known
    assert all(len(own) == 1 for own in numbers.values()) and numbers[0] != numbers[1]


def test_delay_is_bounded(scene):
    images, truth = scene
    given = []

    def source():
        for i, image in enumerate(images):
            given.append(i)
            yield Frame(i, i, image)

    frame = next(iter(find_ahead(source(), Truth(truth), {}, Settings())))
    assert frame.index == 0 and len(given) <= AHEAD + 3


def test_a_camera_to_a_file(scene, tmp_path):
    images, truth = scene
    shown = []
    for method in (Negative(), Solid(device="cpu")):
        anonymizer = Anonymizer(method, Truth(truth))
        with CameraReader(0, source=[image.copy() for image in images]) as camera:
            report = anonymize_camera(camera, tmp_path / "cam.mp4", anonymizer, Settings(), show=shown.append)
        assert report["frames"] == 70 and report["faces"] == report["replaced"] >= 70 + 45
        with VideoReader(tmp_path / "cam.mp4") as reader:
            for frame, old, seen in zip(reader, images, truth, strict=True):
                for one in seen:
                    x0, y0 = one.landmarks.min(0).astype(int)
                    x1, y1 = one.landmarks.max(0).astype(int)
                    assert np.abs(frame.image[y0:y1, x0:x1].astype(float) - old[y0:y1, x0:x1]).mean() > 15
    assert len(shown) == 140


def test_it_needs_somewhere_to_put_them(scene):
    with CameraReader(0, source=scene[0][:2]) as camera, pytest.raises(UserError, match="preview"):
        anonymize_camera(camera, None, Anonymizer(Solid(device="cpu"), Truth(scene[1])), Settings())


def test_seeds_follow_the_settings():
    method = Anonymizer(Negative(), detector=object())
    one, other = (LivePass(method, Settings(seed=seed)) for seed in (1, 2))
    assert one._seed(0) == one._seed(0) != one._seed(1) and one._seed(0) != other._seed(0)
    fixed, free = LivePass(method, Settings(identity="fixed")), LivePass(method, Settings(identity="random"))
    assert fixed._seed(0) == fixed._seed(5) and free._seed(0) != free._seed(0)
