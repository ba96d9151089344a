"""Every operation against a slow reference that spells its definition out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from a3gan.models.ops import (
    EqualConv2d,
    EqualLinear,
    _UpFirDn,
    blur_kernel,
    lrelu_,
    minibatch_stddev,
    modulated_conv2d,
    upfirdn2d,
)

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_upfirdn(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """y[i, j] = sum_ab k[a, b] z[i + K-1-a, j + K-1-b] on the stuffed and padded z, then every down-th."""
    x, kernel = x.numpy(), kernel.numpy()
    n, c, h, w = x.shape
    k, (before, after) = len(kernel), pad
    high, wide = h * up + before + after, w * up + before + after
    z = np.zeros((n, c, high, wide), dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            row, column = i * up + before, j * up + before
            if 0 <= row < high and 0 <= column < wide:  # negative pads crop
                z[:, :, row, column] = x[:, :, i, j]
    y = np.zeros((n, c, high - k + 1, wide - k + 1), dtype=x.dtype)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            for a in range(k):
                for b in range(k):
                    y[:, :, i, j] += kernel[a, b] * z[:, :, i + k - 1 - a, j + k - 1 - b]
    return torch.from_numpy(y[:, :, ::down, ::down].copy())


CASES = [  # up, down, pad, height, width
    (1, 1, (0, 0), 5, 6), (1, 1, (2, 1), 5, 4), (2, 1, (2, 1), 3, 4), (1, 2, (1, 1), 6, 7), (1, 2, (1, 1), 5, 5),
    (2, 1, (-1, 2), 4, 3), (1, 1, (-1, -1), 7, 6), (1, 2, (2, -1), 6, 5), (2, 3, (3, 2), 4, 5), (3, 2, (0, 1), 3, 4),
]  # fmt: skip


@pytest.mark.parametrize(("up", "down", "pad", "height", "width"), CASES)
def test_upfirdn_is_its_definition(up: int, down: int, pad: tuple[int, int], height: int, width: int) -> None:
    x, kernel = normal(2, 3, height, width, dtype=DOUBLE), normal(4, 4, seed=1, dtype=DOUBLE)
    y = upfirdn2d(x, kernel, up, down, pad)
    expected = slow_upfirdn(x, kernel, up, down, pad)
    assert y.shape == expected.shape
    assert y.shape[2] == (height * up + sum(pad) - 4) // down + 1
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(("up", "down", "pad", "height", "width"), CASES)
def test_upfirdn_gradients(up: int, down: int, pad: tuple[int, int], height: int, width: int) -> None:
    x, kernel = normal(1, 2, height, width, dtype=DOUBLE).requires_grad_(), normal(4, 4, seed=1, dtype=DOUBLE)

    # float64 takes the library's gradient; 16 bits on a CPU take ours, which is checked here in double as well.
    for function in (
        lambda x: upfirdn2d(x, kernel, up, down, pad),
        lambda x: _UpFirDn.apply(x, kernel, up, down, (*pad, *pad)),
    ):
        assert gradcheck(function, x) and gradgradcheck(function, x)


def test_upfirdn_second_derivative_of_something_curved() -> None:
    # R1 differentiates the gradient of a filtered image once more.
    x, kernel = normal(1, 1, 5, 5, dtype=DOUBLE).requires_grad_(), blur_kernel().double()
    assert gradgradcheck(lambda x: upfirdn2d(x, kernel, down=2, pad=(1, 1)).tanh(), x)


def test_upfirdn_layout_and_type() -> None:
    x, kernel = normal(2, 3, 8, 8), blur_kernel()
    plain = upfirdn2d(x, kernel, up=2, pad=(2, 1))
    last = upfirdn2d(x.contiguous(memory_format=torch.channels_last), kernel, up=2, pad=(2, 1))
    torch.testing.assert_close(plain, last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = upfirdn2d(x.requires_grad_(), kernel, up=2, pad=(2, 1))
    assert half.dtype == torch.bfloat16 and (half - plain).abs().max() < 0.03
    half.float().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32 and x.grad.isfinite().all()


def test_blur_keeps_a_constant_and_its_mean() -> None:
    kernel = blur_kernel()
    assert kernel.sum().item() == pytest.approx(1) and torch.equal(kernel, kernel.t())
    assert kernel[0].tolist() == pytest.approx([1 / 64, 3 / 64, 3 / 64, 1 / 64])
    doubled = upfirdn2d(torch.ones(1, 1, 8, 8), kernel * 4, up=2, pad=(2, 1))
    assert doubled.shape == (1, 1, 16, 16) and doubled[..., 2:-2, 2:-2].sub(1).abs().max() < 1e-6


def slow_modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, blur: Tensor) -> Tensor:
    """Equations 1 and 3 of StyleGAN2 with one weight an image; up = zeros in between, full convolution, blur."""
    images = []
    for one, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        outputs = []
        for filters in w:
            maps = []
            for channel, f in zip(one, filters, strict=True):
                # The layer cross-correlates; transposed, that is a true convolution of the stuffed map.
                if up:
                    k = f.shape[0] - 1
                    maps.append(slow_upfirdn(channel[None, None], f, 2, 1, (k, k - 1))[0, 0])
                else:
                    k = f.shape[0] // 2
                    maps.append(slow_upfirdn(channel[None, None], f.flip(0, 1), 1, 1, (k, k))[0, 0])
            outputs.append(torch.stack(maps).sum(0))
        images.append(torch.stack(outputs))
    y = torch.stack(images)
    return slow_upfirdn(y, blur * 4, 1, 1, (1, 1)) if up else y


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(3, False), (1, False), (3, True)])
def test_modulated_convolution_is_one_weight_an_image(demodulate: bool, kernel: int, up: bool) -> None:
    x, weight = normal(2, 3, 4, 4, dtype=DOUBLE), normal(5, 3, kernel, kernel, seed=1, dtype=DOUBLE)
    style, blur = normal(2, 3, seed=2, dtype=DOUBLE), blur_kernel().double()
    y = modulated_conv2d(x, weight, style, demodulate=demodulate, up=up, blur=blur)
    assert y.shape == (2, 5, 8, 8) if up else (2, 5, 4, 4)
    expected = slow_modulated(x, weight, style, demodulate, up, blur)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)  # the normaliser is computed in float32


def test_modulated_convolution_gradient_reaches_everything() -> None:
    x, weight, style = (normal(2, 3, 4, 4), normal(5, 3, 3, 3, seed=1), normal(2, 3, seed=2))
    for tensor in (x, weight, style):
        tensor.requires_grad_()
    modulated_conv2d(x, weight, style, up=True, blur=blur_kernel()).square().sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (x, weight, style))
    slow = [t.detach().double().requires_grad_() for t in (x, weight, style)]
    w = slow[1][None] * slow[2][:, None, :, None, None]
    w = w / (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    y = torch.cat([F.conv_transpose2d(slow[0][i : i + 1], w[i].transpose(0, 1), stride=2) for i in range(2)])
    upfirdn2d(y, blur_kernel() * 4, pad=(1, 1)).square().sum().backward()
    for ours, theirs in zip((x, weight, style), slow, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-3)


def test_demodulation_forgets_the_scale_of_the_style() -> None:
    x, weight, style = normal(2, 8, 4, 4), normal(6, 8, 3, 3, seed=1), normal(2, 8, seed=2)
    y = modulated_conv2d(x, weight, style)
    torch.testing.assert_close(modulated_conv2d(x, weight, style * 1000), y, rtol=1e-4, atol=1e-4)
    half = modulated_conv2d(x.bfloat16(), weight, (style * 1000).bfloat16())
    assert half.dtype == torch.bfloat16 and half.isfinite().all() and (half - y).abs().max() < 0.1
    with pytest.raises(ValueError, match="blur"):
        modulated_conv2d(x, weight, style, up=True)


def slow_lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def test_lrelu_scales_through_and_keeps_the_variance() -> None:
    x = normal(100_000)
    scaled = lrelu_(x * math.sqrt(2))
    torch.testing.assert_close(scaled, slow_lrelu(x))
    assert scaled.square().mean().item() == pytest.approx(1.04, abs=0.02)  # 2 (1 + 0.04) / 2


def test_lrelu_in_place_has_its_first_and_second_gradient() -> None:
    def f(x: Tensor) -> Tensor:
        return lrelu_(x * 1.0).pow(3)

    x = normal(7, dtype=DOUBLE).requires_grad_(True)
    assert gradcheck(f, x) and gradgradcheck(f, x)


def test_gain_and_bias_of_the_modulated_convolution() -> None:
    x, weight, style, bias = normal(2, 3, 5, 5), normal(4, 3, 3, 3, seed=1), normal(2, 3, seed=2), normal(4, seed=3)
    plain = modulated_conv2d(x, weight, style)
    got = modulated_conv2d(x, weight, style, gain=1.5, bias=bias)
    torch.testing.assert_close(got, plain * 1.5 + bias[None, :, None, None])


def test_scale_of_a_convolution_is_a_factor_of_its_result() -> None:
    layer, plain = EqualConv2d(4, 6, 3, down=True), EqualConv2d(4, 6, 1, bias=False, activate=False)
    torch.nn.init.normal_(layer.bias)
    for net in (layer, plain):
        x = normal(2, 4, 8, 8)
        torch.testing.assert_close(net(x, 0.3), 0.3 * net(x))


def test_equal_linear() -> None:
    layer = EqualLinear(6, 4, bias=1.5, lr_mul=0.01)
    x = normal(3, 6)
    expected = x @ (layer.weight * 0.01 / math.sqrt(6)).t() + 1.5
    torch.testing.assert_close(layer(x), expected)
    torch.manual_seed(0)
    wide = EqualLinear(512, 512, lr_mul=0.01)
    assert wide(normal(64, 512, seed=1)).std().item() == pytest.approx(1, abs=0.05)
    active = EqualLinear(6, 4, activate=True)
    torch.testing.assert_close(active(x), slow_lrelu(x @ (active.weight / math.sqrt(6)).t()))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [6, 7])
def test_equal_convolution_down_is_blur_and_stride(kernel: int, size: int) -> None:
    torch.manual_seed(0)
    layer = EqualConv2d(3, 5, kernel, down=True, activate=False).double()
    with torch.no_grad():
        layer.bias.normal_()
    x, pad = normal(2, 3, size, size, dtype=DOUBLE), (2, 2) if kernel == 3 else (1, 1)
    blurred = slow_upfirdn(x, blur_kernel().double(), 1, 1, pad)
    expected = F.conv2d(blurred, layer.weight / math.sqrt(3 * kernel**2), layer.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)
    if size % 2 == 0:
        assert expected.shape[2] == size // 2


def test_equal_convolution() -> None:
    torch.manual_seed(0)
    layer = EqualConv2d(4, 6, 3)
    x = normal(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), slow_lrelu(F.conv2d(x, layer.weight / 6, layer.bias, padding=1)))
    assert EqualConv2d(4, 6, 1, bias=False).bias is None


def slow_stddev(x: Tensor, group: int) -> Tensor:
    """Image i stands in group i mod (N / group); the channel is the mean deviation within its group."""
    n = len(x)
    groups = n // group
    rows = []
    for i in range(n):
        members = torch.stack([x[j] for j in range(n) if j % groups == i % groups])
        rows.append(((members - members.mean(0)).square().mean(0) + 1e-8).sqrt().mean())
    return torch.stack(rows)


@pytest.mark.parametrize(("n", "group"), [(8, 4), (4, 4), (6, 3), (3, 3), (1, 1), (5, 5)])
def test_minibatch_stddev(n: int, group: int) -> None:
    x = normal(n, 3, 2, 2)
    y = minibatch_stddev(x, group)
    assert y.shape == (n, 4, 2, 2) and torch.equal(y[:, :3], x)
    torch.testing.assert_close(y[:, 3, 0, 0], slow_stddev(x, group))
    assert torch.equal(y[:, 3], y[:, 3, :1, :1].expand(-1, 2, 2))


def test_minibatch_stddev_of_odd_batches_and_equal_images() -> None:
    torch.testing.assert_close(minibatch_stddev(normal(6, 2, 2, 2), 4), minibatch_stddev(normal(6, 2, 2, 2), 3))
    same = normal(1, 2, 2, 2).expand(4, -1, -1, -1).clone().requires_grad_()
    y = minibatch_stddev(same)
    assert y[:, 2].max().item() == pytest.approx(1e-4)
    y.sum().backward()
    assert same.grad.isfinite().all()
