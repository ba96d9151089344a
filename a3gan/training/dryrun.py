"""`a3gan train FILE --dry-run`: everything is built, looked at and thrown away."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.config import Config
from a3gan.training.batches import build_data, make_batch
from a3gan.training.stage import Stage
from a3gan.training.stages import stage_class

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

_RENDERED = 16  # rendered faces are the same code whatever their number
_MIB = 2**20


def dry_run(cfg: Config) -> str:
    """A report of many lines. Missing weights are named in it; a bad data path raises UserError as in training."""
    kind = stage_class(cfg.stage)
    looked = cfg.model_copy(deep=True)
    looked.data.storage = "disk"  # opens and checks an archive without reading all of it
    data, val = build_data(looked, "cpu", limit=_RENDERED)
    missing = kind.missing_weights(cfg) + checkpoint.missing({"run.begin": cfg.run.begin})
    stage = None if missing else kind(looked, data, val, torch.device("cpu"))
    networks = stage.networks if stage else kind.build_networks(cfg)
    lines = [f"stage         {cfg.stage}", f"run           {cfg.run_dir}", *_describe_data(cfg, data, val)]
    if networks:
        found = [_look(kind, cfg, networks, name) for name in networks]
        for name, look in zip(networks, found, strict=True):
            lines += _describe_network(name, networks[name], look)
        lines += _describe_memory(cfg, kind, networks, data, [look for look in found if look])
    lines.append("missing weights" if missing else "missing weights  none")
    lines += [f"  {line}" for line in missing]
    return "\n".join(lines)


def _describe_data(cfg: Config, data: FaceSet, val: FaceSet | None) -> list[str]:
    if cfg.data.path is None:
        return [f"data          rendered faces: {cfg.data.synthetic_count} of {data.size} px, frame {data.frame}"]
    batch = make_batch(data, torch.tensor([0, len(data) - 1]), {}, "cpu")  # the first and the last do open
    people = len(data.identity[data.identity >= 0].unique())
    return [
        f"data          {cfg.data.path}: {len(data)} training and {0 if val is None else len(val)} validation faces of "
        f"{data.size} px, frame {data.frame}, {people} people, first and last open "
        f"({batch.images.min():.2f} to {batch.images.max():.2f})"
    ]


@dataclasses.dataclass
class Look:
    """What one forward pass showed: words for shapes, FLOPs and bytes of activations of one image."""

    shapes: list[str]
    flops: float
    activations: float


def _look(kind: type[Stage], cfg: Config, networks: dict[str, nn.Module], name: str) -> Look | None:
    from torch.utils.flop_counter import FlopCounterMode

    batch = 2 if cfg.data.size < 256 else 1
    inputs = kind.example_inputs(cfg, networks, batch).get(name)
    if inputs is None:
        return None
    net, total = networks[name].eval(), [0]

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        total[0] += sum(t.numel() * t.element_size() for _, t in _tensors("", output))

    hooks = [module.register_forward_hook(note) for module in net.modules() if not list(module.children())]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    shapes = [f"{label or 'output'} {list(t.shape)}" for label, t in _tensors("", output)]
    return Look(shapes, counter.get_total_flops() / batch, total[0] / batch)


def _tensors(label: str, value: Any) -> list[tuple[str, Tensor]]:
    """Every tensor in nested outputs, with a name."""
    if isinstance(value, Tensor):
        return [(label, value)]
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, list | tuple):
        value = dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if not isinstance(value, Mapping):
        return []
    return [found for key, part in value.items() for found in _tensors(f"{label}.{key}" if label else str(key), part)]


def _describe_network(name: str, net: nn.Module, look: Look | None) -> list[str]:
    count = sum(p.numel() for p in net.parameters())
    flops = f", {look.flops / 1e9:.2f} GFLOP a face" if look else ""
    lines = [f"{name:13} {count / 1e6:.2f} M parameters{flops}"]
    for part, child in net.named_children():
        own = sum(p.numel() for p in child.parameters())
        if own >= 0.05 * count:
            lines.append(f"  .{part:11} {own / 1e6:.2f} M")
    return lines + [f"  {shape}" for shape in (look.shapes if look else [])]


def _describe_memory(
    cfg: Config, kind: type[Stage], networks: dict[str, nn.Module], data: FaceSet, looks: list[Look]
) -> list[str]:
    def size(nets: list[nn.Module]) -> float:
        return sum(t.numel() * t.element_size() for net in nets for t in [*net.parameters(), *net.buffers()]) / _MIB

    weights = size(list(networks.values()))
    parameters = [p for net in networks.values() for p in net.parameters() if p.requires_grad]
    trained = sum(p.numel() * p.element_size() for p in parameters)
    average = size([networks[name] for name in kind.ema_names if name in networks])
    # twice: a training step also keeps what functional operations and the losses' networks make; rough on purpose
    activations = 2 * cfg.train.batch_size * sum(look.activations for look in looks) / _MIB
    if cfg.run.precision == "bfloat16":
        activations /= 2
    count = cfg.data.synthetic_count if cfg.data.path is None else len(data)
    pixels = 0 if cfg.data.storage == "disk" else count * 3 * cfg.data.size**2 / _MIB
    trained /= _MIB
    total = weights + average + 3 * trained + activations + pixels
    return [
        f"memory        about {total:.0f} MiB: weights {weights:.0f}, averages {average:.0f}, gradients {trained:.0f}, "
        f"Adam {2 * trained:.0f}, activations {activations:.0f} (rough, batch {cfg.train.batch_size}), "
        f"faces {pixels:.0f} (data.storage={cfg.data.storage})"
    ]
