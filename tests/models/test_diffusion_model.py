"""The pixel diffusion model and its schedule; MSI's bins, levels and shapes."""

from __future__ import annotations

import pytest
import torch

from a3gan.config import load_config
from a3gan.errors import UserError
from a3gan.models.diffusion_prior import GaussianPrior
from a3gan.models.msi import BINS, FaceLevels, Msi, at, level_of, time_bin
from a3gan.scorers.attributes import AttributeNetwork

pytest.importorskip("diffusers")

from a3gan.models.diffusion import PixelDiffusion, build_diffusion, ddim, ddim_inverse, ddpm  # noqa: E402


def test_ten_bins_of_time_read_five_levels() -> None:
    t = torch.tensor([0, 99, 100, 399, 400, 401, 599, 600, 999])
    assert time_bin(t, 1000).tolist() == [0, 0, 1, 3, 4, 4, 5, 6, 9]
    assert time_bin(torch.tensor([0, 24, 25, 249]), 250).tolist() == [0, 0, 1, 9]
    assert [level_of(b) for b in range(BINS)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_noise_is_that_of_stable_diffusion() -> None:
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    expected = (1 - beta).cumprod(0)
    torch.testing.assert_close(ddpm().alphas_cumprod.double(), expected, atol=1e-5, rtol=1e-4)
    assert ddim(50).timesteps[:2].tolist() == [981, 961] and ddim(50).timesteps[-1] == 1
    assert ddim_inverse(50).timesteps.tolist() == ddim(50).timesteps.flip(0).tolist()
    with pytest.raises(UserError, match="steps 0"):
        ddim(0)
    with pytest.raises(UserError, match="from 1 to 1000"):
        ddim(1001)


def test_shapes_and_what_the_noise_depends_on() -> None:
    torch.manual_seed(0)
    net = PixelDiffusion(64, (8, 16), heads=2, context=8, tokens=3, rank=0).eval()
    assert not net(torch.randn(1, 3, 64, 64), torch.tensor([5]), net.nothing(1)).any()  # what the prior says, at first
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.1)
    x, t, context = torch.randn(2, 3, 64, 64), torch.tensor([3, 700]), torch.randn(2, 3, 8, requires_grad=True)
    out = net(x, t, context)
    assert out.shape == x.shape and net.nothing(2).shape == (2, 3, 8)
    assert out.square().sum().backward() is None and context.grad.abs().min() > 0
    assert not torch.allclose(out, net(x, t.flip(0), context))
    torch.testing.assert_close(net(x[:1], t[:1], context[:1]), out[:1], atol=1e-5, rtol=0)


def test_the_default_is_small() -> None:
    net = build_diffusion(load_config(None, ["stage=diffusion"]))
    assert sum(value.numel() for value in net.state_dict().values()) < 1.7e6
    with pytest.raises(UserError, match="widths: 20"):
        build_diffusion(load_config(None, ["model.diffusion.widths=[16,20]"]))


def toy_faces(count: int) -> torch.Tensor:
    """A mean, two directions of 2x2 blocks with variances 50 and 10, and noise of deviation 0.05."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.zeros(2, 3, 16, 16)
    directions[0, 0, :8], directions[1, 1, 8:] = 128**-0.5, 128**-0.5  # symmetric, orthonormal
    codes = torch.randn(count, 2, generator=generator) * torch.tensor([50.0, 10.0]).sqrt()
    noise = 0.05 * torch.randn(count, 3, 16, 16, generator=generator)
    return 0.2 + torch.einsum("nk,kchw->nchw", codes, directions) + noise


def test_the_prior_finds_mean_directions_and_variances() -> None:
    prior = GaussianPrior(16, 2).fit(toy_faces(4000))
    torch.testing.assert_close(prior.variance, torch.tensor([50.0, 10.0]), rtol=0.1, atol=0)
    assert prior.rest.item() == pytest.approx(0.05**2, rel=0.1)
    torch.testing.assert_close(prior.basis @ prior.basis.T, torch.eye(2), atol=1e-4, rtol=0)
    assert (prior.mean - 0.2).abs().mean() < 0.02


def test_the_prior_is_the_best_estimate_of_gaussian_faces() -> None:
    """Against the formula in the whole space, and against any other gain."""
    faces, alpha = toy_faces(600), torch.tensor(0.3)
    prior = GaussianPrior(16, 2).fit(faces)
    noise = torch.randn(faces.shape, generator=torch.Generator().manual_seed(1))
    noisy = alpha.sqrt() * faces + (1 - alpha).sqrt() * noise
    found = prior(noisy, alpha.expand(600))
    up = torch.nn.functional.interpolate(prior.basis.view(2, 3, 8, 8), scale_factor=2.0).flatten(1).double() / 2
    covariance = prior.rest * torch.eye(768) + up.T @ torch.diag(prior.variance.double() - prior.rest) @ up
    gain = alpha.sqrt() * covariance @ torch.linalg.inv(alpha * covariance + (1 - alpha) * torch.eye(768))
    expected = prior.mean + ((noisy - alpha.sqrt() * prior.mean).flatten(1).double() @ gain.T).view_as(noisy)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    error = (found - faces).square().mean()
    assert all((k * (found - prior.mean) + prior.mean - faces).square().mean() > error for k in (0.8, 1.25))


def test_with_a_prior_noise_and_estimate_fit_together() -> None:
    net = PixelDiffusion(16, (8, 16), heads=2, context=8, tokens=3, rank=2).eval()
    net.prior.fit(toy_faces(100))
    x, t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 999])
    alpha = ddpm().alphas_cumprod[t].view(-1, 1, 1, 1)
    again = alpha.sqrt() * net.prior(x, alpha.flatten()) + (1 - alpha).sqrt() * net(x, t, net.nothing(2))
    torch.testing.assert_close(again, x, atol=1e-4, rtol=0)


def test_msi_makes_ten_conditions_of_five_levels() -> None:
    torch.manual_seed(0)
    tower = FaceLevels(AttributeNetwork("plain", 8))
    levels = tower(torch.rand(3, 3, 64, 64) * 2 - 1)
    assert [level.shape for level in levels] == [(3, width) for width in tower.widths]
    msi = Msi(tower.widths, 16, tokens=2, heads=2, head_dim=4).eval()
    conditions = msi(levels)
    assert conditions.shape == (3, 10, 2, 16)
    torch.testing.assert_close(msi([level[:1] for level in levels]), conditions[:1])
    assert torch.equal(at(conditions, torch.tensor([0, 450, 999]), 1000), conditions[range(3), [0, 4, 9]])
    norms = [project(level).norm(dim=1) for project, level in zip(msi.projectors, levels, strict=True)]
    torch.testing.assert_close(torch.stack(norms), torch.ones(5, 3))
    assert all(layer.bias is None for project in msi.projectors for layer in project.layers)
    conditions.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in msi.parameters() if p.ndim > 1)
    with pytest.raises(ValueError, match="4 levels"):
        Msi(tower.widths[:4], 16)


def test_the_tower_sees_the_face_and_not_black() -> None:
    """The released code casts [-1, 1] to uint8, so that two faces look alike to it."""
    torch.manual_seed(0)
    tower = FaceLevels(AttributeNetwork("plain", 8)).train()
    assert not tower.attributes.training
    one, other = (tower(torch.rand(1, 3, 64, 64) * 2 - 1) for _ in range(2))
    assert all(not torch.allclose(a, b) for a, b in zip(one, other, strict=True))
