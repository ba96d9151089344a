"""What an attribute judge reads before and after: the smile that must stay, and the other heads beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval

NEUTRAL, HAPPINESS = 0, 1  # classes of the schema's `expression`, and columns of its logits
BINARY = ("gender", "yawning", "eyes_closed")

Outputs = Mapping[str, np.ndarray]


def smiling(outputs: Outputs) -> np.ndarray:
    """Smiling or neutral, decided between these two logits of `expression` [N, 3]: bool [N]."""
    return outputs["expression"][:, HAPPINESS] > outputs["expression"][:, NEUTRAL]


def expression(
    before: Outputs,
    after: Outputs,
    label: np.ndarray,
    person: np.ndarray,
    found: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Smile figures over the pictures labelled neutral or happiness (`label` [N], class index or NaN).

    agreement: share whose decision equals that on the original; agreement_found: the same, a face that no detector
    found (`found` [N]) counting as lost; accuracy: share that equals the label. Higher is better for use.
    """
    clear = (label == NEUTRAL) | (label == HAPPINESS)
    who, now = person[clear], smiling(after)[clear]
    same, right = now == smiling(before)[clear], now == (label[clear] == HAPPINESS)

    def share(values: np.ndarray) -> Interval:
        return statistics.share(values, who, replicates, seed)

    result = {"agreement": share(same)}
    if found is not None:
        result["agreement_found"] = share(same & found[clear])
    result["accuracy"] = share(right)
    return result


def binary_heads(
    before: Outputs,
    after: Outputs,
    labels: Mapping[str, np.ndarray],
    person: np.ndarray,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """For each binary head with labels (`labels` [N], 0, 1 or NaN): NAME_same (as on the original), NAME_accuracy.

    Whether "same" is wanted is the policy's matter: gender may have to change, yawning never.
    """
    result = {}
    for name in BINARY:
        known = ~np.isnan(labels[name])
        if not known.any():
            continue
        was, now = before[name][known] > 0, after[name][known] > 0
        result[f"{name}_same"] = statistics.share(was == now, person[known], replicates, seed)
        result[f"{name}_accuracy"] = statistics.share(
            now == (labels[name][known] > 0.5), person[known], replicates, seed
        )
    return result
