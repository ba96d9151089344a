"""A generator's figures on cases worked out by hand, and against independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from a3gan.evaluation import generator_inversion, generator_manifold, generator_paths
from a3gan.models.stylegan2 import Generator
from a3gan.scorers.attributes import AttributeNetwork


# --- manifolds ----------------------------------------------------------------------------------------------------
def test_precision_and_recall_on_a_line() -> None:
    """Real 0 1 2 3 with k = 1: balls of radius 1, so [-1, 4]. Made 0 0.5 10 10.25: balls [-.5, 1] and [9.75, 10.5]."""
    real, made = (np.array(x)[:, None] for x in ([0.0, 1.0, 2.0, 3.0], [0.0, 0.5, 10.0, 10.25]))
    assert generator_manifold.radii(made, 1).tolist() == [0.5, 0.5, 0.25, 0.25]
    assert generator_manifold.precision_recall(real, made, 1) == {"precision": 0.5, "recall": 0.5}
    assert generator_manifold.precision_recall(real, real, 3) == {"precision": 1.0, "recall": 1.0}
    far = generator_manifold.precision_recall(real, made + 100, 1)
    assert far == {"precision": 0.0, "recall": 0.0}


def test_precision_and_recall_against_a_search_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.spatial import cKDTree

    rng, k = np.random.default_rng(0), 3
    real, made = rng.normal(size=(120, 5)), rng.normal(size=(120, 5)) * 0.7 + 0.5

    def inside(points: np.ndarray, centres: np.ndarray) -> float:
        tree = cKDTree(centres)
        radius = tree.query(centres, k + 1)[0][:, k]  # the first is the point itself
        return float(np.mean([any(np.linalg.norm(c - p) <= r for c, r in zip(centres, radius, strict=True))
                              for p in points]))  # fmt: skip

    monkeypatch.setattr(generator_manifold, "BLOCK", 50)  # blocks that do not divide
    found = generator_manifold.precision_recall(real, made, k)
    assert found["precision"] == pytest.approx(inside(made, real))
    assert found["recall"] == pytest.approx(inside(real, made))
    assert found["precision"] > found["recall"]  # the made ones are narrower


def test_precision_and_recall_cut_to_the_smaller_set() -> None:
    rng = np.random.default_rng(1)
    many, few = rng.normal(size=(300, 2)), rng.normal(size=(40, 2))
    first = generator_manifold.precision_recall(many, few, 3, seed=1)
    assert first == generator_manifold.precision_recall(many, few, 3, seed=1)
    assert math.isnan(generator_manifold.precision_recall(many, few[:3], 3)["recall"])
    with pytest.raises(ValueError, match="no 3-th neighbour"):
        generator_manifold.radii(few[:3], 3)


def unit(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_memorised_faces_stand_out() -> None:
    train, test, copies = unit([0, 90]), unit([30, 45, 50, 60]), unit([0, 0, 45, 91])
    found = generator_manifold.memorised(copies, test, train, threshold=0.9)
    assert found["samples"]["q100"] == pytest.approx(1)
    assert found["test"]["q100"] == pytest.approx(math.cos(math.pi / 6))
    assert found["samples"]["matched"] == 0.75 and found["test"]["matched"] == 0.0
    assert found["excess"] == 0.75
    assert generator_manifold.memorised(test, test, train, 0.9)["excess"] <= 0.25


def test_matches_among_samples() -> None:
    """Of six pairs of 0, 1, 90, 180 degrees one is nearer than cos 30."""
    found = generator_manifold.matches(unit([0, 1, 90, 180]), math.cos(math.pi / 6))
    assert found.value == pytest.approx(1 / 6) and (found.count, found.people) == (6, 4)
    assert 0 <= found.low <= found.value <= found.high <= 1
    same = generator_manifold.matches(unit([0, 0, 0]), 0.9)
    assert (same.value, same.low) == (1.0, pytest.approx(1.0))


# --- paths --------------------------------------------------------------------------------------------------------
def test_slerp() -> None:
    t = torch.tensor([0.0, 0.5, 1.0])
    way = generator_paths.slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), t)
    torch.testing.assert_close(way, torch.tensor([[2.0, 0.0], [4.5**0.5, 4.5**0.5], [0.0, 4.0]]))
    straight = generator_paths.slerp(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), t)
    torch.testing.assert_close(straight, torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))


def test_evenness_of_steps() -> None:
    steps = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = generator_paths.evenness(steps)
    assert found == {"jump": pytest.approx(2.0), "jump_worst": 4.0, "step": pytest.approx(2 / 3)}
    pictures = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    sizes = generator_paths.step_sizes(pictures, lambda a, b: (a - b).abs().mean((1, 2, 3)))
    assert sizes.tolist() == [1.0, 2.0]


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    net = Generator(64, z_dim=8, w_dim=8, channels_base=256, channels_max=8, mapping_layers=1, noise=False)
    net.w_mean.normal_()
    return net.eval().requires_grad_(False)


def test_paths_begin_and_end_at_the_samples(generator: Generator) -> None:
    a, b = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    for kind in generator_paths.KINDS:
        way = generator_paths.frames(generator, a, b, 3, kind, truncation=0.7)
        assert way.shape == (4, 3, 64, 64)
        torch.testing.assert_close(way[[0, -1]], generator(torch.stack((a, b)), 0.7), rtol=1e-3, atol=1e-4)


# --- inversion ----------------------------------------------------------------------------------------------------
def test_errors_by_hand() -> None:
    faces = torch.zeros(2, 3, 2, 2)
    found = generator_inversion.errors(torch.stack((faces[0] + 0.2, faces[1] - 5)), faces)
    assert found["l1"].tolist() == pytest.approx([0.2, 1.0])  # clamped to [-1, 1] first
    assert found["psnr"].tolist() == pytest.approx([20.0, 20 * math.log10(2)])


def test_inversion_comes_closer_and_rows_are_alone(generator: Generator) -> None:
    torch.manual_seed(1)
    network = AttributeNetwork("plain", 8).eval().requires_grad_(False)
    faces = generator(torch.randn(2, 8)).clamp(-1, 1)
    seen: list[int] = []
    options = {"steps": 12, "rate": 0.1, "perceptual": 1.0}
    both = generator_inversion.invert(generator, faces, network, **options, progress=seen.append)
    assert both.shape == (2, 10, 8) and seen == [2] * 12 and not both.requires_grad
    alone = generator_inversion.invert(generator, faces[1:], network, **options)
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)
    start = generator.synthesis(generator.w_mean.expand(2, 10, -1))
    before, after = (generator_inversion.errors(x, faces)["psnr"] for x in (start, generator.synthesis(both)))
    assert (after > before + 1).all()
