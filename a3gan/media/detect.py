"""Face detection behind one small interface: `load_detector(name).detect(images) -> list[Faces]`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.media.mtcnn import Found

# Source pixels per pass, which takes about 60 times as many bytes; on a CPU few, whose tables stay in the cache and in
# memory that is used again.
BATCH_PIXELS = {"cpu": 1_300_000, "cuda": 5_000_000}
MARGIN = 0.2  # of the shorter side: gray around a picture in which faces that its border cuts are looked for
REACH = 0.1  # of its own size: how far a face must reach beyond the border to be one of those
SAME = 0.4  # overlap (intersection over union) from which two finds in one picture are one face


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
            step = max(1, BATCH_PIXELS.get(self.device.type, BATCH_PIXELS["cpu"]) // (height * width))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                result = self.net.detect(np.stack([images[i] for i in part]))
                for k, i in enumerate(part):
                    found[i] = _faces(result, result.image == k)
        return found

    def detect_cut(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """As `detect`, and with the faces that the picture's border cuts, of which the networks know no examples.

        They are looked for once more at half the size, from twice `min_face` on, with gray around the picture; what
        does not reach beyond the border there is left to `detect`. Takes about half as long again.
        """
        found = self.detect(images)
        margins = [round(MARGIN * min(image.shape[:2]) / 2) for image in images]
        around = [
            np.pad(np.array(Image.fromarray(image).reduce(2)), ((m, m), (m, m), (0, 0)), constant_values=127)
            for image, m in zip(images, margins, strict=True) if min(image.shape[:2]) >= self.min_face
        ]  # fmt: skip
        rows = [i for i, image in enumerate(images) if min(image.shape[:2]) >= self.min_face]
        for i, faces in zip(rows, self.detect(around), strict=True):
            boxes, points = (2 * (v - margins[i]) + 0.5 for v in (faces.boxes, faces.landmarks))
            height, width = images[i].shape[:2]
            beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - (width, height)).max(1)
            middle = (boxes[:, :2] + boxes[:, 2:]) / 2
            keep = (beyond > REACH * (boxes[:, 2] - boxes[:, 0])) & (middle >= 0).all(1)
            keep &= (middle <= (width, height)).all(1)
            found[i] = joined(found[i], Faces(boxes[keep], faces.probability[keep], points[keep]))
        return found


def joined(first: Faces, second: Faces) -> Faces:
    """Two finds in one picture, the highest first; of faces that both hold, the first's."""
    boxes, area = first.boxes, (first.boxes[:, 2:] - first.boxes[:, :2]).prod(1)
    new = []
    for i, box in enumerate(second.boxes):
        shared = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).clip(0).prod(1)
        if not (shared / (area + (box[2:] - box[:2]).prod() - shared + 1e-9) >= SAME).any():
            new.append(i)
    columns = ("boxes", "probability", "landmarks")
    parts = [np.concatenate([getattr(first, name), getattr(second, name)[new]]) for name in columns]
    order = np.argsort(-(parts[0][:, 3] - parts[0][:, 1]), kind="stable")
    return Faces(*(part[order] for part in parts))


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
