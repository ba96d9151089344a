"""Yawns and closed eyes: calibration, events and figures on made-up courses."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.evaluation import fatigue as ft

DRAW = (100, 0)


def test_the_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 40_000)
    labels = rng.random(len(true)) < ft.sigmoid(true)
    assert ft.temperature(3 * true, labels) == pytest.approx(3, rel=0.05)
    assert ft.temperature(true, labels) == pytest.approx(1, rel=0.05)
    assert ft.temperature(true, np.ones(len(true))) == 1.0  # one class teaches nothing
    # Ten of each class, all told apart: as sure as eleven of twelve, no surer.
    few = np.repeat([-4.0, 4.0], 10)
    assert ft.sigmoid(4 / ft.temperature(few, few > 0)) == pytest.approx(11 / 12, abs=1e-4)


def test_sigmoid_of_large_logits() -> None:
    assert ft.sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]


def test_stills() -> None:
    nan = np.nan
    labels = {"yawning": np.array([1, 1, 0, 0, nan]), "eyes_closed": np.full(5, nan)}
    before, after = {"yawning": np.array([1.0, 1, -1, 1, 1])}, {"yawning": np.array([1.0, -1, -1, -1, 1])}
    figures = ft.stills(before, after, labels, np.arange(5), np.array([1, 1, 0, 1, 1], bool), DRAW)
    assert not [name for name in figures if name.startswith("eyes")]
    assert figures["yawning_agreement"].value == 0.5 and figures["yawning_agreement_found"].value == 0.25
    assert figures["yawning_accuracy"].value == 0.75 and figures["yawning_recall"].value == 0.5
    assert figures["yawning_balanced"].value == 0.75


def test_balanced_weighs_the_classes_alike() -> None:
    label = np.r_[np.ones(10, bool), np.zeros(90, bool)]
    right = np.r_[np.zeros(5), np.ones(95)]
    figure = ft.balanced(right, label, np.arange(100), 300, 0)
    assert figure.value == pytest.approx((0.5 + 1) / 2)
    assert figure.low < figure.value < figure.high and figure.high - figure.low > 0.15
    assert ft.balanced(np.ones(9), np.arange(9) < 3, np.arange(9), 50, 0).high == 1.0


def test_runs_bridge_short_breaks() -> None:
    flags = np.array([0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0], bool)
    assert ft.runs(flags, 1) == [(1, 3), (4, 6), (9, 10)]
    assert ft.runs(flags, 3, bridge=1) == [(1, 6)]
    assert ft.runs(np.ones(4, bool), 2) == [(0, 4)] and ft.runs(np.zeros(4, bool), 1) == []


def test_a_yawn_lasts_a_second() -> None:
    mouth = np.zeros(100)
    mouth[10:15], mouth[40:55] = 0.9, 0.9
    mouth[47:49] = 0.2  # the mouth flickers
    assert ft.yawns(mouth, 10) == [(40, 55)]
    assert ft.perclos(np.r_[np.full(30, 0.1), np.full(70, 0.9)]) == pytest.approx(0.3)


def _reading(closed: np.ndarray, open_mouth: np.ndarray, shift: float = 0.0) -> ft.Reading:
    t = len(closed)
    points = np.array([[30, 40], [70, 40], [50, 60], [36, 80], [64, 80]], float) + np.arange(t)[:, None, None]
    return ft.Reading("clip", 0, 10.0, np.where(closed, 5.0, -5.0), np.where(open_mouth, 5.0, -5.0), points + shift)


def test_a_clip_against_itself_and_against_a_face_that_sleeps() -> None:
    t = np.arange(200)
    closed, gape = (t > 20) & (t < 40), (t > 100) & (t < 130)
    old = _reading(closed, gape)
    same, each = ft.clips([old], [old], ft.Temperatures())
    assert same["eye_error"] == same["mouth_error"] == same["perclos_error"] == same["jitter_added"] == 0
    assert same["yawns"] == same["yawns_before"] == same["closures"] == 1 and same["yawns_missed"] == 0
    assert same["eye_correlation"] == pytest.approx(1) and same["jitter"] == pytest.approx(0, abs=1e-9)
    assert same["frames"] == 200 and each[0]["clip"] == "clip"
    other, _ = ft.clips([old], [_reading(np.ones(200, bool), gape & (t < 105))], ft.Temperatures())
    assert other["perclos"] == 1 and other["perclos_before"] == pytest.approx(19 / 200)
    assert other["yawns_missed"] == 1 and other["yawns"] == 0 and other["closures_missed"] == 0
    assert np.isnan(other["eye_correlation"]) and other["eye_error"] == pytest.approx(181 / 200, rel=0.02)


def test_jitter_is_the_noise_of_the_points() -> None:
    rng, still = np.random.default_rng(1), np.zeros(400, bool)
    old = _reading(still, still)
    noisy = ft.Reading("c", 0, 10.0, old.eyes_closed, old.yawning, old.points + rng.normal(0, 0.8, old.points.shape))
    figures, _ = ft.clips([old], [noisy], ft.Temperatures())
    assert figures["jitter_added"] == pytest.approx(0.8 / 40, rel=0.05)
    assert ft.clips([], [], ft.Temperatures()) == ({}, [])
