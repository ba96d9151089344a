"""The whole model: the dial, what it depends on, seeds, gradients."""

from __future__ import annotations

import pytest
import torch

from a3gan.config import load_config
from a3gan.data.attributes import SCHEMA, widths
from a3gan.models.a3gan import A3GAN
from a3gan.models.build import build_a3gan
from a3gan.models.fusion import Fusion, level_of_row

D, K = sum(widths(SCHEMA)), len(SCHEMA)
TINY = [
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.encoder.widths=[8,8,8,8]",
    "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
]  # fmt: skip


def model(*overrides: str) -> A3GAN:
    torch.manual_seed(0)
    net = build_a3gan(load_config(None, [*TINY, *overrides])).eval()
    with torch.no_grad():
        for head in net.fusion.heads:  # off the mean face
            head.weight.normal_(std=0.3)
    return net


def inputs(n: int = 3, size: int = 64) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, size, size, generator=g) * 2 - 1
    a, c = torch.randn(n, D, generator=g), (torch.rand(n, K, generator=g) < 0.5).float()
    return x, a, c, torch.randn(n, 64, generator=g)


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_alpha_zero_is_the_reconstruction_exactly(autocast: bool) -> None:
    net, (x, a, c, z) = model(), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        plain = net.reconstruct(x)
        for policy in (c, torch.zeros_like(c), torch.ones_like(c)):
            for seed in (z, -3 * z):
                out = net(x, a, policy, seed, torch.zeros(3))
                assert torch.equal(out.image, plain) and torch.equal(out.w_plus, out.w_sup)
        assert torch.equal(net(x, a, c, z, torch.zeros(3), inject=False).image, plain)
        assert not torch.equal(net(x, a, c, z, torch.ones(3)).image, plain)


@torch.no_grad()
def test_alpha_is_each_images_own() -> None:
    net, (x, a, c, z) = model(), inputs()
    image = net(x, a, c, z, torch.tensor([0.0, 1.0, 0.5])).image
    for i, alpha in enumerate((0.0, 1.0, 0.5)):
        row = slice(i, i + 1)
        alone = net(x[row], a[row], c[row], z[row], torch.tensor([alpha])).image
        torch.testing.assert_close(alone, image[row], rtol=1e-4, atol=1e-4)
    distance = (image - net.reconstruct(x)).flatten(1).norm(dim=1)
    assert distance[0] < 1e-3 and distance[1:].min() > 1e-2


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_nothing_of_the_image_passes_the_units(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With S_1..S_3 zeroed and the attributes held, the face no longer depends on x: no skip leads round the units."""
    net, (x, a, c, z) = model(), inputs()
    dial = torch.full((3,), alpha)
    whole = net.encoder.forward

    def zeroed(x: torch.Tensor, alpha: torch.Tensor):
        suppressed = whole(x, alpha)
        suppressed.features = [torch.zeros_like(f) for f in suppressed.features]
        return suppressed

    other = torch.rand_like(x) * 2 - 1
    assert not torch.equal(net(x, a, c, z, dial).image, net(other, a, c, z, dial).image)
    monkeypatch.setattr(net.encoder, "forward", zeroed)
    one, two = net(x, a, c, z, dial), net(other, a, c, z, dial)
    assert torch.equal(one.image, two.image) and torch.equal(one.w_plus, two.w_plus)
    assert not torch.equal(one.image, net(x, a + 1, c, z, dial).image) or alpha == 0


@torch.no_grad()
def test_seeds() -> None:
    net, (x, a, c, z) = model(), inputs()
    one = torch.ones(3)
    assert torch.equal(net(x, a, c, z, one).image, net(x, a, c, z, one).image)
    nothing = torch.zeros_like(c)
    first, second = net(x, a, nothing, z, one), net(x, a, nothing, torch.randn_like(z), one)
    assert torch.equal(first.w_sup, second.w_sup) and torch.equal(first.injection.proposal, a)
    assert (first.image - second.image).flatten(1).norm(dim=1).min() > 1e-2


@torch.no_grad()
def test_output() -> None:
    net, (x, a, c, z) = model(), inputs()
    out = net(x, a, c, z, torch.ones(3))
    assert out.image.shape == x.shape and out.image.dtype == torch.float32
    assert out.w_plus.shape == out.w_sup.shape == out.injection.delta.shape == (3, 10, 16)
    torch.testing.assert_close(out.w_plus, out.w_sup + out.injection.delta)
    without = net(x, a, c, z, torch.ones(3), inject=False)
    assert without.injection is None and torch.equal(without.w_plus, out.w_sup)


@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_reaches_every_part(autocast: bool) -> None:
    net, (x, a, c, z) = model(), inputs()
    net.train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = net(x, a, c, z, torch.tensor([0.2, 0.6, 1.0]))
    out.image.square().mean().backward()
    unused = {"generator.mapping."}  # no face is drawn from Z
    for name, p in net.named_parameters():
        if not any(name.startswith(prefix) for prefix in unused):
            assert p.grad is not None and p.grad.isfinite().all(), name
    for part in (net.encoder.trunk, net.encoder.units, net.fusion, net.ainet, net.generator.convs):
        assert sum(p.grad.abs().sum() for p in part.parameters()) > 0


@torch.no_grad()
def test_larger_sizes_and_switches() -> None:
    net = model("data.size=128", "model.scu.enabled=false", "model.ainet.policy=false")
    x, a, c, z = inputs(1, 128)
    out = net(x, a, c, z, torch.ones(1))
    assert out.image.shape == (1, 3, 128, 128) and out.w_plus.shape[1] == 12
    assert out.suppressed.gates == [None, None, None]


def test_levels_feed_rows() -> None:
    assert [level_of_row(i) for i in range(10)] == [3, 3, 3, 2, 2, 2, 2, 1, 1, 1]


def test_fusion_is_a_pyramid() -> None:
    """A row depends on its own level and the coarser ones; at zero weights it is w-bar."""
    torch.manual_seed(0)
    fusion = Fusion((4, 6, 8), 10, 16, 5)
    fusion.w_start.normal_()
    features = [torch.randn(1, c, s, s, requires_grad=True) for c, s in ((4, 16), (6, 8), (8, 4))]
    w = fusion(features)
    reached = {3: {3}, 2: {2, 3}, 1: {1, 2, 3}}
    for row in range(10):
        grads = torch.autograd.grad(w[0, row].sum(), features, retain_graph=True, allow_unused=True)
        levels = {i + 1 for i, g in enumerate(grads) if g is not None and g.abs().sum() > 0}
        assert levels == reached[level_of_row(row)]
    for head in fusion.heads:
        torch.nn.init.zeros_(head.weight)
    assert torch.equal(fusion(features)[0], fusion.w_start)
