"""Suppressive convolution units (SCU) and the multi-scale encoder that they gate.

A3GAN (Zhai et al., ACM MM 2022) names the unit and its purpose, not its equations: those below are ours. The trunk
goes on from what a unit lets through, so what one level removed cannot return at the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLUR_SIZES = (7, 5, 3)  # low-pass of the filler at levels 1, 2, 3: about the same share of the face at each
TAPS = (4, 8, 16)  # level l sees the image at 1/4, 1/8, 1/16 of its width


def _groups(channels: int) -> int:
    """Group count for GroupNorm: at most 8, a divisor of the channels. No batch statistics: a face's result must not
    depend on the batch it came in, nor on how a batch is split over devices."""
    return math.gcd(channels, 8)


class SuppressiveConvUnit(nn.Module):
    """One SCU: decides where and in which channels identity sits, and puts a low-pass population filler there.

        m^s = sigmoid(conv1x1(relu(conv3x3[F; m_prev])))   in (0, 1)^{1xHxW}, last bias -2
        m^c = sigmoid(MLP(GAP F))                          in (0, 1)^C,       last bias +4
        M   = max(m^s * m^c, m_prev / 2)                   suppression accumulates: "progressive"
        B   = conv1x1(blur_k(F)) + b
        S   = (1 - alpha M) F + alpha M B;  S <- S + alpha conv3x3(IN(S))

    Args:
        channels: C of F. level: 1, 2 or 3 (picks the blur). reduction: of the channel MLP. filler: False sets B = 0
        (ablation "gate without filler").
    """

    blur: Tensor

    def __init__(self, channels: int, level: int, *, reduction: int = 16, filler: bool = True):
        super().__init__()
        hidden = max(8, channels // 4)
        self.where = nn.Sequential(nn.Conv2d(channels + 1, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
        squeeze = max(4, channels // reduction)
        self.which = nn.Sequential(nn.Linear(channels, squeeze), nn.ReLU(), nn.Linear(squeeze, channels))
        self.filler = nn.Conv2d(channels, channels, 1) if filler else None  # its bias is b, the population mean
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.constant_(self.where[2].bias, -2.0)
        nn.init.constant_(self.which[2].bias, 4.0)
        nn.init.normal_(self.refine.weight, std=0.01)  # starts near the plain mixture
        nn.init.zeros_(self.refine.bias)
        k = BLUR_SIZES[level - 1]
        taps = torch.tensor([math.comb(k - 1, i) for i in range(k)], dtype=torch.float32)
        self.register_buffer("blur", (taps[:, None] * taps[None]) / taps.sum() ** 2, persistent=False)

    def low_pass(self, x: Tensor) -> Tensor:
        """Binomial blur of [N, C, H, W], edges replicated."""
        c, k = x.shape[1], self.blur.shape[0]
        # Smaller maps than the blur: replicate as far as it takes, at most the map's own width a side.
        x = F.pad(x, (k // 2,) * 4, mode="replicate")
        return F.conv2d(x, self.blur.to(x.dtype)[None, None].expand(c, 1, k, k).contiguous(), groups=c)

    def forward(self, features: Tensor, incoming: Tensor | None, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """F [N, C, H, W], incoming m_prev [N, 1, h, w] or None (zeros), alpha [N] in [0, 1] -> S and M, both like F.

        alpha = 0 returns F exactly: every change is a product with alpha.
        """
        n, _, h, w = features.shape
        if incoming is None:
            previous = features.new_zeros(n, 1, h, w)
        else:
            previous = F.interpolate(incoming, size=(h, w), mode="area").to(features.dtype)
        spatial = torch.sigmoid(self.where(torch.cat([features, previous], 1)))
        channel = torch.sigmoid(self.which(features.mean((2, 3))))[:, :, None, None]
        gate = torch.maximum(spatial * channel, 0.5 * previous)
        strength = alpha.to(features.dtype)[:, None, None, None]
        fill = self.filler(self.low_pass(features)) if self.filler is not None else torch.zeros_like(features)
        # F + alpha M (B - F): the mixture of the docstring, written so that alpha = 0 is exact in any precision.
        out = features + strength * gate * (fill - features)
        return out + strength * self.refine(F.instance_norm(out)), gate


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with group norm; ``stride`` 2 halves the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(inputs), inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.GroupNorm(_groups(outputs), outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H/stride, W/stride]."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.skip is None else self.skip(x))


@dataclass
class Suppressed:
    """What the encoder gives on: S_1..S_3 (fine to coarse), the gates M_1..M_3 (None at a level without SCU)."""

    features: list[Tensor]
    gates: list[Tensor | None]


class NarrowTrunk(nn.ModuleList):
    """Residual trunk of three stages; stage l ends at 1/4, 1/8, 1/16 of the width. widths: stem, then the levels."""

    def __init__(self, widths: tuple[int, int, int, int], depth: int):
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1), ResidualUnit(widths[0], widths[0]))
        stages = []
        for i in range(3):
            units = [ResidualUnit(widths[i], widths[i + 1], stride=2)]
            units += [ResidualUnit(widths[i + 1], widths[i + 1]) for _ in range(depth - 1)]
            stages.append(nn.Sequential(stem, *units) if i == 0 else nn.Sequential(*units))
        super().__init__(stages)
        self.widths = tuple(widths[1:])


class SuppressiveEncoder(nn.Module):
    """Trunk with an SCU behind each of its three stages: the multi-scale semantic suppression network.

    Args:
        trunk: a ModuleList of three stages with ``widths`` (channels after each): ``NarrowTrunk`` or an IR-SE50.
        levels: which of 1, 2, 3 carry an SCU. filler, reduction: see ``SuppressiveConvUnit``.
    """

    def __init__(
        self, trunk: nn.ModuleList, *, levels: tuple[int, ...] = (1, 2, 3), filler: bool = True, reduction: int = 16
    ):
        super().__init__()
        self.trunk, self.widths = trunk, trunk.widths
        self.units = nn.ModuleDict(
            {
                str(level): SuppressiveConvUnit(trunk.widths[level - 1], level, reduction=reduction, filler=filler)
                for level in levels
            }
        )

    def forward(self, x: Tensor, alpha: Tensor) -> Suppressed:
        """x [N, 3, S, S] in [-1, 1], alpha [N] in [0, 1]."""
        features, gates, incoming = [], [], None
        for level, stage in enumerate(self.trunk, start=1):
            x = stage(x)
            gate = None
            if str(level) in self.units:
                x, gate = self.units[str(level)](x, incoming, alpha)
                incoming = gate.mean(1, keepdim=True)
            features.append(x)
            gates.append(gate)
        return Suppressed(features, gates)
