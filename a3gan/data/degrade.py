"""Degradations as pictures meet them outside: JPEG, blur, noise. The only module that uses albumentations."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from a3gan.data.ranges import to_float, to_uint8
from a3gan.errors import UserError

if TYPE_CHECKING:
    from albumentations import Compose


@lru_cache(maxsize=8)
def _pipeline(
    jpeg: tuple[int, int] | None, blur: tuple[float, float] | None, noise: tuple[float, float] | None, p: float
) -> Compose:
    # Without this, albumentations asks the network for a newer version of itself when imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations as A
    except ImportError as error:
        raise UserError("degradations need albumentations: pip install albumentations") from error
    steps = []
    if blur:
        steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=blur, p=p))
    if noise:
        steps.append(A.GaussNoise(std_range=noise, p=p))
    if jpeg:  # last, as in a camera
        steps.append(A.ImageCompression(quality_range=jpeg, compression_type="jpeg", p=p))
    return A.Compose(steps)


def degrade(
    images: torch.Tensor,
    rng: np.random.Generator | None = None,
    *,
    jpeg: tuple[int, int] | None = (40, 95),
    blur: tuple[float, float] | None = (0.3, 1.2),
    noise: tuple[float, float] | None = (0.005, 0.04),
    p: float = 0.5,
) -> torch.Tensor:
    """Random blur, noise and JPEG, each with probability p and drawn for each picture; no gradient.

    Args:
        images: float [N, 3, S, S] in [-1, 1], any device (the work is done on the CPU).
        rng: numpy generator; by default the seed comes from torch's global generator.
        jpeg: range of the quality. blur: range of sigma in pixels. noise: range of the standard deviation on the
            scale of [0, 1]. None leaves a step out.

    Returns:
        Same shape, range, device and dtype; the values are on the grid of 8 bits.
    """
    pipeline = _pipeline(jpeg, blur, noise, p)
    seed = int(torch.randint(2**31 - 1, ())) if rng is None else int(rng.integers(2**31 - 1))
    pipeline.set_random_seed(seed)
    pictures = _arrays(images)
    return _tensor([pipeline(image=picture)["image"] for picture in pictures], images)


def jpeg(images: torch.Tensor, quality: int = 75) -> torch.Tensor:
    """Each picture written and read as JPEG (Pillow, 4:2:0 chroma); float [N, 3, S, S] in [-1, 1], no gradient."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be from 1 to 100, got {quality}")
    coded = []
    for picture in _arrays(images):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        coded.append(np.asarray(Image.open(buffer)))
    return _tensor(coded, images)


def half_size(images: torch.Tensor) -> torch.Tensor:
    """Shrink by two, each pixel the mean of four: float [N, 3, S, S] to [N, 3, S // 2, S // 2]."""
    return F.avg_pool2d(images, 2)


def _arrays(images: torch.Tensor) -> list[np.ndarray]:
    return list(to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _tensor(pictures: list[np.ndarray], like: torch.Tensor) -> torch.Tensor:
    if not pictures:
        return like.detach().clone()
    return to_float(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()).to(like)
