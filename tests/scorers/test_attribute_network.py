"""The attribute network: shapes, what each head sees, round trip through a checkpoint."""

from __future__ import annotations

import pytest
import torch

from a3gan import checkpoint
from a3gan.data.align import FRAMES
from a3gan.errors import UserError
from a3gan.scorers.attributes import TRUNKS, AttributeNetwork, eye_crops, load_attributes, resize, to_face_frame


def faces(n: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("backbone", sorted(TRUNKS))
@pytest.mark.parametrize("size", [32, 64, 128])
def test_heads_have_their_shapes_at_every_size(backbone: str, size: int) -> None:
    torch.manual_seed(0)
    outputs = AttributeNetwork(backbone, 8).eval()(faces(size=size))
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    one = (2,)
    assert shapes == {"expression": (2, 3), "gender": one, "yawning": one, "eyes_closed": one, "landmarks": (2, 5, 2)}
    assert all(value.dtype == torch.float32 for value in outputs.values())


@pytest.mark.parametrize("backbone", sorted(TRUNKS))
def test_the_shipped_size_is_cheap(backbone: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = AttributeNetwork(backbone).eval()
    assert sum(p.numel() for p in network.parameters()) < 600_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(faces(1))
    assert counter.get_total_flops() / 2 < 60e6  # multiply-adds


def test_features_are_a_pyramid_and_one_pass_gives_both() -> None:
    network = AttributeNetwork("plain", 8).eval()
    maps = network.features(faces(size=128))
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4]
    assert network.features(faces(size=128), size=None)[0].shape[-1] == 64
    outputs, again = network.outputs_and_features(faces(size=128))
    torch.testing.assert_close(again, maps)
    torch.testing.assert_close(outputs, network(faces(size=128)))


def test_gradients_reach_the_image_from_every_head() -> None:
    network = AttributeNetwork("residual", 8).eval()
    torch.nn.init.normal_(network.points.weight, std=0.1)
    for name in ("expression", "gender", "yawning", "eyes_closed", "landmarks"):
        x = faces().requires_grad_()
        network(x)[name].sum().backward()
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0, name


def test_the_eyes_head_sees_the_eye_band_alone() -> None:
    network = AttributeNetwork("plain", 8).eval()
    x = faces().requires_grad_()
    network(x)["eyes_closed"].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()[:, 0] / 64
    columns = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0] / 64
    assert rows.min() > 0.22 and rows.max() < 0.48
    assert columns.min() > 0.17 and columns.max() < 0.83


def test_eye_crops_ignore_brightness_contrast_and_colour() -> None:
    x = faces()
    centres = torch.tensor([[[1 / 3, 0.35], [2 / 3, 0.35]]]).expand(2, 2, 2)
    crops = eye_crops(x, centres)
    assert crops.shape == (4, 1, 20, 24)
    torch.testing.assert_close(eye_crops(x * 0.7 + 0.1, centres), crops, atol=0.1, rtol=0)
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(eye_crops(grey, centres), crops, atol=1e-4, rtol=0)


def test_a_mirrored_face_has_the_same_eyes() -> None:
    network = AttributeNetwork("plain", 8).eval()
    there, here = network(faces().flip(-1))["eyes_closed"], network(faces())["eyes_closed"]
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)


def test_other_frames_are_brought_to_ours() -> None:
    """A picture that says where it is: its red is x, its green is y, in units of its side."""
    axis = (torch.arange(256) + 0.5) / 256 * 2 - 1
    x = torch.stack((axis.expand(256, 256), axis[:, None].expand(256, 256), torch.zeros(256, 256)))[None]
    seen, scale, shift = to_face_frame(x, "ffhq")
    assert seen.shape[-1] == 64 and scale == pytest.approx(0.75)
    eye = torch.tensor(FRAMES["face"][0])
    at = (eye * 64 - 0.5).round().long()
    there = (seen[0, :2, at[1], at[0]] + 1) / 2
    assert (there - torch.tensor(FRAMES["ffhq"][0])).abs().max() < 0.01
    torch.testing.assert_close(eye * scale + shift, torch.tensor(FRAMES["ffhq"][0]))
    network = AttributeNetwork("plain", 8).eval()
    points = network(x, frame="ffhq")["landmarks"][0]
    assert (points[:2] - torch.tensor(FRAMES["ffhq"][:2])).abs().max() < 0.1
    with pytest.raises(ValueError, match="unknown frame 'celeba'"):
        network(x, frame="celeba")


def test_resize_averages_whole_factors() -> None:
    x = faces(1, 128)
    torch.testing.assert_close(resize(x, 64)[0, 0, 3, 5], x[0, 0, 6:8, 10:12].mean())
    assert resize(x, 128) is x


def test_checkpoint_round_trip(tmp_path) -> None:
    torch.manual_seed(0)
    network = AttributeNetwork("residual", 8)
    network.train()(faces(8))  # moves the batch norms off their start
    network.eval()
    path = tmp_path / "net.safetensors"
    meta = {"backbone": "residual", "width": 8, "stage": "attributes"}
    checkpoint.save(path, checkpoint.prefixed({"attributes": network}), meta)
    loaded = load_attributes(path)
    assert loaded.fingerprint.startswith("attributes_residual:")
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded(faces()), network(faces()), atol=1e-4, rtol=1e-3)
    checkpoint.save(path, {}, {"stage": "a3gan"})
    with pytest.raises(UserError, match="not an attribute network"):
        load_attributes(path)


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="'resnet'"):
        AttributeNetwork("resnet")
