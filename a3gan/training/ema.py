"""Exponential moving average of weights, its half-life counted in images so that runs of any batch size compare."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """Slow copies of some networks; `nets[name]` is in eval mode and without gradients.

    Update (ours, after the images-counted EMA of StyleGAN2-ADA): θ̄ ← θ + β(θ̄ − θ), β = ½^(B/h),
    h = min(half_life, 0.05·images_seen) so that the random start is forgotten early. Buffers are copied.
    """

    def __init__(self, networks: dict[str, nn.Module], names: tuple[str, ...], half_life: float) -> None:
        self.half_life = half_life
        self.nets = {name: copy.deepcopy(networks[name]).eval().requires_grad_(False) for name in names}

    @torch.no_grad()
    def update(self, networks: dict[str, nn.Module], batch_size: int, images_seen: int) -> None:
        """Moves the copies towards `networks` after a step over `batch_size` images; `images_seen` includes them."""
        half_life = min(self.half_life, 0.05 * images_seen)
        keep = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        for name, slow in self.nets.items():
            fast = networks[name]
            pairs = list(zip(slow.parameters(), fast.parameters(), strict=True))
            torch._foreach_lerp_([s for s, _ in pairs], [f for _, f in pairs], 1.0 - keep)
            for ours, theirs in zip(slow.buffers(), fast.buffers(), strict=True):
                ours.copy_(theirs)

    def merged(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """All networks by name: the slow copy where there is one, else the network itself."""
        return {**networks, **self.nets}
