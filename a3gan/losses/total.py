"""Weights times terms: the loss of one step of A3GAN and the numbers for its log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# The start weights; configs/default.yaml (section loss) has the same keys.
WEIGHTS: dict[str, float] = {
    "attributes_move": 0.5,
    "proposal_far": 0.5,
    "identity": 1.0,
    "realise": 0.5,
    "diversity": 0.1,
    "keep": 1.0,
    "geometry": 5.0,
    "perceptual": 1.0,
    "tint": 0.0,
    "reconstruction": 1.0,
    "suppression": 0.1,
    "gate_budget": 1.0,
    "adversarial": 0.1,
    "code": 0.005,
    "latent": 0.05,
    "injective": 0.05,
}
BY_ALPHA = frozenset({"attributes_move", "proposal_far", "identity", "diversity"})
"""Terms weighted by each image's alpha: how much it is anonymised."""
AT_ZERO = frozenset({"reconstruction"})
"""Terms of the images with alpha = 0 only."""


def total(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], alpha: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = mean_n Σ_t weight_t · share_t(alpha_n) · term_t[n], share = alpha, 1[alpha = 0] or 1 by the term's kind.

    Args:
        terms: name -> [N], lower is better. Terms a phase lacks are left out.
        weights: name -> weight >= 0, for every name in terms; 0 leaves a term out of the loss (not out of the log).
        alpha: [N] in [0, 1].

    Returns:
        The scalar to minimise and detached scalars: every term's mean over the images it counts for (weighted by the
        share, before the weight; 0 where it counts for none) and 'total'.

    Raises:
        ValueError: a term without weight, or not of shape [N].
    """
    loss = alpha.new_zeros(())
    scalars: dict[str, Tensor] = {}
    for name, term in terms.items():
        if name not in weights:
            raise ValueError(f"loss term {name!r} has no weight; known: {', '.join(sorted(weights))}")
        if term.shape != alpha.shape:
            shapes = f"{list(term.shape)}, not one number an image, {list(alpha.shape)}"
            raise ValueError(f"loss term {name!r} has shape {shapes}")
        share = shares(name, alpha)
        weighted = term * share
        if weights[name] > 0:
            loss = loss + weights[name] * weighted.mean()
        scalars[name] = (weighted.sum() / share.sum().clamp_min(1e-6)).detach()
    scalars["total"] = loss.detach()
    return loss, scalars


def shares(name: str, alpha: Tensor) -> Tensor:
    """What each image counts in a term, [N] in [0, 1]: alpha, 1 where alpha is 0, or 1."""
    if name in BY_ALPHA:
        return alpha
    return (alpha == 0).to(alpha.dtype) if name in AT_ZERO else torch.ones_like(alpha)
