"""Expression for whoever trains on the results, or meets them: small heads on features that no network gave.

A head is a logistic regression on histograms of gradients (`looks.gradients`) of people that are not judged. Trained on
originals and tested on results it says whether a model in use still works; trained on results and tested on originals
(or on results) whether an anonymised collection still teaches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.expression import HAPPINESS, NEUTRAL
from a3gan.evaluation.statistics import Interval

PENALTY = 150.0  # of the squares of the weights; chosen on LFW's val people, originals only (0.3 to 1000: 84 to 88 %)
STEPS = 60


class Head:
    """Weights of a logistic regression on standardised features."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, weights: np.ndarray, bias: float):
        self.centre, self.scale, self.weights, self.bias = centre, scale, weights, bias

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Logits [N] of the positive class for features [N, D]."""
        return (np.asarray(features, np.float64) - self.centre) / self.scale @ self.weights + self.bias


def fit(features: np.ndarray, labels: np.ndarray, penalty: float = PENALTY) -> Head:
    """The head for features [N, D] and labels [N] (bool), both classes weighted alike; the same input gives the same
    head. ValueError where a class is missing.

    Newton's method in float64 with halved steps where one does not lower the loss, which is convex.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels, bool)
    if y.all() or not y.any():
        raise ValueError("a head needs faces of both classes")
    centre, scale = x.mean(0), x.std(0) + 1e-3
    x = np.concatenate([(x - centre) / scale, np.ones((len(x), 1))], 1)
    share = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))  # mean 1
    ridge = np.full(x.shape[1], float(penalty))
    ridge[-1] = 1e-6
    sign = np.where(y, 1.0, -1.0)
    w = np.zeros(x.shape[1])

    def loss(w: np.ndarray) -> float:
        return float(share @ np.logaddexp(0, -sign * (x @ w)) + 0.5 * ridge @ (w * w))

    now = loss(w)
    for _ in range(STEPS):
        p = 0.5 * (1 + np.tanh(x @ w / 2))
        gradient = x.T @ (share * (p - y)) + ridge * w
        curvature = (x.T * (share * p * (1 - p))) @ x + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        if now - after < 1e-9 * now:
            break
        w, now = w - size * step, after
    return Head(centre, scale, w[:-1], float(w[-1]))


def macro_f1(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the two classes' F1 for decisions and labels [N] (bool); a class never said and never true counts 0."""
    return float(np.mean([_f1((said & truth).sum(), (said & ~truth).sum(), (~said & truth).sum()),
                          _f1((~said & ~truth).sum(), (~said & truth).sum(), (said & ~truth).sum())]))  # fmt: skip


def _f1(hits: np.ndarray | float, false: np.ndarray | float, missed: np.ndarray | float) -> np.ndarray:
    total = 2 * np.asarray(hits, np.float64) + false + missed
    return np.where(total > 0, 2 * np.asarray(hits, np.float64) / np.where(total > 0, total, 1), 0.0)


def macro_f1_interval(said: np.ndarray, truth: np.ndarray, person: np.ndarray, replicates: int, seed: int) -> Interval:
    """`macro_f1` with the percentile interval of the bootstrap over people; of one person, 0 to 1."""
    said, truth = np.asarray(said, bool), np.asarray(truth, bool)
    value = macro_f1(said, truth) if len(said) else float("nan")
    names, index = np.unique(person, return_inverse=True)
    if len(names) < 2:
        return Interval(value, 0.0, 1.0, len(said), len(names))
    weights = statistics.people_weights(len(names), replicates, seed).astype(np.float64)
    cells = [said & truth, said & ~truth, ~said & truth, ~said & ~truth]
    tp, fp, fn, tn = (weights @ np.bincount(index, cell.astype(np.float64), len(names)) for cell in cells)
    draws = (_f1(tp, fp, fn) + _f1(tn, fn, fp)) / 2
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high), len(said), len(names))


def clear(label: np.ndarray) -> np.ndarray:
    """Which pictures count: labelled neutral or happiness; bool [N]. Other classes have too few faces to test."""
    return (label == NEUTRAL) | (label == HAPPINESS)


def heads(
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
    train_label: np.ndarray,
    label: np.ndarray,
    person: np.ndarray,
    draw: tuple[int, int],
    fitted: Head | None = None,
) -> tuple[dict[str, Interval | float], Head]:
    """Figures of heads over features `before` (originals) and `after` (results), [N, D] each, in train and test.

    on_results: trained on originals, tested on results; from_results: the reverse, trained on results and tested on
    originals; within_results: trained and tested on results; ceiling: originals throughout. Each as NAME_accuracy and
    NAME_f1 (macro-F1 of smiling and neutral). head_agreement: share of decisions of the head of originals that stay.
    majority: accuracy of always saying the larger class. fitted: the head of the originals, where it is known.
    """
    rows, known = clear(train_label), clear(label)
    truth, who = label[known] == HAPPINESS, person[known]
    of_originals = fitted or fit(train["before"][rows], train_label[rows] == HAPPINESS)
    of_results = fit(train["after"][rows], train_label[rows] == HAPPINESS)
    before, after = test["before"][known], test["after"][known]
    said = {
        "on_results": of_originals(after) > 0,
        "from_results": of_results(before) > 0,
        "within_results": of_results(after) > 0,
        "ceiling": of_originals(before) > 0,
    }
    result: dict[str, Interval | float] = {}
    for name, decision in said.items():
        result[f"{name}_accuracy"] = statistics.share(decision == truth, who, *draw)
        result[f"{name}_f1"] = macro_f1_interval(decision, truth, who, *draw)
    result["head_agreement"] = statistics.share(said["on_results"] == said["ceiling"], who, *draw)
    result["majority"] = float(max(truth.mean(), 1 - truth.mean())) if len(truth) else float("nan")
    result["head_faces"] = int(rows.sum())
    return result, of_originals
