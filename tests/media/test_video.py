import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.media.video import CameraReader, Frame, VideoReader, VideoWriter, camera_index, is_video

av = pytest.importorskip("av")
sys.path.insert(0, str(Path(__file__).parent))
clips = importlib.import_module("clips")
write_clip = clips.write_clip


def pictures(count=10, width=64, height=48, seed=0):
    """Smooth colours that drift, with a white square in the upper left corner."""
    rows, columns = np.mgrid[:height, :width]
    out = []
    for i in range(count):
        image = np.stack([columns * 2 + i * 3 + seed, rows * 3, 180 - columns - rows + i], -1).clip(20, 235)
        image[: height // 4, : width // 4] = 235
        out.append(image.astype(np.uint8))
    return out


def copy(source, target, start=None, end=None, **options):
    """What the pipeline does, without faces. Returns the writer."""
    with VideoReader(source, start, end) as reader:
        with VideoWriter(target, reader.info, source, start=start, end=end, **options) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts)
    return writer


def seconds(reader):
    return [float(f.pts * reader.info.time_base) for f in reader]


def difference(a, b):
    return np.mean([np.abs(x.image.astype(int) - y.image).mean() for x, y in zip(a, b, strict=True)])


def sound_span(path, track=0):
    """Seconds at which the first sound packet begins and the last one ends."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        packets = [p for p in container.demux(stream) if p.pts is not None and p.size]
        return (
            float(packets[0].pts * packets[0].time_base),
            float((packets[-1].pts + (packets[-1].duration or 0)) * packets[-1].time_base),
        )


@pytest.mark.parametrize("suffix", "mp4 m4v mov mkv webm avi ts mts mpg wmv flv 3gp ogv".split())
def test_every_container_keeps_size_count_and_times(tmp_path, suffix):
    source = write_clip(tmp_path / "in.mp4", pictures(12), 25)
    target = tmp_path / f"out.{suffix}"
    copy(source, target)
    before, after = VideoReader(source), VideoReader(target)
    assert (after.info.width, after.info.height) == (64, 48)
    moved = np.array(seconds(after)) - seconds(before)
    assert len(moved) == 12 and np.ptp(moved) <= 0.002  # some count from another zero, some in milliseconds
    assert difference(before, after) < 8
    assert after.info.audio == 1
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
def test_variable_frame_rate_keeps_each_time(tmp_path, suffix):
    pts = [0, 40, 47, 200, 233, 266, 1000, 1033, 1500, 1533]
    source = write_clip(tmp_path / "in.mkv", pictures(10), 25, pts=pts, codec="libx264")
    copy(source, tmp_path / f"out.{suffix}")
    assert seconds(VideoReader(source)) == pytest.approx([p / 1000 for p in pts])
    after = np.array(seconds(VideoReader(tmp_path / f"out.{suffix}")))
    assert after - after[0] == pytest.approx(
        [p / 1000 for p in pts], abs=1e-6
    )  # sound with a lead-in may move the zero


@pytest.mark.parametrize("base", [Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 12800), Fraction(1, 24)])
def test_mp4_keeps_exact_ticks(tmp_path, base):
    step = max(1, round(1 / (24 * base)))
    pts = [i * step + (i % 3 if step > 3 else 0) for i in range(8)]
    source = write_clip(tmp_path / "in.mp4", pictures(8), 24, pts=pts, time_base=base, audio_tracks=0)
    copy(source, tmp_path / "out.mp4")
    before, after = VideoReader(source), VideoReader(tmp_path / "out.mp4")
    exact = [f.pts * before.info.time_base for f in before]
    assert exact == [p * base for p in pts]
    assert [f.pts * after.info.time_base for f in after] == exact


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_and_not_written(tmp_path, rotation):
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this av cannot write a rotation")
    stored = pictures(3)
    source = write_clip(tmp_path / "in.mp4", stored, rotation=rotation)
    upright = np.rot90(stored[0], rotation // 90)
    reader = VideoReader(source)
    assert reader.info.rotation == (360 - rotation) % 360
    assert (reader.info.height, reader.info.width) == upright.shape[:2]
    assert np.abs(next(iter(reader)).image.astype(int) - upright).mean() < 4
    assert next(iter(VideoReader(source, longest=32))).image.shape == (
        (32, 24, 3) if rotation in (90, 270) else (24, 32, 3)
    )
    copy(source, tmp_path / "out.mp4")
    after = VideoReader(tmp_path / "out.mp4")
    assert after.info.rotation == 0 and (after.info.width, after.info.height) == (reader.info.width, reader.info.height)
    assert np.abs(next(iter(after)).image.astype(int) - upright).mean() < 8


def test_a_mirrored_clip_is_mirrored_back(tmp_path):
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this av cannot write a rotation")
    from a3gan.media.video_pixels import Turn

    image = pictures(1)[0]
    frame = type("F", (), {"side_data": {"DISPLAYMATRIX": np.array([-65536, 0, 0, 0, 65536, 0, 0, 0, 1], np.int32)}})
    assert (Turn.of(frame).apply(image) == image[:, ::-1]).all()
    for degrees in (0, 90, 180, 270):
        assert (Turn.clockwise(degrees).apply(image) == np.rot90(image, -degrees // 90)).all()


@pytest.mark.parametrize(("kind", "size", "most"), [("yuv420p", (64, 48), 0), ("nv12", (64, 48), 0),
                                                    ("yuv444p", (63, 47), 0), ("yuv420p", (63, 47), 1)])  # fmt: skip
def test_colours_made_by_planes_are_those_made_as_pixels(kind, size, most):
    import av
    from av.video.reformatter import VideoReformatter

    from a3gan.media.video_pixels import EXACT, Converter, Turn, plane, to_rgb_options

    frame = av.VideoFrame(*size, kind)
    for part in frame.planes:
        part.update(np.random.default_rng(1).integers(16, 236, part.buffer_size, np.uint8).tobytes())
    wanted = plane(
        VideoReformatter().reformat(frame, *size, "rgb24", interpolation=EXACT, **to_rgb_options(1, False)), 3
    )
    made = Converter(Turn(), 1, False).rgb(frame)
    off = np.abs(made.astype(int) - wanted)
    assert made.shape == (size[1], size[0], 3) and made.flags.c_contiguous and made.flags.writeable
    assert off.max() <= most and (off > 0).mean() < 0.002


def test_x264_is_quick_unless_a_preset_is_asked_for(tmp_path, monkeypatch):
    from a3gan.media.video_codecs import choose

    info = VideoReader(write_clip(tmp_path / "in.mp4", pictures(4))).info
    assert choose(tmp_path / "a.mp4", info, "libx264", 20, None).options == {
        "crf": "20", "preset": "superfast", "b_strategy": "0",
    }  # fmt: skip
    monkeypatch.setattr("a3gan.media.threads.cores", lambda: 2)
    presets = [("libx264", None), ("libx264", "slow"), ("libx265", None)]
    assert [choose(tmp_path / "a.mp4", info, codec, None, preset).threads for codec, preset in presets] == [1, 0, 0]
    with VideoWriter(tmp_path / "a.mp4", info, tmp_path / "in.mp4") as writer:
        assert writer._stream.codec_context.thread_count == 1
        writer.write(pictures(1)[0], 0)
    assert choose(tmp_path / "a.mp4", info, "libx264", None, "medium").options == {"crf": "18", "preset": "medium"}
    assert choose(tmp_path / "a.mp4", info, "libx265", None, None).options["x265-params"] == "log-level=error"


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "avi"])
@pytest.mark.parametrize("size", [(65, 49), (33, 48)])
def test_odd_sizes_stay_exact(tmp_path, name, size):
    source = write_clip(tmp_path / "in.mp4", pictures(4, *size))
    copy(source, tmp_path / f"out.{name}")
    after = VideoReader(tmp_path / f"out.{name}")
    assert (after.info.width, after.info.height) == size
    assert next(iter(after)).image.shape == (size[1], size[0], 3)
    assert difference(VideoReader(source), after) < 8


def test_no_sound(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures(), audio_tracks=0)
    copy(source, tmp_path / "out.mp4")
    assert VideoReader(tmp_path / "out.mp4").info.audio == 0


def test_two_sound_tracks_and_subtitles_are_copied_bit_by_bit(tmp_path):
    source = write_clip(
        tmp_path / "in.mkv", pictures(50), audio_tracks=2, subtitles=[(0.1, 0.6, "Hello"), (1.0, 1.5, "Grüße")]
    )
    copy(source, tmp_path / "out.mkv")
    info = VideoReader(tmp_path / "out.mkv").info
    assert (info.audio, info.subtitles) == (2, 1)

    def packets(path):
        with av.open(str(path)) as container:
            streams = [*container.streams.audio, *container.streams.subtitles]
            return [(p.stream.index, p.pts, bytes(p)) for p in container.demux(streams) if p.size]

    assert sorted(packets(source)) == sorted(packets(tmp_path / "out.mkv"))
    copy(source, tmp_path / "quiet.mkv", audio=False)
    assert VideoReader(tmp_path / "quiet.mkv").info.audio == 0


def test_sound_the_container_cannot_hold_is_encoded_anew_and_said(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures(50))
    writer = copy(source, tmp_path / "out.webm")
    assert "libopus" in writer.notes[0]
    assert sound_span(tmp_path / "out.webm")[1] == pytest.approx(sound_span(source)[1], abs=0.06)


def subtitles_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        packets = [p for p in container.demux(stream) if p.pts is not None and p.size > 2]
        return stream.codec_context.name, [(float(p.pts * p.time_base), bytes(p)) for p in packets]


@pytest.mark.skipif(not hasattr(av.CodecContext.create("mov_text", "w"), "encode_subtitle"), reason="old av")
def test_subtitles_of_text_become_those_of_the_container(tmp_path):
    source = write_clip(tmp_path / "in.mkv", pictures(25), subtitles=[(0.2, 0.5, "Grüße"), (0.6, 0.9, "two\nlines")])
    writer = copy(source, tmp_path / "out.mp4")
    name, texts = subtitles_of(tmp_path / "out.mp4")
    assert name == "mov_text" and "mov_text" in writer.notes[0] and writer.dropped == ()
    assert [round(t, 2) for t, _ in texts] == [0.2, 0.6]
    assert texts[0][1][2:] == "Grüße".encode() and texts[1][1][2:] == b"two\nlines"
    copy(tmp_path / "out.mp4", tmp_path / "back.mkv")
    name, texts = subtitles_of(tmp_path / "back.mkv")
    assert [text for _, text in texts] == ["Grüße".encode(), b"two\nlines"]


def test_subtitles_that_no_way_fit_are_left_out_and_said(tmp_path, caplog):
    source = write_clip(tmp_path / "in.mkv", pictures(25), subtitles=[(0.0, 0.1, "Hello")])
    writer = copy(source, tmp_path / "out.avi")
    assert re.search(r"subtitle track 2 \(\w+\), which .avi cannot hold", writer.dropped[0])
    assert "subtitle" in caplog.text
    assert VideoReader(tmp_path / "out.avi").info.subtitles == 0


def test_cover_picture_is_dropped_and_listed(tmp_path):
    try:
        source = write_clip(tmp_path / "in.mp4", pictures(), cover=True)
    except (AttributeError, ImportError, ValueError, av.error.FFmpegError):
        pytest.skip("this av cannot attach a cover")
    reader = VideoReader(source)
    assert (reader.info.width, reader.info.height) == (64, 48) and "cover picture" in reader.info.dropped[0]
    writer = copy(source, tmp_path / "out.mp4")
    assert writer.dropped == reader.info.dropped
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_stretch_of_time_with_its_sound(tmp_path, suffix):
    source = write_clip(tmp_path / f"in.{suffix}", pictures(100), 25, codec="mpeg4")
    reader = VideoReader(source, 1.0, 2.2)
    frames = list(reader)
    assert [f.index for f in frames] == list(range(30))
    assert float(frames[0].pts * reader.info.time_base) == pytest.approx(1.0, abs=1e-3)
    whole = list(VideoReader(source))
    assert (frames[0].image == whole[25].image).all() and (frames[-1].image == whole[54].image).all()
    copy(source, tmp_path / f"out.{suffix}", 1.0, 2.2)
    after = VideoReader(tmp_path / f"out.{suffix}")
    assert seconds(after)[0] == pytest.approx(0, abs=0.041) and len(seconds(after)) == 30
    begins, ends = sound_span(tmp_path / f"out.{suffix}")
    assert 0 <= begins < 0.045 and ends == pytest.approx(1.2, abs=0.06)


def test_no_frame_in_the_time_asked_for(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures())
    with pytest.raises(UserError, match="in.mp4: no frame in the time"):
        list(VideoReader(source, 50, 60))
    with pytest.raises(UserError, match="no stretch of time"):
        VideoReader(source, 2, 1)


TAGS = {
    "bt601": {"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 1},
    "bt709": {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1},
    "full": {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 2},
    "none": {},
}


@pytest.mark.parametrize("tags", TAGS)
def test_colours_come_back(tmp_path, tags):
    truth = clips.rendered_frames(3, 1, (128, 96), 96)[0]
    source = write_clip(tmp_path / "in.mp4", truth, colour=TAGS[tags], audio_tracks=0)
    read = [f.image for f in VideoReader(source)]
    assert np.abs(np.subtract(read, truth, dtype=float)).mean() < 2.5  # the right matrix and range were used
    copy(source, tmp_path / "out.mp4", crf=1, preset="fast")
    before, after = VideoReader(source), VideoReader(tmp_path / "out.mp4")
    assert after.info.colour == before.info.colour
    change = np.subtract([f.image for f in after], read, dtype=float)
    assert np.abs(change).mean() < 1.5 and np.abs(change.mean((0, 1, 2))).max() < 1.0  # no drift of brightness


def test_ten_bits_become_eight_with_a_note_and_hdr_is_refused(tmp_path):
    ten = write_clip(tmp_path / "ten.mp4", pictures(3), pix_fmt="yuv420p10le", audio_tracks=0)
    reader = VideoReader(ten)
    assert reader.info.bit_depth == 10 and "10 bits" in reader.info.notes[0]
    assert np.abs(next(iter(reader)).image.astype(int) - pictures(1)[0]).mean() < 3
    for number, name in ((16, "PQ"), (18, "HLG")):
        tags = {"color_trc": number, "color_primaries": 9, "colorspace": 9}
        clip = write_clip(tmp_path / f"{name}.mp4", pictures(3), pix_fmt="yuv420p10le", colour=tags, audio_tracks=0)
        with pytest.raises(UserError, match=rf"{name}\.mp4: is HDR \({name}"):
            VideoReader(clip)


def test_scaled_reading(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures(2, 256, 128))
    reader = VideoReader(source, longest=64)
    frame = next(iter(reader))
    assert frame.image.shape == (32, 64, 3) and reader.size == (64, 32) and reader.scale == 0.25
    whole = next(iter(VideoReader(source)))
    averaged = whole.image.reshape(32, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(whole.small(64) - averaged).mean() < 3 and np.abs(frame.image - averaged).mean() < 3
    assert np.abs(whole.gray(64) - averaged @ [0.299, 0.587, 0.114]).mean() < 4
    assert next(iter(VideoReader(source, longest=4096))).image.shape == (128, 256, 3)
    given = Frame(0, 0, whole.image)
    assert given.small(64).shape == (32, 64, 3) and given.gray(64).shape == (32, 64)


def _bad_files(folder):
    good = write_clip(folder / "good.mp4", pictures(50)).read_bytes()
    bad = {
        "empty.mp4": (b"", "the file is empty"),
        "text.mp4": (b"this is no video " * 50, "no video that can be read"),
        "cut.mp4": (good[: len(good) // 2], "no video that can be read, or cut off"),
        "unknown.mp4": (good.replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"), "codec|decode"),
    }
    for name, (content, cause) in bad.items():
        (folder / name).write_bytes(content)
        yield name, cause
    with av.open(str(folder / "sound.m4v"), "w", format="mp4") as out:
        clips._Sound(out, "aac", 300).finish(0.5)
    yield "sound.m4v", "no video track"
    for suffix in ("avi", "mkv"):
        write_clip(folder / f"zero.{suffix}", [], codec="mpeg4", size=(64, 48))
        yield f"zero.{suffix}", "no frame|no video|cut off"
    (folder / "folder.mp4").mkdir()
    yield "folder.mp4", "is a folder"
    yield "absent.mp4", "no such file"


def test_bad_files_are_named_with_their_cause(tmp_path):
    for name, cause in _bad_files(tmp_path):
        with pytest.raises(UserError, match=cause) as caught:
            list(VideoReader(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "suffix,options", [("mkv", {}), ("avi", {"codec": "mpeg4"}), ("mov", {"codec": "mpeg4", "faststart": True})]
)
def test_a_file_cut_off_after_its_header_is_refused(tmp_path, suffix, options):
    faststart = options.pop("faststart", False)
    whole = write_clip(tmp_path / f"whole.{suffix}", pictures(100), **options)
    if faststart:
        whole = _index_first(whole, tmp_path / "fast.mov")
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: int(len(content) * 0.6)])
    with pytest.raises(UserError, match=rf"cut\.{suffix}: (ends after|cannot be read)"):
        list(VideoReader(cut))
    with pytest.raises(UserError):
        copy(cut, tmp_path / f"out.{suffix}")
    assert not (tmp_path / f"out.{suffix}").exists()
    assert len(list(VideoReader(cut, end=1.0))) == 25  # the part that is there can be had


def _index_first(source, target):
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        keep = {"opaque": True} if int(av.__version__.split(".")[0]) > 14 else {}  # without: look for an encoder
        made = {s.index: new.add_stream_from_template(s, **keep) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = made[packet.stream.index]
                new.mux(packet)
    return target


def test_longer_sound_is_not_taken_for_a_cut_file(tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = clips._Sound(out, "aac", 300)
        for image in pictures(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
        sound.finish(3.0)
    assert len(list(VideoReader(source))) == 10
    copy(source, tmp_path / "out.mp4")
    assert sound_span(tmp_path / "out.mp4")[1] == pytest.approx(sound_span(source)[1], abs=0.01)


def test_broken_frames_in_the_middle_are_counted_and_left_out(tmp_path):
    source = write_clip(tmp_path / "in.avi", pictures(30), codec="mjpeg", pix_fmt="yuvj420p", audio_tracks=0)
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for index in (10, 11):
        start = content.index(b"\xff\xd8", places[index][0])
        content[start : start + places[index][1]] = b"\0" * places[index][1]
    source.write_bytes(bytes(content))
    reader = VideoReader(source)
    frames = list(reader)
    assert reader.broken == 2 and len(frames) == 28 and [f.index for f in frames] == list(range(28))
    times = [f.pts for f in frames]
    assert 10 not in times and 11 not in times and times[-1] == 29  # sound stays in step
    copy(source, tmp_path / "out.mp4")
    assert seconds(VideoReader(tmp_path / "out.mp4"))[-1] == pytest.approx(29 / 25)


def test_damaged_frames_are_marked(tmp_path):
    source = write_clip(
        tmp_path / "in.ts", pictures(40, 128, 96), codec="libx264", audio_tracks=0, options={"crf": "5"}
    )
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(content) // 3, len(content) // 2, 30):
        content[at] ^= 0xFF
    source.write_bytes(bytes(content))
    reader = VideoReader(source)
    frames = list(reader)
    assert reader.damaged + reader.broken > 0 and reader.damaged == sum(f.damaged for f in frames)


def test_metadata(tmp_path):
    tags = {
        "title": "Drive", "location": "+48.1+011.5/", "make": "Phone", "model": "X1", "artist": "Jane Doe",
        "com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "comment": "my home",
    }  # fmt: skip
    source = write_clip(tmp_path / "in.mkv", pictures(3), metadata=tags)

    def kept(metadata, suffix):
        target = tmp_path / f"{metadata}.{suffix}"
        copy(source, target, metadata=metadata)
        with av.open(str(target)) as container:
            return {k.lower(): v for k, v in container.metadata.items()}, target.read_bytes()

    for suffix in ("mp4", "mkv"):
        strip, content = kept("strip", suffix)
        assert "title" not in strip and b"48.1" not in content
        safe, content = kept("safe", suffix)
        assert safe["title"] == "Drive" and not {"location", "make", "model", "artist", "comment"} & set(safe)
        assert b"48.1" not in content and b"Jane" not in content and b"X1" not in content
        whole, _ = kept("all", suffix)
        assert whole["title"] == "Drive" and whole["artist"] == "Jane Doe" and whole["make"] == "Phone"
    with pytest.raises(UserError, match="--metadata none"):
        copy(source, tmp_path / "x.mp4", metadata="none")


def test_codec_crf_and_preset(tmp_path):
    source = write_clip(tmp_path / "in.mp4", clips.rendered_frames(6, 1, (160, 120), 96)[0])
    sizes = {}
    for crf in (18, 35):
        copy(source, tmp_path / f"{crf}.mp4", crf=crf, preset="veryfast", codec="h264")
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[35] < 0.7 * sizes[18]
    copy(source, tmp_path / "vp9.mkv", codec="vp9")
    assert VideoReader(tmp_path / "vp9.mkv").info.codec.endswith("vp9")
    copy(source, tmp_path / "four.mp4", codec="mpeg4", crf=30)
    for options, cause in [
        ({"codec": "libx999"}, "no encoder named 'libx999'"),
        ({"preset": "warp"}, "out.mp4: cannot be written"),
        ({"crf": 99}, "--crf 99"),
        ({"codec": "mpeg4", "preset": "fast"}, "no --preset"),
    ]:
        with pytest.raises(UserError, match=cause):
            copy(source, tmp_path / "out.mp4", **options)
    with pytest.raises(UserError, match=r"cannot write '\.xyz'"):
        copy(source, tmp_path / "out.xyz")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".", "out"))]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures())
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    info = VideoReader(source).info
    with pytest.raises(RuntimeError), VideoWriter(target, info, source) as writer:
        writer.write(pictures()[0], 0)
        raise RuntimeError
    with pytest.raises(UserError, match="no frame was written"), VideoWriter(target, info, source):
        pass
    with pytest.raises(ValueError, match="does not follow"), VideoWriter(target, info, source) as writer:
        writer.write(pictures()[0], 5)
        writer.write(pictures()[0], 5)
    with pytest.raises(ValueError, match="not uint8"), VideoWriter(target, info, source) as writer:
        writer.write(pictures(1, 32, 32)[0], 5)
    assert target.read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", pictures())
    encode = VideoWriter._converted
    with pytest.raises(UserError, match="not kept, the file read back has 9 frames, not 10"):
        with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, source) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts)
            writer.written -= 0
            monkeypatch.setattr(writer, "written", 10)
            _drop_last(writer)
    assert encode is VideoWriter._converted and not (tmp_path / "out.mp4").exists()


def _drop_last(writer):
    """Loses the last packet on its way to the file."""
    mux, stream = writer._out.mux, writer._stream

    class Leaky:
        def __getattr__(self, name):
            return getattr(inner, name)

        def mux(self, packets):
            packets = packets if isinstance(packets, list) else [packets]
            video = [p for p in packets if p.stream is stream]
            mux([p for p in packets if not video or p is not video[-1]])

    inner = writer._out
    writer._out = Leaky()


def test_full_disk(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", pictures(60, 320, 240))
    real = open

    class Full:
        def __init__(self, *args):
            self.file, self.room = real(*args), 2000

        def write(self, data):
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    import a3gan.media.video_write as video_write

    monkeypatch.setattr(video_write, "open", Full, raising=False)
    with pytest.raises(UserError, match=r"out\.mp4: cannot be written: no space left on the disk"):
        copy(source, tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", pictures())
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="out.mp4: cannot be written"):
        copy(source, tmp_path / "file" / "out.mp4")
    import a3gan.media.video_write as video_write

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(video_write, "open", refuse, raising=False)
    with pytest.raises(UserError, match="cannot be written: permission denied"):
        copy(source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_while_writing(tmp_path):
    source = write_clip(tmp_path / "in.mp4", pictures(20))
    program = textwrap.dedent(f"""
        from a3gan.media.video import VideoReader, VideoWriter
        reader = VideoReader({str(source)!r})
        writer = VideoWriter({str(tmp_path / "out.mp4")!r}, reader.info, {str(source)!r})
        image, pts = next(iter(reader)).image, 0
        while True:
            writer.write(image, pts)
            pts += 512
            print(pts, flush=True)
    """)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE)
    for _ in range(60):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    assert not (tmp_path / "out.mp4").exists() and len(list(tmp_path.iterdir())) == 2


def test_memory_does_not_grow_with_length(tmp_path):
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    from itertools import cycle, islice

    def memory():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def grown(count):
        source = tmp_path / f"{count}.mp4"
        write_clip(source, islice(cycle(pictures(8, 256, 192)), count), codec="mpeg4")
        before, peak = memory(), 0.0
        with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, source) as writer:
            for frame in reader:
                writer.write(frame.image, frame.pts)
                peak = max(peak, memory() - before)
        return peak

    grown(60)  # what libraries take once
    short, long = grown(60), grown(600)
    assert long < short + 12  # 540 frames more are 80 MB of pixels


def test_camera():
    assert [camera_index(n) for n in ("cam", "cam0", "cam2", "0", 3, "webcam:1", "drive.mp4", "")] == [
        0, 0, 2, 0, 3, 1, None, None,
    ]  # fmt: skip
    with CameraReader("cam", source=iter(pictures(3))) as camera:
        assert (camera.info.width, camera.info.height, camera.info.frames) == (64, 48, None)
        frames = []
        for frame in camera:
            frames.append(frame)
            time.sleep(0.002)
    assert [f.index for f in frames] == [0, 1, 2] and frames[2].pts - frames[0].pts >= 4000
    assert (frames[1].image == pictures(3)[1]).all() and frames[1].small(32).shape == (24, 32, 3)
    with pytest.raises(UserError, match="camera 1: gives no picture"):
        CameraReader("cam1", source=[])
    with pytest.raises(UserError, match="camera 93: cannot be opened"):
        CameraReader(93)


def test_closing_ends_iterations_also_in_other_threads(tmp_path):
    import threading

    source = write_clip(tmp_path / "in.mp4", pictures(200), audio_tracks=0, codec="mpeg4")
    reader = VideoReader(source)
    got, begun = [], threading.Event()

    def read():
        for frame in reader:
            got.append(frame.image)
            begun.set()
            time.sleep(0.005)

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait(10)
    reader.close()
    thread.join(10)
    assert not thread.is_alive() and len(got) < 200
    half = iter(reader)
    next(half)
    reader.close()
    assert list(half) == [] and len(list(reader)) == 200
    assert got[0].flags.writeable and got[0].flags.c_contiguous


def test_names():
    assert is_video("A/B.MP4") and is_video(Path("x.avi")) and not is_video("x.jpg")


def test_rendered_clip_shows_the_faces_where_it_says(tmp_path):
    clip = clips.rendered_clip(tmp_path / "in.mp4", frames=8, people=2, cuts=[4], absent={1: [2, 3]}, audio_tracks=0)
    frames = [f.image for f in VideoReader(clip.path)]
    assert [len(seen) for seen in clip.truth] == [2, 2, 1, 1, 2, 2, 2, 2] and len(frames) == 8
    for image, seen in zip(frames, clip.truth, strict=True):
        for one in seen:
            x, y = one.landmarks[2].round().astype(int)
            assert one.box[0] < x < one.box[2] and one.box[1] < y < one.box[3]
            assert image[y, x].min() > 0
    change = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert np.argmax(change) == 3


@pytest.mark.parametrize("name", ["driver_1.avi", "people_1080p.mp4"])
def test_real_clips(shared, tmp_path, name):
    source = shared / "data" / "video" / name
    if not source.exists():
        pytest.skip(f"{name} is not there")
    target = tmp_path / f"out{source.suffix}"
    copy(source, target, end=0.5)
    before, after = VideoReader(source, end=0.5), VideoReader(target)
    assert seconds(after) == pytest.approx(seconds(before), abs=1e-6)
    assert difference(before, after) < 2.5 and after.info.audio == before.info.audio
