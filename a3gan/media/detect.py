"""Face detection behind one small interface: `load_detector(name).detect(images) -> list[Faces]`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from a3gan.errors import UserError

log = logging.getLogger(__name__)

BATCH_PIXELS = 16_000_000  # source pixels per pass; the image pyramid takes about 30 times as many bytes
BORDER = 64  # px of gray put around a picture on which a pass failed


@dataclass
class Faces:
    """The faces of one picture, the highest first.

    boxes: float32 [n, 4] (x0, y0, x1, y1) and landmarks: float32 [n, 5, 2] (left eye, right eye, nose, left and
    right mouth corner; left as seen in the picture), both in pixels of that picture; they may reach beyond it.
    probability: float32 [n].
    """

    boxes: np.ndarray
    probability: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def heights(self) -> np.ndarray:
        """float32 [n], in pixels."""
        return self.boxes[:, 3] - self.boxes[:, 1]

    @staticmethod
    def none() -> Faces:
        return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


class Mtcnn:
    """MTCNN (Zhang et al. 2016) with the weights inside facenet-pytorch. Finds upright faces; turns nothing.

    Calls are independent of one another, so threads may share one.
    """

    name = "mtcnn"

    def __init__(self, device: torch.device | str = "cpu", min_face: int = 20, threshold: float = 0.7):
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise UserError("face detection needs facenet-pytorch: pip install facenet-pytorch") from error
        self.min_face = min_face
        # 0.6, 0.7, 0.7 are the published thresholds of its three stages; ours moves the last.
        self.net = MTCNN(
            keep_all=True, min_face_size=min_face, thresholds=[0.6, 0.7, threshold], device=torch.device(device)
        ).eval()

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """Faces of each picture.

        Args:
            images: uint8 arrays [H, W, 3], RGB, of any sizes; equal sizes share a pass.

        Returns:
            one `Faces` per picture, in order; empty where nothing is found or the picture is smaller than `min_face`.
        """
        found: list[Faces] = [Faces.none() for _ in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise TypeError(f"detect expects uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
            # Below this the network's image pyramid has no level at all, and it fails.
            if min(image.shape[:2]) >= self.min_face:
                groups.setdefault(image.shape[:2], []).append(i)
        for (height, width), rows in groups.items():
            step = max(1, BATCH_PIXELS // (height * width))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                for i, faces in zip(part, self._pass([images[i] for i in part]), strict=True):
                    found[i] = faces
        return found

    def _pass(self, images: list[np.ndarray]) -> list[Faces]:
        try:
            boxes, probability, points = self.net.detect(np.stack(images), landmarks=True)
        except (RuntimeError, IndexError, ValueError) as error:
            # A candidate wholly outside the picture makes facenet-pytorch 2.5.3 lose count of its crops. One such
            # picture must not take the others with it, and must not pass for one without faces: a border brings the
            # candidate inside.
            if len(images) > 1:
                return [self._pass([image])[0] for image in images]
            log.debug("detection failed (%s); trying again with a border", error)
            return [self._with_border(images[0])]
        return [_faces(*one) for one in zip(boxes, probability, points, strict=True)]

    def _with_border(self, image: np.ndarray) -> Faces:
        padded = np.pad(image, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), constant_values=127)
        boxes, probability, points = self.net.detect(padded[None], landmarks=True)
        faces = _faces(boxes[0], probability[0], points[0])
        return Faces(faces.boxes - BORDER, faces.probability, faces.landmarks - BORDER)


def _faces(boxes: object, probability: object, points: object) -> Faces:
    if boxes is None:
        return Faces.none()
    # facenet-pytorch may return object arrays when all pictures of a batch have the same number of faces.
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    probability = np.asarray(probability, dtype=np.float32).reshape(-1)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 5, 2)
    order = np.argsort(-(boxes[:, 3] - boxes[:, 1]), kind="stable")
    return Faces(boxes[order], probability[order], points[order])


DETECTORS = {"mtcnn": Mtcnn}


def load_detector(name: str = "mtcnn", device: torch.device | str = "cpu", min_face: int = 20) -> Mtcnn:
    """A detector by name.

    Args:
        name: "mtcnn". device: where its networks run. min_face: smallest face looked for, in pixels; halving it
            takes about four times as long.

    Raises:
        UserError: unknown name, or its package is not installed.
    """
    if name not in DETECTORS:
        raise UserError(f"detector {name!r}: unknown; one of {', '.join(DETECTORS)}")
    if min_face < 12:
        raise UserError(f"min_face {min_face}: must be at least 12 pixels, the side of the first network's window")
    return DETECTORS[name](device=device, min_face=min_face)
