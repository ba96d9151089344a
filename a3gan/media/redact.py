"""Blur, mosaic and solid ovals over faces, at the picture's own resolution: the redactions, and the way out for a face
that cannot be synthesised.

Pictures are arrays [H, W, 3], RGB, uint8 or uint16, changed in place; only pixels in the oval (or box) are touched.
Strength is counted in cells a face, not in pixels, so it is the same at every size.
"""

from __future__ import annotations

import math

import numpy as np

from a3gan.anonymizers.base import Redaction

GROW = 0.3
"""Share of the box's sides by which a redaction reaches beyond each of them. Half axes of .8 of a side hold the whole
box in the oval (sqrt(1/2) would do), with hair and chin."""
STRONG = Redaction("pixelate", cells=4)
"""For a face that should have been synthesised: coarser than the mosaic that people ask for."""


def redact(
    canvas: np.ndarray,
    box: np.ndarray | tuple[float, ...],
    landmarks: np.ndarray | None = None,
    redaction: Redaction = STRONG,
    *,
    grow: float = 1.0,
    oval: bool = True,
    top: float | None = None,
) -> tuple[int, int, int, int] | None:
    """Redacts one face, in place; gives the box (x0, y0, x1, y1) that holds all it changed, None for nothing.

    Args:
        canvas: uint8 or uint16 [H, W, 3].
        box: (x0, y0, x1, y1) in pixels, may reach beyond the picture; grown to hold the landmarks [5, 2] (where
            finite), then by `GROW` of its sides on each.
        redaction: kind, cells and colour; kind 'none' leaves the picture as it is.
        grow: 1.3 = by 30 % more on each side, as deface's --mask-scale.
        oval: the ellipse in the grown box; False = the whole box.
        top: the canvas's value of white; None = 255 or 65535.

    Raises:
        ValueError: the box is not finite, so nobody knows where the face is.
    """
    if redaction.kind == "none":
        return None
    whole, face = _grown(box, landmarks, grow)
    height, width = canvas.shape[:2]
    limits = (width, height)
    x0, y0 = np.clip(np.floor(whole[:2]), 0, limits).astype(int)
    x1, y1 = np.clip(np.ceil(whole[2:]) + 1, 0, limits).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    changed = (int(x0), int(y0), int(x1), int(y1))
    region = canvas[y0:y1, x0:x1]
    # A clipped box is a part of a face: cells keep the size that they have in a whole one.
    cell = max(float((face[2:] - face[:2]).max()) / redaction.cells, 1.0)
    if redaction.kind == "solid":
        white = float(np.iinfo(canvas.dtype).max if top is None else top)
        filled = np.empty_like(region)
        filled[:] = round((redaction.colour + 1) / 2 * white)
    elif redaction.kind == "pixelate":
        filled = _mosaic(region, cell)
    elif redaction.kind == "blur":
        filled = _blurred(region, cell)
    else:
        raise ValueError(f"redaction {redaction.kind!r}: must be blur, pixelate, solid or none")
    if not oval:
        region[:] = filled
        return changed
    centre, half = (whole[:2] + whole[2:]) / 2, np.maximum((whole[2:] - whole[:2]) / 2, 0.5)
    x = ((np.arange(x0, x1, dtype=np.float32) - centre[0]) / half[0]) ** 2
    y = ((np.arange(y0, y1, dtype=np.float32) - centre[1]) / half[1]) ** 2
    _copy(filled, region, (x[None, :] + y[:, None]) <= 1)
    return changed


def covered(box: np.ndarray | tuple[float, ...], landmarks: np.ndarray | None = None, grow: float = 1.0) -> np.ndarray:
    """float64 [4]: the box (x0, y0, x1, y1) that `redact` fills with its oval."""
    return _grown(box, landmarks, grow)[0]


def _grown(
    box: np.ndarray | tuple[float, ...], landmarks: np.ndarray | None, grow: float
) -> tuple[np.ndarray, np.ndarray]:
    """The box to redact, and the face's own, with its landmarks."""
    face = np.asarray(box, dtype=np.float64)
    if face.shape != (4,) or not np.isfinite(face).all():
        raise ValueError("a face's box is not finite")
    face = np.concatenate([np.minimum(face[:2], face[2:]), np.maximum(face[:2], face[2:])])
    if landmarks is not None and np.isfinite(landmarks).all():
        points = np.asarray(landmarks, dtype=np.float64)
        face = np.concatenate([np.minimum(face[:2], points.min(0)), np.maximum(face[2:], points.max(0))])
    sides = face[2:] - face[:2]
    margin = GROW * sides + (grow - 1) * (1 + 2 * GROW) * sides
    return np.concatenate([face[:2] - margin, face[2:] + margin]), face


def _mosaic(region: np.ndarray, cell: float) -> np.ndarray:
    import cv2

    height, width = region.shape[:2]
    down, across = max(1, math.floor(height / cell)), max(1, math.floor(width / cell))
    coarse = cv2.resize(region, (across, down), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def _blurred(region: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of at least `sigma` pixels. Wide ones are made small: means first, the rest of the blur there."""
    import cv2

    height, width = region.shape[:2]
    factor = max(1, int(sigma / 3))
    small = (max(1, width // factor), max(1, height // factor))
    coarse = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def _copy(source: np.ndarray, target: np.ndarray, where: np.ndarray) -> None:
    import cv2

    cv2.copyTo(source, where.view(np.uint8), target)
