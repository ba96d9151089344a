"""Weights in 8 bits: a tensor of many values as int8 with one scale a row of its first dimension.

Ours; the usual symmetric scheme (as in Jacob et al., CVPR 2018, without a zero point). It halves a file beside half
precision. Only storage is in 8 bits: what is read is float16 again, rounded to 1/254 of the row's largest magnitude.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARK = "::scale"  # the scales of tensor NAME lie beside it as NAME::scale, float32 [rows]
LEAST = 1024  # values; below, what is saved is not worth the rounding
_TOP = 127


def pack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors of at least two dimensions and `LEAST` values as int8 and scales, the rest as it is.

    A row is one index of the first dimension: an output channel of a convolution, a unit of a linear layer.
    ValueError for a value that is not finite.
    """
    packed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not value.is_floating_point() or value.ndim < 2 or value.numel() < LEAST:
            packed[name] = value
            continue
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds values that are not finite")
        rows = value.float().flatten(1)
        scale = rows.abs().amax(1) / _TOP
        whole = (rows / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().clamp(-_TOP, _TOP)
        packed[name], packed[name + MARK] = whole.to(torch.int8).reshape(value.shape), scale
    return packed


def is_packed(tensors: dict[str, Tensor]) -> bool:
    """Whether any tensor is in 8 bits."""
    return any(name.endswith(MARK) for name in tensors)


def unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack` but for the rounding: float16 where there was int8; what was never packed is untouched."""
    plain = {}
    for name, value in tensors.items():
        if name.endswith(MARK):
            continue
        scale = tensors.get(name + MARK)
        if scale is not None:
            value = (value.float().flatten(1) * scale[:, None]).half().reshape(value.shape)
        plain[name] = value
    return plain
