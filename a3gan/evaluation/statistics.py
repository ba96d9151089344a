"""Scores to error rates and intervals: pure numpy functions that know nothing of faces.

A comparison is accepted when its score is greater than the threshold. Intervals come from a bootstrap over people: two
pictures of one person are no independent evidence, so people are drawn, never pictures or pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
GRID = 2048  # thresholds on [-1, 1] at which the bootstrap looks for the equal error rate


@dataclass(frozen=True)
class Interval:
    """A share in [0, 1] with its interval, and what it rests on: `count` comparisons of `people` people."""

    value: float
    low: float
    high: float
    count: int
    people: int

    def as_dict(self) -> dict[str, float | int]:
        """Rounded to six digits, for JSON; an undefined value (nothing to count) or an open end is null."""
        rounded = {name: _round(getattr(self, name)) for name in ("value", "low", "high")}
        return {**rounded, "count": self.count, "people": self.people}


def _round(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None  # JSON knows no infinity


# --- error rates --------------------------------------------------------------------------------------------------
def threshold_at(impostor: np.ndarray, far: float) -> float:
    """The lowest threshold whose false match rate, share of impostor scores [M] above it, is at most `far`.

    With k = floor(far * M) this is the (k+1)-th highest impostor score; ties with it are rejected. ValueError where M
    * far < 1: the rate could not be told from zero.
    """
    impostor = np.asarray(impostor).ravel()
    allowed = int(np.floor(far * len(impostor) + 1e-9))
    if allowed < 1:
        raise ValueError(f"{len(impostor)} impostor scores cannot fix a false match rate of {far:g}")
    if allowed >= len(impostor):
        return -np.inf
    place = len(impostor) - 1 - allowed
    return float(np.partition(impostor, place)[place])


def share_above(scores: np.ndarray, threshold: float) -> float:
    """Share of scores above the threshold: true match rate of genuine scores, false match rate of impostor ones."""
    return float(np.mean(np.asarray(scores) > threshold)) if np.size(scores) else float("nan")


def placements(genuine: np.ndarray, impostor_sorted: np.ndarray) -> np.ndarray:
    """For each genuine score the share of impostor scores below it, ties counting half; their mean is the AUC."""
    below = np.searchsorted(impostor_sorted, genuine, "left")
    upto = np.searchsorted(impostor_sorted, genuine, "right")
    return (below + upto) / (2.0 * len(impostor_sorted))


def auc(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Probability that a genuine score beats an impostor one, ties half (Mann-Whitney); 0.5 = no information."""
    return float(placements(np.asarray(genuine), np.sort(np.asarray(impostor))).mean())


def roc(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true match rates at every distinct score, from (0, 0) to (1, 1), both rising."""
    genuine, impostor = np.sort(np.asarray(genuine)), np.sort(np.asarray(impostor))
    thresholds = np.unique(np.concatenate([genuine, impostor]))[::-1]
    false = 1.0 - np.searchsorted(impostor, thresholds, "left") / len(impostor)
    true = 1.0 - np.searchsorted(genuine, thresholds, "left") / len(genuine)
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def eer(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Equal error rate: where the ROC, straight between its points, meets false match rate = false non-match rate."""
    false, true = roc(genuine, impostor)
    return float(_crossing(false[None], 1.0 - true[None])[0])


def _crossing(rising: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Value [B] at which rows [B, T] of a rising and a falling curve meet, straight between the points."""
    gap = rising - falling
    right = np.argmax(gap >= 0, axis=1)
    right = np.where((gap >= 0).any(1), np.maximum(right, 1), rising.shape[1] - 1)
    rows = np.arange(len(rising))
    g0, g1 = gap[rows, right - 1], gap[rows, right]
    part = np.where(g1 > g0, -g0 / np.where(g1 > g0, g1 - g0, 1.0), 0.0).clip(0.0, 1.0)
    return rising[rows, right - 1] + part * (rising[rows, right] - rising[rows, right - 1])


# --- intervals ----------------------------------------------------------------------------------------------------
def zero_of_n(n: int, level: float = LEVEL) -> float:
    """Upper bound of a share of which n independent trials showed nothing: 1 - (1 - level)^(1/n).

    The one-sided bound of Clopper and Pearson (1934); about 3 / n at 95 %.
    """
    if n < 1:
        return 1.0
    return 1.0 - (1.0 - level) ** (1.0 / n)


def people_weights(people: int, replicates: int, seed: int) -> np.ndarray:
    """How often each person is drawn in each replicate, float32 [B, P]; rows sum to P."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1.0 / people), size=replicates).astype(np.float32)


def by_person(values: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [P] of `values` [n] and counts [P] over the people that occur in `person` [n]."""
    _, index = np.unique(person, return_inverse=True)
    return np.bincount(index, weights=np.asarray(values, dtype=np.float64)), np.bincount(index).astype(np.float64)


def share(values: np.ndarray, person: np.ndarray, replicates: int = 1000, seed: int = 0) -> Interval:
    """Mean of `values` [n] in [0, 1] with a 95 % percentile interval of the bootstrap over people.

    Where nothing (or everything) was counted the bootstrap has no spread; the open end is then `zero_of_n` with the
    number of people, which assumes no independence between the pictures of one person. Fewer than two people: 0 to 1,
    nothing is known.
    """
    values, person = np.asarray(values, dtype=np.float64).ravel(), np.asarray(person).ravel()
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    sums, counts = by_person(values, person)
    value, people = float(sums.sum() / counts.sum()), len(counts)
    if people < 2:
        return Interval(value, 0.0, 1.0, len(values), people)
    if sums.sum() == 0.0:
        return Interval(value, 0.0, zero_of_n(people), len(values), people)
    if sums.sum() == counts.sum():
        return Interval(value, 1.0 - zero_of_n(people), 1.0, len(values), people)
    weights = people_weights(people, replicates, seed).astype(np.float64)
    low, high = _percentiles((weights @ sums) / (weights @ counts))
    return Interval(value, low, high, len(values), people)


def eer_interval(
    genuine: np.ndarray, person: np.ndarray, impostor: np.ndarray, replicates: int = 1000, seed: int = 0
) -> Interval:
    """`eer` with an interval: genuine scores [n], cosines in [-1, 1], drawn by person; the impostor scores stay."""
    value = eer(genuine, impostor)
    names, index = np.unique(person, return_inverse=True)
    if len(names) < 2:
        return Interval(value, 0.0, 1.0, len(genuine), len(names))
    grid = np.linspace(-1.0, 1.0, GRID)[::-1]  # falling thresholds: false matches rise, false non-matches fall
    cell = np.searchsorted(-grid, -np.asarray(genuine), "left").clip(0, GRID - 1)  # first threshold <= score
    matched = np.zeros((len(names), GRID))
    np.add.at(matched, (index, cell), 1.0)
    matched = matched.cumsum(1)
    weights = people_weights(len(names), replicates, seed).astype(np.float64)
    totals = weights @ matched[:, -1]
    rejected = 1.0 - (weights @ matched) / totals[:, None]
    false = 1.0 - np.searchsorted(np.sort(np.asarray(impostor)), grid, "left") / len(impostor)
    low, high = _percentiles(_crossing(np.broadcast_to(false, rejected.shape), rejected))
    return Interval(value, min(low, value), max(high, value), len(genuine), len(names))


def _percentiles(replicates: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(replicates, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
