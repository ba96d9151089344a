"""The generator: rows, sizes, codes, truncation, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from a3gan.models.stylegan2 import Generator, Mapping, channels_at, rows_of


def tiny(size: int = 64, **options) -> Generator:
    torch.manual_seed(0)
    options = {"z_dim": 8, "w_dim": 8, "channels_base": 64, "channels_max": 8, "mapping_layers": 2} | options
    return Generator(size, **options)


@pytest.mark.parametrize(("size", "rows"), [(64, 10), (128, 12), (256, 14), (512, 16), (1024, 18)])
@torch.no_grad()
def test_sizes_and_rows(size: int, rows: int) -> None:
    assert rows_of(size) == rows == 2 * math.log2(size) - 2
    generator = tiny(size)
    image = generator.synthesis(torch.randn(1, rows, 8))
    assert image.shape == (1, 3, size, size) and image.dtype == torch.float32 and image.isfinite().all()


def test_every_row_is_used_and_only_there() -> None:
    generator = tiny()
    w = torch.randn(1, 10, 8, requires_grad=True)
    generator.synthesis(w).square().sum().backward()
    assert (w.grad.abs().sum(2) > 0).all()
    # The last row belongs to the last RGB layer alone, which is linear in it.
    with torch.no_grad():
        base, step = generator.synthesis(w), torch.zeros_like(w)
        step[:, 9] = torch.randn(8)
        one, two = (generator.synthesis(w + k * step) - base for k in (1, 2))
    torch.testing.assert_close(2 * one, two, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_code_one_image_one_by_one_or_together() -> None:
    generator = tiny(noise=True)
    for conv in generator.convs:
        conv.noise_strength.fill_(0.5)
    w = torch.randn(3, 10, 8)
    image = generator.synthesis(w)
    assert torch.equal(image, generator.synthesis(w))  # the stored noise is constant
    torch.testing.assert_close(torch.cat([generator.synthesis(w[i : i + 1]) for i in range(3)]), image)
    assert not torch.equal(image[0], image[1])
    assert not torch.equal(generator.synthesis(w, random_noise=True), generator.synthesis(w, random_noise=True))


def test_noise_is_optional() -> None:
    assert not [name for name in tiny(noise=False).state_dict() if "noise" in name]
    assert len([name for name in tiny(noise=True).state_dict() if name.endswith(".noise")]) == 9


@torch.no_grad()
def test_truncation() -> None:
    generator = tiny()
    generator.w_mean.normal_()
    z = torch.randn(2, 8)
    mean_face = generator.synthesis(generator.w_mean.expand(2, 10, -1))
    torch.testing.assert_close(generator(z, truncation=0.0), mean_face)
    full = generator.synthesis(generator.mapping(z)[:, None].expand(-1, 10, -1))
    torch.testing.assert_close(generator(z), full, rtol=1e-4, atol=1e-4)
    half = generator.w_mean + 0.5 * (generator.mapping(z) - generator.w_mean)
    torch.testing.assert_close(generator(z, truncation=0.5), generator.synthesis(half[:, None].expand(-1, 10, -1)))


@torch.no_grad()
def test_w_mean_follows_its_codes() -> None:
    generator = tiny()
    w = torch.randn(64, 8)
    generator.track_w_mean(w, decay=0.75)
    torch.testing.assert_close(generator.w_mean, 0.25 * w.mean(0))
    for _ in range(60):
        generator.track_w_mean(w, decay=0.75)
    torch.testing.assert_close(generator.w_mean, w.mean(0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mapping_ignores_the_length_of_z() -> None:
    mapping = Mapping(8, 8, 2)
    z = torch.randn(4, 8)
    torch.testing.assert_close(mapping(z), mapping(z * 3), rtol=1e-3, atol=1e-4)


def test_bfloat16_gives_about_the_same_image() -> None:
    generator = tiny()
    w = torch.randn(2, 10, 8, requires_grad=True)
    with torch.no_grad():
        exact = generator.synthesis(w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = generator.synthesis(w)
    assert image.dtype == torch.float32 and (image - exact).abs().mean() < 0.02 * exact.abs().mean() + 0.02
    image.square().sum().backward()
    assert w.grad.isfinite().all() and all(
        p.grad.isfinite().all() for p in generator.parameters() if p.grad is not None
    )


def test_sizes_that_cannot_be() -> None:
    for size in (4, 96, 100):
        with pytest.raises(ValueError, match=str(size)):
            Generator(size)
    with pytest.raises(ValueError, match=r"\[N, 10, 8\]"):
        tiny().synthesis(torch.randn(1, 9, 8))


def test_channels() -> None:
    assert [channels_at(r, 4096, 128) for r in (4, 32, 64, 128, 1024)] == [128, 128, 64, 32, 8]
