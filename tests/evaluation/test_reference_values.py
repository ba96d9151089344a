"""Each metric against an implementation that is not ours, and the judge's known accuracy on originals."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from a3gan.evaluation import detection, expression_heads, quality, verification
from a3gan.evaluation import statistics as st

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the independent reference (extra `test`)")


def _scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Genuine [n] and impostor [m] scores with ties, and both as labels and scores."""
    rng = np.random.default_rng(seed)
    genuine, impostor = rng.normal(1, 1, 251).round(2), rng.normal(0, 1, 900).round(2)
    return genuine, impostor, np.r_[np.ones(251), np.zeros(900)], np.r_[genuine, impostor]


def test_true_match_rate_at_a_false_match_rate() -> None:
    genuine, impostor, labels, scores = _scores()
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    for far in (0.01, 0.05, 0.2):
        threshold = st.threshold_at(impostor, far)
        assert st.share_above(impostor, threshold) <= far
        # The last point of the reference's curve that keeps the rate.
        assert st.share_above(genuine, threshold) == pytest.approx(true[false <= far][-1])


def test_equal_error_rate() -> None:
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq

    for seed in range(3):
        genuine, impostor, labels, scores = _scores(seed)
        false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
        line = interp1d(false + np.arange(len(false)) * 1e-12, true)
        assert st.eer(genuine, impostor) == pytest.approx(brentq(lambda x: 1 - x - line(x), 0, 1), abs=1e-6)  # noqa: B023


def test_area_under_the_curve() -> None:
    genuine, impostor, labels, scores = _scores()
    assert st.auc(genuine, impostor) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)


def test_average_precision_of_finds() -> None:
    rng = np.random.default_rng(1)
    scores, right = rng.random(80).round(2), rng.random(80) < 0.4
    mine = detection.average_precision(scores, right, int(right.sum()))
    assert mine == pytest.approx(metrics.average_precision_score(right, scores), abs=1e-12)


def test_mean_average_precision_of_retrieval() -> None:
    rng = np.random.default_rng(2)
    identity = np.repeat(np.arange(12), 3)
    scores = rng.normal(size=(36, 36)) + 0.8 * (identity[:, None] == identity[None])
    for include in (False, True):
        _, precision = verification.retrieval(scores, identity, include)
        for k in range(36):  # probes are columns
            keep = np.ones(36, bool) if include else np.arange(36) != k
            wanted = metrics.average_precision_score(identity[keep] == identity[k], scores[keep, k])
            assert precision[k] == pytest.approx(wanted, abs=1e-6)


def test_macro_f1() -> None:
    rng = np.random.default_rng(3)
    said, truth = rng.random(200) < 0.7, rng.random(200) < 0.6
    assert expression_heads.macro_f1(said, truth) == pytest.approx(metrics.f1_score(truth, said, average="macro"))


def _sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    mixed = rng.normal(size=(16, 16))
    return rng.normal(size=(300, 16)) @ mixed, rng.normal(size=(220, 16)) @ mixed * 1.1 + 0.3


def test_frechet_distance_by_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    a, b = _sets()
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(one @ other)
    wanted = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + other - 2 * root.real)
    assert quality.frechet(a, b) == pytest.approx(wanted, rel=1e-8)


def test_frechet_distance_of_one_dimension_by_hand() -> None:
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])  # means 1 and 3, variances 2 and 8
    assert quality.frechet(a, b) == pytest.approx(4 + 2 + 8 - 2 * np.sqrt(16))


def test_frechet_and_kernel_distance_by_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    from torchmetrics.image.kid import poly_mmd

    class Given(torch.nn.Module):
        """Features instead of pictures."""

        num_features = 16

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    a, b = _sets()
    distance = fid.FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    distance.update(torch.from_numpy(a), real=True)
    distance.update(torch.from_numpy(b), real=False)
    assert quality.frechet(a, b) == pytest.approx(float(distance.compute()), rel=1e-5)
    a = a[:220]  # the reference wants sets of one size
    wanted = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b), degree=3, gamma=None, coef=1.0))
    assert quality.kernel_distance(a, b) == pytest.approx(wanted, rel=1e-6)


def test_bound_of_nothing_seen_is_that_of_clopper_and_pearson() -> None:
    from scipy.stats import beta

    for n in (1, 10, 289, 5000):
        assert st.zero_of_n(n) == pytest.approx(beta.ppf(0.95, 1, n))


def test_bootstrap_interval_is_about_that_of_the_binomial() -> None:
    """One picture a person: the interval over people is the usual one of a share."""
    from scipy.stats import binom

    values = np.arange(400) < 100
    found = st.share(values, np.arange(400), 4000, 0)
    low, high = binom.ppf([0.025, 0.975], 400, 0.25) / 400
    assert (
        found.value == 0.25
        and found.low == pytest.approx(low, abs=0.006)
        and found.high == pytest.approx(high, abs=0.006)
    )


def test_judge_b_recognises_originals_as_it_is_known_to(shared: Path, tmp_path: Path) -> None:
    """Whole run on LFW's test people: 98.9 % true matches at a false match rate of 1e-3; here on 40 of the people."""
    from a3gan.data.archive import FaceSet
    from a3gan.data.prepare import prepare
    from a3gan.evaluation.features import Embedding
    from a3gan.evaluation.pictures import Originals
    from a3gan.scorers.identity import load_recogniser

    with (shared / "data" / "lfw.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    counts = Counter(row["identity"] for row in rows)
    chosen = [name for name, count in counts.items() if count in (3, 4)][:40]
    with (tmp_path / "some.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["identity"] in chosen)
    prepare(shared / "data" / "lfw.zip", tmp_path / "some.zip", size=128, table=tmp_path / "some.csv", progress=False)
    originals = Originals(FaceSet.load(tmp_path / "some.zip"))
    network = load_recogniser(shared / "weights" / "mobilefacenet_b.safetensors", "mobilefacenet_b")
    judge, count = Embedding(network, torch.device("cpu")), len(originals.faces)
    assert count > 100
    batches = [list(range(i, min(i + 32, count))) for i in range(0, count, 32)]
    gallery = np.concatenate([judge(originals.view(rows), "none")["embedding"] for rows in batches])
    ref = verification.reference(gallery, originals.faces.identity.numpy(), 1e-3)
    figures = verification.verification(ref, gallery, None, 50)
    assert figures["tar"].value > 0.95 and figures["eer"].value < 0.02
    assert verification.identification(ref, gallery, 50)["rank1"].value > 0.97
