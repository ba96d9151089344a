"""The suppressive convolution unit and the encoder that carries it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from a3gan.models.suppression import BLUR_SIZES, NarrowTrunk, SuppressiveConvUnit, SuppressiveEncoder


def unit(level: int = 2, **options) -> SuppressiveConvUnit:
    torch.manual_seed(level)
    return SuppressiveConvUnit(16, level, **options)


def encoder(**options) -> SuppressiveEncoder:
    torch.manual_seed(0)
    return SuppressiveEncoder(NarrowTrunk((8, 8, 16, 16), 1), **options).eval()


@torch.no_grad()
def test_the_unit_is_its_equations() -> None:
    net, f, m = unit(), torch.randn(2, 16, 8, 8), torch.rand(2, 1, 16, 16)
    alpha = torch.tensor([0.3, 1.0])
    s, gate = net(f, m, alpha)
    previous = F.avg_pool2d(m, 2)
    hidden = F.relu(F.conv2d(torch.cat([f, previous], 1), net.where[0].weight, net.where[0].bias, padding=1))
    spatial = torch.sigmoid(F.conv2d(hidden, net.where[2].weight, net.where[2].bias))
    squeezed = F.relu(f.mean((2, 3)) @ net.which[0].weight.t() + net.which[0].bias)
    channel = torch.sigmoid(squeezed @ net.which[2].weight.t() + net.which[2].bias)
    m_l = torch.maximum(spatial * channel[:, :, None, None], previous / 2)
    torch.testing.assert_close(gate, m_l)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = F.pad(f, (2, 2, 2, 2), mode="replicate")
    low = sum(
        taps[a] * taps[b] * padded[:, :, a : a + 8, b : b + 8] for a in range(5) for b in range(5)
    )
    filler = F.conv2d(low, net.filler.weight, net.filler.bias)
    a = alpha[:, None, None, None]
    mixed = (1 - a * m_l) * f + a * m_l * filler
    mean, var = mixed.mean((2, 3), keepdim=True), mixed.var((2, 3), unbiased=False, keepdim=True)
    refined = F.conv2d((mixed - mean) / (var + 1e-5).sqrt(), net.refine.weight, net.refine.bias, padding=1)
    torch.testing.assert_close(s, mixed + a * refined, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_alpha_zero_returns_the_features_bit_for_bit(level: int, autocast: bool) -> None:
    f = torch.randn(2, 16, 8, 8) * 10
    f = f.bfloat16() if autocast else f
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        s, _ = unit(level)(f, torch.rand(2, 1, 8, 8), torch.zeros(2))
    assert s.dtype == f.dtype and torch.equal(s, f)


@torch.no_grad()
def test_alpha_is_each_images_own() -> None:
    f = torch.randn(3, 16, 8, 8)
    s, _ = unit()(f, None, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(s[0], f[0]) and torch.equal(s[2], f[2]) and not torch.equal(s[1], f[1])


@torch.no_grad()
def test_suppression_accumulates() -> None:
    f = torch.randn(2, 16, 4, 4)
    incoming = torch.rand(2, 1, 8, 8)
    _, gate = unit()(f, incoming, torch.ones(2))
    assert (gate >= 0.5 * F.interpolate(incoming, size=(4, 4), mode="area") - 1e-7).all() and gate.max() < 1
    _, full = unit()(f, torch.ones(2, 1, 8, 8), torch.ones(2))
    assert (full >= 0.5).all()


@torch.no_grad()
def test_gates_accumulate_over_the_encoder() -> None:
    net = encoder()
    for gate in net.units.values():  # wide open at level 1, shut after it
        gate.where[2].bias.fill_(-20.0)
    net.units["1"].where[2].bias.fill_(20.0)
    gates = net(torch.randn(2, 3, 64, 64), torch.ones(2)).gates
    for finer, coarser in zip(gates, gates[1:], strict=False):
        floor = 0.5 * F.interpolate(finer.mean(1, keepdim=True), size=coarser.shape[2:], mode="area")
        assert (coarser >= floor - 1e-6).all()
    assert gates[1].mean() > 0.4 and 0.2 < gates[2].mean() < 0.3  # half, and half of that


@pytest.mark.parametrize("level", [1, 2, 3])
@torch.no_grad()
def test_the_gate_starts_at_about_twelve_percent(level: int) -> None:
    shares = []
    for seed in range(8):
        torch.manual_seed(seed)
        _, gate = SuppressiveConvUnit(32, level)(torch.randn(2, 32, 8, 8), None, torch.ones(2))
        shares.append(gate.mean().item())
    assert sum(shares) / len(shares) == pytest.approx(0.12, abs=0.03)


@torch.no_grad()
def test_more_alpha_more_change() -> None:
    f, net = torch.randn(1, 16, 8, 8), unit()
    changes = [(net(f, None, torch.tensor([a]))[0] - f).norm().item() for a in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert changes[0] == 0 and all(a < b for a, b in zip(changes, changes[1:], strict=False))


@torch.no_grad()
def test_an_open_gate_lets_only_the_filler_through() -> None:
    net = unit()
    net.where[2].bias.fill_(50.0)
    net.which[2].bias.fill_(50.0)
    net.refine.weight.zero_()
    f = torch.randn(1, 16, 8, 8)
    s, gate = net(f, None, torch.ones(1))
    assert (gate == 1).all()
    torch.testing.assert_close(s, net.filler(net.low_pass(f)), rtol=1e-4, atol=1e-5)
    bare = unit(filler=False)
    assert bare.filler is None
    bare.where[2].bias.fill_(50.0)
    bare.which[2].bias.fill_(50.0)
    bare.refine.weight.zero_()
    assert bare(f, None, torch.ones(1))[0].abs().max() < 1e-6


@torch.no_grad()
def test_low_pass() -> None:
    for level, width in enumerate(BLUR_SIZES, start=1):
        net = unit(level)
        assert net.blur.shape == (width, width) and net.blur.sum().item() == pytest.approx(1)
        flat = torch.full((1, 16, 5, 5), 3.0)
        torch.testing.assert_close(net.low_pass(flat), flat)
        assert net.low_pass(torch.randn(1, 16, 2, 2)).shape == (1, 16, 2, 2)  # maps smaller than the blur
        noise = torch.randn(1, 16, 16, 16)
        assert net.low_pass(noise).var() < 0.3 * noise.var()


def test_gradient_reaches_the_whole_unit_when_the_dial_is_up() -> None:
    net = unit()
    s, gate = net(torch.randn(2, 16, 8, 8), None, torch.tensor([0.5, 1.0]))
    (s.square().mean() + gate.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@torch.no_grad()
def test_encoder_sizes_and_switches() -> None:
    x, alpha = torch.randn(2, 3, 64, 64), torch.ones(2)
    whole = encoder()(x, alpha)
    assert [tuple(f.shape) for f in whole.features] == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 16, 4, 4)]
    assert [g.shape for g in whole.gates] == [f.shape for f in whole.features]
    none = encoder(levels=())
    assert none(x, alpha).gates == [None] * 3 and not list(none.units.parameters())
    plain = none(x, torch.zeros(2))
    assert all(torch.equal(a, b) for a, b in zip(none(x, alpha).features, plain.features, strict=True))
    for level in (1, 2, 3):
        gates = encoder(levels=(level,))(x, alpha).gates
        assert [g is not None for g in gates] == [n == level for n in (1, 2, 3)]


@torch.no_grad()
def test_what_level_one_removed_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunk goes on from S_l, not from F_l: with S_1 held, nothing later depends on the image."""
    net, held = encoder(), (torch.randn(1, 8, 16, 16), torch.rand(1, 8, 16, 16))
    monkeypatch.setattr(net.units["1"], "forward", lambda *inputs: held)
    one, two = (net(torch.randn(1, 3, 64, 64), torch.ones(1)) for _ in range(2))
    for a, b in zip(one.features + one.gates, two.features + two.gates, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_face_does_not_depend_on_its_batch() -> None:
    net, x, alpha = encoder(), torch.randn(4, 3, 64, 64), torch.tensor([0.0, 0.3, 0.7, 1.0])
    together = net(x, alpha)
    for i in range(4):
        alone = net(x[i : i + 1], alpha[i : i + 1])
        for one, all_ in zip(alone.features + alone.gates, together.features + together.gates, strict=True):
            torch.testing.assert_close(one, all_[i : i + 1], rtol=1e-4, atol=1e-5)
