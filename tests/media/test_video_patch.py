"""What no face touches is written as it was decoded; what changed is written as a whole conversion would write it."""

from __future__ import annotations

import numpy as np
import pytest

av = pytest.importorskip("av")
from clips import write_clip  # noqa: E402

from a3gan import Anonymizer  # noqa: E402
from a3gan.anonymizers.classic import Solid  # noqa: E402
from a3gan.anonymizers.records import FaceRecord  # noqa: E402
from a3gan.media.video import CameraReader, VideoReader, VideoWriter  # noqa: E402
from a3gan.media.video_patch import AROUND, GRID, Patches, inner_and_outer, sheets  # noqa: E402
from a3gan.media.video_pixels import FULL  # noqa: E402


def noise(count=3, width=160, height=96):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("patch") / "in.mp4", noise())


def inside(box, shape, half):
    """bool [h, w] of a plane: the box, grown to even numbers."""
    height, width = shape[0] * half, shape[1] * half
    (x0, y0, x1, y1), _ = inner_and_outer(box, width, height)
    mask = np.zeros(shape, bool)
    mask[y0 // half : max(y0, y1) // half, x0 // half : max(x0, x1) // half] = True
    return mask


@pytest.mark.parametrize("colour", [{}, {"color_range": FULL, "colorspace": 1}])
@pytest.mark.parametrize(
    "box", [(33, 21, 70, 60), (0, 0, 5, 3), (-20, -9, 11, 200), (150, 90, 400, 97), (0, 0, 160, 96), (200, 0, 220, 9)]
)
def test_a_part_is_as_of_the_whole_and_the_rest_as_decoded(tmp_path, box, colour):
    source = write_clip(tmp_path / "in.mp4", noise(1), colour=colour)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "o.mp4", reader.info, None) as writer:
        frame = next(iter(reader))
        image = 255 - frame.image
        patches = Patches(reader.info.colour.matrix, reader.info.colour.range == FULL)
        made, whole = patches.frame(frame.stored, image, [box]), writer._converted(image)
        writer.write(image, frame.pts)
        for half, new, old, full in zip((1, 2, 2), sheets(made), sheets(frame.stored), sheets(whole), strict=True):
            part = inside(box, new.shape, half)
            assert np.array_equal(new[~part], old[~part])
            assert np.array_equal(new[part], full[part])


@pytest.mark.parametrize("box", [(33, 21, 70, 61), (3, 0, 5, 3), (-5, 90, 64, 96), (0, 0, 160, 96)])
def test_the_outer_box_is_on_the_grid_and_within(box):
    (x0, y0, x1, y1), (left, top, right, bottom) = inner_and_outer(box, 160, 96)
    assert not any(v % 2 for v in (x0, y0, x1, y1, left, top)) and x0 <= max(box[0], 0) and y1 >= min(box[3], 96)
    assert 0 <= left <= x0 and x1 <= right <= 160 and 0 <= top <= y0 and y1 <= bottom <= 96
    assert (right - left) % GRID == 0 and (bottom - top) % GRID == 0
    assert x0 - left >= AROUND - 1 or left == 0
    assert bottom - y1 >= AROUND - 1 or bottom == 96


def test_the_writer_keeps_what_was_stored(clip, tmp_path):
    box = (40, 30, 80, 66)
    with VideoReader(clip) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, clip, crf=0) as writer:
        planes = []
        for frame in reader:
            image = frame.image.copy()
            image[30:66, 40:80] = 0
            image[:8, :8] = 0  # not said, so not written
            writer.write(image, frame.pts, frame.stored, [box])
            planes.append([sheet.copy() for sheet in sheets(frame.stored)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        for raw, old in zip(container.decode(video=0), planes, strict=True):
            for half, a, b in zip((1, 2, 2), sheets(raw), old, strict=True):
                part = inside(box, a.shape, half)
                assert np.array_equal(a[~part], b[~part])
            assert sheets(raw)[0][30:66, 40:80].max() <= 17


def test_pictures_that_no_encoder_can_be_given_as_they_are(tmp_path):
    odd = write_clip(tmp_path / "odd.mp4", noise(1, 33, 25))
    wide = write_clip(tmp_path / "wide.mp4", noise(1), pix_fmt="yuv444p")
    for path, options in ((odd, {}), (wide, {}), (write_clip(tmp_path / "c.mp4", noise(1)), {"longest": 80})):
        with VideoReader(path, **options) as reader:
            assert [frame.stored for frame in reader] == [None]
    with CameraReader("cam", source=noise(1)) as camera:
        assert next(iter(camera)).stored is None


def test_turned_pictures_are_converted(tmp_path):
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this av cannot write a rotation")
    with VideoReader(write_clip(tmp_path / "in.mp4", noise(1), rotation=180)) as reader:
        assert next(iter(reader)).stored is None


def test_composing_tells_all_that_it_changed():
    random = np.random.default_rng(1)
    anonymizer = Anonymizer(Solid(device="cpu"), detector=object())
    for _ in range(20):
        canvas = random.integers(1, 256, (96, 160, 3), np.uint8)
        low, sides = random.uniform(-20, (160, 96)), random.uniform(4, 60, 2)
        before = canvas.copy()
        boxes = anonymizer.compose(canvas, [FaceRecord((*low, *(low + sides)), None, 0.9, 1)], [])
        mask = np.zeros(canvas.shape[:2], bool)
        for x0, y0, x1, y1 in boxes:
            mask[y0:y1, x0:x1] = True
        assert not (canvas != before).any(2)[~mask].any()
        assert bool(boxes) == bool((canvas != before).any())
