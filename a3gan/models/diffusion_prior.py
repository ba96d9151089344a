"""What is known of aligned faces without learning: their mean and main directions, as a denoiser in closed form.

A U-Net on a CPU spends most of its time on where eyes and mouths are, which a Gaussian around the mean face says at
once. So it predicts what is left: ours, not of Diff-Privacy, whose Stable Diffusion has seen enough.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GaussianPrior(nn.Module):
    """E[x_0 | x_t] if faces were Gaussian: `rank` directions with variances of their own, all others with one.

    Directions live at half the side. An unfitted prior has no variance: its estimate is the mean, 0.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: Tensor

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, size, size))
        self.register_buffer("basis", torch.zeros(rank, 3 * (size // 2) ** 2))  # orthonormal rows
        self.register_buffer("variance", torch.zeros(rank))
        self.register_buffer("rest", torch.zeros(()))

    @torch.no_grad()
    def fit(self, faces: Tensor) -> GaussianPrior:
        """Mean, directions and variances of faces [N, 3, S, S] in [-1, 1], every other one mirrored."""
        faces = torch.cat([faces[::2], faces[1::2].flip(-1)])
        self.mean.copy_((faces.mean(0) + faces.mean(0).flip(-1)) / 2)
        faces = faces - self.mean
        rows = self._down(faces)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, values, directions = torch.svd_lowrank(rows, q=min(len(self.basis) + 8, *rows.shape), niter=3)
        rank = min(len(self.basis), len(values))
        self.basis[:rank] = directions.T[:rank]
        self.variance[:rank] = values[:rank].square() / len(rows)
        total = faces.square().sum() / len(faces)
        self.rest.copy_((total - self.variance.sum()) / (self.mean.numel() - rank))
        return self

    @staticmethod
    def _down(x: Tensor) -> Tensor:
        """Coefficients [N, 3 S S / 4] in the orthonormal basis of 2x2 blocks."""
        return F.avg_pool2d(x, 2).flatten(1) * 2

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        """The estimate [N, 3, S, S] of x_0 from x_t = sqrt(alpha) x_0 + sqrt(1 - alpha) noise, alpha [N]."""
        alpha = alpha.view(-1, 1)
        d = x - alpha.sqrt().view(-1, 1, 1, 1) * self.mean
        found = self._down(d) @ self.basis.T
        gain, other = (alpha.sqrt() * v / (alpha * v + 1 - alpha) for v in (self.variance, self.rest))
        inside = ((found * (gain - other)) @ self.basis).unflatten(1, (3, x.shape[2] // 2, -1)) / 2
        return self.mean + F.interpolate(inside, scale_factor=2.0) + other.view(-1, 1, 1, 1) * d
