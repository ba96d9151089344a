"""The small heads: a convex fit, macro-F1 by hand, and what each figure says of a method that lies."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.evaluation import expression_heads as eh


def _data(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return rng.normal(size=(n, 8)) + 2.0 * label[:, None] * np.r_[1, np.zeros(7)], label.astype(float)


def test_the_fit_is_the_minimum() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    x, y = _data(80)
    head = eh.fit(x, y > 0, penalty=3.0)
    z, sign = (x - head.centre) / head.scale, np.where(y > 0, 1, -1)
    share = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))

    def loss(w: np.ndarray) -> float:
        return share @ np.logaddexp(0, -sign * (z @ w[:-1] + w[-1])) + 1.5 * w[:-1] @ w[:-1]

    mine = np.r_[head.weights, head.bias]
    assert loss(mine) <= optimize.minimize(loss, np.zeros(9), tol=1e-10).fun + 1e-6


def test_the_fit_repeats_and_needs_two_classes() -> None:
    x, y = _data()
    assert np.array_equal(eh.fit(x, y > 0).weights, eh.fit(x, y > 0).weights)
    with pytest.raises(ValueError, match="both classes"):
        eh.fit(x, np.ones(len(x), bool))


def test_macro_f1_by_hand() -> None:
    said, truth = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 0, 1], bool)
    # tp 2, fp 1, fn 1 -> 4/6; the other class tp 1, fp 1, fn 1 -> 2/4
    assert eh.macro_f1(said, truth) == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert eh.macro_f1(np.ones(4, bool), np.zeros(4, bool)) == 0.0
    interval = eh.macro_f1_interval(np.tile(said, 40), np.tile(truth, 40), np.arange(200), 200, 0)
    assert interval.value == pytest.approx(eh.macro_f1(said, truth)) and interval.low < interval.value < interval.high


def test_macro_f1_agrees_with_scikit_learn_where_it_is() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    said, truth = rng.random(99) > 0.3, rng.random(99) > 0.6
    assert eh.macro_f1(said, truth) == pytest.approx(metrics.f1_score(truth, said, average="macro"))


def test_figures_of_a_method_that_turns_smiles_around() -> None:
    (train, y), (test, label) = _data(), _data(200, 1)
    label[:20] = 2  # another class: does not count
    who = np.arange(200)
    same, head = eh.heads({"before": train, "after": train}, {"before": test, "after": test}, y, label, who, (50, 0))
    assert same["ceiling_accuracy"].value == same["on_results_accuracy"].value > 0.8
    assert same["head_agreement"].value == 1.0 and same["ceiling_f1"].count == 180
    turned = [{"before": x, "after": x * np.r_[-1, np.ones(7)] + np.r_[2, np.zeros(7)]} for x in (train, test)]
    figures, _ = eh.heads(*turned, y, label, who, (50, 0), head)
    assert figures["on_results_accuracy"].value < 0.2 and figures["from_results_accuracy"].value < 0.2
    assert figures["within_results_accuracy"].value > 0.8  # who learns from the results understands them
    assert figures["head_agreement"].value < 0.3
