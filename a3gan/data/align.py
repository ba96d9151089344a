"""Alignment: one similarity transform from five points to a canonical frame, forwards and back.

Coordinates are (x, y). Pixel coordinates have their origin at the centre of the first pixel, so a picture W wide
spans [-0.5, W - 0.5]; frame units span [0, 1] from edge to edge, so x_px = u * S - 0.5 in an aligned picture of side
S. "Left" is left as seen in the picture.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
# A mirrored face needs its points renamed as well: new point i is old point MIRROR[i].
MIRROR = (1, 0, 2, 4, 3)

# Frame units. `face` spreads the eyes over a third of the width so that small sources keep their detail; `ffhq` over
# a quarter, close to the crop of the public FFHQ weights.
FRAMES: dict[str, tuple[tuple[float, float], ...]] = {
    "face": ((1 / 3, 0.35), (2 / 3, 0.35), (0.5, 0.54), (0.362, 0.735), (0.638, 0.735)),
    "ffhq": ((0.375, 0.47), (0.625, 0.47), (0.5, 0.6135), (0.3965, 0.759), (0.6035, 0.759)),
}


def template(frame: str, size: int | None = None) -> torch.Tensor:
    """The five points of a frame, float64 [5, 2]: frame units, or pixels when a size is given."""
    if frame not in FRAMES:
        raise ValueError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    points = torch.tensor(FRAMES[frame], dtype=torch.float64)
    return points if size is None else points * size - 0.5


def similarity(points: torch.Tensor | np.ndarray, frame: str, size: int) -> torch.Tensor:
    """Least-squares rotation, uniform scale and shift (never a mirror) from source points to the frame.

    Args:
        points: [N, 5, 2] in source pixels.
        frame: name in `FRAMES`.
        size: side of the aligned picture in pixels.

    Returns:
        float64 [N, 2, 3], source pixels to aligned pixels. In two dimensions the minimiser of Umeyama (1991) under
        the no-mirror constraint is linear in (a, b) of [[a, -b], [b, a]] and needs no SVD. Points that coincide give
        NaN.
    """
    src = torch.as_tensor(points, dtype=torch.float64)
    if src.ndim != 3 or src.shape[1:] != (5, 2):
        raise ValueError(f"points must be [N, 5, 2], got {list(src.shape)}")
    return fit_similarity(src, template(frame, size).to(src.device).expand_as(src))


def similarity_of(points: np.ndarray, frame: str, size: int) -> np.ndarray:
    """`similarity` of one face's points [5, 2] as float64 numpy [2, 3], in a sixth of the time. NaN: they coincide."""
    target, centre = _centred(frame, size)
    points = np.asarray(points, np.float64)
    mean = points.mean(0)
    p = points - mean
    norm = float((p * p).sum())
    if not norm > 0:
        return np.full((2, 3), np.nan)
    a = float((p * target).sum()) / norm
    b = float(p[:, 0] @ target[:, 1] - p[:, 1] @ target[:, 0]) / norm
    x, y = mean.tolist()
    return np.array([[a, -b, centre[0] - a * x + b * y], [b, a, centre[1] - b * x - a * y]])


@functools.lru_cache(maxsize=32)
def _centred(frame: str, size: int) -> tuple[np.ndarray, tuple[float, float]]:
    """A frame's five points in pixels about their mean, and that mean."""
    points = template(frame, size).numpy()
    mean = points.mean(0)
    return points - mean, tuple(mean.tolist())


def fit_similarity(src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
    """Least-squares similarity [N, 2, 3] (no mirror) from src [N, P, 2] to dst [N, P, 2]; differentiable."""
    src_mean, dst_mean = src.mean(1), dst.mean(1)
    p, q = src - src_mean[:, None], dst - dst_mean[:, None]
    norm = p.square().sum((1, 2))
    a = (p * q).sum((1, 2)) / norm
    b = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(1) / norm
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    shift = dst_mean - (linear @ src_mean[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], 2)


def invert(matrix: torch.Tensor) -> torch.Tensor:
    """Inverse of affine matrices [..., 2, 3], same shape and dtype."""
    inverse = torch.linalg.inv(matrix[..., :2])
    return torch.cat([inverse, -inverse @ matrix[..., 2:]], -1)


def inverse_of(matrix: torch.Tensor | np.ndarray) -> np.ndarray:
    """`invert` of one matrix [2, 3] as float64 numpy: a tenth of the time. ValueError: it is singular or not finite."""
    (a, b, u), (c, d, v) = np.asarray(matrix, np.float64).tolist()
    determinant = a * d - b * c
    inverse = np.array([[d, -b, b * v - d * u], [-c, a, c * u - a * v]])
    if not (np.isfinite(inverse).all() and abs(determinant) > 1e-300):
        raise ValueError("the alignment matrix is singular")
    return inverse / determinant


def compose(second: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """The affine matrix [..., 2, 3] that applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    return torch.cat([linear, second[..., :2] @ first[..., 2:] + second[..., 2:]], -1)


def transform_points(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Points [N, P, 2] (or [P, 2]) through matrices [N, 2, 3] (or [2, 3]), in the dtype of the points."""
    matrix = matrix.to(points)
    return points @ matrix[..., :2].transpose(-1, -2) + matrix[..., 2].unsqueeze(-2)


def to_units(points: torch.Tensor, size: int) -> torch.Tensor:
    """Aligned pixels to frame units."""
    return (points + 0.5) / size


def to_pixels(points: torch.Tensor, size: int) -> torch.Tensor:
    """Frame units to aligned pixels."""
    return points * size - 0.5


def outside_share(inverse: np.ndarray, width: int, height: int, size: int) -> float:
    """Share [0, 1] of aligned pixels with their centre outside a width x height source; inverse: aligned to source."""
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    corners = corners @ inverse[:, :2].T + inverse[:, 2]
    high = np.array([width - 0.5, height - 0.5])
    if (corners >= -0.5).all() and (corners <= high).all():
        return 0.0
    axis = np.arange(size, dtype=np.float64)
    x = inverse[0, 0] * axis[None] + inverse[0, 1] * axis[:, None] + inverse[0, 2]
    y = inverse[1, 0] * axis[None] + inverse[1, 1] * axis[:, None] + inverse[1, 2]
    inside = (x >= -0.5) & (x <= high[0]) & (y >= -0.5) & (y <= high[1])
    return float(1.0 - inside.mean())


def _reflect(index: np.ndarray, length: int) -> np.ndarray:
    """Mirror indices at the picture's edges (the edge pixel is repeated), as grid_sample's "reflection" does."""
    index = np.mod(index, 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def warp(
    image: np.ndarray | torch.Tensor, matrix: torch.Tensor | np.ndarray, size: int
) -> tuple[np.ndarray | torch.Tensor, float]:
    """One picture into the aligned frame, antialiased, with reflected pixels where the source ends.

    Args:
        image: uint8 array [H, W, 3] or uint8 tensor [3, H, W].
        matrix: [2, 3], source pixels to aligned pixels.
        size: side of the result.

    Returns:
        The aligned picture in the kind and layout that came in (side `size`), and the share of its pixels outside
        the source.

    Shrinking by f averages floor(f) x floor(f) source pixels first and samples (bicubic) a picture of twice the side
    after, which is then averaged; enlarging samples directly.
    """
    if isinstance(image, torch.Tensor):
        aligned, outside = warp(image.permute(1, 2, 0).cpu().numpy(), matrix, size)
        return torch.from_numpy(aligned).permute(2, 0, 1).contiguous().to(image.device), outside
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"warp expects uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    inverse = inverse_of(matrix.cpu() if isinstance(matrix, torch.Tensor) else matrix)
    scale = math.sqrt(abs(np.linalg.det(inverse[:, :2])))  # source pixels per aligned pixel
    reduce = max(1, int(scale))
    oversample = 2 if scale / reduce > 1.05 else 1

    # The part of the (endless, reflected) source that is needed, with a margin for the bicubic kernel.
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    corners = corners @ inverse[:, :2].T + inverse[:, 2]
    x0, y0 = np.floor(corners.min(0)).astype(int) - 4 * reduce
    x1, y1 = np.ceil(corners.max(0)).astype(int) + 4 * reduce + 1
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        region = image[y0:y1, x0:x1]
    else:
        region = image[_reflect(np.arange(y0, y1), height)][:, _reflect(np.arange(x0, x1), width)]
    picture = Image.fromarray(np.ascontiguousarray(region))
    if reduce > 1:
        picture = picture.reduce(reduce)

    # Pillow's affine data maps edge coordinates of the result to edge coordinates of the input.
    linear = inverse[:, :2] / (oversample * reduce)
    shift = (inverse[:, 2] - inverse[:, :2] @ np.array([0.5, 0.5]) + 0.5 - np.array([x0, y0])) / reduce
    data = (linear[0, 0], linear[0, 1], shift[0], linear[1, 0], linear[1, 1], shift[1])
    side = size * oversample
    aligned = picture.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    if oversample > 1:
        aligned = aligned.reduce(oversample)
    return np.array(aligned), outside_share(inverse, width, height, size)


def warp_batch(
    images: torch.Tensor, matrices: torch.Tensor, size: int | tuple[int, int], mode: str = "bicubic"
) -> torch.Tensor:
    """The torch counterpart of `warp`, differentiable and on any device: for batches of tensors.

    Args:
        images: float [N, C, H, W].
        matrices: [N, 2, 3], source pixels to result pixels.
        size: side, or (height, width), of the result.
        mode: "bicubic" (overshoot is clamped to each picture's own range), "bilinear" or "nearest".

    Returns:
        float [N, C, h, w] in the dtype of the images. Each picture's antialiasing follows its own scale, so the
        result does not depend on the rest of the batch.
    """
    height, width = (size, size) if isinstance(size, int) else size
    inverse = invert(matrices.to(images.device, torch.float32 if images.device.type == "mps" else torch.float64))
    scale = torch.linalg.det(inverse[..., :2].detach()).abs().sqrt()
    # 1.05: a scale of one up to rounding needs no oversampling. Above 8 the gain no longer shows and memory does.
    factor = (scale / 1.05).ceil().clamp(1, 8).long().tolist()
    out = images.new_empty(0)
    parts: dict[int, list[int]] = {}
    for i, f in enumerate(factor):
        parts.setdefault(f, []).append(i)
    pieces, order = [], []
    for f, rows in parts.items():
        index = torch.tensor(rows, device=images.device)
        part = images if len(rows) == len(factor) else images[index]
        pieces.append(_sample(part, inverse[index], height, width, f, mode))
        order += rows
    if not pieces:
        return out.reshape(0, images.shape[1], height, width)
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces)[torch.argsort(torch.tensor(order)).to(images.device)]


def _sample(
    images: torch.Tensor, inverse: torch.Tensor, height: int, width: int, factor: int, mode: str
) -> torch.Tensor:
    # Centres of a grid `factor` times finer, in result pixels.
    x = (torch.arange(width * factor, device=images.device, dtype=inverse.dtype) + 0.5) / factor - 0.5
    y = (torch.arange(height * factor, device=images.device, dtype=inverse.dtype) + 0.5) / factor - 0.5
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 2)
    points = grid @ inverse[..., :2].transpose(-1, -2) + inverse[..., 2].unsqueeze(-2)
    extent = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device, dtype=inverse.dtype)
    points = ((2 * points + 1) / extent - 1).reshape(-1, height * factor, width * factor, 2)
    out = F.grid_sample(images, points.to(images.dtype), mode=mode, padding_mode="reflection", align_corners=False)
    if mode == "bicubic":
        flat = images.detach().flatten(1)
        shape = (-1, 1, 1, 1)
        out = torch.minimum(torch.maximum(out, flat.amin(1).view(shape)), flat.amax(1).view(shape))
    return F.avg_pool2d(out, factor) if factor > 1 else out
