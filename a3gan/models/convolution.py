"""Convolution whose second derivatives are convolutions too: what R1, R2 and path length differentiate twice.

The library's second order of a convolution slides one batch of whole feature maps over another, as kernels of the
maps' size. But with y = w * x the three maps (x, w) -> y, (g, w) -> x' and (g, x) -> w' (forward, transposed, gradient
of the weight) are bilinear, and each one's derivatives are the other two: closed under differentiation of any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

_to_weights = True  # of the whole process: backward passes on a GPU run in threads of their own


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """As F.conv2d of one group: x [N, I, H, W], weight [O, I, k, k], bias [O] -> [N, O, H', W']."""
    if not _twice(x, weight):
        return F.conv2d(x, weight, bias, stride, padding)
    y = _Forward.apply(x, weight, stride, padding)
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """As F.conv_transpose2d of one group without padding: x [N, I, H, W], weight [I, O, k, k] -> [N, O, H', W']."""
    if not _twice(x, weight):
        return F.conv_transpose2d(x, weight, stride=stride)
    side = [(n - 1) * stride + weight.shape[-1] for n in x.shape[2:]]
    return _Transposed.apply(x, weight, stride, 0, side)


@contextmanager
def maps_only() -> Iterator[None]:
    """Within it gradients go to feature maps and not to weights: for `torch.autograd.grad` towards pictures or codes.

    A function of ours is not told which gradients are wanted and would compute them all. What is differentiated a
    second time, outside, reaches the weights as usual.
    """
    global _to_weights
    _to_weights = False
    try:
        yield
    finally:
        _to_weights = True


def _twice(x: Tensor, weight: Tensor) -> bool:
    """Penalties on gradients are computed in full precision, and need gradients of both."""
    wide = x.dtype in (torch.float32, torch.float64)
    return wide and torch.is_grad_enabled() and x.requires_grad and weight.requires_grad


class _Forward(torch.autograd.Function):
    """(x, w) -> y."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, *_ = ctx.needs_input_grad
        grad_x = _Transposed.apply(g, weight, *ctx.how, x.shape[2:]) if to_x else None
        grad_weight = _Weight.apply(g, x, weight.shape, *ctx.how) if to_weight and _to_weights else None
        return grad_x, grad_weight, None, None


class _Transposed(torch.autograd.Function):
    """(g, w) -> what has the shape of x, its side given: of several x the stride leaves the same y."""

    @staticmethod
    def forward(ctx, g: Tensor, weight: Tensor, stride: int, padding: int, side: list[int]) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.how = stride, padding
        least = [(n - 1) * stride - 2 * padding + weight.shape[-1] for n in g.shape[2:]]
        rest = [n - m for n, m in zip(side, least, strict=True)]
        return F.conv_transpose2d(g, weight, None, stride, padding, rest)

    @staticmethod
    def backward(ctx, x: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        to_g, to_weight, *_ = ctx.needs_input_grad
        grad_g = _Forward.apply(x, weight, *ctx.how) if to_g else None
        grad_weight = _Weight.apply(g, x, weight.shape, *ctx.how) if to_weight and _to_weights else None
        return grad_g, grad_weight, None, None, None


class _Weight(torch.autograd.Function):
    """(g, x) -> what has the shape of w."""

    @staticmethod
    def forward(ctx, g: Tensor, x: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.how = stride, padding
        like = g.new_empty(shape)  # only its shape counts
        both = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
        return torch.ops.aten.convolution_backward(g, x, like, None, *both)[1]

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        to_g, to_x, *_ = ctx.needs_input_grad
        grad_g = _Forward.apply(x, weight, *ctx.how) if to_g else None
        grad_x = _Transposed.apply(g, weight, *ctx.how, x.shape[2:]) if to_x else None
        return grad_g, grad_x, None, None, None
