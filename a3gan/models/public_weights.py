"""Public StyleGAN2 generators as ours: rosinality's layout and NVIDIA's networks exported as a state dict.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020) in two code bases that name the same
tensors differently. Both keep weights before the gains of the equalised learning rate and of the mapping's learning
rate of a hundredth, as ours does, and both store the doubling convolutions as a transposed convolution wants them; so
converting is renaming and reshaping, and what can go wrong is a generator of another architecture, which is refused.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from a3gan.errors import UserError
from a3gan.models.stylegan2 import Generator, channels_at

FRAME = "ffhq"
"""The alignment that the public face generators know; such weights do not say it themselves."""

_MEAN_SAMPLES = 4096
EXPORT = (
    "export it where its own code is at hand, for example: torch.save(G_ema.state_dict(), 'generator.pt') "
    "or safetensors.torch.save_file(G_ema.state_dict(), 'generator.safetensors')"
)


@dataclass(frozen=True)
class Shape:
    """What a generator is made of: side in pixels, widths, mapping layers, channels at 4, 8, ..., size; its layout."""

    layout: str
    size: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[int, ...]

    def keys(self) -> dict[str, int | bool]:
        """The config that it asks for, by dotted key."""
        return {
            "data.size": self.size,
            "model.generator.channels_base": self.channels[-1] * self.size,
            "model.generator.channels_max": max(self.channels),
            "model.generator.w_dim": self.w_dim,
            "model.generator.z_dim": self.z_dim,
            "model.generator.mapping_layers": self.mapping_layers,
        }


def read_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .pt, .pth or .safetensors file by flat name (nested dicts joined by dots).

    Nothing in the file is executed: a pickle that holds more than tensors and plain containers is refused.

    Raises:
        UserError: no such file, cut short, of another kind, or a pickle with code in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); it may be cut, get it again") from error
    try:
        # rosinality's training keeps its command line beside the weights: a plain container of values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles: they are read, or refused in our own words
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (a damaged pickle may raise anything)
        raise UserError(_why_not(path, error)) from error
    tensors = dict(_flat("", content))
    if not tensors:
        raise UserError(f"{path}: holds no tensors ({type(content).__name__}); wanted is a state dict; {EXPORT}")
    return tensors


def _why_not(path: Path, error: Exception) -> str:
    """Words for a file that torch.load refuses: an unsafe pickle, or no whole file."""
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return f"{path}: a pickle that holds more than tensors, so it is not opened; {EXPORT}"
    return f"{path}: not a whole PyTorch file ({type(error).__name__}); it may be cut, get it again"


def _flat(prefix: str, value: object) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(prefix, value)]
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flat(f"{prefix}.{k}" if prefix else str(k), v)]
    return []


def convert(tensors: dict[str, Tensor], source: str | Path) -> tuple[dict[str, Tensor], Shape]:
    """A public state dict -> (state of our `Generator` with noise, its shape).

    `source` is named in errors. Where the file has no mean of W, it is measured from 4096 codes of a fixed seed.

    Raises:
        UserError: no known layout, a missing or misshapen tensor, or an architecture that is not ours (class labels,
        StyleGAN3, residual or no skip connections).
    """
    for mark, layout in (("input.input", _rosinality), ("synthesis.b4.const", _nvidia)):
        # Whatever a code base puts in front (g_ema., decoder., ...); of several generators the averaged one.
        prefixes = [name[: -len(mark)] for name in tensors if name.endswith(mark)]
        if prefixes:
            prefix = min(prefixes, key=lambda p: ("ema" not in p.lower(), len(p)))
            inner = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            means = (inner.get("mapping.w_avg"), inner.get("latent_avg"), tensors.get("latent_avg"))
            return _finish(_Reader(inner, prefix, source), layout, next((m for m in means if m is not None), None))
    if any(re.search(r"synthesis\.(input\.freqs|L\d+_)", name) for name in tensors):
        raise UserError(f"{source}: a StyleGAN3 generator; only StyleGAN2 fits")
    some = ", ".join(list(tensors)[:3])
    raise UserError(
        f"{source}: not a StyleGAN2 generator in rosinality's layout (conv1.conv.weight, ...) or NVIDIA's "
        f"(synthesis.b4.const, ...); it holds {len(tensors)} tensors: {some}, ..."
    )


def mismatch(shape: Shape, keys: dict[str, int]) -> list[str]:
    """`key=wanted (config has given)` for each key of a config (dotted name -> value) that does not fit the weights."""
    wanted = shape.keys()
    own = {
        name: shape.channels == tuple(
            channels_at(4 * 2**i, keys["model.generator.channels_base"], keys["model.generator.channels_max"])
            for i in range(len(shape.channels))
        )
        for name in ("model.generator.channels_base", "model.generator.channels_max")
    }
    return [f"{k}={v} (is {keys[k]})" for k, v in wanted.items() if keys[k] != v and not own.get(k, False)]


class _Reader:
    """Tensors by name, each checked for its shape; what was not asked for can be listed."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str, source: str | Path):
        self.tensors, self.prefix, self.source = tensors, prefix, source

    def get(self, name: str, *shape: int) -> Tensor:
        """The tensor in float32; -1 in `shape` is any extent."""
        if name not in self.tensors:
            raise UserError(f"{self.source}: lacks the tensor {self.prefix}{name}; it is no whole StyleGAN2 generator")
        value = self.tensors[name].detach().float()
        if value.ndim != len(shape) or any(s not in (-1, n) for s, n in zip(shape, value.shape, strict=True)):
            words = " x ".join("?" if s < 0 else str(s) for s in shape)
            raise UserError(f"{self.source}: {self.prefix}{name} is {list(value.shape)}, wanted {words}")
        return value

    def has(self, name: str) -> bool:
        return name in self.tensors

    def refuse(self, pattern: str, why: str) -> None:
        for name in self.tensors:
            if re.match(pattern, name):
                raise UserError(f"{self.source}: has {self.prefix}{name}: {why}")


Layout = Callable[[_Reader], tuple[dict[str, Tensor], Shape]]


def _finish(read: _Reader, layout: Layout, mean: Tensor | None) -> tuple[dict[str, Tensor], Shape]:
    state, shape = layout(read)
    if mean is not None:
        mean = mean.detach().float()
        state["w_mean"] = (mean if mean.ndim == 1 else mean.reshape(-1, mean.shape[-1]).mean(0)).clone()
        if state["w_mean"].shape != (shape.w_dim,):
            raise UserError(f"{read.source}: the mean of W has {len(state['w_mean'])} numbers, wanted {shape.w_dim}")
    else:
        state["w_mean"] = _measured_mean(state, shape)
    return state, shape


def _measured_mean(state: dict[str, Tensor], shape: Shape) -> Tensor:
    from a3gan.models.stylegan2 import Mapping

    mapping = Mapping(shape.z_dim, shape.w_dim, shape.mapping_layers)
    mapping.load_state_dict({k[len("mapping.") :]: v for k, v in state.items() if k.startswith("mapping.")})
    z = torch.randn(_MEAN_SAMPLES, shape.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return mapping(z).mean(0)


def _depth(read: _Reader, pattern: str) -> int:
    """One more than the largest number in the names that match `pattern` (its one group), 0 for none."""
    numbers = [int(m.group(1)) for m in (re.fullmatch(pattern, name) for name in read.tensors) if m]
    return max(numbers, default=-1) + 1


def _rosinality(read: _Reader) -> tuple[dict[str, Tensor], Shape]:
    """style.1.. (0 is the normalisation), input, conv1, to_rgb1, convs.0.., to_rgbs.0.., noises."""
    layers = _depth(read, r"style\.(\d+)\.weight") - 1
    doublings = _depth(read, r"to_rgbs\.(\d+)\.bias")
    if layers < 1 or doublings < 1:
        raise UserError(f"{read.source}: lacks {'style.1.weight' if layers < 1 else 'to_rgbs.0.bias'}; not whole")
    state, z_dim, w_dim = _mapping(read, [f"style.{i + 1}" for i in range(layers)])
    constant = read.get("input.input", 1, -1, 4, 4)
    state["constant"] = constant
    width, channels = constant.shape[1], [constant.shape[1]]
    noise = 0

    def styled(ours: str, theirs: str, inputs: int, resolution: int) -> int:
        nonlocal noise
        weight = read.get(f"{theirs}.conv.weight", 1, -1, inputs, 3, 3)[0]
        name = f"noises.noise_{noise}"
        # Checkpoints of the first versions have no stored noise; their pictures take fresh noise each time.
        stored = read.get(name, 1, 1, resolution, resolution) if read.has(name) else _fixed_noise(noise, resolution)
        state.update({
            f"{ours}.weight": weight,
            f"{ours}.style.weight": read.get(f"{theirs}.conv.modulation.weight", inputs, w_dim),
            f"{ours}.style.bias": read.get(f"{theirs}.conv.modulation.bias", inputs),
            f"{ours}.bias": read.get(f"{theirs}.activate.bias", len(weight)),
            f"{ours}.noise_strength": read.get(f"{theirs}.noise.weight", 1)[0],
            f"{ours}.noise": stored,
        })
        noise += 1
        return len(weight)

    def rgb(ours: str, theirs: str, inputs: int) -> None:
        state.update({
            f"{ours}.weight": read.get(f"{theirs}.conv.weight", 1, 3, inputs, 1, 1)[0],
            f"{ours}.style.weight": read.get(f"{theirs}.conv.modulation.weight", inputs, w_dim),
            f"{ours}.style.bias": read.get(f"{theirs}.conv.modulation.bias", inputs),
            f"{ours}.bias": read.get(f"{theirs}.bias", 1, 3, 1, 1).reshape(3),
        })

    styled("convs.0", "conv1", width, 4)
    rgb("to_rgb.0", "to_rgb1", width)
    for i in range(doublings):
        resolution = 8 * 2**i
        width = styled(f"convs.{2 * i + 1}", f"convs.{2 * i}", width, resolution)
        width = styled(f"convs.{2 * i + 2}", f"convs.{2 * i + 1}", width, resolution)
        rgb(f"to_rgb.{i + 1}", f"to_rgbs.{i}", width)
        channels.append(width)
    _same_filter(read, r"(convs|to_rgbs)\.\d+\.(conv\.blur|upsample)\.kernel")
    return state, Shape("rosinality", 4 * 2**doublings, z_dim, w_dim, layers, tuple(channels))


def _nvidia(read: _Reader) -> tuple[dict[str, Tensor], Shape]:
    """mapping.fc0.., synthesis.b4, b8, ...: const, conv0 (doubles), conv1, torgb, each with its affine."""
    read.refuse(r"mapping\.embed\.", "a generator with class labels; only one without fits")
    read.refuse(r"synthesis\.b\d+\.skip\.", "a generator with residual blocks; only skip connections fit")
    layers = _depth(read, r"mapping\.fc(\d+)\.weight")
    sizes = sorted({int(m.group(1)) for m in (re.match(r"synthesis\.b(\d+)\.", n) for n in read.tensors) if m})
    if sizes != [4 * 2**i for i in range(len(sizes))] or len(sizes) < 2 or layers < 1:
        found = f"synthesis blocks {sizes} and {layers} mapping layers"
        raise UserError(f"{read.source}: {found} are no whole StyleGAN2 generator")
    state, z_dim, w_dim = _mapping(read, [f"mapping.fc{i}" for i in range(layers)])
    constant = read.get("synthesis.b4.const", -1, 4, 4)
    state["constant"] = constant[None]
    width, channels = len(constant), [len(constant)]

    def layer(ours: str, theirs: str, inputs: int, resolution: int) -> int:
        weight = read.get(f"{theirs}.weight", -1, inputs, 3, 3)
        state.update({
            f"{ours}.weight": weight,
            f"{ours}.style.weight": read.get(f"{theirs}.affine.weight", inputs, w_dim),
            f"{ours}.style.bias": read.get(f"{theirs}.affine.bias", inputs),
            f"{ours}.bias": read.get(f"{theirs}.bias", len(weight)),
        })
        if read.has(f"{theirs}.noise_strength"):
            state[f"{ours}.noise_strength"] = read.get(f"{theirs}.noise_strength")
            state[f"{ours}.noise"] = read.get(f"{theirs}.noise_const", resolution, resolution)[None, None]
        else:  # trained without noise
            state[f"{ours}.noise_strength"] = torch.zeros(())
            state[f"{ours}.noise"] = torch.zeros(1, 1, resolution, resolution)
        return len(weight)

    for i, resolution in enumerate(sizes):
        block = f"synthesis.b{resolution}"
        if i:
            width = layer(f"convs.{2 * i - 1}", f"{block}.conv0", width, resolution)
            channels.append(width)
        width = layer(f"convs.{2 * i}", f"{block}.conv1", width, resolution)
        state.update({
            f"to_rgb.{i}.weight": read.get(f"{block}.torgb.weight", 3, width, 1, 1),
            f"to_rgb.{i}.style.weight": read.get(f"{block}.torgb.affine.weight", width, w_dim),
            f"to_rgb.{i}.style.bias": read.get(f"{block}.torgb.affine.bias", width),
            f"to_rgb.{i}.bias": read.get(f"{block}.torgb.bias", 3),
        })
    _same_filter(read, r"synthesis\.b\d+\.(conv\d\.)?resample_filter")
    return state, Shape("nvidia", sizes[-1], z_dim, w_dim, layers, tuple(channels))


def _mapping(read: _Reader, names: list[str]) -> tuple[dict[str, Tensor], int, int]:
    state, inputs, z_dim = {}, -1, -1
    for i, name in enumerate(names):
        weight = read.get(f"{name}.weight", -1, inputs)
        state[f"mapping.layers.{i}.weight"] = weight
        state[f"mapping.layers.{i}.bias"] = read.get(f"{name}.bias", len(weight))
        z_dim, inputs = (weight.shape[1] if i == 0 else z_dim), len(weight)
    return state, z_dim, inputs


def _fixed_noise(number: int, resolution: int) -> Tensor:
    return torch.randn(1, 1, resolution, resolution, generator=torch.Generator().manual_seed(number))


def _same_filter(read: _Reader, pattern: str) -> None:
    """Stored filters must be the one that ours uses, up to their gain."""
    from a3gan.models.ops import blur_kernel

    own = blur_kernel()
    for name, value in read.tensors.items():
        if re.fullmatch(pattern, name):
            two = value.float() if value.ndim == 2 else value.float()[:, None] * value.float()[None]
            if two.shape != own.shape or not torch.allclose(two / two.sum(), own, atol=1e-5):
                raise UserError(f"{read.source}: {read.prefix}{name} is not the filter [1, 3, 3, 1]; it does not fit")


def as_generator(tensors: dict[str, Tensor], source: str | Path) -> Generator:
    """A public state dict as one of our generators, of its own size and widths, in eval mode. Raises as `convert`."""
    state, shape = convert(tensors, source)
    base, most = shape.channels[-1] * shape.size, max(shape.channels)
    if shape.channels != tuple(channels_at(4 * 2**i, base, most) for i in range(len(shape.channels))):
        raise UserError(f"{source}: channels {list(shape.channels)} at 4 to {shape.size} px are not min(base / r, max)")
    generator = Generator(
        shape.size, z_dim=shape.z_dim, w_dim=shape.w_dim, channels_base=base, channels_max=most,
        mapping_layers=shape.mapping_layers, noise=True,
    )
    generator.load_state_dict(state)
    return generator.eval()
