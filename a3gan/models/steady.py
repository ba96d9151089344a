"""Layers whose result for a face does not depend, to the bit, on the faces beside it in the batch.

A CPU's matrix product adds in another order for another number of rows, and fifty steps of optimisation make of that
last bit another face. Convolutions of 3x3 and more, means and products element by element do not do so from two faces
on; fully connected layers and convolutions of 1x1 do, and are written here as one product a face. On a GPU the library
chooses its arithmetic by the shape of the whole batch, so there only a batch of constant size helps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.models.inference import FoldedConv, FoldedRGB
from a3gan.models.ops import SQRT2, EqualLinear, lrelu_
from a3gan.models.stylegan2 import Generator

LEAST = 2
"""Faces a batch from which on its size does not show; for one face the library takes another way again."""


def product(x: Tensor, weight: Tensor) -> Tensor:
    """[N, M, I] times [I, O] -> [N, M, O], one product for each of N."""
    return torch.bmm(x, weight.to(x.dtype).expand(len(x), -1, -1))


def _frozen(values: Tensor | None) -> nn.Parameter | None:
    return None if values is None else nn.Parameter(values.detach().contiguous(), requires_grad=False)


class SteadyLinear(nn.Module):
    """An ``nn.Linear`` or `EqualLinear` whose weights take no gradient."""

    def __init__(self, layer: nn.Linear | EqualLinear):
        super().__init__()
        equal = isinstance(layer, EqualLinear)
        self.activate = equal and layer.activate
        scale = SQRT2 if self.activate else 1.0
        weight = layer.weight * (layer.gain * scale if equal else 1.0)
        bias = None if layer.bias is None else layer.bias * (layer.lr_mul * scale if equal else 1.0)
        self.weight, self.bias = _frozen(weight.t()), _frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, ..., I] -> [N, ..., O]."""
        y = product(x.reshape(len(x), -1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)
        y = y if self.bias is None else y + self.bias.to(y.dtype)
        return lrelu_(y) if self.activate else y


class SteadyPointwise(nn.Module):
    """A 1x1 ``nn.Conv2d`` whose weights take no gradient."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.stride = conv.stride
        self.weight = _frozen(conv.weight.flatten(1).t())
        self.bias = _frozen(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H', W'], channels last."""
        x = x[:, :, :: self.stride[0], :: self.stride[1]]
        n, channels, height, width = x.shape
        y = product(x.permute(0, 2, 3, 1).reshape(n, height * width, channels), self.weight)
        y = y if self.bias is None else y + self.bias.to(y.dtype)
        return y.view(n, height, width, -1).permute(0, 3, 1, 2)


def steady(network: nn.Module) -> nn.Module:
    """Swap the layers above into a network that is loaded and will not train again; returns it."""
    for name, child in network.named_children():
        if isinstance(child, nn.Linear | EqualLinear):
            setattr(network, name, SteadyLinear(child))
        elif isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and _plain(child):
            setattr(network, name, SteadyPointwise(child))
        else:
            steady(child)
    return network


def _plain(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.padding == (0, 0)


class SteadyConv(FoldedConv):
    """`FoldedConv` that overwrites nothing, so that gradients pass."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, H', W']."""
        style = self.style(w)
        style = style * style.square().mean(1, keepdim=True).add(1e-8).rsqrt()
        scale = (product(style.square()[:, None], self.power)[:, 0] + 0.5e-8).rsqrt()
        y = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            y = F.conv_transpose2d(y, self.weight, stride=2)
            y = F.conv2d(y, self.blur, padding=1, groups=self.blur.shape[0])
        else:
            y = F.conv2d(y, self.weight, padding=1)
        offset = self.bias if self.noise is None else self.bias + self.noise
        return F.leaky_relu_(torch.addcmul(offset, y, scale.to(y.dtype)[:, :, None, None]), 0.2)


class SteadySynthesis(nn.Module):
    """`Generator.synthesis` row by row, differentiable in W+ and not in the weights.

    dtype: of the maps. The generator is not changed and must not change afterwards.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.dtype, self.rows = dtype, generator.rows
        self.register_buffer("constant", generator.constant.detach().to(dtype))
        self.convs = nn.ModuleList(SteadyConv(conv, dtype, "transpose") for conv in generator.convs)
        self.to_rgb = nn.ModuleList(FoldedRGB(layer, dtype) for layer in generator.to_rgb)
        steady(self)

    def start(self, count: int) -> Tensor:
        """The map [count, C, 4, 4] that row 0 works on."""
        return self.constant.repeat(count, 1, 1, 1).contiguous(memory_format=torch.channels_last)

    def render(
        self, x: Tensor, rgb: Tensor | None, rows: Sequence[Tensor], first: int, stop: int
    ) -> tuple[Tensor, Tensor | None]:
        """What rows first..stop-1 of W+, a list of L times [N, w_dim], do to the map x and the picture rgb so far.

        A list, so that only those rows take a gradient that need one. Row r feeds the RGB layer of the map as it is
        where r is odd, then convolution r; the last row has none.
        """
        for row in range(first, stop):
            w = rows[row]
            if row % 2:
                rgb = self.to_rgb[row // 2](x, w, rgb)
            if row < len(self.convs):
                x = self.convs[row](x, w)
        return x, rgb

    def forward(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, w_dim] -> image [N, 3, S, S], float32."""
        return self.render(self.start(len(w_plus)), None, w_plus.unbind(1), 0, self.rows)[1]
