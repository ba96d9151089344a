"""The paper-scale trunk: taps, widths, size."""

from __future__ import annotations

import torch

from a3gan.models.ir_se50 import STAGES, ImprovedUnit, IrSe50Trunk, SqueezeExcite
from a3gan.models.suppression import SuppressiveEncoder


def test_squeeze_excite_with_no_weight_is_one_half() -> None:
    layer, x = SqueezeExcite(32), torch.randn(2, 32, 4, 4)
    torch.nn.init.zeros_(layer.fc2.weight)
    torch.testing.assert_close(layer(x), x / 2)


def test_unit_shortcut_drops_samples() -> None:
    unit, x = ImprovedUnit(16, 16, 2).eval(), torch.randn(1, 16, 8, 8)
    torch.nn.init.zeros_(unit.body[4].weight)
    torch.testing.assert_close(unit(x), x[:, :, ::2, ::2])


@torch.no_grad()
def test_three_taps_behind_three_units() -> None:
    torch.manual_seed(0)
    trunk = IrSe50Trunk()
    assert sum(count for _, count in STAGES) == 24 and trunk.widths == (128, 256, 512)
    convolutions = sum(p.numel() for p in trunk.parameters() if p.ndim == 4)
    assert 30.5e6 < convolutions < 31.5e6  # the 43.8 M of IR-SE50 less the 12.8 M of its embedding layer
    encoder = SuppressiveEncoder(trunk).eval()
    x = torch.randn(1, 3, 64, 64)
    out = encoder(x, torch.ones(1))
    assert [tuple(f.shape[1:]) for f in out.features] == [(128, 16, 16), (256, 8, 8), (512, 4, 4)]
    plain, bare = encoder(x, torch.zeros(1)), x
    for stage, feature in zip(trunk, plain.features, strict=True):
        bare = stage(bare)
        assert torch.equal(bare, feature)
