"""Scores to figures for attackers: identification, verification with the attacker's own threshold, linkability."""

from __future__ import annotations

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval
from a3gan.evaluation.verification import PERMUTATIONS, cosine, pair_masks

Figures = dict[str, Interval | float]
LEAST_EVENTS = 10  # false matches behind a threshold


def recognition(
    gallery: np.ndarray, probe: np.ndarray, person: np.ndarray, far: float, replicates: int, seed: int,
    same_picture: bool = False,
) -> Figures:  # fmt: skip
    """How well probes [N, E] find their person in a gallery [N, E] of the same N pictures, each its own left out.

    rank1 with rank1_chance (guessing) and rank1_floor (shuffled labels); tar: share of pairs of one person above the
    threshold that the attacker sets at `tar_at` on the pairs of two people of this very comparison; tar_floor; auc.
    same_picture: also rank1_included, where the probe's own picture is in the gallery. Lower is better for privacy.
    """
    scores = cosine(probe, gallery)  # probes are rows
    genuine, impostor = pair_masks(person)
    result: Figures = rank1(scores, person, replicates, seed)
    if same_picture:
        right = person[scores.argmax(1)] == person
        result["rank1_included"] = statistics.share(right, person, replicates, seed)
    rows = np.nonzero(genuine)[0]
    positive, negative = scores[genuine], np.sort(scores[impostor])
    rate = max(far, min(0.5, LEAST_EVENTS / max(1, len(negative))))
    threshold = statistics.threshold_at(negative, rate)
    result["tar"] = statistics.share(positive > threshold, person[rows], replicates, seed)
    result["tar_at"] = float(rate)
    result["tar_floor"] = _shuffled(lambda p: (scores > threshold)[pair_masks(p)[0]].mean(), person, seed)
    result["auc"] = statistics.share(statistics.placements(positive, negative), person[rows], replicates, seed)
    return result


def rank1(scores: np.ndarray, person: np.ndarray, replicates: int, seed: int) -> Figures:
    """rank1, rank1_chance and rank1_floor of a table [N, N] of scores, probes as rows, the diagonal left out."""
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    nearest = scores.argmax(1)
    _, index, counts = np.unique(person, return_inverse=True, return_counts=True)
    able = counts[index] > 1
    right = person[nearest] == person
    return {
        "rank1": statistics.share(right[able], person[able], replicates, seed),
        "rank1_chance": float(((counts[index] - 1) / (len(person) - 1))[able].mean()),
        "rank1_floor": _shuffled(lambda p: (p[nearest] == p)[able].mean(), person, seed),
    }


def _shuffled(figure, person: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([figure(person[rng.permutation(len(person))]) for _ in range(PERMUTATIONS)]))


def quick(gallery: np.ndarray, probe: np.ndarray, person: np.ndarray) -> float:
    """Mean of AUC and rank 1: by which an attacker chooses among its own stages."""
    scores = cosine(probe, gallery)
    genuine, impostor = pair_masks(person)
    area = statistics.auc(scores[genuine], scores[impostor])
    np.fill_diagonal(scores, -np.inf)
    able = genuine.any(1)
    return float((area + (person[scores.argmax(1)] == person)[able].mean()) / 2)


def d_sys(mated: np.ndarray, other: np.ndarray, bins: int | None = None) -> float:
    """Global linkability D_sys in [0, 1] of score samples, 0 = unlinkable, 1 = every mated score gives itself away.

    Gomez-Barrero et al., "General framework to evaluate unlinkability in biometric template protection systems", IEEE
    TIFS 2018: with LR = p(s|mated) / p(s|other) and equal priors, D(s) = max(0, (LR - 1) / (LR + 1)), and D_sys its
    mean over mated scores. Densities are histograms over the common range; `bins` None = a tenth of the mated scores,
    from 10 to 100. Sampling alone gives a little more than 0, which the floor shows.
    """
    bins = bins or int(np.clip(len(mated) // 10, 10, 100))
    low, high = min(mated.min(), other.min()), max(mated.max(), other.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    p = np.histogram(mated, edges)[0] / len(mated)
    q = np.histogram(other, edges)[0] / len(other)
    total = np.where(p + q > 0, p + q, 1)
    return float((p * np.maximum(0, (p - q) / total)).sum())


def linkability(features: np.ndarray, other: np.ndarray, person: np.ndarray, replicates: int, seed: int) -> Figures:
    """Are two results of one person linked? `features`, `other` [N, E]: the two sides (the same where one key is used).

    auc and d_sys with its floor (shuffled labels) over ordered pairs of different pictures; lower is better.
    """
    scores = cosine(features, other)
    genuine, impostor = pair_masks(person)
    rows = np.nonzero(genuine)[0]
    positive, negative = scores[genuine], np.sort(scores[impostor])
    bins = int(np.clip(len(positive) // 10, 10, 100))
    result: Figures = rank1(scores, person, replicates, seed)
    result["auc"] = statistics.share(statistics.placements(positive, negative), person[rows], replicates, seed)
    result["d_sys"] = _d_sys_interval(positive, person[rows], negative, bins, replicates, seed)

    def floor(shuffled: np.ndarray) -> float:
        same, two = pair_masks(shuffled)
        return d_sys(scores[same], scores[two], bins)

    result["d_sys_floor"] = _shuffled(floor, person, seed)
    return result


def _d_sys_interval(
    mated: np.ndarray, person: np.ndarray, other: np.ndarray, bins: int, replicates: int, seed: int
) -> Interval:
    value, names = d_sys(mated, other, bins), np.unique(person)
    if len(names) < 2:
        return Interval(value, 0.0, 1.0, len(mated), len(names))
    low, high = min(mated.min(), other.min()), max(mated.max(), other.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    q = np.histogram(other, edges)[0] / len(other)
    cell = np.clip(np.searchsorted(edges, mated, "right") - 1, 0, bins - 1)
    table = np.zeros((len(names), bins))
    np.add.at(table, (np.searchsorted(names, person), cell), 1.0)
    drawn = statistics.people_weights(len(names), replicates, seed).astype(np.float64) @ table
    p = drawn / drawn.sum(1, keepdims=True)
    total = np.where(p + q > 0, p + q, 1)
    values = (p * np.maximum(0, (p - q) / total)).sum(1)
    # A resample repeats people, which roughens its histogram and lifts D_sys; the shift is taken off.
    ends = np.percentile(values - values.mean() + value, [2.5, 97.5]).clip(0, 1)
    return Interval(value, float(min(ends[0], value)), float(max(ends[1], value)), len(mated), len(names))
