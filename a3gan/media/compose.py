"""Putting aligned faces back: soft oval, colours matched at the seam; and the mosaic for faces that fail.

Pictures are uint8 arrays [H, W, 3], RGB, changed in place; only pixels under the oval (or in the box) are touched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan.anonymizers.classic import CELLS
from a3gan.data.align import invert, transform_points, warp_batch
from a3gan.data.mask import bounds, face_mask, oval
from a3gan.data.ranges import to_float, to_uint8

GAIN = (0.9, 1.1)  # bounds of the contrast correction: hair and background at the rim say little about the face
SHIFT = 0.4  # bound of the brightness correction, of a range of 2
MARGIN = 0.15  # a mosaic reaches this share of the box's side beyond each of its edges


def paste(
    canvas: np.ndarray, face: Tensor, original: Tensor, matrix: Tensor, frame: str = "face", match: bool = True
) -> None:
    """Puts one face where it came from.

    Args:
        canvas: uint8 [H, W, 3], changed in place.
        face: float [3, S, S] in [-1, 1], the new face.
        original: float [3, S, S], the aligned crop that it replaces; only its colours around the oval are used.
        matrix: [2, 3], pixels of the picture to pixels of the aligned face.
        match: fit the new face's colours to the original's at the seam (`match_seam`).

    Raises:
        ValueError: the matrix cannot be inverted, or the face has values that are not finite.
    """
    size = face.shape[-1]
    matrix = torch.as_tensor(matrix, dtype=torch.float64).cpu()
    face = face.detach().float().cpu()
    if not face.isfinite().all() or not matrix.isfinite().all() or abs(torch.linalg.det(matrix[:, :2])) < 1e-12:
        raise ValueError("the face or its alignment is not finite")
    box = _box(canvas, matrix, size, frame)
    if box is None:
        return
    if match:
        face = match_seam(face, original.detach().float().cpu(), frame)
    x0, y0, x1, y1 = box
    to_region = invert(matrix)
    to_region[:, 2] -= torch.tensor([x0, y0], dtype=torch.float64)
    warped = warp_batch(face[None], to_region[None], (y1 - y0, x1 - x0))[0]
    mask = mask_in(box, matrix, size, frame)
    region = torch.from_numpy(canvas[y0:y1, x0:x1]).permute(2, 0, 1)
    mixed = to_uint8(torch.lerp(to_float(region), warped, mask))
    # Under a mask of 0 the picture stays as it was, bit for bit.
    mixed = torch.where(mask > 0, mixed, region)
    canvas[y0:y1, x0:x1] = mixed.permute(1, 2, 0).numpy()


def mask_in(box: tuple[int, int, int, int], matrix: Tensor, size: int, frame: str) -> Tensor:
    """The oval's values [h, w] at the pixels of box (x0, y0, x1, y1) of the picture: exact, with no resampling."""
    x0, y0, x1, y1 = box
    x = torch.arange(x0, x1, dtype=torch.float64)[None, :]
    y = torch.arange(y0, y1, dtype=torch.float64)[:, None]
    unit_x = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + 0.5) / size
    unit_y = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + 0.5) / size
    return oval(unit_x, unit_y, frame).float()


def match_seam(face: Tensor, original: Tensor, frame: str = "face") -> Tensor:
    """`face` [3, S, S] with a gain and a linear shading per channel that fit it to `original` around the seam. Ours.

    Around the seam (where the mask is between 0 and 1, most at 1/2) gain = ratio of the standard deviations, bounded;
    then the difference that remains is fitted by b0 + b1 x + b2 y in least squares, pixels that differ much (hair, a
    background drawn otherwise) counting less, and added everywhere, bounded. A face that equals the original comes back
    unchanged.
    """
    size = face.shape[-1]
    mask = face_mask(size, frame)[0, 0].double()
    weight = (mask * (1 - mask)).flatten()
    weight = weight / weight.sum()
    new, old = face.double().flatten(1), original.double().flatten(1)
    mean_new, mean_old = (new * weight).sum(1, keepdim=True), (old * weight).sum(1, keepdim=True)
    spread_new = ((new - mean_new).square() * weight).sum(1, keepdim=True).sqrt()
    spread_old = ((old - mean_old).square() * weight).sum(1, keepdim=True).sqrt()
    gain = ((spread_old + 0.02) / (spread_new + 0.02)).clamp(*GAIN)
    new = (new - mean_new) * gain + mean_new

    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y]).flatten(1)  # [3 terms, S*S]
    difference = old - new
    robust = weight.expand(3, -1)
    for _ in range(2):  # reweighted least squares: once plain, once with the far-off pixels down
        normal = torch.einsum("cp,ip,jp->cij", robust, basis, basis)
        right = torch.einsum("cp,ip->ci", robust * difference, basis)
        terms = torch.linalg.solve(normal + 1e-9 * torch.eye(3, dtype=torch.float64), right)
        robust = weight / (1 + ((difference - terms @ basis) / 0.2).square())
    return (new + (terms @ basis).clamp(-SHIFT, SHIFT)).reshape(face.shape).clamp(-1, 1).to(face.dtype)


def mosaic_box(
    canvas: np.ndarray, box: np.ndarray | tuple[float, ...], landmarks: np.ndarray | None = None, cells: int = CELLS
) -> None:
    """Replaces a face's box, in place, by cells x cells means: the way out for a face that cannot be synthesised.

    Args:
        canvas: uint8 [H, W, 3].
        box: (x0, y0, x1, y1) in pixels; grown to hold the landmarks [5, 2] (if finite), then by `MARGIN` of its sides.

    Raises:
        ValueError: the box is not finite, so nobody knows where the face is.
    """
    box = np.asarray(box, dtype=np.float64)
    if not np.isfinite(box).all():
        raise ValueError("a face's box is not finite")
    if landmarks is not None and np.isfinite(landmarks).all():
        box = np.concatenate([np.minimum(box[:2], landmarks.min(0)), np.maximum(box[2:], landmarks.max(0))])
    grow = MARGIN * (box[2:] - box[:2])
    height, width = canvas.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2] - grow), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(box[2:] + grow) + 1, 0, (width, height)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    region = torch.from_numpy(canvas[y0:y1, x0:x1]).permute(2, 0, 1)[None].float()
    # A clipped box is a part of a face: cells keep the size that they have in a whole one.
    side = max(float((box[2:] - box[:2] + 2 * grow).max()) / cells, 1.0)
    down, across = max(1, math.floor((y1 - y0) / side)), max(1, math.floor((x1 - x0) / side))
    coarse = F.adaptive_avg_pool2d(region, (down, across))
    filled = F.interpolate(coarse, size=region.shape[2:], mode="nearest-exact")
    canvas[y0:y1, x0:x1] = filled[0].round().to(torch.uint8).permute(1, 2, 0).numpy()


def _box(canvas: np.ndarray, matrix: Tensor, size: int, frame: str) -> tuple[int, int, int, int] | None:
    """Whole pixels (x0, y0, x1, y1) of the picture that the oval may touch; None if it lies outside."""
    x0, y0, x1, y1 = bounds(frame)
    corners = torch.tensor([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], dtype=torch.float64) * size - 0.5
    corners = transform_points(corners, invert(matrix))
    low, high = corners.amin(0).floor().tolist(), corners.amax(0).ceil().tolist()
    height, width = canvas.shape[:2]
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    x1, y1 = min(width, int(high[0]) + 1), min(height, int(high[1]) + 1)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
