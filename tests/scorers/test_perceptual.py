"""Perceptual distances: zero at home, known values, masks, gradients, clear errors offline."""

from __future__ import annotations

import pytest
import torch

from a3gan.errors import UserError
from a3gan.scorers.perceptual import feature_distance, load_lpips, perceptual


def pyramid(x: torch.Tensor) -> list[torch.Tensor]:
    return [x, torch.nn.functional.avg_pool2d(x, 2)]


def test_zero_for_equal_images_and_symmetric() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(perceptual(x, x, pyramid), torch.zeros(2))
    torch.testing.assert_close(perceptual(x, y, pyramid), perceptual(y, x, pyramid))
    assert (perceptual(x, y, pyramid) > 0).all()


def test_known_values() -> None:
    a, b = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    a[:, 0], b[:, 1] = 3.0, 5.0  # orthogonal whatever their length: |u - v|^2 = 2
    torch.testing.assert_close(feature_distance([a], [b]), torch.tensor([2.0]))
    torch.testing.assert_close(feature_distance([a], [-a]), torch.tensor([4.0]))
    torch.testing.assert_close(feature_distance([a, a], [b, a]), torch.tensor([1.0]))


def test_mask_weights_places_at_every_size() -> None:
    a, b = torch.ones(1, 2, 8, 8), torch.ones(1, 2, 8, 8)
    b[..., :4] *= -1  # the left half differs
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    assert feature_distance([a], [b], mask) < 1e-6
    torch.testing.assert_close(feature_distance([a], [b], 1 - mask), torch.tensor([2.0]))
    torch.testing.assert_close(feature_distance([a], [b], torch.ones_like(mask)), feature_distance([a], [b]))


def test_gradient_is_finite_at_zero_features() -> None:
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    perceptual(x, torch.ones(1, 3, 4, 4), pyramid).sum().backward()
    assert x.grad.isfinite().all()


def test_lpips_from_a_local_file(tmp_path) -> None:
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    path = tmp_path / "alexnet.pth"
    state = {k: v for k, v in alexnet(weights=None).state_dict().items() if k.startswith("features")}
    torch.save(state, path)
    distance = load_lpips(path)
    torch.testing.assert_close(distance.network.net.slice1[0].weight, state["features.0.weight"])
    last = dict(distance.network.net.slice5.named_children())["10"]
    torch.testing.assert_close(last.weight, state["features.10.weight"])
    x, y = torch.rand(1, 3, 64, 64) * 2 - 1, (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    assert distance(x, x).abs().max() < 1e-6
    assert distance(x, y).shape == (1,)
    distance(x, y, torch.ones(1, 1, 64, 64)).sum().backward()
    assert y.grad.abs().sum() > 0


def test_lpips_errors_are_clear(tmp_path, monkeypatch) -> None:
    module = pytest.importorskip("lpips")
    from a3gan.scorers.perceptual import _load_alexnet

    slices = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    with pytest.raises(UserError, match="does not exist"):
        _load_alexnet(slices, tmp_path / "none.pth")
    foreign = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match="is not torchvision's AlexNet"):
        _load_alexnet(slices, foreign)
    foreign.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read"):
        _load_alexnet(slices, foreign)

    def offline(**kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(module, "LPIPS", offline)
    with pytest.raises(UserError, match="lpips_backbone"):
        load_lpips()
