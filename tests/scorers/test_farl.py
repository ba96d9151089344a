import pytest
import torch
import torch.nn.functional as F
from farl_layout import DEPTH, PATCH, SIDE, WIDTH, clip_layout

from a3gan.errors import UserError
from a3gan.scorers.farl import MEAN, STD, load_farl


def forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The tower written out with torch's functions: tokens before the final norm."""
    v = {k.removeprefix("visual."): t for k, t in state.items() if k.startswith("visual.")}
    x = (x + 1) / 2
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    t = F.conv2d(x, v["conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    t = torch.cat([v["class_embedding"].expand(len(t), 1, -1), t], 1) + v["positional_embedding"]

    def norm(t: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(t, (WIDTH,), v[f"{name}.weight"], v[f"{name}.bias"], 1e-5)

    t = norm(t, "ln_pre")
    for i in range(DEPTH):
        b = f"transformer.resblocks.{i}"
        attention = torch.nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
        attention.load_state_dict({k: v[f"{b}.attn.{k}"] for k in attention.state_dict()})
        y = norm(t, f"{b}.ln_1")
        t = t + attention(y, y, y, need_weights=False)[0]
        y = F.linear(norm(t, f"{b}.ln_2"), v[f"{b}.mlp.c_fc.weight"], v[f"{b}.mlp.c_fc.bias"])
        t = t + F.linear(y * torch.sigmoid(1.702 * y), v[f"{b}.mlp.c_proj.weight"], v[f"{b}.mlp.c_proj.bias"])
    return t


@pytest.fixture(scope="module")
def faces():
    return torch.rand(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(1)) * 2 - 1


def save(state, path):
    torch.save({"state_dict": state, "epoch": 64}, path)
    return path


def test_tokens_and_vectors_are_those_of_the_written_out_tower(tmp_path, faces):
    pytest.importorskip("timm")
    state = clip_layout()
    network = load_farl(save(state, tmp_path / "farl.pth"))
    expected = forward(state, faces)
    (tokens,) = network.tokens(faces)
    assert tokens.shape == (2, SIDE * SIDE + 1, WIDTH)
    torch.testing.assert_close(tokens, expected.detach(), atol=1e-4, rtol=1e-4)
    last = F.layer_norm(expected[:, 0], (WIDTH,), state["visual.ln_post.weight"], state["visual.ln_post.bias"], 1e-5)
    torch.testing.assert_close(
        network.embed(faces), F.normalize(last @ state["visual.proj"]).detach(), atol=1e-4, rtol=1e-4
    )
    assert network.weights([tokens]) is None


def test_other_sizes_are_resized_and_gradients_reach_the_picture(tmp_path):
    pytest.importorskip("timm")
    network = load_farl(save(clip_layout(), tmp_path / "farl.pth"))
    for size in (32, 64):
        x = torch.zeros(1, 3, size, size, requires_grad=True)
        network.tokens(x)[0].abs().sum().backward()
        assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_safetensors_and_fingerprint(tmp_path, faces):
    pytest.importorskip("timm")
    from safetensors.torch import save_file

    state = clip_layout()
    save_file(state, str(tmp_path / "farl.safetensors"))
    one = load_farl(tmp_path / "farl.safetensors")
    other = load_farl(save(state, tmp_path / "farl.pth"))
    assert one.fingerprint == other.fingerprint and one.fingerprint.startswith("farl:")
    assert torch.equal(one.embed(faces), other.embed(faces))
    assert load_farl(save(clip_layout(5), tmp_path / "b.pth")).fingerprint != one.fingerprint


def test_foreign_files(tmp_path):
    pytest.importorskip("timm")
    state = clip_layout()
    with pytest.raises(UserError, match="no FaRL weights"):
        load_farl(save({"conv.weight": torch.zeros(1)}, tmp_path / "a.pth"))
    cut = {k: v for k, v in state.items() if "resblocks.1.mlp" not in k}
    with pytest.raises(UserError, match="not a whole image tower"):
        load_farl(save(cut, tmp_path / "b.pth"))
    convolutional = {k: v for k, v in state.items() if "resblocks" not in k}
    with pytest.raises(UserError, match="no vision transformer"):
        load_farl(save(convolutional, tmp_path / "c.pth"))
    with pytest.raises(UserError, match="no such file"):
        load_farl(tmp_path / "nowhere.pth")
