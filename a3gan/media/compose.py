"""Putting aligned faces back: soft oval, colours matched at the seam.

Pictures are arrays [H, W, 3], RGB, uint8 or uint16, changed in place; only pixels under the oval are touched.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from a3gan.data.align import inverse_of
from a3gan.data.mask import bounds, face_mask, oval

GAIN = (0.9, 1.1)  # bounds of the contrast correction: hair and background at the rim say little about the face
SHIFT = 0.4  # bound of the brightness correction, of a range of 2
STEADY = 0.2  # share of a frame's own colour correction in what it gets; the rest is what the track had before
TABLE = 1024  # side of the table of the oval's values that pictures look theirs up in
FAINT = 1 / 1024  # below this share of the new face a pixel stays as it was; 8 bits could not show it


def paste(
    canvas: np.ndarray,
    face: Tensor,
    original: Tensor | None,
    matrix: Tensor,
    frame: str = "face",
    match: bool = True,
    *,
    grow: float = 1.0,
    top: float | None = None,
) -> tuple[int, int, int, int] | None:
    """Puts one face where it came from; gives the box (x0, y0, x1, y1) that holds all it changed, None for nothing.

    Args:
        canvas: uint8 or uint16 [H, W, 3], changed in place.
        face: float [3, S, S] in [-1, 1], the new face.
        original: float [3, S, S], the aligned crop that it replaces; only its colours around the oval are used, and
            only if `match`.
        matrix: [2, 3], pixels of the picture to pixels of the aligned face.
        match: fit the new face's colours to the original's at the seam (`match_seam`).
        grow: size of the oval, as in `data.mask.oval`.
        top: the canvas's value of white; None = 255 or 65535.

    Raises:
        ValueError: the matrix cannot be inverted, or the face has values that are not finite.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    face = face.detach().float().cpu()
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    if not (face.isfinite().all() and np.isfinite(matrix).all() and abs(determinant) > 1e-12):
        raise ValueError("the face or its alignment is not finite")
    inverse = inverse_of(matrix)
    box = _box(canvas, inverse, face.shape[-1], frame, grow)
    if box is None:
        return None
    if match:
        face = match_seam(face[None], original[None].to(face), frame)[0]
    x0, y0, x1, y1 = box
    inverse[:, 2] -= (x0, y0)
    region, mask = canvas[y0:y1, x0:x1], _mask_at(box, matrix, face.shape[-1], frame, grow)
    white = float(np.iinfo(canvas.dtype).max if top is None else top)
    pixels = np.ascontiguousarray(face.permute(1, 2, 0).numpy() + np.float32(1)) * np.float32(white / 2)
    warped = _warped(pixels, inverse, x1 - x0, y1 - y0)
    if canvas.dtype == np.uint8:
        _blend(region, warped, mask)
        return box
    share = mask[..., None]
    mixed = np.rint(region + share * (warped - region)).clip(0, white).astype(canvas.dtype)
    np.copyto(region, mixed, where=share > 0)
    return box


def _warped(pixels: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Face [S, S, 3] through `matrix` (face to result pixels) to [height, width, 3]: cubic, antialiased, no overshoot.

    The same sampling as `data.align.warp_batch`, 8 to 12 times as fast on a CPU.
    """
    import cv2  # OpenCV; comes with albumentations

    low, high = float(pixels.min()), float(pixels.max())
    # Where the face gets smaller, means of `fine` x `fine` samples a pixel.
    shrink = 1 / math.sqrt(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))
    fine = min(8, max(1, math.ceil(shrink / 1.05)))
    matrix = matrix * fine
    matrix[:, 2] += (fine - 1) / 2
    size = (width * fine, height * fine)
    out = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    if fine > 1:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(out, low, high, out=out)


def _blend(region: np.ndarray, face: np.ndarray, mask: np.ndarray) -> None:
    """uint8 region <- region + mask (face - region), rounded; untouched where the mask is 0."""
    import cv2

    mixed = cv2.blendLinear(np.ascontiguousarray(region), cv2.convertScaleAbs(face), 1 - mask, mask)
    cv2.copyTo(mixed, (mask > 0).view(np.uint8), region)


def prepare(size: int, frame: str, grow: float = 1.0) -> None:
    """Makes the tables that faces of that side and frame are composed with; they are made when needed otherwise."""
    _table(frame, grow)
    _seam(size, frame)


@lru_cache(maxsize=8)
def _table(frame: str, grow: float) -> np.ndarray:
    """`face_mask` at that size, to 1e-5: its left half, mirrored, in single precision; a tenth of the time."""
    unit = (torch.arange(TABLE, dtype=torch.float32) + 0.5) / TABLE
    left = oval(unit[None, : TABLE // 2], unit[:, None], frame, grow)
    return torch.cat((left, left.flip(1)), 1).numpy()


def _mask_at(box: tuple[int, int, int, int], matrix: np.ndarray, size: int, frame: str, grow: float) -> np.ndarray:
    """`mask_in` from a table: float32 [h, w], to 1e-3, and never above 0 where that is 0; cheap enough for video."""
    import cv2

    x0, y0, x1, y1 = box
    # From the pixels of the box to those of the table: u = (M p + 1/2) / S, pixel = u TABLE - 1/2.
    to_table = matrix * (TABLE / size)
    to_table[:, 2] += matrix[:, :2] @ (x0, y0) * (TABLE / size) + 0.5 * TABLE / size - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask = cv2.warpAffine(_table(frame, grow), to_table, (x1 - x0, y1 - y0), flags=flags)
    return cv2.threshold(mask, FAINT, 0, cv2.THRESH_TOZERO)[1]


def mask_in(box: tuple[int, int, int, int], matrix: Tensor, size: int, frame: str, grow: float = 1.0) -> Tensor:
    """The oval's values [h, w] at the pixels of box (x0, y0, x1, y1) of the picture: exact, with no resampling."""
    x0, y0, x1, y1 = box
    x = torch.arange(x0, x1, dtype=torch.float64)[None, :]
    y = torch.arange(y0, y1, dtype=torch.float64)[:, None]
    unit_x = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + 0.5) / size
    unit_y = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + 0.5) / size
    return oval(unit_x, unit_y, frame, grow).float()


def match_seam(faces: Tensor, originals: Tensor, frame: str = "face") -> Tensor:
    """`faces` [N, 3, S, S] with a gain and a linear shading per channel that fit them to `originals` at the seam. Ours.

    Around the seam (where the mask is between 0 and 1, most at 1/2) gain = ratio of the standard deviations, bounded;
    then the difference that remains is fitted by b0 + b1 x + b2 y in least squares, pixels that differ much (hair, a
    background drawn otherwise) counting less, and added everywhere, bounded. A face that equals the original comes back
    unchanged.
    """
    return shade(faces, seam_fit(faces, originals, frame))


def seam_fit(faces: Tensor, originals: Tensor, frame: str = "face") -> Tensor:
    """`match_seam`'s corrections, float32 [N, 3, 5]: gain, the mean that it is about, b0, b1, b2 for each channel."""
    rows, weight, basis, products = _seam(faces.shape[-1], frame)
    new = faces.detach().float().cpu().flatten(2)[:, :, rows].double()
    old = originals.detach().float().cpu().flatten(2)[:, :, rows].double()
    mean_new, mean_old = (new @ weight)[..., None], (old @ weight)[..., None]
    spread_new = ((new - mean_new).square() @ weight).sqrt()
    spread_old = ((old - mean_old).square() @ weight).sqrt()
    gain = ((spread_old + 0.02) / (spread_new + 0.02)).clamp(*GAIN)[..., None]
    difference = old - ((new - mean_new) * gain + mean_new)
    robust = weight
    for _ in range(2):  # reweighted least squares: once plain, once with the far-off pixels down
        normal = (robust @ products).unflatten(-1, (3, 3)) + 1e-9 * torch.eye(3, dtype=torch.float64)
        right = (robust * difference) @ basis
        terms = torch.linalg.solve(normal.expand(*right.shape, 3), right)
        robust = weight / (1 + ((difference - terms @ basis.T) / 0.2).square())
    return torch.cat([gain, mean_new, terms], 2).float()


def shade(faces: Tensor, fit: Tensor) -> Tensor:
    """Faces [N, 3, S, S] under the corrections [N, 3, 5] of `seam_fit`; the shading is bounded by `SHIFT`."""
    axis = torch.linspace(-1, 1, faces.shape[-1], dtype=faces.dtype)
    gain, mean, level, across, down = fit.to(faces)[..., None, None].unbind(2)
    shading = (level + across * axis + down * axis[:, None]).clamp(-SHIFT, SHIFT)
    return torch.addcmul(shading + mean * (1 - gain), faces, gain).clamp_(-1, 1)


def steadied(fit: Tensor, before: Tensor | None) -> Tensor:
    """A correction [3, 5] drawn towards the one that the frame before had, so that a face does not flicker."""
    return fit if before is None else before + STEADY * (fit - before)


@lru_cache(maxsize=8)
def _seam(size: int, frame: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The seam's pixels: their numbers, weights [P], basis [P, 3] (1, x, y) and its products [P, 9]; float64."""
    mask = face_mask(size, frame)[0, 0].double()
    weight = (mask * (1 - mask)).flatten()
    rows = weight.nonzero()[:, 0]
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)[rows]
    return rows, weight[rows] / weight.sum(), basis, (basis[:, :, None] * basis[:, None]).flatten(1)


def _box(
    canvas: np.ndarray, inverse: np.ndarray, size: int, frame: str, grow: float
) -> tuple[int, int, int, int] | None:
    """Whole pixels (x0, y0, x1, y1) of the picture that the oval may touch; None if it lies outside."""
    x0, y0, x1, y1 = bounds(frame, grow)
    corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) * size - 0.5
    corners = corners @ inverse[:, :2].T + inverse[:, 2]
    height, width = canvas.shape[:2]
    # Compared before they become integers: a far-off face has corners that no integer holds.
    low = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, 0, (width, height)).astype(int)
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high > low).all() else None
