"""Putting changed parts of a picture into the decoded one that it was made of, for the encoder.

What no face touches reaches the encoder as the decoder gave it, to the bit, and is not converted back from RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from a3gan.media.video_pixels import ACCURATE_ROUNDING, BICUBIC, from_rgb_options

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in whole pixels
GRID = 32  # px that the sides of what is converted are multiples of: swscale sets itself up anew for each size
AROUND = 4  # px around a part that are converted with it, since colours are interpolated
SIZES = 64  # that are kept set up


class Patches:
    """Converts parts of pictures of one matrix (H.273) and range; even sides only, one thread at a time."""

    def __init__(self, matrix: int, full: bool) -> None:
        self._options = {"format": "yuv420p", "interpolation": BICUBIC | ACCURATE_ROUNDING}
        self._options |= from_rgb_options(matrix, full)
        self._made: dict[tuple[int, int], Any] = {}  # by size

    def frame(self, stored: Any, image: np.ndarray, boxes: Iterable[Box]) -> Any:
        """A new frame: the decoded picture, of one of `LAYOUTS`, with those boxes of uint8 RGB [H, W, 3] put in."""
        import av

        height, width = image.shape[:2]
        planes = np.empty((height * 3 // 2, width), np.uint8)
        targets = sheets_of(planes)
        for target, source in zip(targets, sheets(stored), strict=True):
            target[:] = source
        for box in boxes:
            (x0, y0, x1, y1), (left, top, right, bottom) = inner_and_outer(box, width, height)
            if x1 <= x0 or y1 <= y0:
                continue
            rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image[top:bottom, left:right]), "rgb24")
            part = self._reformatter(rgb).reformat(rgb, **self._options)
            for half, target, source in zip((1, 2, 2), targets, sheets(part), strict=True):
                inside = source[(y0 - top) // half : (y1 - top) // half, (x0 - left) // half : (x1 - left) // half]
                target[y0 // half : y1 // half, x0 // half : x1 // half] = inside
        return av.VideoFrame.from_numpy_buffer(planes, "yuv420p")

    def _reformatter(self, frame: Any) -> Any:
        from av.video.reformatter import VideoReformatter

        key = (frame.width, frame.height)
        if key not in self._made:
            if len(self._made) >= SIZES:
                self._made.clear()
            self._made[key] = VideoReformatter()
        return self._made[key]


def inner_and_outer(box: Box, width: int, height: int) -> tuple[Box, Box]:
    """The box grown to even numbers, and with what is to be converted around it; both within the picture."""
    low, high = box[:2], box[2:]
    inner, outer = [], []
    for a, b, length in zip(low, high, (width, height), strict=True):
        a, b = max(0, a) // 2 * 2, min(length, -(-b // 2) * 2)
        side = min(length, -(-(b - a + 2 * AROUND) // GRID) * GRID)
        start = min(max(0, (a + b - side) // 4 * 2), length - side)
        inner.append((a, b))
        outer.append((start, start + side))
    (x0, x1), (y0, y1) = inner
    (left, right), (top, bottom) = outer
    return (x0, y0, x1, y1), (left, top, right, bottom)


def sheets(frame: Any) -> list[np.ndarray]:
    """The three planes of a 4:2:0 frame, without padding: [H, W] and twice [H / 2, W / 2], memory of the frame's."""
    rows = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size) for p in frame.planes]
    return [row[: p.height, : p.width] for row, p in zip(rows, frame.planes, strict=True)]


def sheets_of(planes: np.ndarray) -> list[np.ndarray]:
    """The same of one array [3 H / 2, W] that holds all three, one after the other."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    colours = planes[height:].reshape(2, height // 2, width // 2)
    return [planes[:height], colours[0], colours[1]]
