"""Face detection behind one small interface: `load_detector(name).detect(images) -> list[Faces]`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.media.mtcnn import Found

BATCH_PIXELS = 5_000_000  # source pixels per pass; it takes about 60 times as many bytes


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

    Args:
        device: where its networks run. min_face: smallest face looked for, in pixels.
        threshold: of the last of its three stages, the score that is reported. second: of the stage before.
    """

    name = "mtcnn"

    def __init__(
        self, device: torch.device | str = "cpu", min_face: int = 20, threshold: float = 0.7, second: float = 0.7
    ):
        try:
            from a3gan.media.mtcnn import MtcnnRunner

            # 0.6, 0.7, 0.7 are the published thresholds of its three stages.
            self.net = MtcnnRunner(device, min_face, (0.6, second, threshold))
        except ImportError as error:
            raise UserError("face detection needs facenet-pytorch: pip install facenet-pytorch") from error
        self.device, self.min_face, self.threshold = torch.device(device), min_face, threshold

    def sensitive(self) -> Mtcnn:
        """A detector that also reports what this one is unsure of: for video, where other frames decide.

        Thresholds 0.6 of the second stage and 0.3 of the third. In a clip of a passer-by it reports the face in 10 of
        17 frames, the usual thresholds in 3. Proposals that overlap by half are one: a fifth less to look at, and of
        the 203 faces that the usual rules find in 35 frames of a crowd none is lost.
        """
        return self._sibling(self.min_face, (0.6, 0.6, min(0.3, self.threshold)), 0.5)

    def larger(self, min_face: int) -> Mtcnn:
        """The same for faces of at least that size only: far faster."""
        return self._sibling(min_face, self.net.thresholds, self.net.apart)

    def _sibling(self, min_face: int, thresholds: tuple[float, float, float], apart: float) -> Mtcnn:
        other = copy.copy(self)
        other.net = self.net.sibling(min_face, thresholds, apart)
        other.min_face, other.threshold = min_face, thresholds[2]
        return other

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
            # Below this the network's image pyramid has no level at all.
            if min(image.shape[:2]) >= self.min_face:
                groups.setdefault(image.shape[:2], []).append(i)
        for (height, width), rows in groups.items():
            step = max(1, BATCH_PIXELS // (height * width))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                result = self.net.detect(np.stack([images[i] for i in part]))
                for k, i in enumerate(part):
                    found[i] = _faces(result, result.image == k)
        return found


def _faces(result: Found, rows: np.ndarray) -> Faces:
    boxes = result.boxes[rows].astype(np.float32)
    order = np.argsort(-(boxes[:, 3] - boxes[:, 1]), kind="stable")
    pick = np.flatnonzero(rows)[order]
    return Faces(boxes[order], result.score[pick].astype(np.float32), result.points[pick].astype(np.float32))


DETECTORS = {"mtcnn": Mtcnn}


def load_detector(
    name: str = "mtcnn", device: torch.device | str = "cpu", min_face: int = 20, threshold: float | None = None
) -> Mtcnn:
    """A detector by name.

    Args:
        name: one of `DETECTORS`. device: where its networks run. min_face: smallest face looked for, in pixels; halving
            it takes about four times as long. threshold: lowest score reported, None = the detector's own.

    Raises:
        UserError: unknown name, a threshold out of (0, 1), or its package is not installed.
    """
    if name not in DETECTORS:
        raise UserError(f"detector {name!r}: unknown; one of {', '.join(DETECTORS)}")
    if min_face < 12:
        raise UserError(f"min_face {min_face}: must be at least 12 pixels, the side of the first network's window")
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"detection threshold {threshold}: must lie between 0 and 1")
    options = {} if threshold is None else {"threshold": threshold}
    return DETECTORS[name](device=device, min_face=min_face, **options)
