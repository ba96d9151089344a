"""Layers of a frozen network whose gradient only has to reach the input: same values, a far cheaper backward pass.

On a CPU the library's backward of a strided depthwise convolution in 16 bits, and of PReLU in any type, costs many
times its forward pass (`a3gan bench layers`, docs/PERFORMANCE.md). Both gradients are written here with operations that
are fast everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution; the gradient is the convolution of the zero-stuffed gradient with the flipped kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.shape, ctx.dtype = stride, padding, x.shape, x.dtype
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        n, c, height, width = ctx.shape
        k, stride = weight.shape[-1], ctx.stride
        reach = k - 1 - ctx.padding
        if stride > 1:
            # As many places as the input has offsets of the kernel, so that the result has the input's size.
            size = (n, c, height + 2 * ctx.padding - k + 1, width + 2 * ctx.padding - k + 1)
            stuffed = torch.zeros(size, dtype=gradient.dtype, device=gradient.device)
            stuffed = stuffed.contiguous(memory_format=torch.channels_last)
            stuffed[:, :, ::stride, ::stride] = gradient
            gradient = stuffed
        flipped = weight.flip(2, 3).to(gradient.dtype)
        return F.conv2d(gradient, flipped, padding=reach, groups=c).to(ctx.dtype), None, None, None


class _PReLU(torch.autograd.Function):
    """max(x, 0) + p min(x, 0) with one p a channel."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        slope = slope.to(x.dtype)
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        x, slope = ctx.saved_tensors
        slope = slope[None, :, None, None]
        positive = torch.ops.aten.leaky_relu_backward(gradient, x, 0.0, False)  # gradient where x > 0, else 0
        return torch.addcmul(positive * (1 - slope), gradient, slope), None


class FrozenDepthwise(nn.Module):
    """A depthwise ``nn.Conv2d`` whose weights take no gradient. Raises ValueError for any other convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not is_depthwise(conv):
            raise ValueError(f"not a square depthwise convolution: {conv}")
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.stride, self.padding = conv.stride[0], conv.padding[0]

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        weight = self.weight.to(x.dtype)
        if self.stride > 1 and x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):
            y = _Depthwise.apply(x, weight, self.stride, self.padding)
        else:  # here the library is as fast or faster
            y = F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=len(weight))
        return y if self.bias is None else y + self.bias.to(y.dtype)[None, :, None, None]


class FrozenPReLU(nn.Module):
    """An ``nn.PReLU`` whose slopes take no gradient."""

    def __init__(self, layer: nn.PReLU) -> None:
        super().__init__()
        self.register_buffer("slope", layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> same."""
        return _PReLU.apply(x, self.slope)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """One square, undilated filter for each channel."""
    square = len(set(conv.kernel_size)) == len(set(conv.stride)) == len(set(conv.padding)) == 1
    return square and 1 < conv.groups == conv.in_channels == conv.out_channels and conv.dilation == (1, 1)


def freeze(network: nn.Module) -> nn.Module:
    """Swap the layers above into a network that is loaded and will not train again; returns it."""
    for name, child in network.named_children():
        if isinstance(child, nn.PReLU):
            setattr(network, name, FrozenPReLU(child))
        elif isinstance(child, nn.Conv2d) and is_depthwise(child):
            setattr(network, name, FrozenDepthwise(child))
        else:
            freeze(child)
    return network
