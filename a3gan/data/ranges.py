"""The only place where pictures change between uint8 [0, 255], PIL and float [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 3, H, W] in [0, 255] to float32 in [-1, 1]: x / 127.5 - 1."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float expects uint8, got {images.dtype}")
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float [..., 3, H, W] in [-1, 1] (clamped) to uint8, rounded to nearest; inverts `to_float` exactly."""
    if not images.is_floating_point():
        raise TypeError(f"to_uint8 expects a float tensor, got {images.dtype}")
    return images.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Any PIL picture as 8-bit RGB, turned as its EXIF orientation says.

    Transparent pixels are laid over white, 16-bit values scaled (not clipped) to 8 bits, CMYK, palette and gray
    converted; of an animation the first frame is taken.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own convert() clips 16-bit gray at 255, which turns such photos white.
    values = np.asarray(picture).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = values.max(initial=0.0)
    if picture.mode == "F" and top <= 1.0:
        values = values * 255.0
    elif picture.mode.startswith("I;16") or top > 255.0:
        values = values / 257.0 if top <= 65535.0 else values * (255.0 / top)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def from_pil(picture: Image.Image) -> torch.Tensor:
    """PIL picture of any mode to uint8 [3, H, W] RGB, upright (see `upright_rgb`)."""
    return torch.from_numpy(np.array(upright_rgb(picture), dtype=np.uint8)).permute(2, 0, 1).contiguous()


def to_pil(image: torch.Tensor) -> Image.Image:
    """uint8 [3, H, W] to a PIL RGB picture."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise TypeError(f"to_pil expects uint8 [3, H, W], got {image.dtype} {list(image.shape)}")
    return Image.fromarray(image.detach().cpu().permute(1, 2, 0).contiguous().numpy())
