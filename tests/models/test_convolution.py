"""Convolution with second derivatives of its own: values and both orders of gradients against the library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from a3gan.models import convolution
from a3gan.models.convolution import conv2d, conv_transpose2d

CASES = [(3, 1, 1, 6), (3, 2, 0, 7), (3, 2, 0, 8), (1, 1, 0, 5)]  # kernel, stride, padding, side


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), CASES)
def test_first_and_second_order(kernel: int, stride: int, padding: int, side: int) -> None:
    x, w, b = drawn(2, 2, side, side).requires_grad_(), drawn(3, 2, kernel, kernel).requires_grad_(), drawn(3)
    b.requires_grad_()
    torch.testing.assert_close(conv2d(x, w, b, stride, padding), F.conv2d(x, w, b, stride, padding))
    assert gradcheck(lambda *a: conv2d(*a, stride, padding), (x, w, b))
    assert gradgradcheck(lambda *a: conv2d(*a, stride, padding), (x, w, b))


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed(stride: int) -> None:
    x, w = drawn(2, 2, 4, 5).requires_grad_(), drawn(2, 3, 3, 3).requires_grad_()
    torch.testing.assert_close(conv_transpose2d(x, w, stride), F.conv_transpose2d(x, w, stride=stride))
    assert gradcheck(lambda *a: conv_transpose2d(*a, stride), (x, w))
    assert gradgradcheck(lambda *a: conv_transpose2d(*a, stride), (x, w))


def test_penalty_on_a_gradient_as_the_library_has_it() -> None:
    """Gradients for the weights of a squared gradient at the picture, through two layers."""
    x, first, second = drawn(2, 3, 8, 8), drawn(4, 3, 3, 3), drawn(5, 4, 3, 3)

    def penalised(conv) -> list[torch.Tensor]:
        picture, weights = x.clone().requires_grad_(), [w.clone().requires_grad_() for w in (first, second)]
        y = conv(F.leaky_relu(conv(picture, weights[0], None, 1, 1), 0.2), weights[1], None, 2, 0)
        (gradient,) = torch.autograd.grad(y.square().sum(), picture, create_graph=True)
        gradient.square().sum().backward()
        return [w.grad for w in weights]

    expected = penalised(F.conv2d)
    with convolution.maps_only():  # nothing here is wanted by the weights in the first order
        picture, w = x.clone().requires_grad_(), first.clone().requires_grad_()
        y = conv2d(picture, w, None, 1, 1).square().sum()
        gradients = torch.autograd.grad(y, (picture, w), create_graph=True, allow_unused=True)
    assert gradients[1] is None
    (second_order,) = torch.autograd.grad(gradients[0].square().sum(), w)
    assert second_order.abs().sum() > 0
    for ours, library in zip(penalised(conv2d), expected, strict=True):
        torch.testing.assert_close(ours, library)


def test_the_library_does_what_is_differentiated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision, frozen weights, inference: nothing of ours on the way (exports trace these)."""
    monkeypatch.setattr(convolution, "_Forward", None)
    monkeypatch.setattr(convolution, "_Transposed", None)
    x, w = torch.zeros(1, 2, 4, 4, requires_grad=True), torch.zeros(2, 2, 3, 3, requires_grad=True)
    conv2d(x.bfloat16(), w.bfloat16())
    conv2d(x, w.detach())
    with torch.no_grad():
        conv2d(x, w)
        conv_transpose2d(x, w)
    with pytest.raises(AttributeError):
        conv2d(x, w)
