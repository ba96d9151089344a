"""What is known of one face on its way through the stages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from a3gan.anonymizers.base import face_seed

if TYPE_CHECKING:
    from a3gan.media.detect import Faces

log = logging.getLogger(__name__)


@dataclass
class FaceRecord:
    """What became of one face. box (x0, y0, x1, y1) and landmarks [5, 2] in pixels of the upright picture.

    status: 'synthesised' (or to be), 'redacted' (the method is a redaction), 'mosaicked' (it could not be synthesised:
    `reason`) or 'kept' (as it was asked). seed: of its new face. track: whose colour it shares over frames, or None.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    probability: float
    seed: int
    status: str = "synthesised"
    reason: str = ""
    track: int | None = None


@dataclass
class Crop:
    """One face aligned: uint8 [3, S, S]; matrix float64 [2, 3], picture to crop; result: its new face, in [-1, 1].

    fit: [3, 5], what brings the new face to the colours of the old (`media.compose.seam_fit`).
    points: [2, 5, 2], before and after in units of the frame, as the method itself read them; None if it does not.
    """

    record: FaceRecord
    face: Tensor
    matrix: Tensor
    result: Tensor | None = None
    fit: Tensor | None = None
    points: Tensor | None = None


@dataclass
class Result:
    """One picture: `image` of the kind that came in, and a record per face, the highest first."""

    image: Any
    faces: list[FaceRecord] = field(default_factory=list)

    @property
    def mosaicked(self) -> int:
        """Faces that could not be synthesised and were mosaicked instead."""
        return sum(face.status == "mosaicked" for face in self.faces)


def records_of(faces: Faces, seed: int | str, thresh: float = 0.0) -> list[FaceRecord]:
    """A record for each find of at least that probability; the i-th has `face_seed(seed, i)`."""
    rows = zip(faces.boxes, faces.landmarks, faces.probability, strict=True)
    rows = [row for row in rows if row[2] >= thresh]
    return [
        FaceRecord(tuple(float(v) for v in box), np.asarray(points, np.float64), float(p), face_seed(seed, i))
        for i, (box, points, p) in enumerate(rows)
    ]


def fail(record: FaceRecord, reason: str) -> None:
    """Marks a face as one to be redacted."""
    record.status, record.reason = "mosaicked", reason
    log.info("face at %s mosaicked: %s", [round(v) for v in record.box], reason)
