"""The discriminators: sizes, known structure, R1 through them."""

from __future__ import annotations

import math

import pytest
import torch

from a3gan.losses.adversarial import r1
from a3gan.models.discriminator import Discriminator, LatentDiscriminator, ResidualBlock


def tiny(size: int = 64) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(size, channels_base=64, channels_max=8)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_one_logit_an_image(size: int) -> None:
    net = tiny(size)
    logits = net(torch.randn(2, 3, size, size))
    assert logits.shape == (2,) and logits.dtype == torch.float32
    assert len(net.blocks) == math.log2(size) - 2  # down to 4x4


def test_residual_block() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(4, 6), torch.randn(2, 4, 8, 8)
    expected = (block.conv2(block.conv1(x)) + block.skip(x)) / math.sqrt(2)
    y = block(x)
    assert y.shape == (2, 6, 4, 4)
    torch.testing.assert_close(y, expected)


def test_the_batch_matters_only_through_its_spread() -> None:
    net, x = tiny(), torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(net(x), net(x.flip(0)).flip(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x)[:1], net(x[:1]))  # alone: no spread
    net.stddev_group = 1
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-4, atol=1e-5)


def test_r1_reaches_every_weight_and_is_the_slope() -> None:
    net = tiny()
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    penalty = r1(net(x), x, gamma=2.0)
    penalty.mean().backward()
    weights = {name: p for name, p in net.named_parameters() if name.endswith("weight")}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in weights.values())
    assert sum(p.grad.abs().sum() > 0 for p in weights.values()) == len(weights)
    # gamma / 2 |g|^2 with gamma 2: the square of the slope along g
    net.double()
    y = x.detach().double().requires_grad_()
    (g,) = torch.autograd.grad(net(y).sum(), y)
    step = 0.01 * g / g.norm()
    with torch.no_grad():
        slope = (net(y + step).sum() - net(y - step).sum()) / 0.02
    assert slope.item() ** 2 == pytest.approx(penalty.double().sum().item(), rel=0.02)


def test_bfloat16() -> None:
    net, x = tiny(), torch.randn(4, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(x)
    assert half.dtype == torch.float32 and (half - net(x)).abs().max() < 0.1


def test_latent_discriminator_reads_rows_one_by_one() -> None:
    torch.manual_seed(0)
    net, w = LatentDiscriminator(8, hidden=16), torch.randn(3, 10, 8)
    logits = net(w)
    assert logits.shape == (3, 10)
    torch.testing.assert_close(net(w[1:2, 4:5]), logits[1:2, 4:5])
