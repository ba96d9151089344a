"""The two published recognisers: our network against the ONNX files, and the crops that they see."""

from __future__ import annotations

import pytest
import torch

from a3gan.errors import UserError
from a3gan.scorers.blocks import fold
from a3gan.scorers.identity import CROPS, Recogniser, crop_matrix, load_recogniser
from a3gan.scorers.mobilefacenet import MobileFaceNet, detect_layout, from_published


def tiny_input(n: int = 2, size: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("name", "width"), [("a", 96), ("b", 112)])
def test_equals_the_onnx_file(shared, name: str, width: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    from safetensors.torch import load_file

    path = shared / "weights" / f"mobilefacenet_{name}.safetensors"
    if not path.is_file():
        pytest.skip("the recognisers are not beside the repository")
    network, layout = from_published(load_file(path))
    assert layout == name
    session = runtime.InferenceSession(str(path.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    x = torch.randn(2, 3, 112, width, generator=torch.Generator().manual_seed(1))
    key = session.get_inputs()[0].name
    expected = torch.cat([torch.from_numpy(session.run(None, {key: x[i : i + 1].numpy()})[0]) for i in range(2)])
    assert (network(x) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("layout", ["a", "b"])
def test_folding_changes_nothing(layout: str) -> None:
    torch.manual_seed(0)
    network = MobileFaceNet(layout).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 112, 96 if layout == "a" else 112)
    with torch.no_grad():
        before = network(x)
        after = fold(network)(x)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_layouts_are_told_apart() -> None:
    assert detect_layout(["linear7.conv.weight"]) == "a"
    assert detect_layout(["gdconv.depthwise.weight"]) == "b"
    assert detect_layout(["weight"]) is None
    with pytest.raises(ValueError, match="neither known"):
        from_published({"weight": torch.zeros(1)})


@pytest.mark.parametrize("kind", sorted(CROPS))
@pytest.mark.parametrize("frame", ["face", "ffhq"])
def test_crop_matrix_maps_points_onto_the_frame(kind: str, frame: str) -> None:
    from a3gan.data.align import FRAMES

    crop = CROPS[kind]
    points = torch.cat((torch.tensor(crop.points, dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64)), 1)
    mapped = points @ crop_matrix(crop, frame).T
    error = (mapped - torch.tensor(FRAMES[frame], dtype=torch.float64)).norm(dim=1).max()
    assert error < 0.03  # of the side: the templates differ in shape by about a pixel of 112
    if kind == "small" and frame == "face":
        assert error < 1e-9


@pytest.mark.parametrize(("kind", "layout"), [("mobilefacenet_a", "a"), ("mobilefacenet_b", "b")])
def test_embeddings_are_unit_long_and_differentiable(kind: str, layout: str) -> None:
    torch.manual_seed(0)
    recogniser = Recogniser(MobileFaceNet(layout), kind, "x:1").train()
    assert not recogniser.network.training  # frozen stays frozen
    x = tiny_input().requires_grad_()
    embedding = recogniser(x)
    assert embedding.shape == (2, 128)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    embedding[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0 and x.grad.isfinite().all()
    assert all(p.grad is None for p in recogniser.parameters())


def test_mirrored_faces_have_one_embedding_under_a() -> None:
    torch.manual_seed(0)
    recogniser = Recogniser(MobileFaceNet("a"), "mobilefacenet_a", "x:1")
    # Cut at the crop, so that the crop's own slant does not enter.
    crop = recogniser.crops(tiny_input(1))
    both = [recogniser.network(c) + recogniser.network(c.flip(-1)) for c in (crop, crop.flip(-1))]
    torch.testing.assert_close(both[0], both[1])


def test_large_faces_are_averaged_before_sampling() -> None:
    recogniser = Recogniser(MobileFaceNet("b"), "mobilefacenet_b", "x:1")
    board = (torch.arange(512) % 2).float() * 2 - 1  # finest stripes: grey when seen from afar
    crop = recogniser.crops(board.view(1, 1, 1, 512).expand(1, 3, 512, 512))
    grey = (0.0 - recogniser.mean) / recogniser.std
    assert (crop[0, :, 20:90, 20:90] - grey[0]).abs().max() < 1e-3


def test_bad_weights_are_named(tmp_path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="no such weights"):
        load_recogniser(tmp_path / "none.safetensors", "mobilefacenet_a")
    with pytest.raises(UserError, match="kind 'arcface' is unknown"):
        load_recogniser("x", "arcface")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, str(foreign))
    with pytest.raises(UserError, match="foreign.safetensors"):
        load_recogniser(foreign, "mobilefacenet_a")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(foreign.read_bytes()[:20])
    with pytest.raises(UserError, match="cut.safetensors"):
        load_recogniser(cut, "mobilefacenet_b")


def test_a_and_b_are_not_confused(shared) -> None:
    path = shared / "weights" / "mobilefacenet_b.safetensors"
    if not path.is_file():
        pytest.skip("the recognisers are not beside the repository")
    with pytest.raises(UserError, match="weights of mobilefacenet_b"):
        load_recogniser(path, "mobilefacenet_a")
    assert load_recogniser(path, "mobilefacenet_b").fingerprint.startswith("mobilefacenet_b:")


def test_facenet_adapter_without_download() -> None:
    pytest.importorskip("facenet_pytorch")
    from a3gan.scorers.identity import facenet_network

    torch.manual_seed(0)
    recogniser = Recogniser(facenet_network(None), "facenet", "facenet:0")
    with torch.no_grad():
        embedding = recogniser(tiny_input(1), "ffhq")
    assert embedding.shape == (1, 512)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))


def test_facenet_offline_is_a_clear_error(monkeypatch, tmp_path) -> None:
    module = pytest.importorskip("facenet_pytorch")

    def offline(**kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(module, "InceptionResnetV1", offline)
    with pytest.raises(UserError, match="could not be downloaded"):
        load_recogniser("", "facenet")
    with pytest.raises(UserError, match="no such file"):
        load_recogniser(tmp_path / "none.pt", "facenet")
