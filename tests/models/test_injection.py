"""AINet: exact control in the proposal, seeds, the policy, gentle rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from a3gan.data.attributes import SCHEMA, expand, position, slices, to_values, widths
from a3gan.models.injection import GENTLE, GENTLE_FROM, LIMIT, AINet, InjectionReader

D, K, ROWS, W = sum(widths(SCHEMA)), len(SCHEMA), 10, 16


def net(**options) -> AINet:
    torch.manual_seed(0)
    return AINet(ROWS, W, z_dim=8, hidden=32, code=16, **options)


def inputs(n: int = 4) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    w, a = torch.randn(n, ROWS, W, generator=g), 2 * torch.randn(n, D, generator=g)
    return w, a.clamp(-5, 5), (torch.rand(n, K, generator=g) < 0.5).float(), torch.randn(n, 8, generator=g)


@torch.no_grad()
def test_kept_attributes_are_copied_exactly() -> None:
    w, a, c, z = inputs()
    kept = expand(c) == 0
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            proposal = net()(w, a, c, z).proposal
        assert torch.equal(proposal[kept], a[kept])
        assert (proposal[~kept] != a[~kept]).all()
    nothing = net()(w, a, torch.zeros_like(c), z).proposal
    assert torch.equal(nothing, a)
    everything = net()(w, a, torch.ones_like(c), z).proposal
    assert (everything != a).all() and everything.abs().max() <= LIMIT


@torch.no_grad()
def test_one_bit_changes_one_attribute() -> None:
    w, a, c, z = inputs()
    columns = slices(SCHEMA)
    for name in ("expression", "gender", "skin_tone"):
        c = torch.zeros_like(c)
        c[:, position(name)] = 1
        moved = (net()(w, a, c, z).proposal != a).any(0)
        assert moved[columns[name]].all() and moved.sum() == columns[name].stop - columns[name].start


@torch.no_grad()
def test_far_logits_are_held_to_the_limit() -> None:
    w, a, c, z = inputs()
    proposal = net()(w, a * 100, torch.zeros_like(c), z).proposal
    assert torch.equal(proposal, (a * 100).clamp(-LIMIT, LIMIT))


@torch.no_grad()
def test_injection_is_its_equations() -> None:
    ainet, (w, a, c, z) = net(), inputs()
    out = ainet(w, a, c, z)
    new, old = to_values(out.proposal), to_values(a)
    e = ainet.encode(torch.cat([new, new - old, c, z], 1))
    torch.testing.assert_close(out.code, e)
    gamma, beta = ainet.scale(e).view(4, ROWS, W), ainet.shift(e).view(4, ROWS, W)
    g = torch.sigmoid(ainet.gate(e))
    g[:, GENTLE_FROM:] *= GENTLE
    mean, var = w.mean(2, keepdim=True), w.var(2, unbiased=False, keepdim=True)
    expected = g[..., None] * (gamma * (w - mean) / (var + 1e-5).sqrt() + beta)
    torch.testing.assert_close(out.delta, expected, rtol=1e-4, atol=1e-5)
    assert GENTLE_FROM == 7 and ainet.row_gain.tolist() == pytest.approx([1.0] * 7 + [0.2] * 3)


@torch.no_grad()
def test_seeds() -> None:
    ainet, (w, a, c, z) = net(), inputs()
    assert torch.equal(ainet(w, a, c, z).delta, ainet(w, a, c, z).delta)
    other = torch.randn(4, 8, generator=torch.Generator().manual_seed(9))
    zero = torch.zeros_like(c)
    one, two = ainet(w, a, zero, z), ainet(w, a, zero, other)
    assert torch.equal(one.proposal, two.proposal)  # nothing may change, yet two seeds give two codes
    assert (one.delta - two.delta).flatten(1).norm(dim=1).min() > 0.01
    torch.testing.assert_close(ainet(w[1:2], a[1:2], c[1:2], z[1:2]).delta, ainet(w, a, c, z).delta[1:2])


@torch.no_grad()
def test_without_policy_c_is_ignored() -> None:
    ainet, (w, a, c, z) = net(policy=False), inputs()
    one, two = ainet(w, a, c, z), ainet(w, a, torch.zeros_like(c), z)
    assert torch.equal(one.delta, two.delta) and torch.equal(one.proposal, two.proposal)
    assert (one.proposal != a).all()  # and everything changes
    with_policy = net()
    assert not torch.equal(with_policy(w, a, c, z).delta, with_policy(w, a, torch.zeros_like(c), z).delta)


def test_gradient_reaches_every_layer_and_not_what_is_kept() -> None:
    ainet, (w, a, c, z) = net(), inputs()
    a.requires_grad_()
    out = ainet(w, a, torch.zeros_like(c), z)
    (gradient,) = torch.autograd.grad(out.proposal.sum(), a)
    torch.testing.assert_close(gradient, torch.ones_like(a))  # a copy
    out = ainet(w, a, c, z)
    (out.delta.square().sum() + out.proposal.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ainet.parameters())


def test_reader_reads_all_rows_and_learns() -> None:
    ainet, (w, a, c, z) = net(), inputs()
    reader = InjectionReader(ROWS, W, hidden=32)
    with torch.no_grad():
        out = ainet(w, a, torch.ones_like(c), z)
    delta = out.delta.requires_grad_()
    read = reader(delta)
    assert read.shape == (4, D)
    (gradient,) = torch.autograd.grad(read.square().sum(), delta)
    assert (gradient.abs().sum(2) > 0).all()
    adam, losses = torch.optim.Adam(reader.parameters(), lr=1e-2), []
    for _ in range(40):
        adam.zero_grad()
        losses.append(F.mse_loss(reader(delta.detach()), out.proposal))
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.5 * losses[0]
