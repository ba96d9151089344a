"""What the suppressive units must remove, and how much they may: gradient reversal and the gate budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from a3gan.losses.distances import cosine


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -gradient * strength.to(gradient.dtype), None


def gradient_reversal(x: Tensor, strength: float | Tensor = 1.0) -> Tensor:
    """x itself [N, ...]; its gradient times -strength (Ganin and Lempitsky 2015).

    strength: a number, or one for each image [N]: with alpha there, the reader that follows learns from every image
    while nothing is taken from the features of one that is only reconstructed.
    """
    strength = torch.as_tensor(strength, dtype=x.dtype, device=x.device).detach()
    if strength.ndim == 1:
        strength = strength.view(-1, *[1] * (x.ndim - 1))
    return _Reversal.apply(x, strength)


def embedding_regression(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cos(h(GAP S_l), R(x)): [N, E], [N, E] -> [N] in [0, 2].

    Lower is a better reader of the identity. Behind `gradient_reversal` the features are trained for the contrary; a
    cosine held at 0 (loss 1) is what they can reach, since the reader turns a negative one round. The target is
    detached.
    """
    return 1 - cosine(predicted, target.detach())


def gate_budget(gates: Sequence[Tensor | None], rho: Sequence[float] = (0.15, 0.25, 0.35)) -> Tensor:
    """mean_l (mean M_l - ρ_l)²: gates M_l [N, C, H, W] in (0, 1), fine to coarse -> [N] in [0, 1), lower is better.

    Holds the share that is suppressed at ρ_l, so that the units neither close (all is filler) nor stay open. A level
    without unit has None. ValueError when the lists differ in length or no level has a gate.
    """
    if len(gates) != len(rho):
        raise ValueError(f"{len(gates)} gates, {len(rho)} budgets; give one for each level")
    pairs = [(gate, share) for gate, share in zip(gates, rho, strict=True) if gate is not None]
    if not pairs:
        raise ValueError("no level has a suppressive unit, so there is no gate to hold to a budget; leave the term out")
    return torch.stack([(gate.mean(dim=(1, 2, 3)) - share).square() for gate, share in pairs]).mean(dim=0)
