"""IR-SE50 as a three-stage trunk: the paper-scale encoder.

Deng et al., "ArcFace" (CVPR 2019) for the improved residual block, Hu et al. (CVPR 2018) for squeeze and excitation;
taps at 1/4, 1/8 and 1/16 of the width as in pSp (Richardson et al., CVPR 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and units; each stage halves the size


class SqueezeExcite(nn.Module):
    """Channel attention from the global mean, reduction 16."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> same."""
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ImprovedUnit(nn.Module):
    """BN - conv3x3 - PReLU - conv3x3 (stride) - BN - SE, plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), SqueezeExcite(outputs),
        )
        if inputs == outputs:
            self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H/stride, W/stride]."""
        return self.body(x) + self.shortcut(x)


class IrSe50Trunk(nn.ModuleList):
    """IR-SE50 with taps at 1/4 (128 channels), 1/8 (256) and 1/16 (512) of the width."""

    def __init__(self) -> None:
        stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        stages, width = [], 64
        for channels, count in STAGES:
            units = [ImprovedUnit(width, channels, 2)] + [ImprovedUnit(channels, channels, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*units))
            width = channels
        super().__init__([nn.Sequential(stem, stages[0], stages[1]), stages[2], stages[3]])
        self.widths = (128, 256, 512)
