"""What keeps the injected code in bounds and readable. Ours; `latent` after e4e (Tov et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from a3gan.data.attributes import SCHEMA, Schema, to_values
from a3gan.losses.adversarial import d_logistic, g_nonsaturating


def delta_norm(delta: Tensor) -> Tensor:
    """mean_i ‖Δ_i‖²: injection [N, L, w_dim] -> [N], >= 0, lower is better: no larger a step in W+ than needed."""
    return delta.square().sum(dim=2).mean(dim=1)


def injective(predicted: Tensor, proposal: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """L_inj = ‖MLP_d(w' - w^sup) - a*‖²: [N, D], [N, D] -> [N] in [0, K + number of categorical), lower is better.

    Both are logits and compared by value, so that no saturated one dominates. 0 when the proposal can be read back
    from the injection: then different proposals give different codes.
    """
    return (to_values(predicted, schema) - to_values(proposal, schema)).square().sum(dim=1)


def latent(logits_fake: Tensor) -> Tensor:
    """Non-saturating loss of the rows of w' before the latent discriminator: logits [N, L] -> [N], > 0.

    Lower is better: rows that look like w of the mapping network, where the generator paints faces.
    """
    return g_nonsaturating(logits_fake)


def latent_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Its opponent: logits [N, L] of rows of w and of w' -> [N], > 0, lower is a better discriminator."""
    return d_logistic(logits_real, logits_fake)
