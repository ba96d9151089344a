"""Writing a video: `VideoWriter`, whole and checked or not at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from a3gan.errors import UserError
from a3gan.media import video_info
from a3gan.media.video_codecs import LOSSLESS, choose, colour_tags
from a3gan.media.video_info import VideoInfo
from a3gan.media.video_patch import Box, Patches
from a3gan.media.video_pixels import ACCURATE_ROUNDING, BICUBIC, FULL, LAYOUTS, from_rgb_options, one_thread
from a3gan.media.video_tracks import METADATA, Tracks

log = logging.getLogger(__name__)
LEAD = Fraction(1, 2)  # seconds by which sound is fed ahead of the pictures


class VideoWriter:
    """Writes frames with the sound and subtitles of `source`. A context manager.

    Pictures go to a temporary name beside `path`. On a clean exit the rest of the sound follows, the file is synced,
    opened again and checked (size, number of frames, times, tracks, offset of the sound), then renamed to `path`. After
    an exception, a failed check or a killed process nothing is under that name (an older file stays as it was).

    Args:
        path: its suffix chooses the container.
        info: of the reader: size, times, colour.
        source: the original, for sound, subtitles, chapters and tags; None: pictures only.
        audio: False leaves the sound out.
        codec, crf, preset: of the encoder; None: H.264 at crf 18, preset superfast, where the container takes it.
        metadata: 'strip' (none), 'safe' (title and date; no places, devices or names) or 'all'.
        start, end: what the reader was given. With a start the new file begins at 0.

    Attributes:
        notes: what a person should know (sound encoded anew, ...).
        dropped: tracks of the source that are not in the file, in words.

    Raises:
        UserError: a suffix, codec, setting or track that does not work; a full or read-only disk; a failed check.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        source: str | Path | None,
        *,
        audio: bool = True,
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        metadata: str = "safe",
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        if metadata not in METADATA:
            raise UserError(f"--metadata {metadata}: one of {', '.join(METADATA)}")
        self.path, self.info, self.source = Path(path), info, None if source is None else Path(source)
        self.encoding = choose(self.path, info, codec, crf, preset)
        self.cut = start is not None
        self.written = 0
        self.dropped = info.dropped
        self.first_pts = self.last_pts = 0
        self._last_tick: int | None = None
        self._options = {"audio": audio, "metadata": metadata, "start": start, "end": end}
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._out: Any = None
        self._stream: Any = None
        self._file: Any = None
        self._tracks: Tracks | None = None
        self._start()

    @property
    def notes(self) -> list[str]:
        """What a person should know of this file."""
        return list(self._tracks.notes) if self._tracks else []

    def _start(self) -> None:
        import av

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Opened here, not by FFmpeg: so that a full disk is an error where it happens, and the file can be synced.
            self._file = open(self._temporary, "wb")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {video_info.reason(error)}") from error
        try:
            options = {"movflags": "use_metadata_tags"} if self._options["metadata"] == "all" else {}
            if self.encoding.muxer not in ("mp4", "mov"):
                options = {}
            self._out = av.open(self._file, "w", format=self.encoding.muxer, options=options)
            self._stream = self._picture_track()
            if self.source is not None:
                self._tracks = Tracks(self.source, self._out, self.path, self.encoding.sound, **self._options)
                self.dropped = (*self.info.dropped, *self._tracks.dropped)
            self._open_encoder()
        except UserError:
            self.abort()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._failed(error) from error
        except BaseException:
            self.abort()
            raise
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        colour, encoding = self.info.colour, self.encoding
        same = encoding.pix_fmt in LAYOUTS and encoding.colour_range == colour.range
        self._patches = Patches(colour.matrix, colour.range == FULL) if same else None

    def _picture_track(self) -> Any:
        encoding, info = self.encoding, self.info
        stream = self._out.add_stream(encoding.codec, rate=encoding.rate, options=encoding.options)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, encoding.pix_fmt
        context = stream.codec_context
        context.time_base = encoding.time_base
        stream.time_base = encoding.time_base
        context.thread_count = encoding.threads
        context.thread_type = "AUTO"
        if info.sample_aspect != 1:
            context.sample_aspect_ratio = info.sample_aspect
        for name, value in colour_tags(info, encoding).items():
            setattr(context, name, value)
        return stream

    def _open_encoder(self) -> None:
        """Now, so that a setting that does not work fails before the first frame."""
        self._stream.codec_context.open()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, image: np.ndarray, pts: int, stored: Any = None, changed: Sequence[Box] = ()) -> None:
        """Adds one frame.

        Args:
            image: uint8 RGB [H, W, 3] of the size in `info`.
            pts: in `info.time_base`, as the reader gave it; rising from frame to frame.
            stored: the decoded picture (`Frame.stored`) that the image differs from in the boxes `changed` only; what
                is outside them is then written as it was stored, where the encoder takes that.
        """
        import av

        if self._out is None:
            raise ValueError("the writer is closed")
        if image.shape != (self.info.height, self.info.width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"frame of {image.dtype} {image.shape}, not uint8 ({self.info.height}, {self.info.width}, 3)"
            )
        if self.written and pts <= self.last_pts:
            raise ValueError(f"time {pts} of frame {self.written} does not follow {self.last_pts}")
        now = pts * self.info.time_base
        try:
            if not self.written:
                self.first_pts = pts
                if self._tracks:
                    self._tracks.begin(now)
            if stored is not None and self._patches is not None:
                frame = self._patches.frame(stored, image, changed)
            else:
                frame = self._converted(image)
            frame.pts, frame.time_base = self._tick(pts), self.encoding.time_base
            self._out.mux(self._stream.encode(frame))
            if self._tracks:
                self._tracks.pump(now + LEAD)
        except (av.error.FFmpegError, OSError) as error:
            self.abort()
            raise self._failed(error) from error
        self.last_pts = pts
        self.written += 1

    def _tick(self, pts: int) -> int:
        """Time in the encoder's ticks: exact where its time base is the source's."""
        shift = self.first_pts if self.cut else 0
        tick = round((pts - shift) * self.info.time_base / self.encoding.time_base)
        if self._last_tick is not None:
            tick = max(tick, self._last_tick + 1)
        self._last_tick = tick
        return tick

    def _converted(self, image: np.ndarray) -> Any:
        import av

        pix_fmt = self.encoding.pix_fmt
        frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), "rgb24")
        if pix_fmt == "rgb24":
            return frame
        if pix_fmt in LOSSLESS.values():
            return self._reformatter.reformat(frame, format=pix_fmt, **one_thread())
        options = from_rgb_options(self.info.colour.matrix, self.encoding.colour_range == FULL)
        options["interpolation"] = BICUBIC | ACCURATE_ROUNDING
        return self._reformatter.reformat(frame, format=pix_fmt, **options)

    def close(self) -> None:
        """Finishes, checks and renames. A second call does nothing."""
        import av

        if self._out is None:
            return
        try:
            if not self.written:
                raise UserError(f"{self.path}: no frame was written")
            self._out.mux(self._stream.encode(None))
            if self._tracks:
                self._tracks.pump(None)
            self._out.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._check()
            os.replace(self._temporary, self.path)
        except UserError:
            self.abort()
            raise
        except (av.error.FFmpegError, OSError) as error:
            self.abort()
            raise self._failed(error) from error
        except BaseException:
            self.abort()
            raise
        self._out = None
        if self._tracks:
            self._tracks.close()

    def _check(self) -> None:
        from a3gan.media.video_check import check

        first = 0 if self.cut else self.first_pts
        tracks = self._tracks
        check(
            self._temporary,
            self.path,
            self.info,
            frames=self.written,
            length=float((self.last_pts - self.first_pts) * self.info.time_base),
            audio=tracks.audio if tracks else 0,
            subtitles=tracks.subtitles if tracks else 0,
            offset=float(tracks.first_sound() - first * self.info.time_base)
            if tracks and tracks.first_sound() is not None
            else None,
        )

    def abort(self) -> None:
        """Closes and removes what was written; nothing comes under the final name."""
        if self._tracks:
            self._tracks.close()
        for thing in (self._out, self._file):
            try:
                if thing is not None:
                    thing.close()
            except Exception as error:  # the disk may still be full; the file goes away all the same
                log.debug("%s: closing failed: %s", self._temporary, error)
        self._out = None
        self._temporary.unlink(missing_ok=True)

    def _failed(self, error: BaseException) -> UserError:
        text = f"{self.path}: cannot be written: {video_info.reason(error)}"
        if isinstance(error, OSError) and error.errno:
            return UserError(text)
        settings = " ".join(f"{k}={v}" for k, v in self.encoding.options.items())
        return UserError(f"{text} (encoder {self.encoding.codec} {settings}, {self.encoding.pix_fmt})")
