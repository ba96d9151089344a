"""How the results look: distances between the sets of pictures, and of each picture from its original.

Set distances are numpy float64 on given features; they say which network gave these. They are comparable only between
rows of one evaluation: not with figures on Inception features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval

SUBSETS, SUBSET = 30, 400  # of the kernel distance: how many, and pictures in each at most
HALVES = 5  # splits of the originals behind each floor
POINT_NAMES = ("eyes", "nose", "mouth")


# --- between sets ---------------------------------------------------------------------------------------------------
def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features [N, D], [M, D], as of two Gaussians (Heusel et al., 2017); 0 = alike.

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances (divisor N - 1). The trace of the root is
    the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: no root of a general matrix, no
    imaginary rest. NaN for fewer than two pictures.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(a), len(b)) < 2:
        return float("nan")
    first, second = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * between
    return float(max(distance, 0.0))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)^3 (Bińkowski et al., 2018); may be < 0
    where the sets are alike. NaN for fewer than two pictures."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(a), len(b)
    if min(n, m) < 2:
        return float("nan")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / a.shape[1] + 1) ** 3

    own, other = kernel(a, a), kernel(b, b)
    within = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


def kernel_subsets(
    a: np.ndarray, b: np.ndarray, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 0
) -> dict[str, float]:
    """Mean and standard deviation of `kernel_distance` over random subsets, drawn without replacement, of at most half
    of a set, so that they differ."""
    rng, size = np.random.default_rng(seed), min(size, (len(a) + 1) // 2, (len(b) + 1) // 2)
    values = [
        kernel_distance(a[rng.choice(len(a), size, False)], b[rng.choice(len(b), size, False)]) for _ in range(subsets)
    ]
    return {"value": float(np.mean(values)), "deviation": float(np.std(values))}


def set_distances(
    before: np.ndarray, after: np.ndarray, person: np.ndarray, seed: int = 0, replicates: int = 20
) -> dict[str, Interval | float]:
    """frechet and kernel distance of results `after` [N, D] to originals `before` [N, D].

    The interval of frechet draws people (`person` [N]); that of kernel is the mean over subsets ± 2 standard deviations
    of one subset.
    """
    names, index = np.unique(person, return_inverse=True)
    distance = frechet(before, after)
    draws = []
    same = np.array_equal(before, after)
    for weights in statistics.people_weights(len(names), replicates, seed) if len(names) > 1 and not same else ():
        rows = np.repeat(np.arange(len(index)), weights[index].astype(int))
        draws.append(frechet(before[rows], after[rows]))
    # Drawing with replacement adds to the distance: the percentiles are moved onto the estimate.
    low, high = (
        np.percentile(draws, [2.5, 97.5]) - np.median(draws) + distance
        if draws
        else ((0.0, 0.0) if same else (np.nan, np.nan))
    )
    kernel = kernel_subsets(before, after, seed=seed)
    return {
        "frechet": Interval(distance, float(np.maximum(low, 0.0)), float(high), len(after), len(names)),
        "kernel": Interval(
            kernel["value"], kernel["value"] - 2 * kernel["deviation"], kernel["value"] + 2 * kernel["deviation"],
            len(after), len(names),
        ),
    }  # fmt: skip


def floors(before: np.ndarray, person: np.ndarray, seed: int = 0) -> dict[str, float]:
    """frechet_floor, kernel_floor: between two halves of the originals [N, D], split by people: what two sets of real
    people of half the number differ by; a distance of finite sets is biased upwards."""
    names, index = np.unique(person, return_inverse=True)
    rng, halves = np.random.default_rng(seed), []
    for _ in range(HALVES if len(names) > 3 else 0):
        side = np.isin(index, rng.permutation(len(names))[: len(names) // 2])
        halves.append((frechet(before[side], before[~side]), kernel_distance(before[side], before[~side])))
    found = np.mean(halves, 0) if halves else (np.nan, np.nan)
    return {"frechet_floor": float(found[0]), "kernel_floor": float(found[1])}


# --- of each picture ------------------------------------------------------------------------------------------------
def pair_distances(looks: Mapping[str, np.ndarray], person: np.ndarray, draw: tuple[int, int]) -> dict[str, Interval]:
    """Means over the pictures of what `looks.Against` measured: distances in and around the face's oval."""
    return {name: mean(values, person, *draw) for name, values in looks.items()}


def landmark_errors(
    before: np.ndarray, after: np.ndarray, person: np.ndarray, draw: tuple[int, int]
) -> dict[str, Interval]:
    """Of five points [N, 5, 2] read on original and result by one network, in eye distances of the original.

    landmarks: mean over the points; landmarks_eyes, _nose, _mouth; pose errors yaw, pitch (both in the measure of
    scorers/landmarks.py: offset of the nose in eye distances, its height between eyes and mouth) and roll in degrees.
    """
    import torch

    from a3gan.scorers.landmarks import measure

    eyes = np.linalg.norm(before[:, 1] - before[:, 0], axis=1).clip(1e-6)
    error = np.linalg.norm(after - before, axis=2) / eyes[:, None]
    result = {"landmarks": mean(error.mean(1), person, *draw)}
    for name, points in zip(POINT_NAMES, ((0, 1), (2,), (3, 4)), strict=True):
        result[f"landmarks_{name}"] = mean(error[:, points].mean(1), person, *draw)
    was, now = (measure(torch.from_numpy(np.asarray(points, np.float64))) for points in (before, after))
    for name, unit in (("yaw", 1.0), ("pitch", 1.0), ("roll", 180 / np.pi)):
        result[f"{name}_error"] = mean((was[name] - now[name]).abs().numpy() * unit, person, *draw)
    return result


def mean(values: np.ndarray, person: np.ndarray, replicates: int = 1000, seed: int = 0) -> Interval:
    """Mean of `values` [n] of any range, with the percentile interval of the bootstrap over people.

    Pictures with NaN are left out. Of one person there is no interval (NaN).
    """
    values, person = np.asarray(values, np.float64).ravel(), np.asarray(person).ravel()
    known = ~np.isnan(values)
    values, person = values[known], person[known]
    nan = float("nan")
    if not len(values):
        return Interval(nan, nan, nan, 0, 0)
    sums, counts = statistics.by_person(values, person)
    value, people = float(sums.sum() / counts.sum()), len(counts)
    if people < 2:
        return Interval(value, nan, nan, len(values), people)
    weights = statistics.people_weights(people, replicates, seed).astype(np.float64)
    low, high = np.percentile((weights @ sums) / (weights @ counts), [2.5, 97.5])
    return Interval(value, float(low), float(high), len(values), people)
