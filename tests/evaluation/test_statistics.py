"""Error rates and intervals against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.evaluation import statistics as st


def test_threshold_leaves_the_wanted_share_of_impostors_above() -> None:
    impostor = np.arange(1000) / 1000.0  # 0.000 .. 0.999
    threshold = st.threshold_at(impostor, 0.01)
    assert threshold == pytest.approx(0.989)  # the eleventh highest: ten are above it
    assert st.share_above(impostor, threshold) == pytest.approx(0.01)


def test_threshold_with_ties_never_exceeds_the_rate() -> None:
    impostor = np.array([0.5] * 20 + [0.1] * 80)
    threshold = st.threshold_at(impostor, 0.1)
    assert threshold == 0.5
    assert st.share_above(impostor, threshold) == 0.0


def test_threshold_refuses_a_rate_that_the_pairs_cannot_show() -> None:
    with pytest.raises(ValueError, match="cannot fix"):
        st.threshold_at(np.zeros(999), 1e-3)
    assert st.threshold_at(np.arange(1000.0), 1e-3) == 998.0


def test_true_match_rate_with_known_scores() -> None:
    impostor = np.linspace(0, 0.4, 100)
    genuine = np.array([0.1, 0.39, 0.41, 0.9])
    threshold = st.threshold_at(impostor, 0.01)  # the second highest, 0.396
    assert st.share_above(genuine, threshold) == 0.5


def test_auc_counts_ties_half() -> None:
    # pairs: 3>1, 3>2, 2>1, 2=2 -> (1 + 1 + 1 + .5) / 4
    assert st.auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert st.auc(np.array([1.0]), np.array([0.0])) == 1.0
    assert st.auc(np.ones(5), np.ones(7)) == 0.5


def test_eer_of_known_distributions() -> None:
    assert st.eer(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 0.0
    assert st.eer(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    # One of four on the wrong side each way.
    assert st.eer(np.array([0.2, 0.7, 0.8, 0.9]), np.array([0.1, 0.15, 0.18, 0.75])) == pytest.approx(0.25)
    scores = np.arange(100.0)
    assert st.eer(scores, scores) == pytest.approx(0.5, abs=0.01)


def test_roc_runs_from_corner_to_corner() -> None:
    rng = np.random.default_rng(0)
    false, true = st.roc(rng.normal(1, 1, 300), rng.normal(0, 1, 500))
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()


def test_roc_figures_agree_with_scikit_learn_where_it_is() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(1, 1, 301).round(2), rng.normal(0, 1, 500).round(2)
    labels, scores = np.r_[np.ones(301), np.zeros(500)], np.r_[genuine, impostor]
    assert st.auc(genuine, impostor) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    mine = st.roc(genuine, impostor)
    assert np.allclose(mine[0], false) and np.allclose(mine[1], true)


def test_zero_of_n() -> None:
    assert st.zero_of_n(1) == pytest.approx(0.95)
    assert st.zero_of_n(100) == pytest.approx(1 - 0.05**0.01)
    assert st.zero_of_n(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert st.zero_of_n(0) == 1.0


def test_share_of_degenerate_data() -> None:
    person = np.repeat(np.arange(20), 3)
    nothing = st.share(np.zeros(60), person)
    assert (nothing.value, nothing.low, nothing.count, nothing.people) == (0.0, 0.0, 60, 20)
    assert nothing.high == pytest.approx(st.zero_of_n(20))
    everything = st.share(np.ones(60), person)
    assert (everything.value, everything.high) == (1.0, 1.0)
    assert everything.low == pytest.approx(1 - st.zero_of_n(20))
    alone = st.share(np.array([1.0, 0.0]), np.array([7, 7]))
    assert (alone.value, alone.low, alone.high) == (0.5, 0.0, 1.0)
    assert st.share(np.array([]), np.array([])).as_dict()["value"] is None
    # Every person half and half: whoever is drawn, the share is a half.
    even = st.share(np.tile([1.0, 0.0], 20), np.repeat(np.arange(20), 2))
    assert even.low == even.value == even.high == 0.5


def test_bootstrap_draws_people_not_pictures() -> None:
    # 25 people of 20 equal pictures each carry the evidence of 25 coins, not of 500.
    rng = np.random.default_rng(2)
    coins = rng.integers(0, 2, 25).astype(float)
    clustered = st.share(np.repeat(coins, 20), np.repeat(np.arange(25), 20), 4000)
    expected = 1.96 * np.sqrt(coins.mean() * (1 - coins.mean()) / 25)
    assert (clustered.high - clustered.low) / 2 == pytest.approx(expected, rel=0.12)
    loose = st.share(np.repeat(coins, 20), np.arange(500), 4000)
    assert loose.high - loose.low < 0.4 * (clustered.high - clustered.low)


def test_bootstrap_is_repeatable_and_follows_its_seed() -> None:
    rng = np.random.default_rng(3)
    values, person = rng.random(200), rng.integers(0, 40, 200)
    assert st.share(values, person, 200, seed=5) == st.share(values, person, 200, seed=5)
    assert st.share(values, person, 200, seed=5) != st.share(values, person, 200, seed=6)


def test_eer_interval_holds_its_value() -> None:
    rng = np.random.default_rng(4)
    genuine, impostor = rng.normal(0.5, 0.15, 400).clip(-1, 1), rng.normal(0, 0.15, 4000).clip(-1, 1)
    interval = st.eer_interval(genuine, rng.integers(0, 80, 400), impostor, 300)
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(0.048, abs=0.02)  # Phi(-.25 / .15)
    assert interval.high - interval.low < 0.06
