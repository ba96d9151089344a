"""What must stay."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.data.attributes import Attribute
from a3gan.losses.preservation import geometry, keep, reconstruction, tint

SCHEMA = (
    Attribute("smile", "binary", ("no", "yes")),
    Attribute("hair", "categorical", ("dark", "fair")),
    Attribute("age", "continuous"),
)
POINTS = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.2, 2.0], [1.8, 2.0]]])
OPEN = torch.tensor([[0.9, 0.1]])


def test_keep_known_values():
    zero, other = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 0.0, math.log(3)]])
    c = torch.zeros(1, 3)
    assert keep(other, zero, c, SCHEMA).item() == pytest.approx((2 * math.log(2) + 0.25) / 3)
    assert keep(other, zero, torch.tensor([[1.0, 1.0, 0.0]]), SCHEMA).item() == pytest.approx(0.25)
    assert keep(other, zero, torch.ones(1, 3), SCHEMA).item() == 0


def test_keep_is_least_at_the_original():
    original = torch.tensor([[2.0, -1.0, 1.0, 0.5]], dtype=torch.float64)
    c = torch.zeros(1, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    least = keep(original, original, c, SCHEMA)
    for _ in range(20):
        noise = torch.randn(1, 4, dtype=torch.float64, generator=generator)
        assert keep(original + noise, original, c, SCHEMA) > least
    out = (original + 0.3).requires_grad_()
    assert gradcheck(lambda u: keep(u, original, c, SCHEMA), out)


def test_keep_is_blind_to_what_may_change():
    out = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    keep(out, torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 0.0]]), SCHEMA).sum().backward()
    assert (out.grad[0, 1:3] == 0).all() and (out.grad[0, [0, 3]] != 0).all()


def test_geometry_known_values():
    assert geometry(POINTS, POINTS, OPEN, OPEN).item() == 0
    # every coordinate off by 0.1, over the eye distance 2
    assert geometry(POINTS + 0.1, POINTS, OPEN, OPEN).item() == pytest.approx(0.05)
    other = torch.tensor([[0.5, 0.2]])
    assert geometry(POINTS, POINTS, other, OPEN).item() == pytest.approx((0.4 + 0.1) / 2)
    assert geometry(POINTS, POINTS, other, OPEN, hold=torch.tensor([[0.0, 1.0]])).item() == pytest.approx(0.05)


def test_geometry_does_not_depend_on_the_unit():
    moved = POINTS + torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0))
    small = geometry(moved, POINTS, OPEN, OPEN)
    assert torch.allclose(geometry(64 * moved, 64 * POINTS, OPEN, OPEN), small)


def test_geometry_gradient():
    generator = torch.Generator().manual_seed(0)
    points = (POINTS.double() + torch.randn(2, 5, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    openings = torch.rand(2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    original = POINTS.double().repeat(2, 1, 1)
    assert gradcheck(lambda p, o: geometry(p, original, o, OPEN.double()), (points, openings))


def test_reconstruction_known_values():
    x = torch.zeros(2, 3, 4, 4)
    assert reconstruction(x, x).tolist() == [0, 0]
    assert reconstruction(x + 0.5, x).tolist() == [0.25, 0.25]
    e = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    turned = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    perceptual = torch.tensor([1.0, 0.5])
    assert reconstruction(x + 0.5, x, perceptual, turned, e).tolist() == pytest.approx([1.05, 0.25 + 0.4 + 0.2])


def test_reconstruction_gradient():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=generator)
    out = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert gradcheck(lambda y: reconstruction(y, x, y.abs().mean((1, 2, 3)), y.flatten(1), x.flatten(1)), out)


def test_tint_known_values():
    x = torch.zeros(2, 3, 16, 16)
    assert tint(x, x).tolist() == [0, 0]
    assert tint(x + 0.5, x).tolist() == pytest.approx([0, 0], abs=1e-6)  # lighter, and of no other colour
    red = x.clone()
    red[1, 0] = 1.0  # Y = 0.299: R - Y = 0.701, B - Y = -0.299
    assert tint(red, x).tolist() == pytest.approx([0, 0.5])
    fringe = x.clone()
    fringe[:, 2, :, ::2], fringe[:, 2, :, 1::2] = 0.3, -0.3  # its squares of 2 x 2 pixels have no colour
    assert tint(fringe, x).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert tint(fringe, x, cells=16).tolist() == pytest.approx([0.15, 0.15])  # (0.114 + 0.886) / 2 of 0.3


def test_tint_gradient():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 4, 4, generator=generator) for _ in "xy")
    y.requires_grad_()
    tint(y, x, cells=2).sum().backward()
    assert y.grad.abs().max() > 0 and y.grad.sum((2, 3)).sum(1).abs().max() < 1e-6  # grey pulls nothing
