"""Pictures of the kinds that people hand over (PIL, numpy, torch) to RGB uint8 arrays, and back to the same kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from a3gan.data.ranges import to_float, to_uint8, upright_rgb
from a3gan.errors import UserError


def to_array(image: Any) -> np.ndarray:
    """A new uint8 RGB array [H, W, 3] of a PIL picture (upright), an array [H, W, 3] or a tensor [3, H, W].

    Raises UserError for another kind, shape or range: arrays are uint8, tensors uint8 or float in [-1, 1].
    """
    if isinstance(image, Image.Image):
        return np.array(upright_rgb(image), dtype=np.uint8)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"array picture: must be uint8 [H, W, 3], RGB, is {image.dtype} {list(image.shape)}")
        return np.array(image, order="C")
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise UserError(f"tensor picture: must be uint8 or float [3, H, W], is {image.dtype} {list(image.shape)}")
        if image.is_floating_point():
            low, high = (float(v) for v in image.detach().aminmax()) if image.numel() else (0.0, 0.0)
            # A little beyond is resampling's overshoot; NaN fails both comparisons.
            if not (low >= -1.5 and high <= 1.5):
                raise UserError(f"float picture: values from {low:.3g} to {high:.3g}; must be in [-1, 1] (or uint8)")
            image = to_uint8(image)
        return np.array(image.detach().cpu().permute(1, 2, 0).numpy(), order="C")
    raise UserError(f"a picture must be a PIL image, an array or a tensor, not {type(image).__name__}")


def restore(array: np.ndarray, source: Any) -> Any:
    """An array [H, W, 3] made by `to_array(source)` and changed since, as the kind of `source`.

    PIL: mode L for gray sources, else RGB, with no metadata but a fitting colour profile. Float tensors keep the exact
    values of unchanged pixels.
    """
    if isinstance(source, Image.Image):
        picture = Image.fromarray(array)
        picture = picture.convert("L") if is_gray(source) else picture
        picture.info = {"icc_profile": profile} if (profile := colour_profile(source)) else {}
        return picture
    if isinstance(source, np.ndarray):
        return array
    out = torch.from_numpy(array).permute(2, 0, 1).to(source.device)
    if not source.is_floating_point():
        return out.contiguous()
    same = out == to_uint8(source)
    return torch.where(same, source.detach(), to_float(out).to(source.dtype))


def is_gray(picture: Image.Image) -> bool:
    """Whether a PIL picture has no colour, at any depth."""
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def colour_profile(picture: Image.Image) -> bytes | None:
    """A PIL picture's ICC profile, if it still fits the L or RGB that `restore` makes of the picture."""
    profile = picture.info.get("icc_profile")
    # Bytes 16 to 20 of a profile name its colour space: one of CMYK describes neither.
    return profile if profile and profile[16:20] == (b"GRAY" if is_gray(picture) else b"RGB ") else None
