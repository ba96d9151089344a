"""Weights, shares by alpha, and the log."""

import math

import pytest
import torch

from a3gan.losses.total import WEIGHTS, total

ALPHA = torch.tensor([0.0, 0.5, 1.0, 1.0])


def test_known_value_by_kind():
    ones = torch.ones(4)
    loss, scalars = total({"keep": 2 * ones}, {"keep": 3.0}, ALPHA)
    assert loss.item() == 6 and scalars["keep"].item() == 2 and scalars["total"].item() == 6
    loss, scalars = total({"identity": torch.tensor([8.0, 4.0, 1.0, 1.0])}, {"identity": 1.0}, ALPHA)
    assert loss.item() == pytest.approx((0 + 2 + 1 + 1) / 4)
    assert scalars["identity"].item() == pytest.approx(4 / 2.5)
    loss, scalars = total({"reconstruction": torch.tensor([2.0, 9.0, 9.0, 9.0])}, {"reconstruction": 1.0}, ALPHA)
    assert loss.item() == pytest.approx(0.5) and scalars["reconstruction"].item() == 2


def test_sum_of_all_start_weights():
    terms = {name: torch.ones(4) for name in WEIGHTS}
    loss, scalars = total(terms, WEIGHTS, torch.ones(4))
    assert loss.item() == pytest.approx(math.fsum(WEIGHTS.values()) - WEIGHTS["reconstruction"])
    assert set(scalars) == set(WEIGHTS) | {"total"}
    assert not any(value.requires_grad for value in scalars.values())


def test_gradient_goes_where_the_share_is():
    term = torch.ones(4, requires_grad=True)
    total({"diversity": term}, {"diversity": 2.0}, ALPHA)[0].backward()
    assert term.grad.tolist() == pytest.approx([0.0, 0.25, 0.5, 0.5])
    term = torch.ones(4, requires_grad=True)
    total({"reconstruction": term}, {"reconstruction": 1.0}, ALPHA)[0].backward()
    assert term.grad.tolist() == [0.25, 0, 0, 0]


def test_weight_zero_leaves_a_term_out_but_logs_it():
    term = torch.ones(4, requires_grad=True)
    kept = torch.ones(4, requires_grad=True)
    loss, scalars = total({"keep": kept, "code": term}, {"keep": 1.0, "code": 0.0}, ALPHA)
    loss.backward()
    assert term.grad is None and scalars["code"].item() == 1


def test_none_at_zero_counts_nothing():
    loss, scalars = total({"reconstruction": torch.ones(2)}, WEIGHTS, torch.ones(2))
    assert loss.item() == 0 and scalars["reconstruction"].item() == 0


def test_errors_name_the_term():
    with pytest.raises(ValueError, match="'smell'"):
        total({"smell": torch.ones(4)}, WEIGHTS, ALPHA)
    with pytest.raises(ValueError, match="'keep'"):
        total({"keep": torch.ones(())}, WEIGHTS, ALPHA)
