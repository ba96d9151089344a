"""What a video file says of itself: `VideoInfo`, and the refusals that come before the first frame."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a3gan.errors import UserError
from a3gan.media.video_pixels import FULL, LIMITED, Turn

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = tuple(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .wmv .asf .flv .3gp .3g2 .ogv".split()
)
"""What a folder is searched for, in lower case."""
# Values of ITU-T H.273, which FFmpeg's numbers follow.
PQ, HLG = 16, 18
UNSPECIFIED, BT709, BT601, BT2020 = 2, 1, 5, 9
IPT_AND_LIKE = (13, 14, 15, 16, 17)  # matrices of ICtCp and constant-luminance systems: swscale has none of them
HDR_NAMES = {PQ: "PQ, as in HDR10 and Dolby Vision", HLG: "HLG"}


@dataclass(frozen=True)
class Colour:
    """Tags as in ITU-T H.273, and `matrix`: the one that is used (a guess where the tag is missing)."""

    range: int = LIMITED
    space: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = BT601


@dataclass(frozen=True)
class VideoInfo:
    """A video as its reader found it.

    width, height: upright, in pixels. rotation: clockwise degrees that the reader turns the stored pixels by.
    frames: as the file's header says, None where it does not. duration: seconds of the video track, None if unknown.
    rate: average frames per second. time_base: seconds per tick of `pts`. variable: the frame rate varies. audio,
    subtitles: number of tracks. dropped: tracks that will not be written, in words. notes: what else a person should
    know (10 bits become 8, ...). sample_aspect: width of a pixel over its height, upright.
    """

    path: Path
    width: int
    height: int
    rotation: int
    frames: int | None
    duration: float | None
    rate: Fraction
    time_base: Fraction
    variable: bool
    audio: int
    subtitles: int
    dropped: tuple[str, ...]
    codec: str
    pix_fmt: str
    bit_depth: int
    colour: Colour = field(default_factory=Colour)
    sample_aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()

    @property
    def expected_frames(self) -> int | None:
        """`frames`, or duration times rate: for a progress bar."""
        if self.frames or self.duration is None:
            return self.frames
        return max(1, round(self.duration * self.rate))


def is_video(path: str | Path) -> bool:
    """Whether the name ends like a video's. Nothing is opened."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def reason(error: BaseException) -> str:
    """One line of what FFmpeg or the system said, without the file's name (which the caller puts in front)."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "no space left on the disk"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if number == errno.EROFS:
        return "the disk is read-only"
    text = getattr(error, "strerror", None) or str(error).split("] ", 1)[-1]
    return " ".join(str(text).split()) or type(error).__name__


def open_input(path: Path) -> av.container.InputContainer:
    """Opens a file for reading. UserError: it is absent, unreadable or no video file that is whole."""
    import av

    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    try:
        # Names of chapters and tracks may be in any encoding: they must not stop the pictures.
        return av.open(str(path), metadata_errors="ignore")
    except PermissionError as error:
        raise UserError(f"{path}: permission denied") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path}: no video that can be read, or cut off before its index ({reason(error)})") from error


def pictures_of(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """The track of moving pictures. UserError: there is none, or nothing here decodes it."""
    found = [s for s in container.streams.video if not _is_attached(s)]
    if not found:
        raise UserError(f"{path}: has no video track{' (sound only)' if container.streams.audio else ''}")
    stream = found[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: nothing here decodes its video track (unknown codec); convert it to H.264 first")
    return stream


def _is_attached(stream: Any) -> bool:
    """Cover pictures: they may show the very face, and are one frame long."""
    return "attached_pic" in disposition(stream) or "timed_thumbnails" in disposition(stream)


def disposition(stream: Any) -> tuple[str, ...]:
    """Names of the track's flags ('default', 'forced', ...)."""
    try:
        flags = stream.disposition
        return tuple(flag.name for flag in type(flags) if flag in flags and flag.name)
    except (AttributeError, TypeError):
        return ()


def describe(path: Path, container: Any, stream: Any, first: Any, turn: Turn) -> VideoInfo:
    """Info from the open file and its first decoded frame. UserError: HDR."""
    depth = max((c.bits for c in first.format.components), default=8)
    colour = _colour(stream, first)
    _refuse_hdr(path, colour)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    size = (first.height, first.width) if turn.swaps else (first.width, first.height)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
    base = stream.base_rate or rate
    kept = {stream.index, *(s.index for s in container.streams.audio), *(s.index for s in container.streams.subtitles)}
    dropped = tuple(_name(s) for s in container.streams if s.index not in kept)
    return VideoInfo(
        path=path,
        width=size[0],
        height=size[1],
        rotation=turn.degrees,
        frames=stream.frames or None,
        duration=track_seconds(container, stream),
        rate=Fraction(rate),
        time_base=Fraction(stream.time_base),
        variable=abs(float(rate) / float(base) - 1) > 0.02,
        audio=len(container.streams.audio),
        subtitles=len(container.streams.subtitles),
        dropped=dropped,
        codec=stream.codec_context.name,
        pix_fmt=first.format.name,
        bit_depth=depth,
        colour=colour,
        sample_aspect=(1 / aspect if turn.swaps else aspect) if aspect > 0 else Fraction(1),
        notes=tuple(_notes(first, depth, turn)),
    )


def _notes(first: Any, depth: int, turn: Turn) -> list[str]:
    notes = []
    if depth > 8:
        notes.append(f"{depth} bits a channel become 8")
    if first.interlaced_frame:
        notes.append("interlaced: both fields stay woven into one progressive frame")
    if any(word in first.format.name for word in ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap")):
        notes.append("transparency is dropped")
    if turn.degrees % 90:
        notes.append(f"the file asks for a turn of {turn.degrees} degrees, not a quarter; none is made")
    return notes


def _name(stream: Any) -> str:
    kind = "cover picture" if stream.type == "video" and _is_attached(stream) else stream.type
    title = stream.metadata.get("handler_name") or stream.metadata.get("filename") or stream.metadata.get("title") or ""
    kind = "second video" if kind == "video" else kind
    return f"{kind} track {stream.index}" + (f" ({title.strip()})" if title.strip() else "")


def track_seconds(container: Any, stream: Any) -> float | None:
    """Length of one track in seconds; of the whole file where the track does not say; None where neither does."""
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    written = stream.metadata.get("DURATION", "")  # Matroska: 00:00:04.200000000
    parts = written.split(":")
    try:
        if len(parts) == 3:
            return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2]) or None
    except ValueError:
        pass
    return container.duration / 1e6 if container.duration and container.duration > 0 else None


def _colour(stream: Any, first: Any) -> Colour:
    context = stream.codec_context

    def tag(name: str, unknown: int) -> int:
        value = getattr(first, name, None)
        value = getattr(context, name, None) if value in (None, unknown) else value
        return unknown if value is None else int(value)

    rgb = first.format.is_rgb
    space, depth_range = tag("colorspace", UNSPECIFIED), tag("color_range", 0)
    if first.format.name.startswith("yuvj"):
        depth_range = FULL
    if rgb:  # whatever is written is YUV: as video usually is
        space, depth_range = UNSPECIFIED, LIMITED
    if space in (0, 3):  # RGB's own tag on YUV, and 'reserved': both are mistakes
        space = UNSPECIFIED
    # Players take untagged video of more than 576 lines for BT.709, the rest for BT.601. Read and written by the same
    # guess, unchanged pixels keep their values either way.
    matrix = space if space != UNSPECIFIED else BT709 if max(first.width, first.height) > 1024 else BT601
    return Colour(
        range=depth_range if depth_range in (LIMITED, FULL) else LIMITED,
        space=space,
        primaries=_known(tag("color_primaries", UNSPECIFIED)),
        transfer=_known(tag("color_trc", UNSPECIFIED)),
        matrix=BT601 if matrix == 6 else matrix,
    )


def _known(tag: int) -> int:
    return UNSPECIFIED if tag in (0, 3) else tag


def _refuse_hdr(path: Path, colour: Colour) -> None:
    if colour.transfer in HDR_NAMES:
        raise UserError(
            f"{path}: is HDR ({HDR_NAMES[colour.transfer]}), which would come out grey; make an SDR copy first "
            "(record in SDR, or ffmpeg's filters zscale and tonemap)"
        )
    if colour.space in IPT_AND_LIKE:
        raise UserError(f"{path}: its colour matrix (H.273 number {colour.space}) cannot be read; make a BT.709 copy")
