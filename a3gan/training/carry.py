"""`carry.safetensors`: what another run needs to go on, small enough to be kept beside code.

Raw and averaged weights in half precision, images seen, and the stage's plain values (such as ADA's probability). Left
out are the optimisers' moments: they make up most of a state, and Adam has new ones after a few hundred steps. So a run
that begins with a carry goes on, but not bit for bit; within one folder `state.safetensors` does that.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from a3gan import checkpoint
from a3gan.config import Config, check, flatten
from a3gan.errors import UserError
from a3gan.release import portable
from a3gan.training.ema import Ema
from a3gan.training.stage import Stage

logger = logging.getLogger(__name__)
CARRY = "carry.safetensors"
# What must be the same in the run that goes on: the networks and what they look at. All else may change.
_SAME = ("stage", "model.", "data.size", "data.frame")
_MAY_DIFFER = (
    "model.weights", "model.generator.weights", "model.generator.freeze", "model.encoder.weights",
    "model.discriminator.weights",
)  # fmt: skip


def save_carry(folder: Path, stage: Stage, ema: Ema, images_seen: int) -> Path:
    """Writes carry.safetensors: ``net/<network>.<tensor>`` and ``ema/<network>.<tensor>``, floats as float16.

    UserError for a value beyond half precision; NotWritten where the disk refuses.
    """
    tensors = {f"net/{k}": v for k, v in checkpoint.prefixed(stage.networks).items()}
    tensors |= {f"ema/{k}": v for k, v in checkpoint.prefixed(ema.nets).items()}
    halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    broken = [k for k, v in halved.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{folder / CARRY}: {broken[0]} has values beyond half precision; set run.carry=false")
    meta = {
        "kind": "carry",
        "stage": stage.cfg.stage,
        "images_seen": images_seen,
        "frame": stage.cfg.data.frame,
        "size": stage.cfg.data.size,
        "config": portable(stage.cfg.model_dump(mode="json")),
        "plain": stage.plain_state(),
        "scorers": list(stage.taught_by),
    }
    return checkpoint.save(folder / CARRY, halved, meta)


def begin(stage: Stage, ema: Ema) -> int:
    """Puts the carry of run.begin, where given, into a new run; returns the images it has seen, 0 without one.

    UserError: missing, cut or foreign file; networks or faces of another kind (the keys are named).
    """
    cfg = stage.cfg
    if cfg.run.begin is None:
        return 0
    path = checkpoint.resolve(cfg.run.begin)
    tensors, meta = checkpoint.load(path)
    if meta.get("kind") != "carry":
        raise UserError(f"run.begin: {path} holds no carry but {meta.get('kind', 'something else')}; see run.carry")
    _refuse_others(meta, cfg, path)
    for name, net in stage.networks.items():
        checkpoint.load_into(net, tensors, f"net/{name}", path)
    for name, net in ema.nets.items():
        checkpoint.load_into(net, tensors, f"ema/{name}", path)
    stage.load_plain_state(meta["plain"])
    logger.info("goes on from %s at %d images; the optimisers start anew", path, meta["images_seen"])
    return int(meta["images_seen"])


def _refuse_others(meta: dict[str, Any], cfg: Config, path: Path) -> None:
    was = flatten(check(meta["config"], source=str(path)).model_dump(mode="json"))  # new keys get their defaults
    now = flatten(cfg.model_dump(mode="json"))
    differ = [
        f"{key}={was[key]} (is {now[key]})"
        for key in now
        if key.startswith(_SAME) and key not in _MAY_DIFFER and was.get(key) != now[key]
    ]
    if differ:
        raise UserError(f"run.begin: {path} was made with {', '.join(differ)}; give the run the same")
