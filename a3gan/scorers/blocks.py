"""What the scorers share: the convolution unit, its folding for frozen use, and sampling without skipped pixels."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def _activation(kind: str | None, channels: int) -> nn.Module:
    if kind is None:
        return nn.Identity()
    return {"prelu": lambda: nn.PReLU(channels), "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}[kind]()


class Unit(nn.Module):
    """Convolution, batch norm, activation: [N,Cin,H,W] -> [N,Cout,H',W']."""

    def __init__(self, cin: int, cout: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1,
                 activation: str | None = None, bias: bool = False, padding: int | None = None) -> None:  # fmt: skip
        super().__init__()
        if padding is None:
            padding = kernel // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=bias)
        self.norm: nn.Module = nn.BatchNorm2d(cout)
        self.act = _activation(activation, cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Merge the frozen batch norm into the convolution: same values, one pass over the memory less."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class ResidualBlock(nn.Module):
    """Basic block (He et al. 2016): two 3x3 convolutions and a shortcut, [N,Cin,H,W] -> [N,Cout,H/stride,W/stride]."""

    def __init__(self, cin: int, cout: int, stride: int = 1, activation: str = "relu") -> None:
        super().__init__()
        self.first = Unit(cin, cout, 3, stride, activation=activation)
        self.second = Unit(cout, cout, 3)
        self.shortcut = nn.Identity() if stride == 1 and cin == cout else Unit(cin, cout, 1, stride)
        self.act = _activation(activation, cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.first(x)) + self.shortcut(x))


def fold(network: nn.Module) -> nn.Module:
    """Fold every batch norm of a network that is loaded and in eval mode; returns it."""
    for module in network.modules():
        if isinstance(module, Unit):
            module.fold()
    return network


def sample(x: Tensor, grid: Tensor) -> Tensor:
    """One grid [1,h,w,2] (grid_sample's units) for all images [N,C,S,S] -> [N,C,h,w]; borders reflected.

    Bilinear sampling skips pixels when it shrinks by more than two: whole blocks are averaged first.
    """
    step = float((grid[0, 0, 1] - grid[0, 0, 0]).norm()) / 2 * x.shape[-1]
    if step >= 2:
        x = F.avg_pool2d(x, 2 ** int(math.log2(step + 1e-6)))
    grid = grid.expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(x.float(), grid, padding_mode="reflection", align_corners=False)
