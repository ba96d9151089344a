"""Distances between two flat attribute codes, one number an image and attribute: [N, D], [N, D] -> [N, K]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan.data.attributes import SCHEMA, Schema, slices, to_values


def logit_gap(first: Tensor, second: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """How far apart two codes are in logits: [N, D], [N, D] -> [N, K], >= 0, symmetric.

    One column: |first - second|. Categorical: with d the difference of the class logits, max d - min d: the largest
    change of any log-odds between two classes. It ignores what softmax ignores (a constant), and of two classes it is
    the binary gap of their log-odds.
    """
    difference = first - second
    columns = []
    for attribute, part in zip(schema, slices(schema).values(), strict=True):
        d = difference[:, part]
        categorical = attribute.kind == "categorical"
        columns.append(d.amax(1, keepdim=True) - d.amin(1, keepdim=True) if categorical else d.abs())
    return torch.cat(columns, dim=1)


def value_gap(first: Tensor, second: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """How far apart the values of two codes (logits) are: [N, D], [N, D] -> [N, K] in [0, 1], symmetric.

    One column: |p - q|. Categorical: total variation ½ Σ |p - q|, which of two classes is the same.
    """
    difference = (to_values(first, schema) - to_values(second, schema)).abs()
    columns = []
    for attribute, part in zip(schema, slices(schema).values(), strict=True):
        d = difference[:, part]
        columns.append(d.sum(1, keepdim=True) / 2 if attribute.kind == "categorical" else d)
    return torch.cat(columns, dim=1)


def cross_entropy(logits: Tensor, target: Tensor, schema: Schema = SCHEMA, continuous: str = "ce") -> Tensor:
    """Cross-entropy of `logits` against the values of `target` (logits too): [N, D], [N, D] -> [N, K], >= 0.

    One column: -(q log p + (1 - q) log(1 - p)); categorical: -Σ q log p; with q the target's soft value. The least is
    the entropy of q, reached at p = q, not 0. continuous='l1' puts |p - q| in [0, 1] there for continuous attributes.
    """
    if continuous not in ("ce", "l1"):
        raise ValueError(f"continuous is {continuous!r}; it must be 'ce' or 'l1'")
    wanted = to_values(target, schema)
    columns = []
    for attribute, part in zip(schema, slices(schema).values(), strict=True):
        u, q = logits[:, part], wanted[:, part]
        if attribute.kind == "categorical":
            columns.append(-(q * u.log_softmax(dim=1)).sum(dim=1, keepdim=True))
        elif attribute.kind == "continuous" and continuous == "l1":
            columns.append((u.sigmoid() - q).abs())
        else:
            # softplus(u) - q u: the binary cross-entropy in logits, stable at both ends
            columns.append(F.softplus(u) - q * u)
    return torch.cat(columns, dim=1)


def masked_mean(rows: Tensor, mask: Tensor) -> Tensor:
    """Mean over the attributes that a mask in {0, 1} picks: [N, K], [N, K] -> [N]; 0 where it picks none."""
    return (rows * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1.0)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of embeddings, [N, E], [N, E] -> [N] in [-1, 1]; in float32 or finer, also under autocast."""
    first, second = (t if t.dtype == torch.float64 else t.float() for t in (first, second))
    return F.cosine_similarity(first, second, dim=1)
