"""Sound, subtitles, chapters and tags: from the original to the new file, packet by packet beside the pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from a3gan.errors import UserError
from a3gan.media import video_info
from a3gan.media.video_codecs import SOUND_HELD, TEXT_AS, TEXT_HELD, TEXTS

log = logging.getLogger(__name__)

# Everything else may name a person or a place: `com.apple.quicktime.location.ISO6709`, make, model, artist, comment ...
SAFE_TAGS = ("title", "creation_time", "date", "encoder")
NEVER_TAGS = ("rotate", "major_brand", "minor_version", "compatible_brands", "encoder", "duration", "bps", "number_of")
TRACK_TAGS = ("language", "title")
METADATA = ("strip", "safe", "all")


def tags_kept(tags: dict[str, str], metadata: str) -> dict[str, str]:
    """What of a file's tags is written. strip: none; safe: title and date; all: all but what describes the old file."""
    if metadata == "strip":
        return {}
    kept = {k: v for k, v in tags.items() if not k.lower().startswith(NEVER_TAGS)}
    return kept if metadata == "all" else {k: v for k, v in kept.items() if k.lower() in SAFE_TAGS}


class Tracks:
    """Sound and subtitle tracks of `source` on their way into an open output.

    Streams are copied as they are. Sound that the container cannot hold is encoded anew, and so are subtitles of text;
    subtitles that are pictures are left out then: no file fails over them. Both are in `notes`.

    Args:
        out: open output container, its picture track added, nothing written yet.
        sound: encoder for sound that has to be encoded anew. audio: take the sound.
        start, end: seconds of the source, as for `VideoReader`; only packets between them are taken.

    Raises:
        UserError: a sound track that neither fits nor can be encoded anew.
    """

    def __init__(
        self, source: Path, out: Any, target: Path, sound: str, *, audio: bool, metadata: str,
        start: float | None = None, end: float | None = None,
    ) -> None:  # fmt: skip
        self.source, self.target, self.out, self.metadata = source, target, out, metadata
        self.container = video_info.open_input(source)
        self.cut = start is not None
        self.zero = Fraction(self.container.start_time or 0, 1_000_000)
        self.end = None if end is None else self.zero + Fraction(end).limit_denominator(10**6)
        self.shift = Fraction(0)
        self.first: dict[int, Fraction] = {}  # track -> seconds of its first packet, as written
        self.notes: list[str] = []
        self.dropped: list[str] = []  # tracks left out, in words
        self._made: dict[int, Any] = {}
        try:
            if audio:
                for stream in self.container.streams.audio:
                    self._made[stream.index] = self._sound(stream, sound)
            for stream in self.container.streams.subtitles:
                if (made := self._text(stream)) is not None:
                    self._made[stream.index] = made
            self._tags()
        except BaseException:
            self.container.close()
            raise
        self.audio = sum(s.index in self._made for s in self.container.streams.audio)
        self.subtitles = sum(s.index in self._made for s in self.container.streams.subtitles)
        if start:
            self._seek(start)
        self._packets = self._demux()
        self._waiting: Any = None

    def close(self) -> None:
        """Closes the source."""
        self.container.close()

    def _template(self, stream: Any) -> Any:
        """A new track with the same codec; None where the container cannot hold it."""
        held = (SOUND_HELD if stream.type == "audio" else TEXT_HELD).get(self.out.format.name)
        if held is not None and stream.codec_context.name not in held:
            return None
        try:
            made = self.out.add_stream_from_template(stream)
        except ValueError as error:
            log.debug("%s: track %d: %s", self.source, stream.index, error)
            return None
        self._track_tags(made, stream)
        return made

    def _track_tags(self, made: Any, stream: Any) -> None:
        names = TRACK_TAGS if self.metadata != "strip" else ("language",)
        for name in names:
            if stream.metadata.get(name):
                made.metadata[name] = stream.metadata[name]
        try:
            made.disposition = stream.disposition
        except (AttributeError, TypeError, ValueError):  # read-only in older av
            pass

    def _text(self, stream: Any) -> Any:
        """How a subtitle track goes over; None where it cannot."""
        known = stream.codec_context is not None
        if (made := self._template(stream) if known else None) is not None:
            return _Copier(made)
        encoder = TEXT_AS.get(self.out.format.name)
        if known and encoder is not None and stream.codec_context.name in TEXTS:
            recoder = _TextRecoder.of(self.out, stream, encoder)
            if recoder is not None:
                self._track_tags(recoder.made, stream)
                self.notes.append(f"{_named(stream)} was encoded anew as {encoder} for {self.target.suffix}")
                return recoder
        self.dropped.append(f"{_named(stream)}, which {self.target.suffix} cannot hold (.mkv can)")
        log.warning("%s: without %s", self.target, self.dropped[-1])
        return None

    def _sound(self, stream: Any, encoder: str) -> Any:
        if stream.codec_context is None:
            raise UserError(f"{self.source}: {_named(stream)} is of a kind unknown here; use --no-audio")
        made = self._template(stream)
        if made is not None:
            return _Copier(made)
        context = stream.codec_context
        rate = 48000 if encoder == "libopus" else context.sample_rate
        try:
            made = self.out.add_stream(encoder, rate=rate, layout=context.layout.name)
            made.bit_rate = 128_000 * max(1, context.layout.nb_channels // 2)
        except ValueError as error:
            what = f"{self.source}: {_named(stream)} does not fit into {self.target.suffix}"
            raise UserError(f"{what}; write to .mkv or use --no-audio") from error
        self._track_tags(made, stream)
        self.notes.append(f"{_named(stream)} was encoded anew as {encoder} for {self.target.suffix}")
        return _Recoder(made)

    def _tags(self) -> None:
        self.out.metadata.update(tags_kept(dict(self.container.metadata), self.metadata))
        if self.metadata == "strip" or self.cut or self.end is not None:
            return  # times of chapters would be those of the whole
        if hasattr(self.container, "chapters") and self.container.chapters():
            chapters = self.container.chapters()
            if self.metadata == "safe":
                chapters = [{**c, "metadata": tags_kept(dict(c.get("metadata", {})), "safe")} for c in chapters]
            self.out.set_chapters(chapters)

    def _seek(self, start: float) -> None:
        import av

        try:
            self.container.seek(int((self.zero + Fraction(start)) * 1_000_000), backward=True)
        except av.error.FFmpegError as error:
            log.debug("%s: cannot seek (%s)", self.source, error)

    def begin(self, first: Fraction) -> None:
        """To be called with the time of the first picture, in seconds of the source, before the first `pump`."""
        self.begins = first
        if self.cut:
            self.shift = first

    def _demux(self) -> Iterator[tuple[Fraction, Any]]:
        import av

        wanted = [self.container.streams[i] for i in self._made]
        if not wanted:
            return
        try:
            for packet in self.container.demux(wanted):
                if packet.dts is None and packet.pts is None:
                    continue
                time = (packet.pts if packet.pts is not None else packet.dts) * packet.time_base
                if self.end is not None and time >= self.end:
                    if time > self.end + 2:
                        return
                    continue
                if self.cut and time < self.begins:
                    continue
                yield time, packet
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.source}: its sound cannot be read ({video_info.reason(error)})") from error

    def pump(self, until: Fraction | None) -> None:
        """Writes the packets up to `until` seconds of the source; all that are left for None."""
        while True:
            if self._waiting is None:
                self._waiting = next(self._packets, None)
            if self._waiting is None or (until is not None and self._waiting[0] > until):
                break
            time, packet = self._waiting
            self._waiting = None
            index = packet.stream.index
            self.first.setdefault(index, time - self.shift)
            self._made[index].take(packet, self.shift, self.out)
        if until is None:
            for maker in self._made.values():
                maker.finish(self.out)

    def first_sound(self) -> Fraction | None:
        """Seconds in the new file at which its first sound track begins."""
        times = [self.first[s.index] for s in self.container.streams.audio if s.index in self.first]
        return times[0] if times else None


def _named(stream: Any) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    kind = "sound" if stream.type == "audio" else stream.type
    return f"{kind} track {stream.index} ({codec})"


def _counts_only(out: Any) -> bool:
    """AVI numbers its packets and has no times. What begins before 0 (an encoder's lead-in) would push the pictures."""
    return out.format.name == "avi"


class _Copier:
    def __init__(self, made: Any) -> None:
        self.made = made
        self.last: int | None = None

    def take(self, packet: Any, shift: Fraction, out: Any) -> None:
        ticks = round(shift / packet.time_base)
        pts = (packet.dts if packet.pts is None else packet.pts) - ticks
        dts = pts if packet.dts is None else packet.dts - ticks
        if self.last is not None and dts <= self.last:  # a recorder's slip, or damage: containers want rising times
            dts = self.last + 1
        if _counts_only(out) and pts < 0:
            return
        packet.dts, packet.pts, self.last = dts, max(pts, dts), dts
        packet.stream = self.made
        out.mux(packet)

    def finish(self, out: Any) -> None:
        pass


class _Recoder:
    def __init__(self, made: Any) -> None:
        from av.audio.resampler import AudioResampler

        self.made = made
        context = made.codec_context
        self.resampler = AudioResampler(context.format, context.layout, context.sample_rate)

    def take(self, packet: Any, shift: Fraction, out: Any) -> None:
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= round(shift / frame.time_base)
            self._encode(self.resampler.resample(frame), out)

    def finish(self, out: Any) -> None:
        self._encode([*self.resampler.resample(None), None], out)

    def _encode(self, parts: list[Any], out: Any) -> None:
        for part in parts:
            for packet in self.made.encode(part):
                if not (_counts_only(out) and packet.pts is not None and packet.pts < 0):
                    out.mux(packet)


# Without styles of its own; what encoders of subtitles want to know before the first one.
_ASS = (
    "[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, PrimaryColour, "
    "SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, "
    "BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,"
    "&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, "
    "Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


class _TextRecoder:
    """Subtitles of text as another kind of them, at the same times."""

    def __init__(self, made: Any, decoder: Any) -> None:
        self.made, self.decoder = made, decoder

    @classmethod
    def of(cls, out: Any, stream: Any, encoder: str) -> _TextRecoder | None:
        """None where this av cannot (before 17)."""
        decoder = stream.codec_context
        if not hasattr(decoder, "encode_subtitle") or not hasattr(decoder, "decode2"):
            return None
        made = out.add_stream(encoder)
        made.codec_context.time_base = Fraction(1, 1000)
        made.codec_context.subtitle_header = decoder.subtitle_header or _ASS.encode()
        made.codec_context.open()
        return cls(made, decoder)

    def take(self, packet: Any, shift: Fraction, out: Any) -> None:
        import av

        try:
            texts = self.decoder.decode2(packet)
            new = self.made.codec_context.encode_subtitle(texts) if texts else None
        except (av.error.FFmpegError, ValueError) as error:  # one line that nobody can read
            log.debug("a subtitle is broken: %s", error)
            return
        if new is None or not packet.duration:  # the empty ones that mov_text puts between two
            return
        new.pts = new.dts = packet.pts - round(shift / packet.time_base)
        new.time_base, new.duration, new.stream = packet.time_base, packet.duration, self.made
        out.mux(new)

    def finish(self, out: Any) -> None:
        pass
