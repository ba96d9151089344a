"""What makes a face another one: attributes move, the proposal is far and comes true, the identity goes.

The terms of the anonymization loss of our A3GAN formulation: the paper (Zhai et al., ACM MM 2022) states its purpose,
the equations are ours. Codes are flat logits [N, D] (data/attributes.py), c [N, K] is 1 where an attribute may change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from a3gan.data.attributes import SCHEMA, Schema
from a3gan.losses.distances import cosine, cross_entropy, logit_gap, masked_mean, value_gap


def attributes_move(
    logits_out: Tensor, logits_in: Tensor, c: Tensor, schema: Schema = SCHEMA, margin: float = 3.0
) -> Tensor:
    """L_aa = Σ_k c_k max(0, m_a - |logit A_k(x̂) - logit A_k(x)|) / max(1, Σ c): [N] in [0, m_a], lower is better.

    0 once every attribute that may change has moved by the margin (3 in logits: from 0.18 to 0.82). Categorical
    attributes: `distances.logit_gap`. Two equal codes have no gradient, there is no better side to leave by.
    """
    return masked_mean((margin - logit_gap(logits_out, logits_in, schema)).clamp_min(0.0), c)


def proposal_far(
    proposal: Tensor, logits_in: Tensor, c: Tensor, schema: Schema = SCHEMA, margin: float = 0.5
) -> Tensor:
    """L_ap = Σ_k c_k max(0, 0.5 - |a*_k - a_k|) / max(1, Σ c): [N] in [0, 0.5], lower is better.

    proposal and logits_in are logits [N, D]; a*, a their values. Categorical: total variation, `distances.value_gap`.
    """
    return masked_mean((margin - value_gap(proposal, logits_in, schema)).clamp_min(0.0), c)


def identity(embeddings_out: Sequence[Tensor], embeddings_in: Sequence[Tensor], m_id: float = 0.05) -> Tensor:
    """L_id = mean_j max(0, |cos(R_j(T x̂), R_j(x))| - m_id): [N] in [0, 1 - m_id], lower is better.

    One pair of embeddings [N, E_j] for each recogniser j; T (random JPEG, blur, resize) is the caller's. The absolute
    value aims at strangers (cosine about 0): the mirrored identity, cosine -1, is as linkable as the original.
    ValueError when the lists differ in length or are empty.
    """
    if not embeddings_out or len(embeddings_out) != len(embeddings_in):
        raise ValueError(f"{len(embeddings_out)} embeddings of outputs, {len(embeddings_in)} of inputs; pair them")
    pairs = zip(embeddings_out, embeddings_in, strict=True)
    return torch.stack([(cosine(out, original).abs() - m_id).clamp_min(0.0) for out, original in pairs]).mean(dim=0)


def realise(logits_out: Tensor, proposal: Tensor, c: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """L_real = Σ_k c_k CE(A_k(x̂), a*_k) / max(1, Σ c): [N], >= 0, lower is better: the proposal comes true.

    proposal: logits [N, D] of a*; its soft values are the targets, so the least is their entropy, not 0. Both sides
    get gradients (a* may move to what can be painted); detach the proposal to hold it.
    """
    return masked_mean(cross_entropy(logits_out, proposal, schema), c)


def diversity(embeddings_first: Tensor, embeddings_second: Tensor, margin: float = 0.3) -> Tensor:
    """L_div = max(0, cos(R(x̂_z1), R(x̂_z2)) - 0.3): [N] in [0, 1 - margin], lower is better: two seeds, two faces."""
    return (cosine(embeddings_first, embeddings_second) - margin).clamp_min(0.0)
