import math

import numpy as np
import pytest
import torch

from a3gan.data.align import similarity, template, transform_points, warp
from a3gan.data.mask import face_mask
from a3gan.data.ranges import to_float
from a3gan.media.compose import mask_in, match_seam, mosaic_box, paste


def photo(height=220, width=300, seed=0):
    coarse = torch.rand(1, 3, height // 12, width // 12, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def placed(size=64, scale=2.0, angle=0.4, middle=(150.0, 110.0), frame="face"):
    """Matrix from the picture to the frame for a face that is turned and `scale` times as large in the picture."""
    points = (template(frame) - 0.5) * size * scale
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    points = points @ turn.T + torch.tensor(middle, dtype=torch.float64)
    return similarity(points[None], frame, size)[0], points


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("frame", ["face", "ffhq"])
def test_pasting_the_crop_itself_changes_next_to_nothing(scale, frame):
    canvas = photo()
    before = canvas.copy()
    matrix, _ = placed(scale=scale, frame=frame)
    crop = to_float(torch.from_numpy(warp(canvas, matrix, 64)[0]).permute(2, 0, 1))
    paste(canvas, crop, crop, matrix, frame)
    mask = mask_in((0, 0, 300, 220), matrix, 64, frame).numpy()
    difference = np.abs(canvas.astype(int) - before).max(2)
    assert difference[mask == 0].max() == 0
    assert difference.mean() < 1.0 and difference.max() <= 24  # what two resamplings blur
    assert (mask > 0.5).sum() == pytest.approx((face_mask(64, frame) > 0.5).sum().item() * scale**2, rel=0.1)


def test_only_the_oval_is_touched_and_its_core_replaced():
    canvas = photo()
    before = canvas.copy()
    matrix, points = placed()
    white, crop = torch.ones(3, 64, 64), to_float(torch.from_numpy(warp(canvas, matrix, 64)[0]).permute(2, 0, 1))
    paste(canvas, white, crop, matrix, match=False)
    mask = mask_in((0, 0, 300, 220), matrix, 64, "face").numpy()
    assert (canvas[mask == 0] == before[mask == 0]).all()
    assert (canvas[mask == 1] == 255).all() and (mask == 1).sum() > 4000
    for x, y in points.round().int().tolist():
        assert (canvas[y, x] == 255).all()


def test_points_of_the_face_come_back_to_their_place():
    canvas = np.zeros((220, 300, 3), np.uint8)
    matrix, points = placed(scale=3.0)
    face = torch.full((3, 64, 64), -1.0)
    column, row = transform_points(points, matrix)[2].round().int().tolist()
    face[:, row, column] = 1.0
    paste(canvas, face, face, matrix, match=False)
    y, x = np.unravel_index(canvas.sum(2).argmax(), canvas.shape[:2])
    assert math.dist((x, y), points[2].tolist()) < 3.0  # within the one face pixel, three of the picture


def test_partly_and_wholly_outside():
    matrix, _ = placed(middle=(0.0, 110.0))
    canvas = photo()
    paste(canvas, torch.ones(3, 64, 64), torch.zeros(3, 64, 64), matrix, match=False)
    assert canvas.shape == (220, 300, 3) and (canvas[110, 5] == 255).all()
    before = photo()
    matrix, _ = placed(middle=(-500.0, 110.0))
    paste(before, torch.ones(3, 64, 64), torch.zeros(3, 64, 64), matrix)
    assert (before == photo()).all()


def test_what_is_not_finite_raises():
    matrix, _ = placed()
    with pytest.raises(ValueError, match="finite"):
        paste(photo(), torch.full((3, 64, 64), float("nan")), torch.zeros(3, 64, 64), matrix)
    with pytest.raises(ValueError, match="finite"):
        paste(photo(), torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), torch.zeros(2, 3))


def test_match_seam_undoes_light_and_keeps_equal_faces():
    crop = to_float(torch.from_numpy(photo(64, 64)).permute(2, 0, 1)) * 0.5
    torch.testing.assert_close(match_seam(crop, crop), crop, atol=1e-4, rtol=0)
    ramp = torch.linspace(-0.1, 0.1, 64)
    lit = crop * 0.85 + 0.1 + ramp[None, None, :] * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    rim = face_mask(64)[0, 0]
    rim = (rim > 0.1) & (rim < 0.9)
    before, after = (lit - crop).abs()[:, rim].mean(), (match_seam(lit, crop) - crop).abs()[:, rim].mean()
    assert after < 0.25 * before


def test_match_seam_is_bounded():
    black, white = torch.full((3, 64, 64), -1.0), torch.ones(3, 64, 64)
    assert match_seam(black, white).max() <= -0.6 + 1e-5


def test_mosaic_box_has_few_colours_and_stays_in_its_place():
    canvas = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    before = canvas.copy()
    mosaic_box(canvas, (60, 50, 120, 130), np.array([[70.0, 60.0], [125.0, 60.0], [90, 80], [80, 100], [110, 100]]))
    changed = (canvas != before).any(2)
    ys, xs = np.nonzero(changed)
    assert 49 - 13 <= ys.min() <= 50 and 130 <= ys.max() <= 131 + 13
    assert 60 - 11 <= xs.min() <= 60 and 125 <= xs.max() <= 126 + 11
    region = canvas[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].reshape(-1, 3)
    assert len(np.unique(region, axis=0)) <= 36
    assert canvas[50:130, 60:120].std() < 0.25 * before[50:130, 60:120].std()


def test_mosaic_box_at_the_border_and_off_it():
    canvas = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    before = canvas.copy()
    mosaic_box(canvas, (-50, -50, 40, 40), np.full((5, 2), np.nan))
    # A part of a face has fewer cells, not finer ones.
    assert len(np.unique(canvas[:40, :40].reshape(-1, 3), axis=0)) <= 16
    mosaic_box(before, (500, 500, 600, 600))
    with pytest.raises(ValueError, match="finite"):
        mosaic_box(before, (0, 0, float("nan"), 10))
