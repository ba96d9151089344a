"""The logistic game and R1."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.losses.adversarial import d_logistic, g_nonsaturating, r1, relativistic


def test_known_values():
    zero = torch.zeros(2)
    assert g_nonsaturating(zero).tolist() == pytest.approx([math.log(2)] * 2)
    assert d_logistic(zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert g_nonsaturating(torch.tensor([math.log(3)])).item() == pytest.approx(math.log(4 / 3))
    rows = torch.tensor([[0.0, math.log(3)]])
    assert g_nonsaturating(rows).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_signs_and_extremes():
    steps = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4])
    g = g_nonsaturating(steps)
    assert (g.diff() < 0).all() and g.isfinite().all()
    assert (d_logistic(steps, torch.zeros(5)).diff() < 0).all()
    assert (d_logistic(torch.zeros(5), steps).diff() > 0).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    assert gradcheck(g_nonsaturating, fake.requires_grad_())
    assert gradcheck(d_logistic, (real.requires_grad_(), fake))


def test_r1_of_a_linear_discriminator():
    weight = torch.tensor([[1.0, 2.0, 2.0]], requires_grad=True)
    images = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    penalty = r1((images * weight).sum(1), images, gamma=10.0)
    assert penalty.tolist() == pytest.approx([45.0, 45.0])  # 10 / 2 * (1 + 4 + 4)
    penalty.mean().backward()
    assert weight.grad[0].tolist() == pytest.approx([10.0, 20.0, 20.0])  # gamma * w


def test_r1_is_one_row_an_image():
    images = torch.tensor([[1.0], [3.0]], requires_grad=True)
    assert r1(images.square().sum(1), images, gamma=2.0).tolist() == pytest.approx([4.0, 36.0])
    assert r1(images.sum(1), images, gamma=0.0).tolist() == [0, 0]


def test_relativistic_game_looks_at_pairs_only():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([1.0, math.log(3)])
    assert relativistic(real, fake).tolist() == pytest.approx([math.log(2), math.log(4)])  # softplus(0), softplus(ln 3)
    assert relativistic(fake, real).tolist() == pytest.approx([math.log(2), math.log(4 / 3)])
    torch.testing.assert_close(relativistic(real + 5, fake + 5), relativistic(real, fake))  # a drift of both is free
    assert relativistic(torch.tensor([1e4, -1e4]), torch.zeros(2)).tolist() == [0.0, 1e4]
    rows = torch.stack([real, fake])
    assert relativistic(rows, torch.zeros(2, 2)).shape == (2,)


def test_gradients_of_the_relativistic_game():
    real, fake = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradcheck(relativistic, (real.requires_grad_(), fake.requires_grad_()))
    relativistic(real, fake).sum().backward()
    torch.testing.assert_close(real.grad, -fake.grad)  # what one gains the other loses
