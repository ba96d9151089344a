"""The two terms of FALCO (Barattin, Tzelepis, Patras, Sebe; CVPR 2023): another identity, the same looks.

Both give one number a face, so that a batch is as many problems side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FARL_TOKENS = 197
"""Tokens of FaRL's ViT-B/16 at 224 px: 14 x 14 places and the class token."""


def obfuscation(embedding_out: Tensor, embedding_in: Tensor, margin: float = 0.0) -> Tensor:
    """L_id = |cos(R(x̂), R(x)) - m|: [N] in [0, 2], 0 at a cosine of exactly m, from either side.

    Unit embeddings [N, E]. m = 0 is a stranger, m = 1 the person.
    """
    return ((embedding_out * embedding_in).sum(1) - margin).abs()


def token_distance(
    tokens_out: Sequence[Tensor], tokens_in: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """L_att = Σ over tokens of the mean |difference| over channels: [N], >= 0, lower is closer.

    A list of token sets [N, T, C]. The paper has one set, FaRL's 197 x 768; as a sum it is 197 times a mean, so that a
    factor of 0.1 before it is not small. weights: one [N] a set (`relative_weights`), None = 1.
    """
    sums = [(a - b).abs().float().mean(2).sum(1) for a, b in zip(tokens_out, tokens_in, strict=True)]
    if weights is not None:
        sums = [weight * one for weight, one in zip(weights, sums, strict=True)]
    return torch.stack(sums).sum(0)


def relative_weights(tokens_in: Sequence[Tensor]) -> list[Tensor]:
    """Weights [N] with which several sets of any scale count as FaRL's one does (ours).

    Each set's mean |difference| is taken relative to its mean |value| in the original, the sets are averaged, and the
    average stands for 197 tokens: `token_distance` is then 197 times a relative difference.
    """
    count = len(tokens_in)
    return [FARL_TOKENS / count / (t.shape[1] * t.abs().float().mean((1, 2)).clamp_min(1e-6)) for t in tokens_in]
