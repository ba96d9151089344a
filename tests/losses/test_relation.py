"""Instance relation matching: known values, what it does not see, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from a3gan.losses.relation import cross, instance_relation, moments


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=1)


def test_known_values():
    real = torch.eye(2)
    made = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # R' - R = [[0, .6], [.6, 0]]: two of four cells differ by 0.36
    assert instance_relation(made, real).tolist() == pytest.approx([0.18, 0.18])
    assert instance_relation(made, real).mean().item() == pytest.approx(2 * 0.36 / 4)  # (1/N²) ‖R' - R‖²
    # Z' Zᵀ - R = [[0, 0], [.6, -.2]]
    assert cross(made, real).tolist() == pytest.approx([0.0, 0.2])
    # means (.8, .4) and (.5, .5); covariances [[.04, -.08], [-.08, .16]] and [[.25, -.25], [-.25, .25]]
    expected = 0.09 + 0.01 + 0.21**2 + 2 * 0.17**2 + 0.09**2
    assert moments(made, real).item() == pytest.approx(expected)


def test_opposites_are_the_worst_case():
    real = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    made = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert instance_relation(made, real).tolist() == [2.0, 2.0]  # own cell 0, the other 4, over N = 2


def test_a_common_rotation_is_free_but_for_cross():
    real = unit(6, 4)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    made = real @ turn
    assert instance_relation(made, real).max() < 1e-20
    assert cross(made, real).mean() > 0.01 and moments(made, real) > 0.01
    for term in (cross, moments):
        assert term(real, real).max() < 1e-20


def test_gradients():
    real, made = unit(4, 3), unit(4, 3, seed=1).requires_grad_()
    for term in (instance_relation, cross, moments):
        assert gradcheck(lambda z, term=term: term(z, real), (made,))
