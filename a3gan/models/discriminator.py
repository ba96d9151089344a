"""StyleGAN2's residual discriminator (Karras et al., CVPR 2020), plain PyTorch; and a small one for latent rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from a3gan.models.ops import SQRT2, EqualConv2d, EqualLinear, minibatch_stddev
from a3gan.models.stylegan2 import channels_at


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second halving, plus a 1x1 halving skip, summed over sqrt(2)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = EqualConv2d(inputs, inputs, 3)
        self.conv2 = EqualConv2d(inputs, outputs, 3, down=True)
        self.skip = EqualConv2d(inputs, outputs, 1, down=True, bias=False, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H/2, W/2]."""
        return self.conv2(self.conv1(x), 1 / SQRT2) + self.skip(x, 1 / SQRT2)


class Discriminator(nn.Module):
    """Image [N, 3, S, S] in [-1, 1] -> logit [N], higher is more real."""

    def __init__(self, size: int, *, channels_base: int = 32768, channels_max: int = 512, stddev_group: int = 4):
        super().__init__()
        self.size, self.stddev_group = size, stddev_group
        width = channels_at(size, channels_base, channels_max)
        self.from_rgb = EqualConv2d(3, width, 1)
        blocks = []
        for step in range(int(math.log2(size)), 2, -1):
            out = channels_at(2 ** (step - 1), channels_base, channels_max)
            blocks.append(ResidualBlock(width, out))
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.conv = EqualConv2d(width + 1, width, 3)
        self.head = nn.Sequential(EqualLinear(width * 16, width, activate=True), EqualLinear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N] float32."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        x = self.blocks(self.from_rgb(x.contiguous(memory_format=torch.channels_last)))
        x = self.conv(minibatch_stddev(x, self.stddev_group))
        return self.head(x.flatten(1)).float()[:, 0]


class LatentDiscriminator(nn.Module):
    """One row of W+ [.., w_dim] -> logit [..]: is it one that the mapping network would draw?

    Keeps injected codes inside the generator's prior, as in e4e (Tov et al., SIGGRAPH 2021).
    """

    def __init__(self, w_dim: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            EqualLinear(w_dim, hidden, activate=True),
            EqualLinear(hidden, hidden, activate=True),
            EqualLinear(hidden, 1),
        )

    def forward(self, w: Tensor) -> Tensor:
        """[N, L, w_dim] -> [N, L]."""
        return self.layers(w.flatten(0, -2)).reshape(w.shape[:-1])
