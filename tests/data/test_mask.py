import pytest
import torch

from a3gan.data.align import template
from a3gan.data.mask import bounds, face_mask, oval


@pytest.mark.parametrize("frame", ["face", "ffhq"])
@pytest.mark.parametrize("size", [32, 64, 256])
def test_zero_at_the_border_one_on_the_face(frame, size):
    mask = face_mask(size, frame)
    assert mask.shape == (1, 1, size, size)
    rim = torch.cat([mask[0, 0, 0], mask[0, 0, -1], mask[0, 0, :, 0], mask[0, 0, :, -1]])
    assert rim.abs().max() == 0
    points = template(frame)
    assert torch.equal(oval(points[:, 0], points[:, 1], frame), torch.ones(5, dtype=torch.float64))
    assert mask.min() == 0 and mask.max() == 1


def test_same_oval_in_both_frames():
    # A point at the same place of the face, in both frames: the frames differ by a scale of 3/4 about the eyes.
    x, y = torch.rand(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(oval(x, y, "face"), oval(0.5 + 0.75 * (x - 0.5), 0.47 + 0.75 * (y - 0.35), "ffhq"))


def test_level_sets_are_convex():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 20000, 2, dtype=torch.float64, generator=generator)
    middle = (a + b) / 2
    for level in (0.1, 0.5, 0.9):
        both = (oval(*a.T) >= level) & (oval(*b.T) >= level)
        assert both.any() and (oval(*middle.T)[both] >= level).all()


def test_bounds_hold_everything_above_zero():
    x0, y0, x1, y1 = bounds("ffhq")
    axis = torch.linspace(-0.5, 1.5, 401, dtype=torch.float64)
    value = oval(axis[None], axis[:, None], "ffhq")
    outside = (axis[None] < x0) | (axis[None] > x1) | (axis[:, None] < y0) | (axis[:, None] > y1)
    assert value[outside].abs().max() == 0


def test_unknown_frame():
    with pytest.raises(ValueError, match="passport"):
        face_mask(64, "passport")
