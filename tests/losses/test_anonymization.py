"""Distances of flat codes and the terms that make a face another one."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.data.attributes import Attribute
from a3gan.losses.anonymization import attributes_move, diversity, identity, proposal_far, realise
from a3gan.losses.distances import cross_entropy, logit_gap, masked_mean, value_gap

SCHEMA = (
    Attribute("smile", "binary", ("no", "yes")),
    Attribute("hair", "categorical", ("dark", "fair", "grey")),
    Attribute("age", "continuous"),
)
ALL, NONE = torch.ones(1, 3), torch.zeros(1, 3)
ZERO = torch.zeros(1, 5)


def code(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def random_codes(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, n, 5, dtype=torch.float64, generator=generator)
    return first.requires_grad_(), second.requires_grad_()


def test_gaps_known_values():
    other = code(2.0, 3.0, -1.0, 0.0, -4.0)
    assert logit_gap(other, ZERO, SCHEMA).tolist() == [[2.0, 4.0, 4.0]]
    assert logit_gap(ZERO, other, SCHEMA).tolist() == [[2.0, 4.0, 4.0]]
    sure = code(math.log(3), math.log(2), 0.0, 0.0, -math.log(3))
    # .75 against .5; (.5, .25, .25) against thirds; .25 against .5
    assert value_gap(sure, ZERO, SCHEMA)[0].tolist() == pytest.approx([0.25, 1 / 6, 0.25])


def test_categorical_gap_is_the_binary_one_for_two_classes_and_ignores_a_constant():
    two = (Attribute("smile", "categorical", ("no", "yes")),)
    first, second = code(1.0, 4.0), code(0.5, -2.0)
    assert logit_gap(first, second, two).item() == pytest.approx(3.0 - (-2.5))
    assert logit_gap(first + 7, second, two).item() == pytest.approx(5.5)
    binary = (Attribute("smile", "binary", ("no", "yes")),)
    assert value_gap(first, second, two).item() == pytest.approx(value_gap(code(3.0), code(-2.5), binary).item())


def test_cross_entropy_least_is_the_entropy_of_the_target():
    target = code(math.log(3), math.log(2), 0.0, 0.0, 0.0)
    at_target = cross_entropy(target, target, SCHEMA)[0].tolist()
    assert at_target == pytest.approx([0.5623, 1.0397, math.log(2)], abs=1e-4)
    assert cross_entropy(ZERO, target, SCHEMA)[0].tolist() == pytest.approx([math.log(2), math.log(3), math.log(2)])
    assert cross_entropy(ZERO, target, SCHEMA, continuous="l1")[0, 2].item() == 0
    with pytest.raises(ValueError, match="'l2'"):
        cross_entropy(ZERO, target, SCHEMA, continuous="l2")


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(2, 3), torch.tensor([[0.0, 0, 0], [1, 1, 0]])).tolist() == [0, 1]


def test_attributes_move_known_values():
    assert attributes_move(ZERO, ZERO, ALL, SCHEMA).item() == 3
    moved = code(1.0, 2.0, 0.0, 0.0, -5.0)
    assert attributes_move(moved, ZERO, ALL, SCHEMA).item() == pytest.approx((2 + 1 + 0) / 3)
    assert attributes_move(moved, ZERO, code(1.0, 0.0, 1.0), SCHEMA).item() == pytest.approx((2 + 0) / 2)
    assert attributes_move(ZERO, ZERO, NONE, SCHEMA).item() == 0
    assert attributes_move(moved, ZERO, ALL, SCHEMA, margin=1.0).item() == 0


def test_attributes_move_falls_with_distance():
    losses = [attributes_move(code(step, 0, 0, 0, 0), ZERO, ALL, SCHEMA).item() for step in (0.0, 1.0, 2.0, 3.0, 9.0)]
    assert losses == sorted(losses, reverse=True) and losses[-1] == losses[-2] == 2


def test_proposal_far_known_values():
    assert proposal_far(ZERO, ZERO, ALL, SCHEMA).item() == 0.5
    far = code(-math.log(3), 0.0, 0.0, 0.0, 0.0)
    assert proposal_far(far, ZERO, ALL, SCHEMA).item() == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert proposal_far(code(9.0, 0, 0, 0, 0), code(-9.0, 0, 0, 0, 0), code(1.0, 0, 0), SCHEMA).item() == 0
    assert proposal_far(far, ZERO, NONE, SCHEMA).item() == 0


def test_realise_known_values_and_policy():
    target = code(math.log(3), 0.0, 0.0, 0.0, 0.0)
    expected = (math.log(2) + math.log(3) + math.log(2)) / 3
    assert realise(ZERO, target, ALL, SCHEMA).item() == pytest.approx(expected)
    assert realise(ZERO, target, code(0.0, 0.0, 1.0), SCHEMA).item() == pytest.approx(math.log(2))
    assert realise(ZERO, target, NONE, SCHEMA).item() == 0
    worse = realise(code(-3.0, 0, 0, 0, 0), target, ALL, SCHEMA)
    assert realise(target, target, ALL, SCHEMA) < realise(ZERO, target, ALL, SCHEMA) < worse


@pytest.mark.parametrize("term", [attributes_move, proposal_far, realise])
def test_code_terms_gradients_and_shape(term):
    first, second = random_codes()
    c = torch.tensor([[1.0, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.float64)
    assert gradcheck(lambda a, b: term(a, b, c, SCHEMA), (first, second))
    loss = term(first, second, c, SCHEMA)
    assert loss.shape == (3,) and (loss >= 0).all() and loss[2] == 0
    loss.sum().backward()
    assert (first.grad[0, 1:4] == 0).all() and (first.grad[2] == 0).all()


def test_extreme_codes_stay_finite():
    big = code(1e4, 1e4, -1e4, 0.0, -1e4).requires_grad_()
    for term in (attributes_move, proposal_far, realise):
        loss = term(big, -big.detach(), ALL, SCHEMA)
        assert loss.isfinite().all()
        assert torch.autograd.grad(loss.sum(), big)[0].isfinite().all()


def test_identity_aims_at_zero_from_both_sides():
    e = torch.tensor([[1.0, 0.0]])
    assert identity([e], [e]).item() == pytest.approx(0.95)
    assert identity([-e], [e]).item() == pytest.approx(0.95)
    assert identity([torch.tensor([[0.04, 1.0]])], [e]).item() == 0
    assert identity([e, torch.tensor([[0.0, 1.0]])], [e, e]).item() == pytest.approx(0.95 / 2)
    assert identity([5 * e], [e], m_id=0.5).item() == pytest.approx(0.5)


def test_identity_wants_pairs():
    with pytest.raises(ValueError, match="pair"):
        identity([], [])
    with pytest.raises(ValueError, match="pair"):
        identity([torch.ones(1, 2)], [])


def test_diversity_known_values():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert diversity(a, a).item() == pytest.approx(0.7)
    assert diversity(a, b).item() == pytest.approx(0.3)
    assert diversity(a, -a).item() == 0


def test_embedding_terms_gradients():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    first = (first + second).requires_grad_()
    assert gradcheck(lambda e: identity([e], [second]), first)
    assert gradcheck(lambda e: diversity(e, second), first)
    # the gradient step lowers a positive cosine
    (slope,) = torch.autograd.grad(identity([first], [second]).sum(), first)
    assert identity([first - 0.1 * slope], [second]).sum() < identity([first], [second]).sum()
