from __future__ import annotations

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.media.detect import Faces, load_detector


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


def test_agrees_with_facenet_pytorch(detector, rendered):
    from facenet_pytorch import MTCNN

    images, _ = rendered
    theirs = MTCNN(keep_all=True, min_face_size=20, thresholds=[0.6, 0.7, 0.7]).eval()
    wide = np.full((3, 243, 401, 3), 127, np.uint8)  # odd sides: the pooling of the first network has ragged ends
    wide[0, 40:200, 10:170], wide[1, 60:220, 220:380], wide[1, 0:160, 0:160] = images[0], images[1], images[0]
    boxes, scores, points = theirs.detect(wide, landmarks=True)
    for i, faces in enumerate(detector.detect(list(wide))):
        expected = [] if boxes[i] is None else np.asarray(boxes[i], np.float64)
        assert len(faces) == len(expected)
        if len(faces):
            ours, other = np.argsort(faces.boxes[:, 0]), np.argsort(expected[:, 0])
            np.testing.assert_allclose(faces.boxes[ours], expected[other], atol=0.01)
            np.testing.assert_allclose(faces.landmarks[ours], np.asarray(points[i], np.float64)[other], atol=0.01)
            np.testing.assert_allclose(faces.probability[ours], np.asarray(scores[i], np.float64)[other], atol=1e-4)


def test_bands_of_a_level_give_the_hits_of_the_whole(detector, monkeypatch):
    import copy

    import torch

    from a3gan.media import mtcnn

    net = copy.copy(detector.net)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 150, 90, 3), np.uint8))
    with torch.inference_mode():
        areas = mtcnn.Areas(pixels)
        for size in ((91, 55), (90, 54), (30, 18), (12, 12)):
            maps, score = net.first(areas.shrunk(size))
            middle = score.flatten().sort().values[score.numel() // 2 - 1 : score.numel() // 2 + 1].mean()
            net.thresholds = (float(middle), 0.7, 0.7)  # no score lies so near that rounding decides
            hit = (score >= middle).nonzero()
            at = tuple(hit.unbind(1))
            monkeypatch.setattr(mtcnn, "BAND", 1)
            places, scores, moves = net._hits(areas, size)
            assert torch.equal(places, hit) and torch.allclose(scores, score[at], atol=1e-4)
            assert torch.allclose(moves, net.first.moves(maps)[at], atol=1e-4)
            expected = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2).float(), size=size, mode="area")
            assert torch.allclose(areas.shrunk(size)[:, :3], expected, atol=1e-3)


def test_the_sensitive_sibling_finds_at_least_as_much(detector, rendered):
    images, _ = rendered
    sensitive = detector.sensitive()
    assert (sensitive.threshold, sensitive.min_face) == (0.3, 20)
    dark = (images * 0.2).astype(np.uint8)
    for faces, more in zip(detector.detect(list(dark)), sensitive.detect(list(dark)), strict=True):
        assert len(more) >= len(faces)


def test_faces_that_the_border_cuts_are_found_by_the_second_look(detector, rendered):
    images, points = rendered
    cut = np.ascontiguousarray(images[0][:, 66:])  # the left eye lies 13 px from the new border, half of the face gone
    (usual,), (more,) = detector.detect([images[0]]), detector.detect_cut([images[0]])
    np.testing.assert_array_equal(usual.boxes, more.boxes)  # a whole face is not found twice
    assert len(detector.detect([cut])[0]) == 0
    (found,) = detector.detect_cut([cut])
    assert len(found) == 1 and found.boxes[0, 0] < 0
    expected = points[0] - (66, 0)
    assert np.linalg.norm(found.landmarks[0] - expected, axis=-1).mean() < 0.25 * (points[0, 1, 0] - points[0, 0, 0])
    empty = [np.zeros((9, 50, 3), np.uint8), np.zeros((31, 45, 3), np.uint8)]
    assert [len(f) for f in detector.detect_cut(empty)] == [0, 0]


def test_unknown_detectors_are_refused():
    with pytest.raises(UserError, match="unknown"):
        load_detector("haar")
    with pytest.raises(UserError, match="at least 12"):
        load_detector("mtcnn", min_face=4)
    with pytest.raises(UserError, match="between 0 and 1"):
        load_detector("mtcnn", threshold=1.2)
