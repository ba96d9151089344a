"""The folded model is the model, up to rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from a3gan.config import load_config
from a3gan.data.attributes import SCHEMA, widths
from a3gan.models.build import build_a3gan
from a3gan.models.inference import FoldedA3GAN, doubling_filter, phases
from a3gan.models.ops import blur_kernel, upfirdn2d

TINY = [
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.encoder.widths=[8,8,8,8]",
    "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
]  # fmt: skip


def tiny(*overrides: str):
    torch.manual_seed(0)
    model = build_a3gan(load_config(None, [*TINY, *overrides])).eval().requires_grad_(False)
    for parameter in model.parameters():  # biases and strengths start at 0, where a wrong gain would not show
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.fusion.w_start.normal_()
    return model


def inputs(n: int, size: int = 64):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, size, size, generator=generator) * 2 - 1
    a = torch.randn(n, sum(widths()), generator=generator) * 4
    c = (torch.rand(n, len(SCHEMA), generator=generator) < 0.5).float()
    z, alpha = torch.randn(n, 64, generator=generator), torch.rand(n, generator=generator)
    return x, a, c, z, alpha


@pytest.mark.parametrize("up", ["transpose", "shuffle"])
@pytest.mark.parametrize(
    "overrides", [(), ("model.generator.noise=true",), ("model.scu.enabled=false",), ("model.ainet.policy=false",),
                  ("data.size=128", "model.encoder.depth=2")],
)  # fmt: skip
def test_same_faces(up: str, overrides: tuple[str, ...]) -> None:
    model = tiny(*overrides)
    folded = FoldedA3GAN(model, up=up)
    batch = inputs(3, 128 if "data.size=128" in overrides else 64)
    expected = model(*batch).image
    assert expected.std() > 0.1
    torch.testing.assert_close(folded(*batch), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(folded(*(part[1:2] for part in batch)), expected[1:2], atol=2e-5, rtol=1e-4)


def test_alpha_zero_is_one_picture_whatever_seed_and_policy() -> None:
    model = tiny()
    folded = FoldedA3GAN(model)
    x, a, c, z, alpha = inputs(2)
    zero = torch.zeros_like(alpha)
    one = folded(x, a, c, z, zero)
    assert torch.equal(one, folded(x, -a, 1 - c, -z, zero))
    torch.testing.assert_close(one, model.reconstruct(x), atol=2e-5, rtol=1e-4)


def test_sixteen_bits_stay_near_and_leave_the_model_alone() -> None:
    model = tiny()
    batch = inputs(2)
    before = model(*batch).image
    half = FoldedA3GAN(model, torch.bfloat16)(*batch)
    assert half.dtype == torch.float32 and (half - before).abs().mean() < 0.03 * before.std()
    assert torch.equal(model(*batch).image, before) and next(model.parameters()).dtype == torch.float32


def test_not_finite_stays_visible() -> None:
    x, a, c, z, alpha = inputs(2)
    x[1, 0, 3, 3] = float("nan")
    out = FoldedA3GAN(tiny())(x, a, c, z, alpha)
    assert out[0].isfinite().all() and not out[1].isfinite().all()


def test_phases_are_the_transposed_convolution() -> None:
    x, weight = torch.randn(2, 3, 5, 4), torch.randn(6, 3, 3, 3)
    y = F.pixel_shuffle(F.conv2d(x, phases(weight), padding=1), 2)
    expected = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    torch.testing.assert_close(y, F.pad(expected, (0, 1, 0, 1)), atol=1e-5, rtol=1e-5)


def test_doubling_is_upfirdn() -> None:
    x = torch.randn(2, 3, 5, 4)
    y = F.pixel_shuffle(F.conv2d(x, doubling_filter(3), padding=1), 2)
    torch.testing.assert_close(y, upfirdn2d(x, blur_kernel() * 4, up=2, pad=(2, 1)), atol=1e-6, rtol=1e-5)


def test_unknown_way_up() -> None:
    with pytest.raises(ValueError, match="sideways"):
        FoldedA3GAN(tiny(), up="sideways")
