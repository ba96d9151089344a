"""Small video files for tests: `write_clip` (any frames) and `rendered_clip` (faces on known tracks)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

SOUND_RATE = 48000


def write_clip(
    path: str | Path,
    frames: Iterable[np.ndarray],
    rate: float | Fraction = 25,
    *,
    audio_tracks: int = 1,
    rotation: int = 0,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    size: tuple[int, int] | None = None,
    time_base: Fraction | None = None,
    pix_fmt: str | None = None,
    options: dict[str, str] | None = None,
    colour: dict[str, int] | None = None,
    audio_codec: str | None = None,
    subtitles: Sequence[tuple[float, float, str]] = (),
    metadata: dict[str, str] | None = None,
    cover: bool = False,
    format: str | None = None,
) -> Path:
    """Writes uint8 RGB frames [H, W, 3] (as stored: `rotation` only goes into the display matrix).

    rotation: degrees counter-clockwise that a player turns the picture by, as `av.VideoFrame.rotation` says it.
    pts: times in `time_base` (default: 1/rate; with pts 1/1000). subtitles: (start, end, text) in seconds.
    colour: attributes of the encoder's context and arguments of the conversion: color_range, colorspace, ...
    """
    import av

    path, rate = Path(path), Fraction(rate).limit_denominator(1001)
    tick = time_base or (1 / rate if pts is None else Fraction(1, 1000))
    frames = iter(frames)
    first = next(frames, None)
    height, width = first.shape[:2] if first is not None else (size or (64, 48))[::-1]
    pix_fmt = (
        pix_fmt
        or {"libx264rgb": "rgb24", "ffv1": "bgr0"}.get(codec)
        or ("yuv444p" if (width % 2 or height % 2) and "264" in codec else "yuv420p")
    )
    options = options if options is not None else _near_lossless(codec)
    with av.open(str(path), "w", format=format) as out:
        out.metadata.update(metadata or {})
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = tick
        stream.time_base = tick
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)  # av 17 and later; older ones skip such tests
        sounds = [_Sound(out, audio_codec, frequency=300 * (i + 1)) for i in range(audio_tracks)]
        text = _text_track(out, path, subtitles) if subtitles else None
        picture = _cover(out) if cover else None
        if picture is not None:
            out.mux(picture)
        index = 0
        while first is not None:
            frame = _frame(first, pix_fmt, colour)
            frame.pts, frame.time_base = (index if pts is None else pts[index]), tick
            for sound in sounds:
                sound.until(float(frame.pts * tick) + 0.04)
            out.mux(stream.encode(frame))
            index += 1
            first = next(frames, None)
        if index or audio_tracks:
            out.mux(stream.encode(None))
        for sound in sounds:
            sound.finish(max(index / float(rate), 0.2) if pts is None else float(pts[-1] * tick + 1 / rate))
        if text is not None:
            text()
    return path


def _near_lossless(codec: str) -> dict[str, str]:
    if codec in ("libx264", "libx264rgb"):
        return {"crf": "1" if codec == "libx264" else "0", "preset": "ultrafast"}
    if codec.startswith("libvpx"):
        return {"crf": "4", "b": "0", "deadline": "realtime", "cpu-used": "8"}
    if codec in ("mpeg4", "msmpeg4", "mpeg2video"):
        return {"flags": "+qscale", "global_quality": "118"}
    return {}


def _frame(image: np.ndarray, pix_fmt: str, colour: dict[str, int] | None):
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    colour = colour or {}
    if pix_fmt in ("rgb24", "bgr0"):
        return frame.reformat(format=pix_fmt)
    from a3gan.media.video_pixels import from_rgb_options

    space = {1: 1, 9: 9}.get(colour.get("colorspace", 5), 5)
    return frame.reformat(format=pix_fmt, **from_rgb_options(space, colour.get("color_range", 1) == 2))


class _Sound:
    """A sine tone. It begins with the first frame and ends with the last."""

    def __init__(self, out, codec: str | None, frequency: float) -> None:
        codec = codec or {"webm": "libopus", "avi": "pcm_s16le"}.get(out.format.name.split(",")[0], "aac")
        self.out, self.frequency, self.at = out, frequency, 0
        self.stream = out.add_stream(codec, rate=SOUND_RATE, layout="mono")

    def until(self, seconds: float) -> None:
        import av

        while self.at < seconds * SOUND_RATE:
            wave = np.sin(2 * np.pi * self.frequency * (self.at + np.arange(960)) / SOUND_RATE) * 8000
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self.at, Fraction(1, SOUND_RATE)
            for part in self._fitting(frame):
                self.out.mux(self.stream.encode(part))
            self.at += 960

    def _fitting(self, frame) -> list:
        from av.audio.resampler import AudioResampler

        if not hasattr(self, "resampler"):
            context = self.stream.codec_context
            self.resampler = AudioResampler(context.format, context.layout, SOUND_RATE)
        return self.resampler.resample(frame)

    def finish(self, seconds: float) -> None:
        self.until(seconds)
        self.out.mux(self.stream.encode(None))


def _text_track(out, path: Path, lines: Sequence[tuple[float, float, str]]):
    """Subtitles by copying packets of a small SubRip file, as encoding them is new in av."""
    import av

    made = path.with_name(path.stem + ".srt")

    def stamp(seconds: float) -> str:
        return f"00:00:{int(seconds):02d},{round(seconds % 1 * 1000):03d}"

    text = "".join(f"{i}\n{stamp(a)} --> {stamp(b)}\n{t}\n\n" for i, (a, b, t) in enumerate(lines, 1))
    made.write_text(text, encoding="utf-8")
    source = av.open(str(made))
    track = out.add_stream_from_template(source.streams.subtitles[0])

    def finish() -> None:
        for packet in source.demux():
            if packet.pts is not None:
                packet.stream = track
                out.mux(packet)
        source.close()
        made.unlink()

    return finish


def _cover(out):
    """A cover picture, as music and phones attach one. Returns its packet."""
    import io

    import av
    from av.stream import Disposition
    from PIL import Image

    stored = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(stored, "JPEG")
    stream = out.add_mux_stream("mjpeg", rate=25, width=32, height=32)
    stream.disposition = Disposition.attached_pic
    packet = av.Packet(stored.getvalue())
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    return packet


@dataclass
class Seen:
    """One person in one frame: box [4] (x0, y0, x1, y1), landmarks [5, 2], both in the clip's pixels, upright."""

    person: int
    box: np.ndarray
    landmarks: np.ndarray


@dataclass
class RenderedClip:
    """A file and its truth. truth: for every frame who is where. cuts: indices of the first frames of new scenes."""

    path: Path
    rate: Fraction
    size: tuple[int, int]
    truth: list[list[Seen]]
    cuts: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def rendered_clip(
    path: str | Path,
    frames: int = 24,
    people: int = 2,
    size: tuple[int, int] = (320, 240),
    face: int = 96,
    rate: float | Fraction = 25,
    seed: int = 0,
    absent: dict[int, Sequence[int]] | None = None,
    cuts: Sequence[int] = (),
    states: int = 6,
    pts: Sequence[int] | None = None,
    **options,
) -> RenderedClip:
    """A clip with rendered people who move over a background on known tracks.

    Args:
        size: width, height. face: side in pixels of the square that a head with hair fills (its oval is half as wide).
        absent: person -> indices of frames in which this person is not there.
        cuts: indices of frames at which the background and all places change at once.
        states: moments that are rendered per person; frames blend from one to the next.
        options: of `write_clip` (rotation is applied so that the clip is upright for its viewer).
    """
    images, truth = rendered_frames(frames, people, size, face, seed, absent or {}, cuts, states)
    rotation = options.get("rotation", 0)
    stored = (np.rot90(image, -rotation // 90) for image in images) if rotation else images
    rate = Fraction(rate).limit_denominator(1001)
    write_clip(path, stored, rate, pts=pts, **options)
    tick = options.get("time_base") or (1 / rate if pts is None else Fraction(1, 1000))
    times = [float(p * tick) for p in (range(frames) if pts is None else pts)]
    return RenderedClip(Path(path), rate, size, truth, list(cuts), times)


def rendered_frames(
    frames: int,
    people: int,
    size: tuple[int, int],
    face: int = 96,
    seed: int = 0,
    absent: dict[int, Sequence[int]] | None = None,
    cuts: Sequence[int] = (),
    states: int = 6,
) -> tuple[list[np.ndarray], list[list[Seen]]]:
    """The pictures [H, W, 3] and the truth of `rendered_clip`, without a file."""
    heads, points = _heads(people, states, face, seed)
    width, height = size
    drawn: list[np.ndarray] = []
    truth: list[list[Seen]] = []
    for index in range(frames):
        scene = sum(cut <= index for cut in cuts)
        canvas = _background(width, height, seed + 101 * scene)
        seen = []
        for person in range(people):
            if index in (absent or {}).get(person, ()):
                continue
            x, y = _place(person, people, index, scene, (width, height), face, seed)
            moment = (index * states // max(1, frames) + scene) % states
            _paste(canvas, heads[person][moment], points[person][moment], x, y)
            marks = points[person][moment] + [x, y]
            seen.append(Seen(person, _box(marks), marks))
        drawn.append(canvas)
        truth.append(seen)
    return drawn, truth


# What does not change from moment to moment: one camera, one light and one pair of glasses a person.
STEADY = (
    "photo_scale photo_shift light_x light_y light_hard light_colour exposure contrast clothes glasses glasses_round "
    "glasses_size glasses_rim glasses_tone background background_angle blob_place blob_size blob_colour"
).split()


def _heads(people: int, states: int, face: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [people, states, face, face, 3] and landmarks [people, states, 5, 2] in pixels."""
    import torch

    from a3gan.data.ranges import to_uint8
    from a3gan.data.synthetic import landmarks, render, sample_identities, sample_states

    generator = torch.Generator().manual_seed(seed)
    who = sample_identities(people, generator)
    how = sample_states(people * states, generator)
    who = {k: v.repeat_interleave(states, 0) for k, v in who.items()}
    for name, limit in (("yaw", 12.0), ("pitch", 8.0), ("roll", 8.0)):
        how[name] = how[name].clamp(-limit, limit)
    for name in STEADY:
        held = how[name].reshape(people, states, *how[name].shape[1:])
        how[name] = held[:, :1].expand_as(held).reshape(how[name].shape).contiguous()
    images = to_uint8(render(who, how, face, "photo")).permute(0, 2, 3, 1).numpy()
    marks = landmarks(who, how, "photo").numpy().astype(np.float64) * face - 0.5
    return images.reshape(people, states, face, face, 3), marks.reshape(people, states, 5, 2)


def _background(width: int, height: int, seed: int) -> np.ndarray:
    """Soft colours with some detail, so that codecs and the search for cuts have something to see."""
    from PIL import Image

    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 210, (4, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(random.integers(0, 24, (height // 4 + 1, width // 4 + 1), np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse, np.int16) + np.asarray(grain, np.int16)[..., None] - 12, 0, 255).astype(np.uint8)


def _place(
    person: int, people: int, index: int, scene: int, size: tuple[int, int], face: int, seed: int
) -> tuple[int, int]:
    """Upper left corner: each person drifts within a lane of their own; lanes change places at cuts."""
    lane = (person + scene) % people
    room = max(0.0, size[0] / people - face)
    phase = 0.7 * person + 0.31 * seed + 1.9 * scene
    x = lane * size[0] / people + room * (0.5 + 0.5 * np.sin(phase + index / 9))
    y = max(0.0, size[1] - face) * (0.5 + 0.4 * np.sin(phase * 1.7 + index / 13))
    return round(x), round(y)


def _paste(canvas: np.ndarray, head: np.ndarray, marks: np.ndarray, x: int, y: int) -> None:
    """The head with hair, in an oval about the five points, feathered."""
    side = len(head)
    middle, reach = marks.mean(0) - [0, 0.1 * side], np.ptp(marks[:, 1])
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot((columns - middle[0]) / (1.6 * reach), (rows - middle[1]) / (1.9 * reach))
    mask = np.clip((1.0 - distance) / 0.12, 0, 1)[..., None]
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(canvas.shape[1], x + side), min(canvas.shape[0], y + side)
    if x1 <= x0 or y1 <= y0:
        return
    part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
    under = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = (under + (head[part] - under.astype(np.float64)) * mask[part] + 0.5).astype(np.uint8)


def _box(marks: np.ndarray) -> np.ndarray:
    """About what a detector draws: forehead to chin."""
    eyes, mouth = marks[:2].mean(0), marks[3:].mean(0)
    tall = mouth[1] - eyes[1]
    middle = (eyes + mouth) / 2
    return np.array([middle[0] - 1.15 * tall, eyes[1] - 0.95 * tall, middle[0] + 1.15 * tall, mouth[1] + 0.65 * tall])
