"""A convolutional network that nobody trained: features that compare faces without knowing people.

phi of FaceMAE's relation matching where no recogniser may have a part in what is published ("leakage-free").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 64)
SEED = 20220509  # fixed: a run and its validation, on any machine, see through the same network


class RandomFeatures(nn.Module):
    """Frozen random convolutions: faces [N, 3, S, S] in [-1, 1] -> unit vectors [N, 1024], differentiable in x.

    Every map is normalised by its own mean and deviation, and the vector by its mean: without that all cosines are near
    1. The face is aligned, so places carry meaning: 4x4 of them are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        self.weights = nn.ParameterList()
        last = 3
        for width in WIDTHS:
            scale = (2 / (last * 9)) ** 0.5  # He et al. 2015
            self.weights.append(nn.Parameter(torch.randn(width, last, 3, 3, generator=generator) * scale))
            last = width
        self.requires_grad_(False)

    def forward(self, x: Tensor, frame: str = "face") -> Tensor:
        for weight in self.weights:
            x = F.leaky_relu(F.instance_norm(F.conv2d(x, weight, stride=2, padding=1)), 0.2)
        x = F.adaptive_avg_pool2d(x, 4).flatten(1).float()
        return F.normalize(x - x.mean(1, keepdim=True))
