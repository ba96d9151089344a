"""Gradient reversal, the reader of the identity, the gate budget."""

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.losses.suppression import embedding_regression, gate_budget, gradient_reversal


def test_reversal_is_identity_forward_and_minus_backward():
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    y = gradient_reversal(x)
    assert torch.equal(y, x)
    (y * torch.tensor([[3.0, 4.0]])).sum().backward()
    assert x.grad.tolist() == [[-3.0, -4.0]]


def test_reversal_strength_by_number_and_by_image():
    x = torch.ones(2, 3, 1, 1, requires_grad=True)
    gradient_reversal(x, 0.5).sum().backward()
    assert (x.grad == -0.5).all()
    x.grad = None
    gradient_reversal(x, torch.tensor([0.0, 2.0])).sum().backward()
    assert x.grad[:, 0, 0, 0].tolist() == [0.0, -2.0]


def test_reversal_sets_features_against_their_reader():
    features = torch.tensor([[1.0, 0.5]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0]])
    before = embedding_regression(features, target)
    embedding_regression(gradient_reversal(features), target).sum().backward()
    assert embedding_regression(features - 0.1 * features.grad, target) > before


def test_regression_known_values_and_gradient():
    e = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    target = torch.tensor([[1.0, 0.0]] * 3)
    assert embedding_regression(e, target).tolist() == pytest.approx([0.0, 1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    assert gradcheck(lambda p: embedding_regression(p, target), predicted.requires_grad_())
    wanted = target.clone().requires_grad_()
    assert not embedding_regression(predicted.detach(), wanted).requires_grad


def test_budget_known_values():
    gates = [torch.full((2, 4, s, s), rho) for s, rho in ((8, 0.15), (4, 0.25), (2, 0.35))]
    assert gate_budget(gates).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    gates[0] = gates[0] + 0.3
    assert gate_budget(gates).tolist() == pytest.approx([0.03, 0.03])
    assert gate_budget([None, gates[1], None], (0.15, 0.05, 0.35)).tolist() == pytest.approx([0.04, 0.04])


def test_budget_gradient_pulls_to_rho():
    gate = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert gradcheck(lambda m: gate_budget([m], [0.2]), gate)
    closed = torch.full((1, 1, 2, 2), 0.9, requires_grad=True)
    gate_budget([closed], [0.2]).sum().backward()
    assert (closed.grad > 0).all()


def test_budget_errors():
    with pytest.raises(ValueError, match="2 gates, 3 budgets"):
        gate_budget([None, None])
    with pytest.raises(ValueError, match="no level"):
        gate_budget([None, None, None])
