import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a3gan.anonymizers.base import CELLS, Redaction
from a3gan.media.redact import STRONG, covered, redact

KINDS = [Redaction("blur"), Redaction("pixelate"), Redaction("solid"), STRONG]


def noise(height=200, width=200, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top + 1, (height, width, 3)).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_whole_box_is_covered_and_nothing_beyond_the_grown_one(kind, dtype):
    canvas = noise(dtype=dtype)
    before = canvas.copy()
    box = (60.0, 50.0, 120.0, 130.0)
    redact(canvas, box, None, kind)
    changed = (canvas != before).any(2)
    assert changed[50:131, 60:121].mean() > 0.99  # noise may hit the same value
    x0, y0, x1, y1 = covered(box)
    outside = np.ones((200, 200), bool)
    outside[int(y0) : int(y1) + 2, int(x0) : int(x1) + 2] = False
    assert not changed[outside].any() and not changed[int(y0), int(x0)]  # an oval: no corners
    assert (x0, y0, x1, y1) == pytest.approx((42, 26, 138, 154))
    # Nothing of the detail is left.
    assert canvas[55:125, 65:115].astype(float).std() < 0.2 * before[55:125, 65:115].astype(float).std()


def test_none_is_bit_for_bit_and_unknown_kinds_raise():
    canvas = noise()
    redact(canvas, (60, 50, 120, 130), None, Redaction("none"))
    assert (canvas == noise()).all()
    with pytest.raises(ValueError, match="smear"):
        redact(canvas, (60, 50, 120, 130), None, Redaction("smear"))


def test_whole_boxes_growth_and_landmarks():
    canvas = noise()
    redact(canvas, (80, 80, 120, 120), None, Redaction("solid", colour=1.0), oval=False)
    assert (canvas[68:133, 68:133] == 255).all() and not (canvas[67] == 255).all(1).any()
    # 30 % of the own region's side more on each side.
    assert covered((80, 80, 120, 120), None, 1.3) == pytest.approx([48.8, 48.8, 151.2, 151.2])
    points = np.array([[70.0, 90], [100, 90], [90, 100], [85, 130], [100, 130]])
    assert covered((80, 80, 120, 120), points) == pytest.approx([55, 65, 135, 145])
    assert covered((80, 80, 120, 120), np.full((5, 2), np.nan)) == pytest.approx([68, 68, 132, 132])


def test_mosaic_has_few_colours_whatever_the_size_of_the_face():
    for scale in (1, 4):
        canvas = noise(200 * scale, 200 * scale)
        redact(canvas, np.array([70, 60, 130, 140]) * scale, None, Redaction("pixelate", cells=6), oval=False)
        core = canvas[60 * scale : 140 * scale, 70 * scale : 130 * scale].reshape(-1, 3)
        assert 20 <= len(np.unique(core, axis=0)) <= 8 * 6


def test_blur_is_as_strong_for_large_faces():
    """A step edge under the blur is as many faces wide at both sizes."""
    widths = []
    for scale in (1, 8):
        canvas = np.zeros((200 * scale, 200 * scale, 3), np.uint8)
        canvas[:, 100 * scale :] = 255
        redact(canvas, np.array([60, 60, 140, 140]) * scale, None, Redaction("blur"))
        row = canvas[100 * scale, :, 0]
        widths.append(((row > 25) & (row < 230)).sum() / scale)
    assert widths[1] == pytest.approx(widths[0], rel=0.15) and widths[0] > 80 / 6 * 2


MOSAIC = Redaction("pixelate", cells=CELLS)


def test_mosaic_at_the_border_and_off_it():
    canvas = noise(100, 100)
    redact(canvas, (-50, -50, 40, 40), np.full((5, 2), np.nan), MOSAIC, oval=False)
    # A part of a face has fewer cells, not finer ones.
    assert len(np.unique(canvas[:40, :40].reshape(-1, 3), axis=0)) <= 25
    before = canvas.copy()
    redact(canvas, (500, 500, 600, 600), None, MOSAIC, oval=False)
    assert (canvas == before).all()
    for bad in ((0, 0, float("nan"), 10), (0, 0, float("inf"), 10), (1, 2, 3)):
        with pytest.raises(ValueError, match="finite"):
            redact(canvas, bad, None, MOSAIC, oval=False)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-300, 300), y=st.floats(-300, 300), width=st.floats(0, 400), height=st.floats(0, 400),
    kind=st.sampled_from(KINDS), oval=st.booleans(), grow=st.floats(0.6, 3),
)  # fmt: skip
def test_property_never_raises_and_stays_in_its_region(x, y, width, height, kind, oval, grow):
    canvas = noise(80, 100)
    before = canvas.copy()
    box = (x, y, x + width, y + height)
    redact(canvas, box, None, kind, oval=oval, grow=grow)
    changed = (canvas != before).any(2)
    x0, y0, x1, y1 = covered(box, None, grow)
    rows, columns = np.nonzero(changed)
    if len(rows):
        assert rows.min() >= np.floor(y0) and rows.max() <= np.ceil(y1)
        assert columns.min() >= np.floor(x0) and columns.max() <= np.ceil(x1)
