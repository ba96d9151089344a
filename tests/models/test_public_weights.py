"""Public StyleGAN2 layouts: our generator gives the picture of a reference forward written out per layout.

The references here follow the architecture's description (StyleGAN2, section 2 and appendix B) in the plainest form:
one image at a time, weights scaled per image, doubling as its definition says. Random weights everywhere, so that a
wrong gain, a flipped kernel or a swapped row changes the picture.
"""

from __future__ import annotations

import argparse
import math
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan.errors import UserError
from a3gan.models import public_weights
from a3gan.models.stylegan2 import Generator

W, Z, LAYERS = 12, 12, 3
SIZES = {4: 32, 8: 32, 16: 24, 32: 12}  # base 384, most 32; widths change twice
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])


def filtered(image: Tensor, pad: tuple[int, int]) -> Tensor:
    """[C, H, W] under [1, 3, 3, 1] / 8 along both axes, times 4, zeros around: the low pass of every doubling."""
    taps = TAPS / TAPS.sum() * 2
    image = F.pad(image, (*pad, *pad))
    rows = sum(t * image[:, i : image.shape[1] - 3 + i] for i, t in enumerate(taps))
    return sum(t * rows[:, :, i : rows.shape[2] - 3 + i] for i, t in enumerate(taps))


def stuffed(image: Tensor) -> Tensor:
    """Zeros between the pixels: [C, H, W] -> [C, 2H - 1, 2W - 1]."""
    out = image.new_zeros(image.shape[0], 2 * image.shape[1] - 1, 2 * image.shape[2] - 1)
    out[:, ::2, ::2] = image
    return out


def activated(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def convolved(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool) -> Tensor:
    """x [I, H, W], weight [O, I, k, k] with its gain, style [I]: equations 1 and 3, then the convolution."""
    weight = weight * style[None, :, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if not up:
        return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]
    # A transposed convolution is an ordinary one of the stuffed picture with the kernel turned around.
    full = F.conv2d(F.pad(stuffed(x), (2, 2, 2, 2))[None], weight.flip(2, 3))[0]
    return filtered(full, (1, 1))


def doubled(rgb: Tensor) -> Tensor:
    """[3, H, W] -> [3, 2H, 2W]: zeros after each pixel, then the low pass."""
    return filtered(F.pad(stuffed(rgb), (0, 1, 0, 1)), (2, 1))


def mapped(z: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """z [Z] -> w [W]; the mapping learns at 0.01 of the rate, so weights and biases are stored 100 times as large."""
    x = z / (z.square().mean() + 1e-8).sqrt()
    for weight, bias in layers:
        x = activated(weight @ x * (0.01 / math.sqrt(len(x))) + bias * 0.01)
    return x


def affine(w: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return weight @ w / math.sqrt(len(w)) + bias


def rosinality_picture(p: dict[str, Tensor], rows: Tensor) -> Tensor:
    """rows [L, W] -> [3, S, S] by the names of rosinality's state dict; the stored noise."""

    def styled(x: Tensor, name: str, w: Tensor, noise: Tensor, up: bool) -> Tensor:
        weight = p[f"{name}.conv.weight"][0]
        weight = weight / math.sqrt(weight[0].numel())
        style = affine(w, p[f"{name}.conv.modulation.weight"], p[f"{name}.conv.modulation.bias"])
        x = convolved(x, weight, style, True, up) + p[f"{name}.noise.weight"] * noise[0]
        return activated(x + p[f"{name}.activate.bias"][:, None, None])

    def rgb(x: Tensor, name: str, w: Tensor) -> Tensor:
        weight = p[f"{name}.conv.weight"][0]
        style = affine(w, p[f"{name}.conv.modulation.weight"], p[f"{name}.conv.modulation.bias"])
        return convolved(x, weight / math.sqrt(weight.shape[1]), style, False, False) + p[f"{name}.bias"][0]

    x = styled(p["input.input"][0], "conv1", rows[0], p["noises.noise_0"][0], False)
    image = rgb(x, "to_rgb1", rows[1])
    for i in range(len(SIZES) - 1):
        x = styled(x, f"convs.{2 * i}", rows[2 * i + 1], p[f"noises.noise_{2 * i + 1}"][0], True)
        x = styled(x, f"convs.{2 * i + 1}", rows[2 * i + 2], p[f"noises.noise_{2 * i + 2}"][0], False)
        image = doubled(image) + rgb(x, f"to_rgbs.{i}", rows[2 * i + 3])
    return image


def nvidia_picture(p: dict[str, Tensor], rows: Tensor) -> Tensor:
    """rows [L, W] -> [3, S, S] by the names of NVIDIA's; their 3x3 weights need no gain (demodulation undoes it)."""

    def layer(x: Tensor, name: str, w: Tensor, up: bool) -> Tensor:
        style = affine(w, p[f"{name}.affine.weight"], p[f"{name}.affine.bias"])
        x = convolved(x, p[f"{name}.weight"], style, True, up) + p[f"{name}.noise_const"] * p[f"{name}.noise_strength"]
        return activated(x + p[f"{name}.bias"][:, None, None])

    x, image, row = p["synthesis.b4.const"], None, 0
    for size in SIZES:
        block = f"synthesis.b{size}"
        if size > 4:
            x = layer(x, f"{block}.conv0", rows[row], True)
            row += 1
        x = layer(x, f"{block}.conv1", rows[row], False)
        row += 1
        # The colour layer shares its row with the next block's first convolution; its gain sits on the style.
        weight = p[f"{block}.torgb.weight"]
        style = affine(rows[row], p[f"{block}.torgb.affine.weight"], p[f"{block}.torgb.affine.bias"])
        rgb = convolved(x, weight, style / math.sqrt(weight.shape[1]), False, False)
        rgb = rgb + p[f"{block}.torgb.bias"][:, None, None]
        image = rgb if image is None else doubled(image) + rgb
    return image


def drawn(*shape: int, at: float = 0.0, by: float = 1.0) -> Tensor:
    return at + by * torch.randn(shape)


def rosinality_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    kernel = TAPS[:, None] * TAPS[None] / 64
    p: dict[str, Tensor] = {}
    for i in range(LAYERS):
        p[f"style.{i + 1}.weight"], p[f"style.{i + 1}.bias"] = drawn(W, Z, by=100.0), drawn(W, by=30.0)

    def conv(name: str, inputs: int, outputs: int, k: int) -> None:
        p[f"{name}.conv.weight"] = drawn(1, outputs, inputs, k, k)
        p[f"{name}.conv.modulation.weight"] = drawn(inputs, W)
        p[f"{name}.conv.modulation.bias"] = drawn(inputs, at=1.0, by=0.3)

    def styled(name: str, inputs: int, outputs: int, up: bool) -> None:
        conv(name, inputs, outputs, 3)
        p[f"{name}.noise.weight"], p[f"{name}.activate.bias"] = drawn(1, by=0.5), drawn(outputs, by=0.5)
        if up:
            p[f"{name}.conv.blur.kernel"] = kernel * 4

    def rgb(name: str, inputs: int, up: bool) -> None:
        conv(name, inputs, 3, 1)
        p[f"{name}.bias"] = drawn(1, 3, 1, 1)
        if up:
            p[f"{name}.upsample.kernel"] = kernel * 4

    widths = list(SIZES.values())
    p["input.input"] = drawn(1, widths[0], 4, 4)
    styled("conv1", widths[0], widths[0], False)
    rgb("to_rgb1", widths[0], False)
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        styled(f"convs.{2 * i}", before, after, True)
        styled(f"convs.{2 * i + 1}", after, after, False)
        rgb(f"to_rgbs.{i}", after, True)
    for i in range(2 * len(SIZES) - 1):
        side = 4 * 2 ** ((i + 1) // 2)
        p[f"noises.noise_{i}"] = drawn(1, 1, side, side)
    return p


def nvidia_state() -> dict[str, Tensor]:
    torch.manual_seed(2)
    p: dict[str, Tensor] = {"mapping.w_avg": drawn(W)}
    for i in range(LAYERS):
        p[f"mapping.fc{i}.weight"], p[f"mapping.fc{i}.bias"] = drawn(W, Z, by=100.0), drawn(W, by=30.0)

    def layer(name: str, inputs: int, outputs: int, k: int, side: int = 0) -> None:
        p[f"{name}.weight"], p[f"{name}.bias"] = drawn(outputs, inputs, k, k), drawn(outputs, by=0.5)
        p[f"{name}.affine.weight"] = drawn(inputs, W)
        p[f"{name}.affine.bias"] = drawn(inputs, at=1.0, by=0.3)
        if side:
            p[f"{name}.noise_const"], p[f"{name}.noise_strength"] = drawn(side, side), drawn(by=0.5)
            p[f"{name}.resample_filter"] = TAPS[:, None] * TAPS[None] / 64

    before = SIZES[4]
    p["synthesis.b4.const"] = drawn(before, 4, 4)
    for side, width in SIZES.items():
        block = f"synthesis.b{side}"
        p[f"{block}.resample_filter"] = TAPS[:, None] * TAPS[None] / 64
        if side > 4:
            layer(f"{block}.conv0", before, width, 3, side)
        layer(f"{block}.conv1", width, width, 3, side)
        layer(f"{block}.torgb", width, 3, 1)
        before = width
    return p


LAYOUTS = {
    "rosinality": (rosinality_state, rosinality_picture, [f"style.{i + 1}" for i in range(LAYERS)]),
    "nvidia": (nvidia_state, nvidia_picture, [f"mapping.fc{i}" for i in range(LAYERS)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_picture_is_that_of_the_reference(layout: str) -> None:
    state, picture, names = LAYOUTS[layout]
    state = state()
    generator = public_weights.as_generator(state, "x.pt")
    z = torch.randn(2, Z, generator=torch.Generator().manual_seed(3))
    w = torch.stack([mapped(one, [(state[f"{n}.weight"], state[f"{n}.bias"]) for n in names]) for one in z])
    with torch.no_grad():
        torch.testing.assert_close(generator.mapping(z), w, rtol=1e-4, atol=1e-4)
        # Another code in every row, so that a row in the wrong place shows.
        rows = torch.randn(2, generator.rows, W, generator=torch.Generator().manual_seed(4))
        ours = generator.synthesis(rows)
        wanted = torch.stack([picture(state, one) for one in rows])
        assert wanted.std() > 0.3 and ours.shape == (2, 3, 32, 32)
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
        wanted = torch.stack([picture(state, one.expand(generator.rows, -1)) for one in w])
        torch.testing.assert_close(generator(z), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spoil", ["gain", "flip", "bias", "noise", "rows"])
def test_the_reference_notices_a_wrong_conversion(layout: str, spoil: str) -> None:
    """What the test above is worth: each mistake that a converter could make moves the picture by far more."""
    state, picture, _ = LAYOUTS[layout]
    state = state()
    generator = public_weights.as_generator(state, "x.pt")
    rows = torch.randn(1, generator.rows, W, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        if spoil == "gain":
            generator.to_rgb[1].weight.mul_(1.1)
        elif spoil == "flip":
            generator.convs[1].weight.copy_(generator.convs[1].weight.flip(2, 3))
        elif spoil == "bias":
            generator.convs[2].style.bias.sub_(1)
        elif spoil == "noise":
            generator.convs[3].noise_strength.zero_()
        codes = rows.roll(1, 1) if spoil == "rows" else rows
        assert (generator.synthesis(codes)[0] - picture(state, rows[0])).abs().max() > 1e-2


def test_shape_and_mean_are_derived() -> None:
    state, shape = public_weights.convert(nvidia_state(), "x.pt")
    assert (shape.layout, shape.size, shape.channels) == ("nvidia", 32, (32, 32, 24, 12))
    assert shape.keys() == {
        "data.size": 32, "model.generator.channels_base": 384, "model.generator.channels_max": 32,
        "model.generator.w_dim": W, "model.generator.z_dim": Z, "model.generator.mapping_layers": LAYERS,
    }  # fmt: skip
    assert torch.equal(state["w_mean"], nvidia_state()["mapping.w_avg"])
    # rosinality's training does not keep a mean; its converter writes one beside g_ema
    state, _ = public_weights.convert(rosinality_state(), "x.pt")
    generator = public_weights.as_generator(rosinality_state(), "x.pt")
    with torch.no_grad():
        w = generator.mapping(torch.randn(4000, Z))
    assert ((state["w_mean"] - w.mean(0)).abs() / w.std(0)).max() < 0.1
    given = {f"g_ema.{k}": v for k, v in rosinality_state().items()} | {"latent_avg": torch.arange(float(W))}
    assert torch.equal(public_weights.convert(given, "x.pt")[0]["w_mean"], torch.arange(float(W)))


def test_the_averaged_generator_is_taken_under_any_prefix() -> None:
    raw, averaged = rosinality_state(), {k: v + 1 for k, v in rosinality_state().items() if "kernel" not in k}
    both = {f"g.{k}": v for k, v in raw.items()} | {f"g_ema.{k}": v for k, v in averaged.items()}
    state, _ = public_weights.convert(both | {"d.convs.0.0.weight": torch.zeros(1)}, "x.pt")
    assert torch.equal(state["constant"], averaged["input.input"])
    state, _ = public_weights.convert({f"state_dict.decoder.{k}": v for k, v in raw.items()}, "x.pt")
    assert torch.equal(state["constant"], raw["input.input"])


def test_without_noise_inputs_there_is_no_noise() -> None:
    quiet = {k: v for k, v in nvidia_state().items() if "noise" not in k}
    generator = public_weights.as_generator(quiet, "x.pt")
    rows = torch.randn(1, generator.rows, W)
    with torch.no_grad():
        assert torch.equal(generator.synthesis(rows), generator.synthesis(rows, random_noise=True))


def changed(state: dict[str, Tensor], **what: Tensor | None) -> dict[str, Tensor]:
    return {k: v for k, v in (state | what).items() if v is not None}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": torch.zeros(1)}, "not a StyleGAN2 generator"),
        (changed(rosinality_state(), **{"convs.3.conv.weight": None}), "lacks the tensor convs.3.conv.weight"),
        (changed(rosinality_state(), **{"to_rgb1.bias": torch.zeros(3)}), "to_rgb1.bias is [3], wanted 1 x 3 x 1 x 1"),
        (changed(rosinality_state(), **{"convs.0.conv.blur.kernel": torch.ones(4, 4)}), "not the filter"),
        (changed(nvidia_state(), **{"mapping.embed.weight": torch.zeros(1)}), "class labels"),
        (changed(nvidia_state(), **{"synthesis.b8.skip.weight": torch.zeros(1)}), "residual"),
        (changed(nvidia_state(), **{"synthesis.b16.torgb.weight": None}), "lacks the tensor synthesis.b16.torgb"),
        ({"synthesis.input.freqs": torch.zeros(1), "synthesis.L0_36_512.weight": torch.zeros(1)}, "StyleGAN3"),
        (changed(nvidia_state(), **{"mapping.w_avg": torch.zeros(5)}), "mean of W"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(state: dict[str, Tensor], words: str) -> None:
    with pytest.raises(UserError, match="mine.pt") as caught:
        public_weights.convert(state, "mine.pt")
    assert words in str(caught.value)


class Harmful:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harm"),)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from safetensors.torch import save_file

    state = rosinality_state()
    rest = {"g_optim": {"step": 3, "x": [1, 2]}, "args": argparse.Namespace(size=32), "ada_aug_p": 0.1}
    torch.save({"g_ema": state, **rest, "latent_avg": torch.zeros(W)}, "a.pt")
    assert torch.equal(public_weights.read_file("a.pt")["g_ema.conv1.conv.weight"], state["conv1.conv.weight"])
    save_file(state, "a.safetensors")
    assert set(public_weights.read_file("a.safetensors")) == set(state)
    torch.save({"G_ema": Harmful()}, "zip.pt")
    torch.save({"G_ema": Harmful()}, "old.pt", _use_new_zipfile_serialization=False)
    Path("network.pkl").write_bytes(pickle.dumps({"G_ema": Harmful()}))
    for name in ("zip.pt", "old.pt", "network.pkl"):
        with pytest.raises(UserError, match=f"{name}: a pickle that holds more than tensors.*state_dict"):
            public_weights.read_file(name)
    assert not Path("harm").exists()
    for name in ("a.pt", "a.safetensors"):
        whole = Path(name).read_bytes()
        Path(f"cut_{name}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"cut_{name}: not a whole"):
            public_weights.read_file(f"cut_{name}")
    torch.save([1, 2], "list.pt")
    for name, words in (("absent.pt", "no such file"), ("list.pt", "holds no tensors")):
        with pytest.raises(UserError, match=words):
            public_weights.read_file(name)


def test_half_precision_weights_load() -> None:
    state = {k: v.half() for k, v in nvidia_state().items()}
    assert next(public_weights.as_generator(state, "x.pt").parameters()).dtype == torch.float32
    assert isinstance(public_weights.as_generator(state, "x.pt"), Generator)
