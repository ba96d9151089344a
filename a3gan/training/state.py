"""What a resume needs, as one file: raw weights, averaged weights, optimiser tensors and plain values."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.config import Config, check, flatten
from a3gan.errors import UserError
from a3gan.training.ema import Ema
from a3gan.training.stage import Stage

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)
STATE, CHECKPOINT, BEST = "state.safetensors", "checkpoint.safetensors", "best.safetensors"
# What may change between two sittings of one run.
_FREE = ("run.", "train.total_images", "train.accumulate", "train.grad_clip", "train.phases.", "data.storage")


def save_state(folder: Path, stage: Stage, ema: Ema, images_seen: int, **also: Any) -> None:
    """Writes state.safetensors (resume only), with `also` in its header."""
    cfg = stage.cfg
    tensors = {f"net/{k}": v for k, v in checkpoint.prefixed(stage.networks).items()}
    tensors |= {f"ema/{k}": v for k, v in checkpoint.prefixed(ema.nets).items()}
    optimizers = {}
    for name, optimizer in stage.optimizers.items():
        found, optimizers[name] = _split(optimizer, f"optim/{name}")
        tensors |= found
    meta = {
        "kind": "state",
        "stage": cfg.stage,
        "images_seen": images_seen,
        "config": cfg.model_dump(mode="json"),
        "optimizers": optimizers,
        "plain": stage.plain_state(),
        **also,
    }
    checkpoint.save(folder / STATE, tensors, meta, keep=cfg.run.keep_last)


def save_inference(
    path: Path, stage: Stage, nets: dict[str, nn.Module], images_seen: int, data: FaceSet, metrics: dict[str, float],
    keep: int = 0, **also: Any,
) -> None:  # fmt: skip
    """Writes an inference checkpoint: averaged weights with everything needed to use them, and `also` in its header."""
    cfg = stage.cfg
    tensors, extra = stage.inference_state(nets)
    meta = {
        "kind": "inference",
        "stage": cfg.stage,
        "images_seen": images_seen,
        "frame": data.frame,
        "size": data.size,
        "config": cfg.model_dump(mode="json"),
        "metrics": metrics,
        "parent": None,
        **extra,
        **also,
    }
    checkpoint.save(path, tensors, meta, keep=keep)


def find_state(folder: Path, cfg: Config) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest readable state of a run, or None for a new run.

    A cut file is passed over for the one before it, with a warning. Raises UserError when the run was made with
    another config (the keys are named) or when no state is readable.
    """
    paths = [checkpoint.older(folder / STATE, number) for number in range(cfg.run.keep_last + 2)]
    problem: UserError | None = None
    for path in (path for path in paths if path.is_file()):
        try:
            tensors, meta = checkpoint.load(path)
        except UserError as error:
            problem = problem or error
            logger.warning("%s; looking for an older state", error)
            continue
        _same_config(meta, cfg, path)
        return tensors, meta
    if problem:
        raise UserError(f"{folder}: no readable state to go on from ({problem}); --fresh starts anew") from problem
    return None


# Sections of `model` that only some stages read: a new default there must not end the runs of all others.
_READ_BY = {
    "attributes": ("attributes",), "identity": ("identity",), "pool": ("falco",), "facemae": ("facemae",),
    "diffusion": ("diffusion", "msi"), "msi": ("diffusion", "msi"),
}  # fmt: skip


def _same_config(meta: dict[str, Any], cfg: Config, path: Path) -> None:
    try:
        old = check(meta["config"], source=str(path)).model_dump(mode="json")  # new keys get their defaults
    except UserError:
        old = meta["config"]
    was, now = flatten(old), flatten(cfg.model_dump(mode="json"))
    free = (*_FREE, *(f"model.{part}." for part, stages in _READ_BY.items() if cfg.stage not in stages))
    differ = [k for k in sorted(was.keys() | now.keys()) if was.get(k) != now.get(k) and not k.startswith(free)]
    if differ:
        words = ", ".join(f"{k} (was {was.get(k)!r}, now {now.get(k)!r})" for k in differ)
        raise UserError(f"{path.parent}: holds a run of another config: {words}; use another run.dir, or --fresh")


def restore(stage: Stage, ema: Ema, tensors: dict[str, Tensor], meta: dict[str, Any]) -> int:
    """Puts a found state into networks, averages and optimisers; returns the images seen."""
    for name, net in stage.networks.items():
        checkpoint.load_into(net, tensors, f"net/{name}", STATE)
    for name, net in ema.nets.items():
        checkpoint.load_into(net, tensors, f"ema/{name}", STATE)
    for name, optimizer in stage.optimizers.items():
        _join(optimizer, tensors, f"optim/{name}", meta["optimizers"][name])
    stage.load_plain_state(meta["plain"])
    return int(meta["images_seen"])


def _split(optimizer: torch.optim.Optimizer, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as (tensors by flat name, JSON-able rest)."""
    full = optimizer.state_dict()
    tensors, plain = {}, {}
    for index, entries in full["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    return tensors, {"groups": full["param_groups"], "plain": plain}


def _join(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str, rest: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest["plain"].items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith(prefix + "/"):
            index, key = name[len(prefix) + 1 :].split("/", 1)
            like = parameters[int(index)]
            if value.shape == like.shape:  # the parameter's memory layout again, so that kernels add in the same order
                value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
            state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in rest["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
