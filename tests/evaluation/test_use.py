"""Detection and expression figures on hand-made boxes and logits."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.evaluation import detection as detect
from a3gan.evaluation.expression import binary_heads, expression, smiling
from a3gan.media.detect import Faces

FACE = np.array([[[40, 50], [60, 50], [50, 60], [43, 72], [57, 72]]], float)


def _faces(*boxes: tuple[float, ...]) -> Faces:
    n = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(n, 4), np.ones(n, np.float32), np.zeros((n, 5, 2), np.float32))


def test_iou_of_known_boxes() -> None:
    overlap = detect.iou(np.array([0, 0, 2, 2]), np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 3, 3], [0, 0, 1, 1]]))
    assert overlap == pytest.approx([1, 1 / 3, 0, 1 / 4])


def test_the_box_of_the_points_surrounds_them() -> None:
    box = detect.landmark_boxes(FACE)[0]
    assert (box[:2] < FACE[0].min(0)).all() and (box[2:] > FACE[0].max(0)).all()
    twice = detect.landmark_boxes(2 * FACE)[0]
    assert twice == pytest.approx(2 * box)


def test_the_reference_is_the_detectors_box_of_this_face() -> None:
    guess = detect.landmark_boxes(FACE)[0]
    near, far = tuple(guess + [2, -1, 3, 2]), (200, 200, 260, 270)
    boxes = detect.reference_boxes([_faces(far, near)], FACE)
    assert boxes[0] == pytest.approx(near)
    assert detect.reference_boxes([_faces(far)], FACE)[0] == pytest.approx(guess)
    assert detect.reference_boxes([Faces.none()], FACE)[0] == pytest.approx(guess)


def test_found_needs_half_an_overlap() -> None:
    reference = np.array([[0.0, 0, 10, 10]] * 4)
    found = [_faces((0, 0, 10, 10)), _faces((4, 0, 14, 10)), _faces((50, 0, 60, 10), (0, 0, 10, 6)), Faces.none()]
    overlap = detect.best_overlap(found, reference)
    assert overlap == pytest.approx([1, 6 / 14, 0.6, 0])
    figures = detect.detection(overlap, np.arange(4), 20)
    assert figures["found"].value == 0.5 and figures["iou"] == pytest.approx((1 + 6 / 14 + 0.6) / 4)


def test_smile_figures() -> None:
    # Columns neutral, happiness, other: the third never decides.
    before = {"expression": np.array([[2, 0, 9], [0, 2, 9], [0, 1, 0], [1, 0, 0], [0, 1, 0]], float)}
    after = {"expression": np.array([[1, 0, 0], [3, 2, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], float)}
    assert smiling(before).tolist() == [False, True, True, False, True]
    label = np.array([0, 1, 1, 1, 2.0])  # the last is another expression and does not count
    found = np.array([True, True, False, True, True])
    figures = expression(before, after, label, np.arange(5), found, 20)
    assert figures["agreement"].value == 0.5 and figures["agreement"].count == 4
    assert figures["agreement_found"].value == 0.25
    assert figures["accuracy"].value == 0.75


def test_binary_heads_are_given_where_there_are_labels() -> None:
    nan = np.full(4, np.nan)
    before = {"gender": np.array([1.0, 1, -1, -1])}
    after = {"gender": np.array([1.0, -1, -1, 1])}
    labels = {"gender": np.array([1, 1, 0, np.nan]), "yawning": nan, "eyes_closed": nan}
    figures = binary_heads(before, after, labels, np.arange(4), 20)
    assert set(figures) == {"gender_same", "gender_accuracy"}
    for name in figures:
        assert figures[name].value == pytest.approx(2 / 3)
