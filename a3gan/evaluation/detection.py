"""Is a face still found where it was? Boxes to rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval

if TYPE_CHECKING:
    from a3gan.media.detect import Faces

MIN_IOU = 0.5  # at least this overlap makes a found face the original one
LIKELY_IOU = 0.3  # a box guessed from five points only says roughly where the face is


def landmark_boxes(points: np.ndarray) -> np.ndarray:
    """A rough face box [N, 4] (x0, y0, x1, y1) around five points [N, 5, 2], in their units.

    In units of the drop from eyes to mouth (or the eye distance, whichever is larger, so that profiles work): 2 wide,
    2.7 high, its centre 0.2 above the middle of eyes and mouth. Rounded medians of MTCNN's boxes on upright photos.
    """
    points = np.asarray(points, dtype=np.float64)
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    unit = np.maximum(np.linalg.norm(mouth - eyes, axis=1), np.linalg.norm(points[:, 1] - points[:, 0], axis=1))
    middle = (eyes + mouth) / 2 - unit[:, None] * np.array([[0.0, 0.2]])
    half = unit[:, None] * np.array([[1.0, 1.35]])
    return np.concatenate([middle - half, middle + half], 1)


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with boxes [M, 4]: [M] in [0, 1]."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = (high - low).clip(0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(area - common, 1e-12)


def reference_boxes(found: Sequence[Faces], points: np.ndarray) -> np.ndarray:
    """Where the face is in each original picture, [N, 4]: the detector's box that fits the points, else theirs.

    The detector's box is preferred since its size and place are its habit; one that overlaps the points' box by less
    than `LIKELY_IOU` is of somebody else.
    """
    boxes = landmark_boxes(points)
    for i, faces in enumerate(found):
        if len(faces):
            overlap = iou(boxes[i], faces.boxes)
            if overlap.max() >= LIKELY_IOU:
                boxes[i] = faces.boxes[overlap.argmax()]
    return boxes


def best_overlap(found: Sequence[Faces], boxes: np.ndarray) -> np.ndarray:
    """Largest overlap of any found face with the reference box, float32 [N]; 0 where nothing was found."""
    return np.array([iou(b, f.boxes).max() if len(f) else 0.0 for f, b in zip(found, boxes, strict=True)], np.float32)


def best_score(found: Sequence[Faces], boxes: np.ndarray) -> np.ndarray:
    """The detector's own score of the face at each reference box (IoU at least `MIN_IOU`), 0 for a miss: [N]."""
    scores = np.zeros(len(boxes), np.float32)
    for i, (box, faces) in enumerate(zip(boxes, found, strict=True)):
        if len(faces):
            near = iou(box, faces.boxes) >= MIN_IOU
            scores[i] = faces.probability[near].max() if near.any() else 0.0
    return scores


def detection(
    overlap: np.ndarray,
    person: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
    score: np.ndarray | None = None,
) -> dict[str, Interval | float]:
    """found: share of pictures with a face at IoU >= 0.5, higher is better; iou: mean overlap, a miss counts 0; score:
    mean score that the detector gives the face (`best_score`), a miss counts 0."""
    result: dict[str, Interval | float] = {"found": statistics.share(overlap >= MIN_IOU, person, replicates, seed)}
    result["iou"] = float(overlap.mean()) if len(overlap) else float("nan")
    if score is not None:
        result["score"] = float(np.mean(score)) if len(score) else float("nan")
    return result


# --- frames with several faces --------------------------------------------------------------------------------------
def matches(faces: Faces, boxes: np.ndarray) -> np.ndarray:
    """Which finds of one frame are right, bool [n]: from the highest score down, each takes the reference box [m, 4]
    that it overlaps most and that is still free, at IoU of at least `MIN_IOU` (the rule of PASCAL VOC)."""
    right, free = np.zeros(len(faces), bool), np.ones(len(boxes), bool)
    for k in np.argsort(-faces.probability, kind="stable"):
        overlap = np.where(free, iou(faces.boxes[k], boxes), -1.0)
        if len(boxes) and overlap.max() >= MIN_IOU:
            right[k] = True
            free[overlap.argmax()] = False
    return right


def average_precision(scores: np.ndarray, right: np.ndarray, total: int) -> float:
    """Area under precision over recall, of finds [n] of all frames with `total` faces to find: each right find adds the
    precision down to its score (ties together) over `total`. No interpolation; NaN where there is nothing to find."""
    if total < 1:
        return float("nan")
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.searchsorted(-scores, -scores, "right")  # finds at least as sure as each
    precision = np.cumsum(right)[last - 1] / last if len(right) else np.zeros(0)
    return float(precision[right].sum() / total)


def several_faces(found: Sequence[Faces], references: Sequence[np.ndarray]) -> dict[str, float]:
    """ap: average precision at IoU 0.5 over frames with the reference boxes [m, 4] of each; recall: share of them that
    any find meets; false: wrong finds a frame; frames, faces: what this rests on."""
    hits = [matches(faces, boxes) for faces, boxes in zip(found, references, strict=True)]
    scores = np.concatenate([faces.probability for faces in found]) if found else np.zeros(0)
    right, total = (np.concatenate(hits) if hits else np.zeros(0, bool)), sum(len(boxes) for boxes in references)
    return {
        "ap": average_precision(scores, right, total),
        "recall": float(right.sum() / total) if total else float("nan"),
        "false": float((~right).sum() / max(1, len(references))),
        "frames": len(references),
        "faces": total,
    }
