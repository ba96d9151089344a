"""Frozen layers: the library's values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from a3gan.scorers.frozen import FrozenDepthwise, FrozenPReLU, freeze, is_depthwise

DEPTHWISE = [  # kernel, stride, padding, height, width, bias
    (3, 1, 1, 6, 7, False), (3, 2, 1, 8, 8, True), (3, 2, 1, 7, 9, False), (5, 3, 2, 11, 8, True),
    (4, 1, 0, 4, 4, True), (3, 2, 0, 8, 7, False), (1, 2, 0, 5, 6, True),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width", "bias"), DEPTHWISE)
def test_depthwise(kernel: int, stride: int, padding: int, height: int, width: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=bias).double()
    ours = FrozenDepthwise(layer)
    assert not list(ours.parameters())
    x = torch.randn(2, 6, height, width, dtype=torch.float64, requires_grad=True)
    expected = layer(x)
    torch.testing.assert_close(ours(x), expected)
    weight = torch.randn_like(expected)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    (mine,) = torch.autograd.grad((ours(x) * weight).sum(), x)
    torch.testing.assert_close(mine, theirs)
    assert gradcheck(ours, x)


def test_prelu() -> None:
    layer = nn.PReLU(3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.25, -0.5, 1.5]))
    ours = FrozenPReLU(layer)
    assert not list(ours.parameters())
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 0  # the library takes the slope there
    x.requires_grad_()
    torch.testing.assert_close(ours(x), layer(x))
    weight = torch.randn_like(x)
    (theirs,) = torch.autograd.grad((layer(x) * weight).sum(), x)
    (mine,) = torch.autograd.grad((ours(x) * weight).sum(), x)
    torch.testing.assert_close(mine, theirs)


def test_only_square_depthwise_convolutions() -> None:
    for conv in (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, (3, 1), groups=4),
                 nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2, groups=4)):  # fmt: skip
        assert not is_depthwise(conv)
        with pytest.raises(ValueError, match="depthwise"):
            FrozenDepthwise(conv)


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=True), nn.PReLU(8), nn.Conv2d(8, 4, 1))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_freeze_swaps_nested_layers_and_nothing_else() -> None:
    plain = network().eval().requires_grad_(False)
    frozen = freeze(copy.deepcopy(plain))
    kinds = [type(m) for m in frozen.modules()]
    assert kinds.count(FrozenPReLU) == 2 and kinds.count(FrozenDepthwise) == 1 and kinds.count(nn.Conv2d) == 2
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    torch.testing.assert_close(frozen(x), plain(x))
    (theirs,) = torch.autograd.grad(plain(x).square().sum(), x)
    (mine,) = torch.autograd.grad(frozen(x).square().sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(frozen(x.detach().contiguous(memory_format=torch.channels_last)), plain(x))


def test_bfloat16_autocast() -> None:
    plain = network().eval().requires_grad_(False)
    frozen = freeze(copy.deepcopy(plain))
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = frozen(x)
        loss = y.float().sum()
    assert y.dtype == torch.bfloat16 and (y - plain(x)).abs().max() < 0.02
    (mine,) = torch.autograd.grad(loss, x)
    (theirs,) = torch.autograd.grad(plain(x).sum(), x)
    assert mine.dtype == torch.float32 and (mine - theirs).norm() < 0.05 * theirs.norm()
