from __future__ import annotations

import numpy as np
import pytest
import torch

from a3gan.data.degrade import degrade, half_size, jpeg


@pytest.fixture
def images():
    coarse = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(-1, 1)


def test_degrade_is_seeded_and_differs_between_pictures(images):
    pytest.importorskip("albumentations")
    same = images[:1].expand(6, -1, -1, -1)
    one = degrade(same, np.random.default_rng(1), p=1.0)
    assert torch.equal(one, degrade(same, np.random.default_rng(1), p=1.0))
    assert not torch.equal(one, degrade(same, np.random.default_rng(2), p=1.0))
    assert one.abs().max() <= 1 and not torch.equal(one[0], one[1])
    torch.manual_seed(4)
    two = degrade(same)
    torch.manual_seed(4)
    assert torch.equal(two, degrade(same))


def test_each_step_can_be_left_out(images):
    pytest.importorskip("albumentations")
    nothing = degrade(images, jpeg=None, blur=None, noise=None)
    assert (nothing - images).abs().max() <= 1.01 / 255  # 8 bits
    noisy = degrade(images, jpeg=None, blur=None, noise=(0.1, 0.1), p=1.0)
    assert ((noisy - images) / 2).std().item() == pytest.approx(0.1, rel=0.25)
    blurred = degrade(images, jpeg=None, noise=None, blur=(2.0, 2.0), p=1.0)
    assert blurred.diff(dim=-1).abs().mean() < 0.8 * images.diff(dim=-1).abs().mean()


def test_jpeg_is_fixed_and_worse_at_lower_quality(images):
    good, bad = jpeg(images, 95), jpeg(images, 10)
    assert torch.equal(good, jpeg(images, 95)) and good.dtype == images.dtype
    assert 0 < (good - images).abs().mean() < (bad - images).abs().mean() < 0.2
    assert jpeg(images[:0]).shape == (0, 3, 32, 32)
    with pytest.raises(ValueError):
        jpeg(images, 0)


def test_half_size_is_the_mean_of_four(images):
    small = half_size(images)
    assert small.shape == (4, 3, 16, 16)
    torch.testing.assert_close(small[0, 0, 0, 0], images[0, 0, :2, :2].mean())
