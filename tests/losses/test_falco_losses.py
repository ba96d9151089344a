import math

import pytest
import torch

from a3gan.losses.falco import FARL_TOKENS, obfuscation, relative_weights, token_distance


def at_angle(degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]])


@pytest.mark.parametrize(("angle", "margin", "wanted"), [(60, 0.0, 0.5), (90, 0.0, 0.0), (120, 0.0, 0.5),
                                                         (60, 0.5, 0.0), (0, 0.5, 0.5), (90, 1.0, 1.0)])  # fmt: skip
def test_obfuscation_pulls_to_the_margin_from_either_side(angle, margin, wanted):
    assert float(obfuscation(at_angle(angle), at_angle(0), margin)) == pytest.approx(wanted, abs=1e-6)


def test_obfuscation_gradient_turns_at_the_margin():
    for angle, sign in ((60.0, 1.0), (120.0, -1.0)):
        x = at_angle(angle).requires_grad_(True)
        obfuscation(x, at_angle(0), 0.0).sum().backward()
        assert x.grad[0, 0] == sign and x.grad[0, 1] == 0


def test_token_distance_sums_tokens_and_averages_channels():
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    b[0, :, :] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # mean 2.5 in each of three tokens
    b[1, 2, 0] = -8.0  # mean 2 in one
    assert token_distance([a], [b]).tolist() == [7.5, 2.0]
    assert token_distance([a, a], [b, b]).tolist() == [15.0, 4.0]
    weights = [torch.tensor([2.0, 1.0])]
    assert token_distance([a], [b], weights).tolist() == [15.0, 2.0]


def test_relative_weights_bring_any_scale_to_farls_count():
    g = torch.Generator().manual_seed(0)
    tokens = [torch.rand(2, 64, 8, generator=g), 50 * torch.rand(2, 16, 5, generator=g)]
    away = [t * 1.1 for t in tokens]  # a tenth off, everywhere
    distance = token_distance(away, tokens, relative_weights(tokens))
    torch.testing.assert_close(distance, torch.full((2,), 0.1 * FARL_TOKENS), rtol=1e-5, atol=0)


def test_rows_are_apart():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 5, 4, generator=g, requires_grad=True), torch.randn(3, 5, 4, generator=g)
    token_distance([a], [b], relative_weights([b]))[1].backward()
    assert a.grad[[0, 2]].abs().sum() == 0 and a.grad[1].abs().sum() > 0


def test_gradcheck():
    g = torch.Generator().manual_seed(2)
    a = torch.randn(2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    # float() inside is part of the function: values are compared in float32
    assert torch.autograd.gradcheck(lambda t: token_distance([t], [b]), a, eps=1e-3, atol=1e-2)
