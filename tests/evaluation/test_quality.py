"""Set distances and errors against independent formulas and hand-made cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from a3gan.evaluation import figures, looks, quality, statistics


def _sets(dimension: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(dimension, dimension))
    return rng.normal(size=(400, dimension)) @ mix, rng.normal(0.3, 1.2, size=(300, dimension))


def test_frechet_agrees_with_the_root_of_a_general_matrix() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = _sets()
    first, second = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(first @ second).real  # the published formula, on which ours improves
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert quality.frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_known_gaussians() -> None:
    # Of independent coordinates: squared difference of the means plus that of the deviations.
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (200_000, 2)), rng.normal((1, 0), (1, 3), (200_000, 2))
    assert quality.frechet(a, b) == pytest.approx(1 + 4, abs=0.06)
    assert quality.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert quality.frechet(a[:500], a[:500] + [3, 4]) == pytest.approx(25)
    line = np.arange(5.0)[:, None] * [[1, 1]]  # rank 1: no imaginary rest, no NaN
    assert quality.frechet(line, 2 * line) == pytest.approx(2 * 4 + 2 * 2.5, rel=1e-6)
    assert np.isnan(quality.frechet(a[:1], b))


def test_frechet_agrees_with_torchmetrics_where_it_is() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = _sets()
    moments = [(torch.tensor(x.mean(0)), torch.tensor(np.cov(x.T))) for x in (a, b)]
    theirs = fid._compute_fid(*moments[0], *moments[1])
    assert quality.frechet(a, b) == pytest.approx(float(theirs), rel=1e-6)


def test_kernel_distance_by_loops() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(7, 3)), rng.normal(1, 1, size=(5, 3))

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 3 + 1) ** 3

    within = np.mean([k(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    within += np.mean([k(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([k(x, y) for x in a for y in b])
    assert quality.kernel_distance(a, b) == pytest.approx(within - 2 * across)


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    rng = np.random.default_rng(3)
    values = [quality.kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_set_distances_have_floors_and_repeat() -> None:
    a, _ = _sets()
    who = np.arange(400) // 4
    figures = quality.set_distances(a, a + 2.0, who, seed=1)
    assert figures == quality.set_distances(a, a + 2.0, who, seed=1)
    distance = figures["frechet"]
    assert distance.value == pytest.approx(4 * 6) and distance.low <= distance.value <= distance.high
    assert figures["kernel"].low < figures["kernel"].high
    assert 0 < quality.floors(a, who)["frechet_floor"] < distance.value
    assert quality.set_distances(a, a, who)["frechet"].high == 0.0


@pytest.mark.parametrize("pictures", [1, 2, 5])
def test_one_person_has_no_interval_and_is_still_json(pictures: int) -> None:
    a, _ = _sets()
    distance = quality.set_distances(a[:pictures], a[:pictures] + 2.0, np.zeros(pictures))["frechet"]
    assert np.isnan(distance.low) and np.isnan(distance.high)
    text = json.dumps({"frechet": distance.as_dict()}, allow_nan=False)
    assert json.loads(text)["frechet"]["high"] is None


def test_an_open_end_is_null_in_json() -> None:
    assert statistics.Interval(0.5, -np.inf, np.inf, 1, 1).as_dict()["high"] is None
    assert figures.plain({"threshold": -np.inf, "kernel": 1.0}) == {"threshold": None, "kernel": 1.0}


def test_errors_of_points_and_pose() -> None:
    points = np.array([[[30, 40], [70, 40], [50, 60], [36, 80], [64, 80]]], float).repeat(3, 0)
    moved = points.copy()
    moved[:, 2, 0] += 4  # the nose: a tenth of the eye distance
    errors = quality.landmark_errors(points, moved, np.arange(3), (20, 0))
    assert errors["landmarks_nose"].value == pytest.approx(0.1) and errors["landmarks"].value == pytest.approx(0.02)
    assert errors["landmarks_eyes"].value == errors["roll_error"].value == 0
    assert errors["yaw_error"].value == pytest.approx(0.1) and errors["pitch_error"].value == pytest.approx(0)
    c, s = np.cos(np.radians(5)), np.sin(np.radians(5))
    turned = quality.landmark_errors(points, points @ np.array([[c, s], [-s, c]]), np.arange(3), (20, 0))
    assert turned["roll_error"].value == pytest.approx(5) and turned["yaw_error"].value == pytest.approx(0, abs=1e-9)


def test_mean_over_people() -> None:
    figure = quality.mean(np.array([1.0, 3, np.nan, 8]), np.array([0, 0, 1, 2]), 200)
    assert figure.value == 4 and figure.count == 3 and figure.people == 2
    assert 2 <= figure.low <= figure.value <= figure.high <= 8
    assert np.isnan(quality.mean(np.array([]), np.array([])).value)


def test_colours_in_and_around_the_face() -> None:
    old = torch.full((2, 3, 16, 16), -1.0)
    new, mask = old.clone(), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    new[1, :, 4:12, 4:12] = 1.0  # black to white: L from 0 to 100
    found = looks.colour_distances(old, new, mask)
    assert found["colour_face"] == pytest.approx([0, 100], abs=0.1)
    assert found["colour_around"] == pytest.approx([0, 0], abs=1e-6)


def test_gradients_see_direction_but_not_light() -> None:
    ramp = torch.linspace(-0.8, 0.8, 64)
    across, down = ramp.expand(1, 3, 64, 64), ramp[:, None].expand(1, 3, 64, 64)
    a, b = looks.gradients(across), looks.gradients(down)
    assert a.shape == (1, 576) and a.dtype == np.float32
    assert np.abs(a - looks.gradients(across * 0.5 + 0.3)).max() < 0.02
    bins = a.reshape(9, 8, 8), b.reshape(9, 8, 8)
    assert bins[0][[0, 8]].sum() > 0.99 * bins[0].sum() and bins[1][4].sum() > 0.99 * bins[1].sum()
