"""Path length regularisation on generators whose Jacobian is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from a3gan.losses.path_length import PathLength, path_lengths

SIDE, WIDTH = 8, 5


def linear(w_plus: Tensor, rows: list[float]) -> Tensor:
    """An image whose pixels each follow one random direction of w, row i by the factor rows[i]."""
    matrix = torch.randn(3 * SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0)).to(w_plus.dtype)
    mixed = (w_plus * torch.tensor(rows, dtype=w_plus.dtype)[None, :, None]).sum(1)
    return (mixed @ matrix.t()).reshape(-1, 3, SIDE, SIDE)


def test_the_length_of_a_linear_generator_is_that_of_its_matrix() -> None:
    w_plus = torch.randn(4, 2, WIDTH, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    lengths = path_lengths(linear(w_plus, [1.0, 3.0]), w_plus)
    torch.manual_seed(1)
    noise = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64) / SIDE
    matrix = torch.randn(3 * SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    along = (noise.flatten(1) @ matrix).norm(dim=1)  # |J^T y| of a row with the factor 1
    torch.testing.assert_close(lengths.detach(), along * math.sqrt((1 + 9) / 2))


def test_the_expected_squared_length_does_not_depend_on_the_side() -> None:
    """y ~ N(0, I) / side: E |J^T y|^2 = ||J||_F^2 / side^2, here 3 WIDTH for unit-variance entries."""
    w_plus = torch.randn(4000, 1, WIDTH, requires_grad=True)
    torch.manual_seed(2)
    squared = path_lengths(linear(w_plus, [1.0]), w_plus).square().mean().item()
    assert squared == pytest.approx(3 * WIDTH, rel=0.1)


def test_the_mean_follows_and_an_even_generator_pays_nothing() -> None:
    penalty = PathLength(decay=0.5)
    w_plus = torch.randn(8, 1, WIDTH, requires_grad=True)
    torch.manual_seed(3)
    first = path_lengths(linear(w_plus, [1.0]), w_plus).detach()
    torch.manual_seed(3)
    cost = penalty(linear(w_plus, [1.0]), w_plus)
    assert penalty.mean == pytest.approx(0.5 * first.mean().item(), rel=1e-6)
    torch.testing.assert_close(cost.detach(), (first - penalty.mean).square())
    still = PathLength()
    still.mean = 0.0
    assert still(linear(w_plus, [0.0]), w_plus).abs().max() == 0 and still.mean == 0.0


def test_the_penalty_has_the_gradient_of_its_formula() -> None:
    """Generator a * w: the length is |a| times a fixed number, so d/da (|a| l - m)^2 = 2 (|a| l - m) l."""
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    w_plus = torch.randn(1, 1, WIDTH, dtype=torch.float64, requires_grad=True)
    penalty = PathLength(decay=0.0)
    penalty.mean = 1.0
    torch.manual_seed(4)
    (gradient,) = torch.autograd.grad(penalty(scale * linear(w_plus, [1.0]), w_plus).sum(), scale)
    torch.manual_seed(4)
    length = path_lengths(linear(w_plus, [1.0]), w_plus).item()
    assert gradient.item() == pytest.approx(2 * (2 * length - 1) * length, rel=1e-6)
