from __future__ import annotations

import pytest
import torch

from a3gan.data import align
from a3gan.data.augment import affine, augment, jitter, mirror, random_transform, straight_jpeg

pytest.importorskip("kornia")


def dots(points: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures with one soft dot for each point, float [N, 3, S, S]; channel 0 left eye, 1 right eye, 2 nose."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = align.to_pixels(points, size)[:, :3, :, None, None]
    distance = (x - pixels[:, :, 0]) ** 2 + (y - pixels[:, :, 1]) ** 2
    return torch.exp(-distance / 8) * 2 - 1


def centers(images: torch.Tensor) -> torch.Tensor:
    """The dots' places in frame units, [N, 3, 2]."""
    size = images.shape[-1]
    weight = ((images + 1) / 2).clamp_min(0)
    axis = (torch.arange(size) + 0.5) / size
    total = weight.sum((2, 3))
    return torch.stack([(weight.sum(2) * axis).sum(-1) / total, (weight.sum(3) * axis).sum(-1) / total], -1)


@pytest.fixture
def faces():
    points = align.template("face").float().expand(6, -1, -1).clone()
    points += 0.02 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    return dots(points, 64), points


def test_mirror_renames_left_and_right(faces):
    images, points = faces
    flipped, moved = mirror(images, points)
    torch.testing.assert_close(moved[:, 0], torch.tensor([1.0, 0.0]) + points[:, 1] * torch.tensor([-1.0, 1.0]))
    # The dot of the right eye is now the left eye.
    torch.testing.assert_close(centers(flipped)[:, 1], moved[:, 0], atol=2e-3, rtol=0)
    assert (moved[:, 0, 0] < moved[:, 1, 0]).all() and (moved[:, 3, 0] < moved[:, 4, 0]).all()
    again, back = mirror(flipped, moved)
    assert torch.equal(again, images)
    torch.testing.assert_close(back, points)
    some = torch.tensor([True, False] * 3)
    part, part_points = mirror(images, points, some)
    assert torch.equal(part[~some], images[~some]) and torch.equal(part_points[some], moved[some])


def test_landmarks_follow_the_pixels(faces):
    images, points = faces
    torch.manual_seed(3)
    moved, new = affine(images, points, rotate=15, scale=(0.8, 1.1), shift=0.06)
    assert (new - points).abs().amax((1, 2)).min() > 0.01  # each picture did move
    torch.testing.assert_close(centers(moved), new[:, :3], atol=4e-3, rtol=0)


def test_augment_is_seeded_in_range_and_optional(faces):
    images, points = faces
    torch.manual_seed(5)
    one = augment(images, points)
    torch.manual_seed(5)
    two = augment(images, points)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert one[0].shape == images.shape and one[0].abs().max() <= 1
    assert augment(images)[1] is None
    same, _ = augment(images, points, flip=0, rotate=0, scale=(1.0, 1.0), shift=0, color=0)
    assert torch.equal(same, images)


def test_jitter_moves_colour_by_little_and_nothing_at_zero():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    torch.testing.assert_close(jitter(images, 0.0), images, atol=1e-5, rtol=0)
    torch.manual_seed(0)
    moved = jitter(images)
    change = (moved - images).abs().mean((1, 2, 3))
    assert change.min() > 0.003 and change.max() < 0.5


def test_random_transform_keeps_range_and_passes_gradient():
    images = (torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 1.8 - 0.9).requires_grad_()
    torch.manual_seed(0)
    changed = random_transform(images)
    assert changed.shape == images.shape and changed.abs().max() <= 1
    assert ((changed - images).abs().mean((1, 2, 3)) > 0).float().mean() > 0.5
    changed.square().sum().backward()
    assert torch.isfinite(images.grad).all() and (images.grad.abs().amax((1, 2, 3)) > 0).all()
    torch.manual_seed(0)
    assert torch.equal(random_transform(images), changed)
    gray = torch.full((8, 3, 32, 32), 0.2)
    torch.testing.assert_close(random_transform(gray, 0.0), gray, atol=0.01, rtol=0)


def test_random_transform_takes_colour_and_moves():
    """A fringe of colour at constant luma is paled in about half of the pictures; a dot is moved in about half."""
    images = torch.zeros(64, 3, 32, 32)
    images[:, 0, 8:24, 8:24], images[:, 1, 8:24, 8:24] = 0.587, -0.299  # luma 0
    torch.manual_seed(0)
    chroma = random_transform(images)[:, :, 14:18, 14:18].mean((2, 3))
    kept = (chroma[:, 0] - chroma[:, 1]) / (0.587 + 0.299)
    assert 0.3 < (kept < 0.9).float().mean() < 0.75 and kept.min() < 0.3
    dot = torch.full((64, 3, 64, 64), -1.0)
    dot[:, :, 30:34, 48:52] = 1.0
    torch.manual_seed(0)
    light = random_transform(dot).mean(1).clamp_min(-0.5) + 0.5
    ys = (light * torch.arange(64.0)[:, None]).sum((1, 2)) / light.sum((1, 2))
    assert 0.25 < ((ys - 31.5).abs() > 0.1).float().mean() < 0.75
    assert (ys - 31.5).abs().max() < 4


def test_straight_jpeg_codes_forward_and_is_identity_backward():
    images = (torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(3)) * 2 - 1).requires_grad_()
    coded = straight_jpeg(images, torch.tensor([95.0, 20.0]))
    error = (coded - images).abs().mean((1, 2, 3))
    assert 0 < error[0] < error[1]
    coded.sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))


def test_half_precision_comes_back_as_it_came():
    images = torch.zeros(2, 3, 32, 32, dtype=torch.bfloat16)
    assert random_transform(images).dtype == torch.bfloat16
