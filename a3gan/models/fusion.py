"""Multi-scale fusion of the suppressed features into W+ (ours, after the pyramid of pSp, Richardson et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.models.ops import EqualLinear

POOL = 4  # a 4x4 grid keeps where the mouth and the gaze are; a global mean would lose it


def level_of_row(row: int) -> int:
    """Level that feeds a row of W+ at every image size: 3 (coarse) for 0-2, 2 for 3-6, 1 (fine) from 7 on."""
    return 3 if row < 3 else 2 if row < 7 else 1


class Fusion(nn.Module):
    """P_3 = lat(S_3); P_2 = lat(S_2) + up(P_3); P_1 = lat(S_1) + up(P_2); one pooled linear head per row.

    No path leads around the suppressed features: W+ depends on the image through S_1..S_3 alone.
    """

    w_start: Tensor

    def __init__(self, widths: tuple[int, int, int], rows: int, w_dim: int, lateral: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, lateral, 1) for c in widths)
        # Equalised, so that a step of the optimiser moves w by the rate and not by the rate times hundreds of inputs.
        self.heads = nn.ModuleList(EqualLinear(lateral * POOL * POOL, w_dim) for _ in range(rows))
        with torch.no_grad():
            for head in self.heads:
                head.weight.mul_(0.1)  # starts near the mean face
        self.register_buffer("w_start", torch.zeros(rows, w_dim))

    def forward(self, features: list[Tensor]) -> Tensor:
        """S_1, S_2, S_3 -> w^sup [N, L, w_dim] = w-bar + Delta, float32."""
        pyramid: list[Tensor] = []
        below: Tensor | None = None
        for level in (3, 2, 1):
            p = self.lateral[level - 1](features[level - 1])
            if below is not None:
                p = p + F.interpolate(below, size=p.shape[2:], mode="bilinear", align_corners=False).to(p.dtype)
            below = p
            pyramid.insert(0, p)
        pooled = [F.adaptive_avg_pool2d(p, POOL).flatten(1) for p in pyramid]
        rows = [head(pooled[level_of_row(i) - 1]).float() for i, head in enumerate(self.heads)]
        return self.w_start + torch.stack(rows, 1)
