"""The operations of StyleGAN2 in plain PyTorch: no compiled extension, bfloat16 and channels-last friendly.

Equations follow Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020), section 2; each
operation here is tested against a slow reference that spells the definition out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.models.convolution import conv2d, conv_transpose2d

SQRT2 = math.sqrt(2.0)


def blur_kernel(taps: tuple[int, ...] = (1, 3, 3, 1)) -> Tensor:
    """Separable low-pass kernel [k, k], float32, sums to 1."""
    one = torch.tensor(taps, dtype=torch.float32)
    two = one[:, None] * one[None, :]
    return two / two.sum()


def _upfirdn(x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int, int, int]) -> Tensor:
    n, c, h, w = x.shape
    k = kernel.shape[0]
    if up > 1:
        # Zeros and padding in one fresh map of the right layout: each pass over it costs as much as the filter.
        left, right, top, bottom = (max(0, p) for p in pad)
        shape = (n, c, h * up + top + bottom, w * up + left + right)
        stuffed = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_format(x)).zero_()
        stuffed[:, :, top : top + h * up : up, left : left + w * up : up] = x
        x, pad = stuffed, tuple(min(0, p) for p in pad)
    even = pad[0] if pad[0] >= 0 and len(set(pad)) == 1 else None
    if even is None:
        x = F.pad(x, pad)  # the convolution itself pads the same on all sides only, without a copy
    weight = kernel.flip(0, 1).to(device=x.device, dtype=x.dtype)
    return F.conv2d(x, weight[None, None].expand(c, 1, k, k).contiguous(), stride=down, padding=even or 0, groups=c)


class _UpFirDn(torch.autograd.Function):
    """``upfirdn2d`` whose gradient is ``upfirdn2d`` with up and down exchanged and the kernel flipped.

    As the gradient calls the function itself, it can be differentiated again (R1).
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, up: int, down: int, pad: tuple[int, int, int, int]) -> Tensor:
        h, w = x.shape[2:]
        k = kernel.shape[0]
        left, _, top, _ = pad
        y = _upfirdn(x, kernel, up, down, pad)
        back = (
            k - left - 1, w * up - y.shape[3] * down + left - up + 1,
            k - top - 1, h * up - y.shape[2] * down + top - up + 1,
        )
        ctx.save_for_backward(kernel)
        ctx.up, ctx.down, ctx.back, ctx.dtype = up, down, back, x.dtype
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (kernel,) = ctx.saved_tensors
        gradient = gradient.to(ctx.dtype)
        return _UpFirDn.apply(gradient, kernel.flip(0, 1), ctx.down, ctx.up, ctx.back), None, None, None, None


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert ``up``-1 zeros after every sample, pad, filter with ``kernel`` (true convolution), keep every ``down``-th.

    Args:
        x: [N, C, H, W]. kernel: [k, k] float. up, down: >= 1. pad: zeros (before, after), the same for both axes;
        negative ones crop.
    Returns:
        [N, C, (H*up + pad0 + pad1 - k) // down + 1, likewise W], in the type of x (autocast's, under autocast).
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    # On a CPU the library's gradient of a strided 16-bit depthwise convolution takes many times as long as ours, and so
    # does its second order, which R1 and path length need, in float32 (docs/PERFORMANCE.md).
    ours = x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()
    return (_UpFirDn.apply if ours else _upfirdn)(x, kernel, up, down, (*pad, *pad))


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, up: bool = False, blur: Tensor | None = None,
    gain: float = 1.0, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolution whose weight is scaled per image and input channel, then normalised per output channel.

    w'_oikl = s_i w_oikl;  w''_oikl = w'_oikl / sqrt(sum_ikl w'^2 + 1e-8)  (StyleGAN2, equations 1 and 3).
    Both scalings are taken out of the weight: the input is multiplied by s, the output by the normaliser. That is the
    same by linearity, needs one shared weight for the whole batch, and so runs as an ordinary convolution.

    Args:
        x: [N, I, H, W]. weight: [O, I, k, k], k odd. style: [N, I]. up: double the size (transposed convolution, then
        ``blur`` with a gain of 4). gain, bias [O]: the result times gain, plus bias, in one pass (demodulate only).
        Returns [N, O, H, W] or [N, O, 2H, 2W] in the type of x.
    """
    k = weight.shape[-1]
    if demodulate:
        # Normalised first, so that the sum of squares stays in range in 16 bits; the ratio is unchanged.
        style = style * style.float().square().mean(1, keepdim=True).add(1e-8).rsqrt().to(style.dtype)
        power = weight.float().square().sum((2, 3))
        demod = (style.float().square() @ power.t() + 1e-8).rsqrt() * gain
    y = x * style[:, :, None, None].to(x.dtype)
    w = weight.to(x.dtype)
    if up:
        if blur is None:
            raise ValueError("modulated_conv2d(up=True) needs the blur kernel")
        y = conv_transpose2d(y, w.transpose(0, 1), stride=2)
        y = upfirdn2d(y, blur * 4.0, pad=(1, 1))
    else:
        y = conv2d(y, w, padding=k // 2)
    if not demodulate:
        return y
    scale = demod[:, :, None, None].to(y.dtype)
    return y * scale if bias is None else torch.addcmul(bias.to(y.dtype)[None, :, None, None], y, scale)


def lrelu_(x: Tensor) -> Tensor:
    """leaky_relu(x, 0.2) in place: for a fresh result that nothing else needs. x is [N, ...].

    StyleGAN2's activation is sqrt(2) times that, which keeps the variance of its input near 1. As s lrelu(x) is
    lrelu(s x) for s > 0, callers scale the weight and bias before it instead of a whole feature map behind it.
    """
    return F.leaky_relu(x, 0.2, inplace=True)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: y = x (W · lr_mul/sqrt(I))^T + b · lr_mul, W ~ N(0, 1/lr_mul²)."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_mul))
        self.gain = lr_mul / math.sqrt(inputs)
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        scale = SQRT2 if self.activate else 1.0
        weight, bias = self.weight * (self.gain * scale), self.bias * (self.lr_mul * scale)
        y = F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
        return lrelu_(y) if self.activate else y


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate, optional blur-and-halve, bias and activation."""

    blur: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, down: bool = False, bias: bool = True, activate: bool = True
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.down = down
        self.activate = activate
        self.register_buffer("blur", blur_kernel(), persistent=False)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """[N, I, H, W] -> [N, O, H, W] or [N, O, H/2, W/2], times ``scale`` > 0, at no further cost."""
        scale = scale * SQRT2 if self.activate else scale
        weight = (self.weight * (self.gain * scale)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * scale).to(x.dtype)
        k = weight.shape[-1]
        if self.down:
            # A 1x1 kernel commutes with dropping samples, so the filter itself may halve: a quarter of the work.
            wide = k > 1
            x = upfirdn2d(x, self.blur, down=1 if wide else 2, pad=(2, 2) if wide else (1, 1))
            y = conv2d(x, weight, bias, stride=2 if wide else 1)
        else:
            y = conv2d(x, weight, bias, padding=k // 2)
        return lrelu_(y) if self.activate else y


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel: the standard deviation over groups of ``group`` images, averaged over channels and places.

    x: [N, C, H, W] -> [N, C + 1, H, W]. N need not divide: the group shrinks to the largest divisor of N.
    Source: Karras et al., "Progressive Growing of GANs" (ICLR 2018), section 3.
    """
    n, c, h, w = x.shape
    group = min(group, n)
    while n % group:
        group -= 1
    y = x.float().reshape(group, n // group, c, h, w)
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    y = y.repeat(group).reshape(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, y.to(x.dtype)], 1)
