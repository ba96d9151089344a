"""Reads a finished video back: is it what was meant?"""

from __future__ import annotations

from pathlib import Path

from a3gan.errors import UserError
from a3gan.media import video_info
from a3gan.media.video_info import VideoInfo


def check(
    written: Path,
    path: Path,
    info: VideoInfo,
    *,
    frames: int,
    length: float,
    audio: int = 0,
    subtitles: int = 0,
    offset: float | None = None,
) -> None:
    """Compares the file with what was written to it. Decodes one frame, counts the others' packets.

    Args:
        written: where the file is; path: what it is to be called (for messages). info: size and rate that it must have.
        frames: how many. length: seconds from the first frame's time to the last one's; may differ by one frame.
        audio, subtitles: number of tracks. offset: seconds from the first picture to the first sound, None: no sound.

    Raises:
        UserError: saying what differs.
    """
    import av

    with video_info.open_input(written) as container:
        stream = video_info.pictures_of(container, written)
        size, times, sound = None, [], None
        counts = len(container.streams.audio), len(container.streams.subtitles)
        tracks = [stream, *container.streams.audio[:1]]
        try:
            for packet in container.demux(tracks):
                if packet.pts is None or not packet.size:
                    continue
                time = float(packet.pts * packet.time_base)
                if packet.stream.type == "audio":
                    sound = time if sound is None else min(sound, time)
                    continue
                times.append(time)
                if size is None:
                    for frame in packet.decode():
                        size = frame.width, frame.height
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{path}: what was written cannot be read back ({video_info.reason(error)})") from error
        size = size or (stream.width, stream.height)
    frame = 1 / float(info.rate)
    span = max(times) - min(times) if times else 0.0
    wrong = None
    if size != (info.width, info.height):
        wrong = f"size {size[0]} x {size[1]}, not {info.width} x {info.height}"
    elif len(times) != frames:
        wrong = f"{len(times)} frames, not {frames}"
    elif abs(span - length) > frame * 1.01 + 0.002:
        wrong = f"{span:.3f} s from first to last frame, not {length:.3f} s"
    elif counts != (audio, subtitles):
        wrong = f"{counts[0]} sound and {counts[1]} subtitle tracks, not {audio} and {subtitles}"
    elif offset is not None and (sound is None or abs(sound - min(times) - offset) > max(frame, 0.05)):
        found = "no sound" if sound is None else f"{sound - min(times):.3f} s"
        wrong = f"sound {found} after the pictures' beginning, not {offset:.3f} s"
    if wrong:
        raise UserError(f"{path}: not kept, the file read back has {wrong}")
