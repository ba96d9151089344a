from __future__ import annotations

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.media.detect import BORDER, Faces, load_detector


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("facenet_pytorch")
    return load_detector("mtcnn", "cpu")


@pytest.fixture(scope="module")
def rendered():
    """Two rendered faces of 160 px, uint8 [2, H, W, 3], and their five points in pixels."""
    from a3gan.data.align import to_pixels
    from a3gan.data.synthetic import synthetic_faces

    faces = synthetic_faces(2, 160, seed=3)
    return faces.images.permute(0, 2, 3, 1).numpy(), to_pixels(faces.landmarks, 160).numpy()


def test_finds_faces_and_their_points_at_any_place_and_size(detector, rendered):
    images, points = rendered
    wide = np.full((240, 400, 3), 127, np.uint8)
    wide[40:200, 10:170], wide[60:220, 220:380] = images[0], images[1]
    found = detector.detect([images[0], wide, images[1], np.zeros((80, 60, 3), np.uint8)])
    assert [len(f) for f in found] == [1, 2, 1, 0]
    eye_distance = points[0, 1, 0] - points[0, 0, 0]
    for face, expected in zip((found[0], found[2]), points, strict=True):
        error = np.linalg.norm(face.landmarks[0] - expected, axis=-1).mean()
        assert error < 0.15 * eye_distance
        assert face.probability[0] > 0.7 and face.boxes.dtype == np.float32
    # In the wide picture the faces are where they were pasted.
    left = found[1].landmarks[np.argmin(found[1].boxes[:, 0])] - np.array([10, 40])
    assert np.linalg.norm(left - points[0], axis=-1).mean() < 0.25 * eye_distance
    assert (np.diff(found[1].heights) <= 0).all()


def test_batch_and_alone_agree(detector, rendered):
    images, _ = rendered
    together = detector.detect(list(images))
    for image, faces in zip(images, together, strict=True):
        np.testing.assert_allclose(detector.detect([image])[0].boxes, faces.boxes, atol=1e-2)


def test_nothing_to_find(detector):
    assert detector.detect([]) == []
    assert [len(f) for f in detector.detect([np.zeros((5, 300, 3), np.uint8)])] == [0]
    assert Faces.none().landmarks.shape == (0, 5, 2)
    with pytest.raises(TypeError):
        detector.detect([np.zeros((64, 64), np.uint8)])


def test_a_failing_pass_is_tried_again_with_a_border(detector, rendered, monkeypatch):
    images, _ = rendered
    expected = detector.detect([images[0]])[0]
    inner = detector.net.detect

    def fails(batch, landmarks):
        if batch.shape[1] == 160:
            raise RuntimeError("lost count")
        return inner(batch, landmarks=landmarks)

    monkeypatch.setattr(detector.net, "detect", fails)
    again = detector.detect(list(images))[0]
    assert len(again) == len(expected)
    assert np.abs(again.landmarks - expected.landmarks).max() < 8 < BORDER


def test_unknown_detectors_are_refused():
    with pytest.raises(UserError, match="unknown"):
        load_detector("haar")
    with pytest.raises(UserError, match="at least 12"):
        load_detector("mtcnn", min_face=4)
