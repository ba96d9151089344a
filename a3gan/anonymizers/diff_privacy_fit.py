"""Fitting MSI to one face: the ten conditions under which the frozen diffusion model knows that face best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from a3gan.anonymizers.base import face_seed
from a3gan.anonymizers.diff_privacy_backbone import Backbone
from a3gan.models.diffusion import diffusers

RATE = 1e-3  # the authors' 1e-4 is for their 6,100 steps from a random start
DRAWS = 4  # noises and times a step


def fitted(
    backbone: Backbone, face: Tensor, steps: int, seed: int, tick: Callable[[], object] = lambda: None
) -> Tensor:
    """C [1, 10, L, D] of one face [1, 3, S, S]: noise-prediction MSE, AdamW, from the trained module; the U-Net is
    frozen. steps = 0: what the trained module says of the face. The seed draws noises and times.
    """
    levels = backbone.levels(face)
    if steps == 0:
        with torch.no_grad():
            return backbone.conditions(backbone.msi, levels)
    with torch.enable_grad():
        msi = _fit(backbone, face, levels, steps, seed, tick)
    with torch.no_grad():
        return backbone.conditions(msi, levels)


def _fit(
    backbone: Backbone, face: Tensor, levels: list[Tensor], steps: int, seed: int, tick: Callable[[], object]
) -> torch.nn.Module:
    schedule = {k: v for k, v in backbone.schedule.items() if k.startswith("beta") or k == "num_train_timesteps"}
    scheduler = diffusers().DDPMScheduler(**schedule)
    draw = torch.Generator().manual_seed(face_seed("msi", seed))
    msi = backbone.fresh_msi().eval()  # without dropout: of one face there is nothing to generalise to
    optimizer = torch.optim.AdamW(msi.parameters(), lr=RATE, weight_decay=0.0)
    with torch.no_grad():
        z = backbone.encode(face).expand(DRAWS, -1, -1, -1)
    levels = [level.expand(DRAWS, -1) for level in levels]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        # One time in each quarter of T: so all scales are fitted evenly.
        t = ((torch.arange(DRAWS) + torch.rand(DRAWS, generator=draw)) / DRAWS * backbone.steps).long()
        noise = torch.randn(z.shape, generator=draw).to(z)
        t = t.to(z.device)
        context = backbone.context(backbone.at(msi(levels), t))
        loss = (backbone.noise(scheduler.add_noise(z, noise, t), t, context) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tick()
    return msi
