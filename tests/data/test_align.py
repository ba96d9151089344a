from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from a3gan.data import align


def smooth(height: int, width: int) -> torch.Tensor:
    """A picture without fine detail, float [3, H, W] in [0, 255]."""
    y, x = torch.meshgrid(torch.arange(height) / 17.0, torch.arange(width) / 23.0, indexing="ij")
    return torch.stack([(x + y).sin(), (x - y).cos(), (0.5 * x).sin() * (0.7 * y).cos()]) * 100 + 128


def matrix(angle: float, scale: float, x: float, y: float) -> torch.Tensor:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, x], [s, c, y]], dtype=torch.float64)


@pytest.mark.parametrize("frame", list(align.FRAMES))
def test_a_known_similarity_is_found_again(frame):
    known = torch.stack([matrix(0.3, 1.7, 4.0, -9.0), matrix(-2.0, 0.2, -50.0, 3.0)])
    source = align.transform_points(align.template(frame, 96).expand(2, -1, -1), align.invert(known))
    torch.testing.assert_close(align.similarity(source, frame, 96), known)


@pytest.mark.parametrize("frame", list(align.FRAMES))
def test_the_similarity_of_one_face_is_that_of_a_batch(frame):
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(4, 5, 2, generator=generator, dtype=torch.float64) * 300
    for one, known in zip(points, align.similarity(points, frame, 64), strict=True):
        assert align.similarity_of(one.numpy(), frame, 64) == pytest.approx(known.numpy(), rel=1e-9, abs=1e-9)
    assert np.isnan(align.similarity_of(np.ones((5, 2)), frame, 64)).all()


def test_template_maps_onto_itself_and_to_its_pixels():
    points = align.template("face", 128)
    assert points[0].tolist() == pytest.approx([128 / 3 - 0.5, 0.35 * 128 - 0.5])
    torch.testing.assert_close(align.similarity(points[None], "face", 128)[0], matrix(0, 1, 0, 0), atol=1e-9, rtol=0)
    torch.testing.assert_close(align.to_units(align.to_pixels(points, 64), 64), points)


def test_the_fit_is_least_squares_and_never_mirrors():
    generator = torch.Generator().manual_seed(1)
    source = torch.rand(6, 5, 2, generator=generator, dtype=torch.float64) * 90
    target = align.template("face", 64).expand(6, -1, -1)
    best = align.similarity(source, "face", 64)
    assert (torch.linalg.det(best[:, :, :2]) > 0).all()
    error = (align.transform_points(source, best) - target).square().sum((1, 2))
    for other in (matrix(0.01, 1, 0, 0), matrix(0, 1.01, 0, 0), matrix(0, 1, 0.1, 0), matrix(-0.01, 1, 0, -0.1)):
        moved = align.transform_points(source, align.compose(other, best))
        assert ((moved - target).square().sum((1, 2)) > error).all()
    flipped = align.template("face", 64) * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(align.similarity(flipped[None], "face", 64)[0, :, :2]) > 0


def test_invert_and_compose():
    m = matrix(0.7, 0.4, 3, 8)
    torch.testing.assert_close(align.compose(align.invert(m), m), matrix(0, 1, 0, 0), atol=1e-12, rtol=0)


def test_coinciding_points_give_nan():
    assert not torch.isfinite(align.similarity(torch.full((1, 5, 2), 7.0), "face", 64)).all()


def test_wrong_shapes_and_frames_are_refused():
    with pytest.raises(ValueError, match="unknown frame"):
        align.template("square")
    with pytest.raises(ValueError, match="5, 2"):
        align.similarity(torch.zeros(5, 2), "face", 64)
    with pytest.raises(TypeError):
        align.warp(np.zeros((4, 4), np.uint8), matrix(0, 1, 0, 0), 4)


def test_identity_warp_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    aligned, outside = align.warp(image, matrix(0, 1, 0, 0), 32)
    assert outside == 0.0 and np.array_equal(aligned, image)
    x = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    torch.testing.assert_close(align.warp_batch(x, matrix(0, 1, 0, 0)[None], 32), x, atol=1e-2, rtol=0)


@pytest.mark.parametrize("scale", [1.6, 1.0, 0.45, 0.13])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_warp_samples_where_the_matrix_says(scale, angle):
    image = smooth(300, 400)
    m = matrix(angle, scale, 0, 0)
    m[:, 2] += torch.tensor([23.5, 23.5]) - align.transform_points(torch.tensor([[200.0, 150.0]]).double(), m)[0]
    # Where each aligned pixel comes from, evaluated on the formula itself.
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="xy"), -1).reshape(-1, 2)
    source = align.transform_points(grid.double(), align.invert(m)).reshape(48, 48, 2)
    margin = 2 / scale  # nearer to the border, reflected pixels are averaged in
    inside = (source >= margin).all(-1) & (source[..., 0] <= 399 - margin) & (source[..., 1] <= 299 - margin)
    x, y = source[..., 0] / 23.0, source[..., 1] / 17.0
    expected = torch.stack([(x + y).sin(), (x - y).cos(), (0.5 * x).sin() * (0.7 * y).cos()]) * 100 + 128
    aligned, _ = align.warp(image.round().to(torch.uint8), m, 48)
    assert (aligned.double() - expected)[:, inside].abs().max() < 3
    batch = align.warp_batch(image[None].float(), m[None], 48)[0]
    assert (batch.double() - expected)[:, inside].abs().max() < 3


def test_both_warps_agree_with_reflected_borders():
    image = smooth(60, 80).round()
    m = matrix(0.2, 0.9, 25, 20)
    one, outside = align.warp(image.to(torch.uint8), m, 96)
    two = align.warp_batch(image[None], m[None], 96)[0]
    assert 0.1 < outside < 0.9
    assert (one.float() - two).abs().max() < 4


def test_shrinking_does_not_alias():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    m = matrix(0.0, 1 / 5.3, 0, 0)
    aligned, _ = align.warp(board, m, 48)
    assert abs(aligned.astype(int) - 127).max() < 20
    batch = align.warp_batch(torch.from_numpy(board).permute(2, 0, 1)[None].float(), m[None], 48)
    assert (batch - 127).abs().max() < 20


def test_outside_share_of_known_shifts():
    assert align.outside_share(align.inverse_of(matrix(0, 1, 0, 0)), 64, 64, 64) == 0.0
    assert align.outside_share(align.inverse_of(matrix(0, 1, 32, 0)), 64, 64, 64) == pytest.approx(0.5)
    assert align.outside_share(align.inverse_of(matrix(0, 1, 16, 16)), 64, 64, 64) == pytest.approx(1 - 0.75**2)
    assert align.outside_share(align.inverse_of(matrix(0, 1, 500, 0)), 64, 64, 64) == 1.0


def test_warp_batch_is_independent_of_the_batch_and_differentiable():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(3, 3, 40, 40, generator=generator, dtype=torch.float64) * 2 - 1
    matrices = torch.stack([matrix(0.1, 0.2, 1, 1), matrix(0, 1.5, -3, 0), matrix(-0.2, 0.6, 4, 4)])
    together = align.warp_batch(images, matrices, 16)
    for i in range(3):
        alone = align.warp_batch(images[i : i + 1], matrices[i : i + 1], 16)
        torch.testing.assert_close(together[i : i + 1], alone)
    assert together.min() >= -1 and together.max() <= 1
    small = images[:, :, :6, :6].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: align.warp_batch(x, matrices, 4, mode="bilinear"), small)
    assert align.warp_batch(images[:0], matrices[:0], 8).shape == (0, 3, 8, 8)
    assert align.warp_batch(images, matrices, (8, 12)).shape == (3, 3, 8, 12)
