"""Decoded pictures to upright arrays: turns of the display matrix, colour conversion and scaling by swscale."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITED, FULL = 1, 2  # ranges of YUV, numbered as in FFmpeg
# swscale's flags. Its fast way from YUV to RGB darkens by one level and errs by 2.7 levels on average, on smooth
# pictures too; the exact one errs by 0.5 and costs 4 ms in place of 2 for 1080p, as planes of which OpenCV then makes
# pixels (10 ms as pixels at once; the same to the bit, or to 1 in a thousandth of the values where a side is odd).
# Detectors do not mind: scaled frames take the fast way.
LAYOUTS = ("yuv420p", "yuvj420p")  # of 8 bits, colours at half the width and height
AREA, BILINEAR, BICUBIC = 0x20, 0x2, 0x4
ACCURATE_ROUNDING, FULL_CHROMA = 0x40000, 0x2000 | 0x4000
EXACT = BILINEAR | ACCURATE_ROUNDING | FULL_CHROMA


@dataclass(frozen=True)
class Turn:
    """What makes stored pixels upright: a transposition first, then flips. degrees: clockwise, of the turn."""

    swaps: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    degrees: int = 0

    @staticmethod
    def of(frame: Any) -> Turn:
        """From the display matrix of a decoded frame (ISO/IEC 14496-12, 8.5.2); mirrors included."""
        matrix = None
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except (AttributeError, KeyError, ValueError):
            pass
        if matrix is None:
            return Turn.clockwise(-getattr(frame, "rotation", 0))
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        degrees = round(np.degrees(np.arctan2(b, a))) % 360
        if degrees % 90 and min(abs(a), abs(b)) > 0.02 * max(abs(a), abs(b)):
            return Turn(degrees=degrees)
        # A pixel at (x, y) goes to (a x + c y, b x + d y), y downwards.
        if abs(a) >= abs(b):
            return Turn(False, d < 0, a < 0, 180 if a < 0 and d < 0 else 0)
        return Turn(True, b < 0, c < 0, 90 if b > 0 else 270)

    @staticmethod
    def clockwise(degrees: int) -> Turn:
        """A turn by a multiple of 90 degrees; of none for others."""
        degrees %= 360
        turns = {90: Turn(True, False, True, 90), 180: Turn(False, True, True, 180), 270: Turn(True, True, False, 270)}
        return turns.get(degrees, Turn(degrees=degrees))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """[H, W, ...] -> upright, contiguous."""
        if self.swaps:
            image = image.swapaxes(0, 1)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)


def scaled_size(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """Width and height with the longest side at most `longest`; never larger than given."""
    if not longest or max(width, height) <= longest:
        return width, height
    factor = longest / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    size = scaled_size(width, height, longest)
    return image if size == (width, height) else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


class Converter:
    """Decoded frames to upright arrays. Each of its shapes has one swscale context, kept from frame to frame."""

    def __init__(
        self, turn: Turn, matrix: int, full: bool, longest: int | None = None, size: tuple[int, int] | None = None
    ) -> None:
        """size: (width, height) as stored; frames of another size (some streams change it) are scaled to it."""
        self.turn, self.matrix, self.full, self.longest, self.size = turn, matrix, full, longest, size
        self._made: dict[tuple, Any] = {}  # by thread, as a context serves one at a time

    def stored(self, raw: Any) -> bool:
        """Whether the picture's planes are what an encoder may be given: upright, 4:2:0 of 8 bits, of the final size.

        Never for a converter that was told no size.
        """
        turned = self.turn.swaps or self.turn.flip_rows or self.turn.flip_columns
        size = (raw.width, raw.height)
        whole = size == self.size == scaled_size(*size, self.longest) and size[0] % 2 == size[1] % 2 == 0
        return whole and not turned and raw.format.name in LAYOUTS

    def rgb(self, raw: Any, longest: int | None = None, exact: bool = True) -> np.ndarray:
        """uint8 [H, W, 3]. exact: of the original size the right colours rather than quick ones."""
        return self.turn.apply(self._scaled(raw, "rgb24", longest or self.longest, exact))

    def gray(self, raw: Any, longest: int) -> np.ndarray:
        """uint8 [H, W], full range."""
        return self.turn.apply(self._scaled(raw, "gray", longest))

    def _scaled(self, raw: Any, kind: str, longest: int | None, exact: bool = True) -> np.ndarray:
        from av.video.reformatter import VideoReformatter

        width, height = scaled_size(*(self.size or (raw.width, raw.height)), longest)
        key = (width, height, kind, exact, threading.get_ident())
        if key not in self._made:
            self._made[key] = VideoReformatter()
        # Area averaging where much is left out: otherwise small faces flicker.
        exact = exact and (width, height) == (raw.width, raw.height)
        options: dict[str, Any] = {"interpolation": EXACT if exact else AREA}
        options |= one_thread() if raw.format.is_rgb else to_rgb_options(self.matrix, self.full)
        if exact and kind == "rgb24" and not raw.format.is_rgb:
            return merged(self._made[key].reformat(raw, width, height, "gbrp", **options))
        made = self._made[key].reformat(raw, width, height, kind, **options)
        return plane(made, 3 if kind == "rgb24" else 1)


@functools.cache
def swscale_is_new() -> bool:
    """Whether `reformat` hands frames to `sws_scale_frame` (av 17 and later)."""
    import av

    return int(av.__version__.split(".")[0]) >= 17


def to_rgb_options(matrix: int, full: bool) -> dict[str, int]:
    """Keywords of `reformat` from YUV of that matrix (H.273) and range. RGB itself always has the full range."""
    # Older ones leave the matrix at BT.601 where both ranges are given as the same; RGB's range they ignore.
    rgb = FULL if swscale_is_new() or not full else LIMITED
    options = {"src_colorspace": matrix, "src_color_range": FULL if full else LIMITED, "dst_color_range": rgb}
    return options | one_thread()


def from_rgb_options(matrix: int, full: bool) -> dict[str, int]:
    """Keywords of `reformat` to YUV of that matrix (H.273) and range."""
    rgb = FULL if swscale_is_new() or not full else LIMITED
    options = {"dst_colorspace": matrix, "dst_color_range": FULL if full else LIMITED, "src_color_range": rgb}
    return options | one_thread()


def one_thread() -> dict[str, int]:
    """Keyword for swscale: threads of its own cost more than they gain beside decoder and encoder."""
    return {"threads": 1} if swscale_is_new() else {}


def plane(frame: Any, channels: int, number: int = 0) -> np.ndarray:
    """One plane of a frame without its padding, [H, W, channels] or [H, W] for one channel; memory of the frame's."""
    one = frame.planes[number]
    rows = np.frombuffer(one, np.uint8).reshape(-1, one.line_size)[: frame.height, : frame.width * channels]
    return rows.reshape(frame.height, frame.width, channels) if channels > 1 else rows


def merged(frame: Any) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a frame in `gbrp`, whose planes are green, blue, red."""
    import cv2

    return cv2.merge([plane(frame, 1, number) for number in (2, 0, 1)])
