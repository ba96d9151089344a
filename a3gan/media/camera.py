"""A camera as a source of frames: `CameraReader`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from a3gan.errors import UserError
from a3gan.media import video_info
from a3gan.media.video_info import VideoInfo
from a3gan.media.video_pixels import FULL, Converter, Turn
from a3gan.media.video_read import Frame

MICROSECOND = Fraction(1, 1_000_000)
# platform -> FFmpeg's input device and what it calls camera number %d
DEVICES = {
    "linux": ("v4l2", "/dev/video%d"),
    "darwin": ("avfoundation", "%d:none"),
    "win32": ("dshow", "video=@device_%d"),
}


def camera_index(name: str | int) -> int | None:
    """'cam', 'cam0', 'webcam:1', '0', 2 -> the camera's number; None for what names no camera (a file)."""
    found = re.fullmatch(r"(?:(?:web)?cam(?:era)?:?)?(\d*)", str(name).strip().lower())
    if not found or not str(name).strip():
        return None
    return int(found.group(1) or 0)


class CameraReader:
    """Frames of a camera until it is closed: iterates as `VideoReader` does, without an end.

    Times are microseconds since the first frame.

    Args:
        index: number of the camera, or a name that `camera_index` knows.
        size, rate: what to ask of the camera; None: its own choice.
        source: frames from elsewhere in place of a camera: arrays uint8 RGB [H, W, 3] (for tests, or other drivers).

    Raises:
        UserError: no such camera, no access, or no picture from it.
    """

    def __init__(
        self,
        index: int | str = 0,
        *,
        size: tuple[int, int] | None = None,
        rate: float | None = None,
        source: Iterable[np.ndarray] | None = None,
        longest: int | None = None,
    ) -> None:
        number = camera_index(index)
        if number is None:
            raise UserError(f"{index}: names no camera; use cam, cam0, cam1, ...")
        self.name, self.longest = f"camera {number}", longest
        self.broken = self.damaged = self.read = 0
        self._container: Any = None
        if source is None:
            source = self._from_device(number, size, rate)
        self._source = iter(source)
        self._first = next(self._source, None)
        if self._first is None:
            raise UserError(f"{self.name}: gives no picture")
        self.info = self._describe(rate or 30.0)

    def __enter__(self) -> CameraReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the camera."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _describe(self, rate: float) -> VideoInfo:
        first = self._first
        height, width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        return VideoInfo(
            path=Path(self.name), width=width, height=height, rotation=0, frames=None, duration=None,
            rate=Fraction(rate).limit_denominator(1001), time_base=MICROSECOND, variable=True, audio=0, subtitles=0,
            dropped=(), codec="camera", pix_fmt="rgb24", bit_depth=8,
        )  # fmt: skip

    def _from_device(self, number: int, size: tuple[int, int] | None, rate: float | None) -> Iterator[Any]:
        import av

        kind, pattern = DEVICES.get(sys.platform, DEVICES["linux"])
        options = {} if size is None else {"video_size": f"{size[0]}x{size[1]}"}
        options |= {} if rate is None else {"framerate": f"{rate:g}"}
        try:
            self._container = av.open(_device_name(kind, pattern, number), format=kind, options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{self.name}: cannot be opened ({video_info.reason(error)})") from error
        return self._decode()

    def _decode(self) -> Iterator[Any]:
        import av

        while self._container is not None:
            try:
                for packet in self._container.demux(video=0):
                    try:
                        yield from packet.decode()
                    except av.error.InvalidDataError:
                        self.broken += 1
            except (av.error.BlockingIOError, BlockingIOError):  # avfoundation: no picture yet
                time.sleep(0.005)
            except (av.error.FFmpegError, OSError) as error:
                if self._container is None:
                    return
                raise UserError(f"{self.name}: stopped ({video_info.reason(error)})") from error

    def __iter__(self) -> Iterator[Frame]:
        convert: Converter | None = None
        begun, last = time.monotonic(), -1
        item = self._first
        while item is not None:
            last = max(last + 1, round((time.monotonic() - begun) * 1e6))
            if isinstance(item, np.ndarray):
                frame = Frame(self.read, last, item)
            else:
                if convert is None:
                    full = item.format.name.startswith("yuvj") or item.color_range == FULL
                    convert = Converter(Turn(), video_info.BT601, full, self.longest)
                frame = Frame(self.read, last, raw=item, convert=convert)
            self.read += 1
            yield frame
            item = next(self._source, None)


def _device_name(kind: str, pattern: str, number: int) -> str:
    """DirectShow knows cameras by name only."""
    if kind != "dshow":
        return pattern % number
    from av.device import enumerate_input_devices  # av 15 and later

    names = [d.name for d in enumerate_input_devices("dshow") if "video" in str(d.media_types).lower()]
    if number >= len(names):
        raise ValueError(f"{len(names)} cameras found")
    return f"video={names[number]}"
