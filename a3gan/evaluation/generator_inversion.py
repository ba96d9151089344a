"""How well W+ of a generator can hold real faces: inversion by optimisation, no encoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.scorers.perceptual import feature_distance

if TYPE_CHECKING:
    from a3gan.models.stylegan2 import Generator
    from a3gan.scorers.attributes import AttributeNetwork


def invert(
    generator: Generator, faces: Tensor, network: AttributeNetwork, *, steps: int, rate: float, perceptual: float,
    progress: Callable[[int], object] | None = None,
) -> Tensor:  # fmt: skip
    """W+ [N, L, w_dim] whose pictures come close to `faces` [N, 3, S, S] in [-1, 1], each row by itself.

    Adam from the mean code on mean square + `perceptual` times the feature distance of `network`, the rate falling to
    0 by half a cosine. Losses are summed, not averaged, so that a face does not depend on what else is in the batch.
    `progress(N)` after each step.
    """
    w_plus = generator.w_mean.expand(len(faces), generator.rows, -1).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w_plus], lr=rate)
    with torch.no_grad():
        goal = network.features(faces)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        picture = generator.synthesis(w_plus)
        loss = (picture - faces).square().mean((1, 2, 3))
        if perceptual:
            loss = loss + perceptual * feature_distance(network.features(picture), goal)
        (w_plus.grad,) = torch.autograd.grad(loss.sum(), w_plus)
        optimizer.step()
        if progress is not None:
            progress(len(faces))
    return w_plus.detach()


def errors(pictures: Tensor, faces: Tensor) -> dict[str, Tensor]:
    """l1: mean absolute error [N] in 0..2; psnr [N] in dB, of a range of 2: 20 log10(2 / root mean square error)."""
    difference = pictures.clamp(-1, 1) - faces
    mean_square = difference.square().mean((1, 2, 3))
    return {
        "l1": difference.abs().mean((1, 2, 3)),
        "psnr": 10 * torch.log10(4 / mean_square.clamp_min(1e-12)),
    }
