import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from a3gan.data.align import invert, similarity, template, transform_points, warp, warp_batch
from a3gan.data.mask import bounds, face_mask
from a3gan.data.ranges import to_float, to_uint8
from a3gan.media.compose import mask_in, match_seam, paste, seam_fit, shade, steadied


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
    crop = to_float(torch.from_numpy(photo(64, 64)).permute(2, 0, 1))[None] * 0.5
    torch.testing.assert_close(match_seam(crop, crop), crop, atol=1e-4, rtol=0)
    ramp = torch.linspace(-0.1, 0.1, 64)
    lit = crop * 0.85 + 0.1 + ramp[None, None, :] * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    rim = face_mask(64)[0, 0]
    rim = (rim > 0.1) & (rim < 0.9)
    before, after = (lit - crop).abs()[..., rim].mean(), (match_seam(lit, crop) - crop).abs()[..., rim].mean()
    assert after < 0.25 * before
    # Of several faces, each is fitted to its own surroundings.
    both = match_seam(torch.cat([crop, lit]), torch.cat([crop, crop]))
    torch.testing.assert_close(both[1:], match_seam(lit, crop), atol=1e-5, rtol=0)


def test_match_seam_is_bounded():
    black, white = torch.full((1, 3, 64, 64), -1.0), torch.ones(1, 3, 64, 64)
    assert match_seam(black, white).max() <= -0.6 + 1e-5


def test_steadied_corrections_move_slowly_and_stay_where_they_are():
    crop = to_float(torch.from_numpy(photo(64, 64)).permute(2, 0, 1))[None] * 0.5
    first, jump = seam_fit(crop, crop)[0], seam_fit(crop, (crop + 0.2).clamp(-1, 1))[0]
    assert torch.equal(steadied(first, None), first) and torch.equal(steadied(first, first), first)
    levels = [first[0, 2].item()]
    state = first
    for _ in range(20):
        state = steadied(jump, state)
        levels.append(state[0, 2].item())
    steps = np.diff(levels)
    assert (steps > 0).all() and steps.max() < 0.3 * (jump[0, 2] - first[0, 2]) and (np.diff(steps) < 0).all()
    assert shade(crop, state[None]).shape == crop.shape


def exactly(canvas, face, original, matrix, frame, match):
    """The definition of `paste`, with torch's sampling and the mask computed at every pixel."""
    height, width = canvas.shape[:2]
    face = match_seam(face[None], original[None], frame)[0] if match else face
    warped = warp_batch(face[None], invert(matrix)[None], (height, width))[0]
    mask = mask_in((0, 0, width, height), matrix, face.shape[-1], frame)
    region = torch.from_numpy(canvas).permute(2, 0, 1)
    mixed = to_uint8(torch.lerp(to_float(region), warped, mask))
    return torch.where(mask > 0, mixed, region).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.6])
@pytest.mark.parametrize("frame", ["face", "ffhq"])
def test_fast_pasting_is_exact_to_one_of_256(scale, frame):
    canvas = photo()
    matrix, _ = placed(scale=scale, frame=frame, middle=(141.3, 96.8))
    crop = to_float(torch.from_numpy(warp(canvas, matrix, 64)[0]).permute(2, 0, 1))
    face = to_float(torch.from_numpy(photo(64, 64, seed=2)).permute(2, 0, 1))
    expected = exactly(canvas, face, crop, matrix, frame, True)
    paste(canvas, face, crop, matrix, frame)
    difference = np.abs(expected.astype(int) - canvas)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05


def test_sixteen_bits_keep_their_values_outside_and_agree_with_eight_inside():
    low_bits = np.random.default_rng(0).integers(0, 100, (220, 300, 3))
    deep = (photo().astype(int) * 257 - low_bits).clip(0).astype(np.uint16)
    before, eight = deep.copy(), photo()
    matrix, _ = placed()
    face = to_float(torch.from_numpy(photo(64, 64, seed=2)).permute(2, 0, 1))
    paste(deep, face, None, matrix, match=False)
    paste(eight, face, None, matrix, match=False)
    mask = mask_in((0, 0, 300, 220), matrix, 64, "face").numpy()
    assert deep.dtype == np.uint16 and (deep[mask == 0] == before[mask == 0]).all()
    assert np.abs(deep / 257 - eight)[mask > 0.01].max() < 1.5


def test_a_grown_oval_is_larger_but_stays_in_the_frame():
    own, grown = face_mask(128), face_mask(128, grow=1.3)
    assert grown.mean() > 1.15 * own.mean() and (grown >= own - 1e-6).all()
    rim = torch.cat([grown[0, 0, 0], grown[0, 0, -1], grown[0, 0, :, 0], grown[0, 0, :, -1]])
    assert rim.abs().max() == 0
    assert face_mask(128, grow=0.8).mean() < 0.7 * own.mean()
    x0, y0, x1, y1 = bounds("face", 3.0)
    assert x0 > 0 and y0 > 0 and x1 < 1 and y1 < 1
    with pytest.raises(ValueError, match="grow"):
        face_mask(64, grow=0.1)


PLACES = {
    "scale": st.floats(0.2, 4), "angle": st.floats(-3.1, 3.1), "x": st.floats(-400, 700), "y": st.floats(-400, 600),
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(**PLACES)
def test_property_pasting_never_raises_and_leaves_all_else_alone(scale, angle, x, y):
    canvas = photo()
    before = canvas.copy()
    matrix, _ = placed(size=32, scale=scale, angle=angle, middle=(x, y))
    paste(canvas, torch.ones(3, 32, 32), torch.zeros(3, 32, 32), matrix)
    mask = mask_in((0, 0, 300, 220), matrix, 32, "face").numpy()
    assert (canvas[mask == 0] == before[mask == 0]).all()


@settings(max_examples=25, deadline=None)
@given(**PLACES)
def test_property_an_unchanged_face_changes_next_to_nothing(scale, angle, x, y):
    # As smooth as a picture must be for 32 pixels to hold it: what is left is the composing.
    across = np.linspace(40, 200, 300)[None, :, None] + np.linspace(-30, 30, 220)[:, None, None]
    canvas = np.rint(across + np.array([0, 10, 20])).astype(np.uint8)
    before = canvas.copy()
    matrix, _ = placed(size=32, scale=scale, angle=angle, middle=(x, y))
    face, outside = warp(canvas, matrix, 32)
    crop = to_float(torch.from_numpy(face).permute(2, 0, 1))
    paste(canvas, crop, crop, matrix)
    # Where the crop reaches beyond the picture it holds reflections, and a pixel beside the border mixes with them.
    assert np.abs(canvas.astype(int) - before).max() <= (3 if outside == 0 else 255)
    assert np.abs(canvas.astype(int) - before).mean() < (0.5 if outside == 0 else 3)


@settings(max_examples=25, deadline=None)
@given(dx=st.integers(-40, 40), dy=st.integers(-30, 30), scale=st.floats(0.3, 2), angle=st.floats(-1, 1))
def test_property_a_face_moved_by_whole_pixels_is_pasted_the_same(dx, dy, scale, angle):
    face = to_float(torch.from_numpy(photo(32, 32, seed=2)).permute(2, 0, 1))
    size = 32 * scale
    results = []
    for x, y in ((0, 0), (dx, dy)):
        canvas = np.full((220, 300, 3), 90, np.uint8)
        matrix, _ = placed(size=32, scale=scale, angle=angle, middle=(150.25 + x, 110.5 + y))
        paste(canvas, face, None, matrix, match=False)
        results.append(np.roll(canvas, (-y, -x), (0, 1)))
    assert size < 90 and np.abs(results[0].astype(int) - results[1]).max() <= 1
