"""Terms on the injected code."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.data.attributes import Attribute
from a3gan.losses.code import delta_norm, injective, latent, latent_discriminator

SCHEMA = (Attribute("smile", "binary", ("no", "yes")), Attribute("hair", "categorical", ("dark", "fair")))


def test_delta_norm_known_values():
    delta = torch.zeros(2, 4, 3)
    delta[1, 0] = torch.tensor([1.0, 2.0, 2.0])
    assert delta_norm(delta).tolist() == pytest.approx([0.0, 9 / 4])
    assert gradcheck(delta_norm, torch.randn(2, 3, 2, dtype=torch.float64).requires_grad_())


def test_injective_known_values():
    a, b = torch.zeros(1, 3), torch.tensor([[math.log(3), math.log(3), 0.0]])
    assert injective(a, a, SCHEMA).item() == 0
    assert injective(b, a, SCHEMA).item() == pytest.approx(3 * 0.25**2)
    assert injective(b + torch.tensor([[0.0, 5.0, 5.0]]), b, SCHEMA).item() == pytest.approx(0.0, abs=1e-9)
    far = torch.tensor([[1e3, 1e3, 0.0]])
    assert injective(far, -far, SCHEMA).item() == pytest.approx(3.0)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    assert gradcheck(lambda p, q: injective(p, q, SCHEMA), (first.requires_grad_(), second.requires_grad_()))


def test_latent_is_a_mean_over_rows():
    zero = torch.zeros(2, 5)
    assert latent(zero).tolist() == pytest.approx([math.log(2)] * 2)
    assert latent_discriminator(zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert latent(zero + 1)[0] < latent(zero)[0]
