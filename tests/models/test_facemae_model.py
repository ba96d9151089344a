"""The masked autoencoder: patches and masks, what reaches the output, independence of the batch."""

import sys

import pytest
import torch

from a3gan.errors import UserError
from a3gan.models import facemae
from a3gan.models.facemae import MaskedAutoencoder, build_facemae, mask_noise, masked, patches, picture, visible
from a3gan.schema import FaceMae


def tiny() -> MaskedAutoencoder:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    return MaskedAutoencoder(32, 8, 16, 2, 2, 8, 1, 2).eval()


def test_patches_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16)
    tokens = patches(x, 8)
    assert tokens.shape == (2, 4, 192)
    assert torch.equal(tokens[0, 1].reshape(3, 8, 8), x[0, :, :8, 8:])  # the second patch is to the right
    assert torch.equal(picture(tokens, 8), x)


def test_the_least_noise_is_seen():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.2], [0.1, 0.2, 0.3, 0.4]])
    assert visible(noise, 0.5).tolist() == [[1, 3], [0, 1]]
    assert visible(noise, 0.99).tolist() == [[1], [0]]  # never nothing
    assert [visible(torch.rand(1, 64), r).shape[1] for r in (0.5, 0.75, 0.9)] == [32, 16, 6]


def test_a_seed_is_a_mask_whatever_comes_with_it():
    both = mask_noise([7, 8], 64)
    assert torch.equal(mask_noise([8], 64)[0], both[1]) and not torch.equal(both[0], both[1])
    assert mask_noise([], 64).shape == (0, 64) and mask_noise([2**63 + 7], 64).equal(both[:1])
    x = torch.ones(2, 3, 32, 32)
    assert masked(x, mask_noise([1, 2], 16), 0.75, 8).mean((1, 2, 3)).tolist() == [0.25, 0.25]


def test_places_are_told_apart():
    places = facemae.positions(8, 16)
    assert places.shape == (64, 16) and places[0].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 4 + [1.0] * 4
    assert places[9, 0] == pytest.approx(torch.tensor(1.0).sin().item())  # row 1, column 1: sin y of the shortest wave
    gaps = torch.cdist(places, places) + 10 * torch.eye(64)
    assert gaps.min() > 0.3


def test_only_visible_patches_reach_the_output():
    model, noise = tiny(), mask_noise([3], 16)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    hidden = masked(torch.ones_like(x), noise, 0.75, 8) == 0
    with torch.no_grad():
        first = model(x, noise)
        assert first.shape == x.shape
        assert torch.equal(model(torch.where(hidden, -x, x), noise), first)
        assert not torch.allclose(model(torch.where(hidden, x, -x), noise), first, atol=1e-3)
        assert not torch.isclose(first, x, atol=1e-4).all(1).any()  # no pixel is copied


def test_a_face_is_drawn_alike_in_any_batch():
    model, noise = tiny(), mask_noise(range(9), 16)
    x = torch.rand(9, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        together = model(x, noise, 0.5)
        alone = torch.cat([model(x[i : i + 1], noise[i : i + 1], 0.5) for i in range(9)])
    assert (together - alone).abs().max() < 1e-5


def test_every_weight_learns():
    model = tiny().train()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    model(x, mask_noise(range(3), 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_sizes_that_do_not_fit_are_said():
    wrongs = {"patch": {"patch": 7}, "width": {"width": 30, "heads": 2}, "decoder_width": {"decoder_heads": 5}}
    for key, wrong in wrongs.items():
        with pytest.raises(UserError, match=f"model.facemae.{key}"):
            build_facemae(FaceMae(**wrong), 64)


def test_without_timm_the_error_says_so(monkeypatch):
    for name in ("timm", "timm.models", "timm.models.vision_transformer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"needs timm; pip install a3gan\[methods\]"):
        build_facemae(FaceMae(), 64)


def test_the_shipped_size_is_small():
    pytest.importorskip("timm")
    model = build_facemae(FaceMae(), 64)
    assert 2 * sum(p.numel() for p in model.parameters()) < 3 * 2**20
