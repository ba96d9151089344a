"""Which encoder and which container belong to a file name, with settings that look alike: ours, measured on two cores.

Default preset: libx264 'superfast'. 1080p frames per second on two cores and bytes at crf 18 (50 frames of people):
ultrafast 67 (5.1 MB), superfast 40 (1.9 MB), veryfast 28 (1.4 MB), faster 17, medium 13 (1.5 MB); all within 1.2 dB.
Its search for the best number of B-frames is left out: that takes a seventh of its time at 1080p and made larger files
(2.1 in place of 1.8 MB for 60 frames of people, 2.7 and 2.6 MB for 250 of a driver; 0.4 dB worse, 0.1 dB better).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from a3gan.errors import UserError
from a3gan.media.threads import codec_threads
from a3gan.media.video_info import UNSPECIFIED, VideoInfo
from a3gan.media.video_pixels import LIMITED

H264 = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "mpeg4")
# suffix -> FFmpeg's muxer, encoders in order of preference, encoder for sound that the container cannot hold
CONTAINERS: dict[str, tuple[str, tuple[str, ...], str]] = {
    ".mp4": ("mp4", H264, "aac"),
    ".m4v": ("mp4", H264, "aac"),
    ".mov": ("mov", H264, "aac"),
    ".mkv": ("matroska", H264, "aac"),
    ".avi": ("avi", ("mpeg4", "libx264"), "libmp3lame"),
    ".webm": ("webm", ("libvpx-vp9", "libvpx", "libsvtav1", "libaom-av1"), "libopus"),
    ".ts": ("mpegts", (*H264[:-1], "mpeg2video"), "aac"),
    ".mts": ("mpegts", (*H264[:-1], "mpeg2video"), "aac"),
    ".m2ts": ("mpegts", (*H264[:-1], "mpeg2video"), "aac"),
    ".mpg": ("mpeg", ("mpeg2video",), "mp2"),
    ".mpeg": ("mpeg", ("mpeg2video",), "mp2"),
    ".vob": ("vob", ("mpeg2video",), "mp2"),
    ".wmv": ("asf", ("wmv2",), "wmav2"),
    ".asf": ("asf", ("wmv2",), "wmav2"),
    ".flv": ("flv", ("libx264", "flv"), "aac"),
    ".3gp": ("3gp", H264, "aac"),
    ".3g2": ("3g2", H264, "aac"),
    ".ogv": ("ogg", ("libtheora", "libvpx"), "libopus"),
}
# FFmpeg does not know for these what sound they hold, and fails in the middle.
SOUND_HELD = {
    "mpeg": ("mp1", "mp2", "mp3", "ac3", "dts", "dca"),
    "vob": ("mp2", "ac3", "dts", "dca"),
    "ogg": ("vorbis", "opus", "flac", "speex"),
    "mpegts": ("aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "dca", "opus", "truehd"),
}
TEXT_HELD = {
    "mpeg": (), "vob": ("dvd_subtitle", "dvdsub"), "ogg": (), "mpegts": ("dvb_subtitle", "dvbsub"), "avi": (),
    "mp4": ("mov_text", "dvd_subtitle", "dvdsub"), "mov": ("mov_text",), "webm": ("webvtt",), "asf": (), "flv": (),
}  # fmt: skip
TEXTS = ("srt", "subrip", "ass", "ssa", "webvtt", "mov_text", "text")  # subtitles that are no pictures
TEXT_AS = {
    "mp4": "mov_text", "mov": "mov_text", "3gp": "mov_text", "3g2": "mov_text", "matroska": "srt", "webm": "webvtt",
}  # fmt: skip
CRF = {
    "libx264": 18, "libx264rgb": 18, "libx265": 20, "libvpx-vp9": 24, "libvpx": 10, "libsvtav1": 24, "libaom-av1": 24,
}  # fmt: skip
BY_QUANTISER = ("mpeg4", "mpeg2video", "mpeg1video", "wmv2", "wmv1", "msmpeg4", "msmpeg4v2", "flv", "mjpeg", "h263p")
SAYS_COLOUR = ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1", "ffv1", "mjpeg", "prores_ks")
EVEN_ONLY = ("264", "265", "hevc", "av1", "wmv")  # parts of names: their 4:2:0 pictures have even sides
MPEG2_RATES = tuple(Fraction(*r) for r in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1)))  # fmt: skip  # noqa: E501
PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuv422p10le", "yuv420p10le", "yuv444p10le", "nv12")
LOSSLESS = {"ffv1": "bgr0", "libx264rgb": "rgb24", "huffyuv": "rgb24", "utvideo": "gbrp", "png": "rgb24"}


@dataclass(frozen=True)
class Encoding:
    """How to write one file: muxer, encoder with options, pixel format, ticks, and what sound becomes at need.

    threads: of the encoder; 0 = as it likes.
    """

    muxer: str
    codec: str
    pix_fmt: str
    time_base: Fraction
    rate: Fraction
    sound: str
    colour_range: int
    options: dict[str, str] = field(default_factory=dict)
    threads: int = 0


def choose(path: Path, info: VideoInfo, codec: str | None, crf: float | None, preset: str | None) -> Encoding:
    """Encoding for `path`. UserError: a suffix, codec or setting that does not work, with those that do."""
    if path.suffix.lower() not in CONTAINERS:
        raise UserError(f"{path}: cannot write '{path.suffix}' videos; use one of {' '.join(CONTAINERS)}")
    muxer, preferred, sound = CONTAINERS[path.suffix.lower()]
    codec = _available(path, codec, preferred)
    options = _quality(codec, crf) | _speed(codec, preset)
    if muxer == "avi" and codec.startswith("libx26"):
        options["bf"] = "0"  # AVI has no times of presentation: frames must be stored in their order
    rate = Fraction(info.rate).limit_denominator(1_000_000)
    if codec in ("mpeg2video", "mpeg1video"):
        rate = min(MPEG2_RATES, key=lambda r: abs(r - rate))
    return Encoding(
        muxer=muxer,
        codec=codec,
        pix_fmt=_pixels(path, codec, info),
        time_base=_ticks(info, codec, muxer, rate),
        rate=rate,
        sound=sound,
        colour_range=info.colour.range if codec in SAYS_COLOUR else LIMITED,
        options=options,
        threads=_threads(codec, preset),
    )


def _available(path: Path, codec: str | None, preferred: tuple[str, ...]) -> str:
    import av

    if codec is not None:
        codec = {"h264": "libx264", "x264": "libx264", "hevc": "libx265", "h265": "libx265", "x265": "libx265",
                 "vp9": "libvpx-vp9", "vp8": "libvpx", "av1": "libsvtav1"}.get(codec, codec)  # fmt: skip
        if not _encodes(codec):
            raise UserError(f"{path}: no encoder named '{codec}' here; try {', '.join(filter(_encodes, preferred))}")
        return codec
    found = next(filter(_encodes, preferred), None)
    if found is None:
        raise UserError(f"{path}: none of {', '.join(preferred)} is in this build of av {av.__version__}; use .mp4")
    return found


def _encodes(codec: str) -> bool:
    import av

    try:
        return av.Codec(codec, "w").type == "video"
    except (av.error.FFmpegError, ValueError):
        return False


def _quality(codec: str, crf: float | None) -> dict[str, str]:
    if codec in BY_QUANTISER:
        # Six steps of x264's scale double the quantiser; 2 looks like crf 18 (41.5 dB there, 41.9 here).
        q = 2.0 * 2 ** (((18 if crf is None else crf) - 18) / 6)
        return {"flags": "+qscale", "global_quality": str(round(118 * min(max(q, 1.0), 31.0)))}
    if codec not in CRF:
        if crf is not None:
            raise UserError(f"codec {codec} has no --crf; leave it away")
        return {}
    value = CRF[codec] if crf is None else crf
    if not 0 <= value <= 63:
        raise UserError(f"--crf {value}: between 0 (best) and 51 for H.264, 63 for VP9 and AV1")
    options = {"crf": f"{value:g}"}
    if codec.startswith("libvpx"):
        options |= {"b": "0"} if codec == "libvpx-vp9" else {"b": "20M"}
    return options


def _speed(codec: str, preset: str | None) -> dict[str, str]:
    if codec == "libx265":
        return {"preset": preset or "superfast", "x265-params": "log-level=error"}
    if codec in ("libx264", "libx264rgb"):
        return {"preset": preset} if preset else {"preset": "superfast", "b_strategy": "0"}
    if codec == "libsvtav1":
        return {"preset": preset or "10"}
    if codec.startswith("libvpx"):
        return {"deadline": "realtime", "cpu-used": preset or "7"} | ({"row-mt": "1"} if codec == "libvpx-vp9" else {})
    if codec == "libaom-av1":
        return {"usage": "realtime", "cpu-used": preset or "8", "row-mt": "1"}
    if preset is not None:
        raise UserError(f"codec {codec} has no --preset; leave it away")
    return {}


def _threads(codec: str, preset: str | None) -> int:
    """x264 with its default preset is as quick as a decoder; others need every core."""
    return codec_threads() if codec == "libx264" and preset is None else 0


def _pixels(path: Path, codec: str, info: VideoInfo) -> str:
    """4:2:0 wherever it can be, as that plays everywhere; 4:4:4 for odd sides of H.264 and its like."""
    import av

    formats = {f.name for f in av.Codec(codec, "w").video_formats or ()}
    if codec in LOSSLESS and (LOSSLESS[codec] in formats or not formats):
        return LOSSLESS[codec]
    odd = info.width % 2 or info.height % 2
    wanted = PIXELS
    if odd and any(part in codec for part in EVEN_ONLY):
        wanted = ("yuv444p", "yuvj444p", "yuv444p10le")
    found = next((name for name in wanted if name in formats), None)
    if found is None:
        what = f"pictures with an odd side ({info.width} x {info.height})" if odd else "8-bit video"
        raise UserError(f"{path}: codec {codec} cannot hold {what}; use --codec libx264 or another suffix")
    return found


def _ticks(info: VideoInfo, codec: str, muxer: str, rate: Fraction) -> Fraction:
    """The source's own time base, unless the format only has frame numbers or a short denominator."""
    own = Fraction(info.time_base)
    if muxer in ("avi", "ogg") or codec in ("mpeg2video", "mpeg1video"):
        own = 1 / rate
    if codec in ("mpeg4", "h263p", "flv") and max(own.denominator, own.numerator) > 65535:  # a field of 16 bits
        return Fraction(1, 60000) if info.variable and muxer != "avi" else 1 / rate.limit_denominator(1001)
    if max(own.denominator, own.numerator) > 2**31 - 1:
        return Fraction(1, 90000)
    return own


def colour_tags(info: VideoInfo, encoding: Encoding) -> dict[str, int]:
    """Attributes of the encoder's context."""
    if encoding.codec not in SAYS_COLOUR or encoding.pix_fmt in LOSSLESS.values():
        return {}
    colour = info.colour
    tags = {"color_range": encoding.colour_range, "colorspace": colour.space}
    tags |= {"color_primaries": colour.primaries, "color_trc": colour.transfer}
    return {name: value for name, value in tags.items() if value != UNSPECIFIED or name == "color_range"}
