"""Reading a video frame by frame: `VideoReader`."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from a3gan.errors import UserError
from a3gan.media import video_info
from a3gan.media.video_info import VideoInfo
from a3gan.media.video_pixels import FULL, Converter, Turn, scaled_size, shrink

log = logging.getLogger(__name__)

DURATION_IN_HEADER = ("mp4", "matroska", "avi", "flv", "asf")  # where a shorter track than announced means a cut file


class Frame:
    """One picture of a video.

    index: 0-based, counted from the reader's start. pts: in `info.time_base`. damaged: the decoder had to guess parts
    of it. image: uint8 RGB [H, W, 3], upright, converted when first asked for (in the asking thread) and kept.
    """

    __slots__ = ("_convert", "_image", "_raw", "damaged", "index", "pts")

    def __init__(
        self, index: int, pts: int, image: np.ndarray | None = None, *, damaged: bool = False, raw: Any = None,
        convert: Converter | None = None,
    ) -> None:  # fmt: skip
        self.index, self.pts, self.damaged = index, pts, damaged
        self._image, self._raw, self._convert = image, raw, convert

    @property
    def image(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        if self._image is None:
            self._image = self._convert.rgb(self._raw)
        return self._image

    @image.setter
    def image(self, value: np.ndarray) -> None:
        self._image = value

    @property
    def stored(self) -> Any:
        """The decoded picture, if an encoder can be given it as it is (`Converter.stored`); else None."""
        return self._raw if self._raw is not None and self._convert.stored(self._raw) else None

    def small(self, longest: int) -> np.ndarray:
        """uint8 RGB whose longest side is at most `longest`, made straight from the decoded frame: cheap.

        For detectors: the colours are some levels off, also where `longest` is the frame's own.
        """
        if self._raw is None:
            return shrink(self.image, longest)
        return self._convert.rgb(self._raw, longest, exact=False)

    def gray(self, longest: int) -> np.ndarray:
        """uint8 [h, w] luma whose longest side is at most `longest`: cheaper still."""
        if self._raw is None:
            return np.asarray(shrink(self.image, longest) @ np.array([0.299, 0.587, 0.114]) + 0.5, np.uint8)
        return self._convert.gray(self._raw, longest)


class _Iteration:
    """A generator that another thread may close: FFmpeg crashes where a file is closed under its decoder."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self.frames, self.lock = frames, threading.Lock()

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> Frame:
        with self.lock:
            return next(self.frames)

    def close(self) -> None:
        with self.lock:
            self.frames.close()


class VideoReader:
    """The frames of a file, upright, in the order of presentation, with their exact times. A context manager.

    Every iteration starts over. Memory does not depend on the length. A frame that cannot be decoded is left out (the
    one before it is then shown for longer, sound stays in step) and counted in `broken`; a frame that the decoder had
    to patch is handed out with `damaged` set and counted in `damaged`.

    Args:
        path: the file.
        start, end: seconds from the beginning of the file; frames with start <= time < end are read.
        threads: of the decoder; 0: as many as cores.
        longest: scale to this longest side while the colours are converted; far cheaper than scaling afterwards.
            `scale` is then the factor (at most 1) and `size` (width, height) the size of `Frame.image`.

    Raises (here or while iterating):
        UserError: naming file and cause: absent, empty, no video, unknown codec, HDR, no frame at all, no frame between
            start and end, or a file that ends long before its header says.
    """

    def __init__(
        self,
        path: str | Path,
        start: float | None = None,
        end: float | None = None,
        threads: int = 0,
        *,
        longest: int | None = None,
    ) -> None:
        self.path, self.start, self.end = Path(path), start, end
        self.threads, self.longest = threads, longest
        self.broken = self.damaged = self.read = 0
        self._running: list[weakref.ref] = []
        if start is not None and (start < 0 or (end is not None and end <= start)):
            raise UserError(f"{path}: start {start} s to end {end} s is no stretch of time")
        self.info = self._probe()
        self.size = scaled_size(self.info.width, self.info.height, longest)
        self.scale = max(self.size) / max(self.info.width, self.info.height)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all iterations, also those of other threads (at their next frame)."""
        while self._running:
            frames = self._running.pop()()
            if frames is not None:
                frames.close()

    def _probe(self) -> VideoInfo:
        with video_info.open_input(self.path) as container:
            stream = video_info.pictures_of(container, self.path)
            first = next(self._decode(container, stream), None)
            if first is None:
                raise UserError(f"{self.path}: {self._why_nothing()}")
            self._turn, self._stored = Turn.of(first), (first.width, first.height)
            info = video_info.describe(self.path, container, stream, first, self._turn)
            self._container_kind = container.format.name
            self._span = container.duration
        self.broken = 0
        return info

    def _why_nothing(self) -> str:
        if self.broken:
            return f"none of its {self.broken} frames can be decoded; the file is damaged"
        return "holds no frame"

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Raw frames, broken ones counted."""
        import av

        try:
            for packet in container.demux(stream):
                try:
                    yield from packet.decode()
                except (av.error.FFmpegError, ValueError) as error:
                    if isinstance(error, av.error.EOFError):
                        return
                    self.broken += packet.size > 0
                    log.debug("%s: a frame is broken: %s", self.path, error)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            cause = video_info.reason(error)
            raise UserError(f"{self.path}: cannot be read to its end; cut off or damaged ({cause})") from error

    def __iter__(self) -> Iterator[Frame]:
        frames = _Iteration(self._iterate())
        self._running.append(weakref.ref(frames))
        return frames

    def _iterate(self) -> Iterator[Frame]:
        self.broken = self.damaged = self.read = 0
        colour = self.info.colour
        convert = Converter(self._turn, colour.matrix, colour.range == FULL, self.longest, self._stored)
        with video_info.open_input(self.path) as container:
            yield from self._frames(container, convert)

    def _frames(self, container: Any, convert: Converter) -> Iterator[Frame]:
        stream = video_info.pictures_of(container, self.path)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self.threads
        tick = self.info.time_base
        zero = Fraction(container.start_time or 0, 1_000_000)
        first, last = (
            None if s is None else zero + Fraction(s).limit_denominator(10**6) for s in (self.start, self.end)
        )
        if first is not None and self.start > 0:
            self._seek(container, stream, first)
        clock = _Clock(max(1, round(1 / (self.info.rate * tick))))
        for raw in self._decode(container, stream):
            pts = clock.time(raw, tick)
            if first is not None and pts * tick < first - tick / 2:
                continue
            if last is not None and pts * tick >= last - tick / 2:
                break
            self.damaged += bool(raw.is_corrupt)
            self.read += 1
            yield Frame(self.read - 1, pts, damaged=bool(raw.is_corrupt), raw=raw, convert=convert)
        else:
            self._check_end(clock, tick)
        if not self.read:
            asked = self.start is not None or self.end is not None
            raise UserError(f"{self.path}: " + ("no frame in the time asked for" if asked else self._why_nothing()))

    def _seek(self, container: Any, stream: Any, time: Fraction) -> None:
        import av

        try:
            container.seek(int(time / stream.time_base), stream=stream, backward=True, any_frame=False)
        except av.error.FFmpegError as error:  # no index: everything before is decoded and passed over
            log.debug("%s: cannot seek (%s)", self.path, error)

    def _check_end(self, clock: _Clock, tick: Fraction) -> None:
        """UserError where the pictures end long before the header says, and the sound as well."""
        info, kind = self.info, self._container_kind
        said = info.duration
        if clock.first is None or said is None or not any(k in kind for k in DURATION_IN_HEADER):
            return
        # FFmpeg shortens a cut AVI's duration to what is there, but leaves the number of frames.
        in_avi = kind == "avi" and info.frames
        said = max(said, info.frames / float(info.rate)) if in_avi else said
        seconds = float((clock.last - clock.first) * tick + 1 / info.rate) + (self.start or 0)
        slack = max(0.5, 3 / float(info.rate), 0.01 * said)
        if seconds < said - slack and (in_avi or _end_of_all(self.path) < (self._span or 0) / 1e6 - slack):
            raise UserError(
                f"{self.path}: ends after {seconds:.1f} s where its header says {said:.1f} s; "
                "the file is cut off or damaged (copy it again, or take the good part with --end-time)"
            )


class _Clock:
    """Times of frames: as the file has them; where they are missing or run backwards, one step after the last."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.first: int | None = None
        self.last: int | None = None

    def time(self, raw: Any, tick: Fraction) -> int:
        pts = raw.pts if raw.pts is not None else raw.dts
        if pts is not None and raw.time_base and raw.time_base != tick:
            pts = round(pts * raw.time_base / tick)
        if self.last is None:
            pts = 0 if pts is None else pts
            self.first = pts
        elif pts is None or pts <= self.last:
            pts = self.last + (self.step if pts is None else 1)
        self.last = pts
        return pts


def _end_of_all(path: Path) -> float:
    """Seconds at which the last packet of any track ends. Reads the whole file, decodes nothing."""
    import av

    end = 0.0
    with video_info.open_input(path) as container:
        zero = (container.start_time or 0) / 1e6
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - zero)
        except (av.error.FFmpegError, OSError):
            pass
    return end
