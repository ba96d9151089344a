"""Where generated faces lie among real ones: precision and recall, nearest neighbours, matches among themselves.

Pure numpy on features [N, D]; distances are Euclidean, blocks keep the memory bounded.
"""

from __future__ import annotations

import numpy as np

from a3gan.evaluation.statistics import Interval

BLOCK = 1024  # rows of a distance matrix at a time
LEVELS = (0.5, 0.9, 0.99, 1.0)  # quantiles of nearest cosines


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances [N, M] of rows, float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(squares.clip(0))


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance [N] of each row to its k-th nearest other row. ValueError for k rows or fewer."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} rows have no {k}-th neighbour")
    found = []
    for start in range(0, len(features), BLOCK):
        block = distances(features[start : start + BLOCK], features)
        np.fill_diagonal(block[:, start:], -1.0)  # itself comes first, whatever rounding says
        found.append(np.partition(block, k, axis=1)[:, k])
    return np.concatenate(found)


def covered(points: np.ndarray, centres: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which points [N, D] lie in one of the balls around `centres` [M, D] of `radius` [M], bool [N]."""
    blocks = (points[start : start + BLOCK] for start in range(0, len(points), BLOCK))
    return np.concatenate([(distances(block, centres) <= radius).any(1) for block in blocks])


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = 3, seed: int = 0) -> dict[str, float]:
    """precision: share of `made` [M, D] inside the k-NN manifold of `real` [N, D]; recall: share of `real` inside that
    of `made` (Kynkäänniemi et al., NeurIPS 2019, equation 2). Both sets are cut at random to the smaller one's size,
    since a manifold of more points covers more. NaN where a set has k rows or fewer.
    """
    rng, count = np.random.default_rng(seed), min(len(real), len(made))
    if count <= k:
        return {"precision": float("nan"), "recall": float("nan")}
    real, made = (x[np.sort(rng.permutation(len(x))[:count])] for x in (real, made))
    return {
        "precision": float(covered(made, real, radii(real, k)).mean()),
        "recall": float(covered(real, made, radii(made, k)).mean()),
    }


def nearest(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Highest cosine [N] of each query [N, E] to the gallery [M, E], both of unit length."""
    blocks = (queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK))
    return np.concatenate([(block @ gallery.T).max(1) for block in blocks]).astype(np.float64)


def memorised(
    made: np.ndarray, test: np.ndarray, train: np.ndarray, threshold: float
) -> dict[str, dict[str, float] | float]:
    """Nearest training faces by a recogniser: of samples, beside those of real faces of other people.

    samples, test: quantiles `q50`, `q90`, `q99`, `q100` of the highest cosine to a training face, and `matched`, the
    share above the threshold; excess: share of samples nearer to training faces than 99 % of the test faces are. A
    generator without memory has an excess of 0.01 or less.
    """
    found = {"samples": nearest(made, train), "test": nearest(test, train)}
    result: dict[str, dict[str, float] | float] = {
        name: {f"q{100 * level:.0f}": float(np.quantile(values, level)) for level in LEVELS}
        | {"matched": float((values > threshold).mean())}
        for name, values in found.items()
    }
    return result | {"excess": float((found["samples"] > np.quantile(found["test"], 0.99)).mean())}


def matches(embeddings: np.ndarray, threshold: float, replicates: int = 200, seed: int = 0) -> Interval:
    """Share of pairs of samples [N, E] above the threshold, with its 95 % interval by drawing samples, not pairs.

    A pair of a drawn sample with its own copy does not count.
    """
    n = len(embeddings)
    match = (embeddings @ embeddings.T > threshold).astype(np.float64)
    np.fill_diagonal(match, 0.0)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.float64)
    pairs = weights.sum(1) ** 2 - np.square(weights).sum(1)
    able = pairs > 0  # not n times one sample
    shares = ((weights @ match) * weights).sum(1)[able] / pairs[able]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(match.sum() / (n * (n - 1))), float(low), float(high), n * (n - 1) // 2, n)
