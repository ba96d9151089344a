"""Pictures of the kinds that people hand over (PIL, numpy, torch) to `Picture`, and back to the same kind."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from a3gan.data.ranges import to_float, to_uint8
from a3gan.errors import UserError

TOPS = (1023, 4095, 16383, 65535)  # white of pictures of 10, 12, 14 and 16 bits
LUMA = (0.299, 0.587, 0.114)


@dataclass
class Picture:
    """An upright picture to work on.

    rgb: uint8 or uint16 [H, W, 3]; alpha: [H, W] of the same dtype, or None; gray: rgb has three equal channels, and
    the result shall have one.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False

    def __post_init__(self) -> None:
        self._before = self.rgb.copy() if self.gray and self.deep else None  # what `one_channel` compares with
        # A camera's 12 bits in 16 would be near black otherwise, and no detector would find a face there.
        self.top: float = 255.0
        if self.deep:
            self.top = float(next(top for top in TOPS if self.rgb.max(initial=0) <= top))

    @property
    def deep(self) -> bool:
        """16 bits a channel."""
        return self.rgb.dtype == np.uint16

    @property
    def transparent(self) -> bool:
        """Some pixel shows what is behind the picture."""
        return self.alpha is not None and bool((self.alpha < np.iinfo(self.alpha.dtype).max).any())

    def view(self) -> np.ndarray:
        """uint8 [H, W, 3] to look at: the picture's own memory if it has 8 bits. Transparency is not applied."""
        return to_eight(self.rgb, self.top) if self.deep else self.rgb

    def over_white(self) -> np.ndarray:
        """uint8 [H, W, 3]: as people see it on a white page."""
        view = self.view()
        if self.alpha is None:
            return view
        share = self.alpha[..., None].astype(np.float32) / np.iinfo(self.alpha.dtype).max
        return np.rint(255 + share * (view - np.float32(255))).astype(np.uint8)

    def one_channel(self) -> np.ndarray:
        """[H, W] for gray pictures: unchanged pixels keep their values exactly."""
        if not self.deep:
            return np.array(Image.fromarray(self.rgb).convert("L"))  # exact for three equal channels
        luma = np.rint(self.rgb @ np.array(LUMA)).clip(0, 65535).astype(np.uint16)
        same = (self.rgb == self._before).all(2)
        return np.where(same, self.rgb[..., 0], luma)


def to_eight(values: np.ndarray, top: float) -> np.ndarray:
    """uint16 of which `top` is white, to uint8, rounded."""
    return np.rint(np.minimum(values, np.float32(top)) * np.float32(255 / top)).astype(np.uint8)


def opened(image: Any) -> Picture:
    """A `Picture` of its own memory of a PIL picture (turned upright), an array or a tensor; a `Picture` itself.

    Raises UserError for another kind, shape or range: arrays are uint8 or uint16 [H, W, 3 or 4], tensors [3, H, W],
    uint8 or float in [-1, 1].
    """
    if isinstance(image, Picture):
        return Picture(image.rgb.copy(), image.alpha, image.gray)
    if isinstance(image, Image.Image):
        return from_pil_picture(image)
    if isinstance(image, np.ndarray):
        if image.dtype not in (np.uint8, np.uint16) or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise UserError(
                f"array picture: must be uint8 or uint16 [H, W, 3 or 4], RGB, is {image.dtype} {list(image.shape)}"
            )
        alpha = image[..., 3].copy() if image.shape[2] == 4 else None
        return Picture(np.array(image[..., :3], order="C"), alpha)
    if isinstance(image, Tensor):
        return Picture(_tensor_array(image))
    raise UserError(f"a picture must be a PIL image, an array or a tensor, not {type(image).__name__}")


def to_array(image: Any) -> np.ndarray:
    """uint8 RGB array [H, W, 3] of a picture of any kind that `opened` takes, over white where it is transparent."""
    return np.array(opened(image).over_white(), order="C")


def restore(picture: Picture, source: Any) -> Any:
    """A picture made by `opened(source)` and changed since, as the kind of `source`.

    PIL: mode L, LA, RGB, RGBA or I;16 with no metadata but a fitting colour profile. Float tensors keep the exact
    values of unchanged pixels.
    """
    if isinstance(source, Picture):
        return picture
    if isinstance(source, Image.Image):
        made = to_pil_picture(picture)
        made.info = {"icc_profile": profile} if (profile := colour_profile(source)) else {}
        return made
    if isinstance(source, np.ndarray):
        return picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
    out = torch.from_numpy(picture.rgb).permute(2, 0, 1).to(source.device)
    if not source.is_floating_point():
        return out.contiguous()
    same = out == to_uint8(source)
    return torch.where(same, source.detach(), to_float(out).to(source.dtype))


def from_pil_picture(image: Image.Image) -> Picture:
    """Upright; 16-bit gray stays so; CMYK and LAB become RGB, by the profile where there is one; floats 8 bits."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise UserError("a picture of 32 bits a pixel: only 8 and 16 can be anonymised, convert it first")
        return Picture(np.repeat(values.astype(np.uint16)[..., None], 3, axis=2), gray=True)
    if image.mode == "F":
        from a3gan.data.ranges import upright_rgb

        return Picture(np.array(upright_rgb(image)), gray=True)
    if image.mode in ("CMYK", "LAB"):
        return Picture(np.array(_by_profile(image)))
    gray = is_gray(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        values = np.array(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(values[..., :3]), values[..., 3].copy(), gray)
    return Picture(np.array(image.convert("RGB")), gray=gray)


def to_pil_picture(picture: Picture) -> Image.Image:
    """PIL picture of mode L, LA, RGB, RGBA, or I;16 for gray of 16 bits; UserError for other pictures of 16 bits."""
    if picture.deep and (picture.alpha is not None or not picture.gray):
        raise UserError("Pillow holds no colour or transparency of 16 bits; write such pictures with `media.images`")
    made = Image.fromarray(picture.one_channel() if picture.gray else picture.rgb)
    if picture.alpha is not None:
        made.putalpha(Image.fromarray(picture.alpha))
    return made


def is_gray(picture: Image.Image) -> bool:
    """Whether a PIL picture has no colour, at any depth."""
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def colour_profile(picture: Image.Image) -> bytes | None:
    """A PIL picture's ICC profile, if it still fits the gray or RGB that `opened` makes of the picture."""
    profile = picture.info.get("icc_profile")
    # Bytes 16 to 20 of a profile name its colour space: one of CMYK describes neither.
    return profile if profile and profile[16:20] == (b"GRAY" if is_gray(picture) else b"RGB ") else None


def _by_profile(image: Image.Image) -> Image.Image:
    """CMYK or LAB to sRGB: through its profile, or as Pillow does it where there is none that can be read."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    try:
        if profile or image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        if image.mode == "LAB":
            raise UserError(f"its LAB colours cannot be converted ({error}); convert it to RGB first") from error
    return image.convert("RGB")


def _tensor_array(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise UserError(f"tensor picture: must be uint8 or float [3, H, W], is {image.dtype} {list(image.shape)}")
    if image.is_floating_point():
        low, high = (float(v) for v in image.detach().aminmax()) if image.numel() else (0.0, 0.0)
        # A little beyond is resampling's overshoot; NaN fails both comparisons.
        if not (low >= -1.5 and high <= 1.5):
            raise UserError(f"float picture: values from {low:.3g} to {high:.3g}; must be in [-1, 1] (or uint8)")
        image = to_uint8(image)
    return np.array(image.detach().cpu().permute(1, 2, 0).numpy(), order="C")
