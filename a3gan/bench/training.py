"""The training step of each stage and phase against the machine's matrix rate, and where its time goes.

On a busy machine the ratios are what to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from a3gan.bench import parts
from a3gan.bench.timing import matrix_rate, seconds

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.training.stage import Stage

FACES = 32  # rendered faces behind the batches: a step costs the same whatever they show
ALL = ("stylegan2/faces_64", "a3gan/faces_64", "attributes/loss_64", "identity/rendered_64")


def bench_train(cfg: Config, repeats: int = 5) -> list[str]:
    """For each phase of a config: images/s, GFLOP an image, share of the matrix rate, and where the time goes.

    A step is everything that the trainer does for one: data, the stage's turns, optimisers, averages. images/s counts
    the lazy penalties at the rate they come at. UserError where the config's weights are missing.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from a3gan.training.batches import build_data
    from a3gan.training.trainer import build_stage, prepare_device

    device = prepare_device(cfg)
    data, val = build_data(cfg, device, limit=FACES)
    stage, ema = build_stage(cfg, data, val, device)
    dtype = torch.bfloat16 if cfg.run.precision == "bfloat16" else torch.float32
    rate = matrix_rate(device, dtype)
    where = f"{device}, {torch.get_num_threads()} threads, {cfg.run.precision}"
    lines = [f"{where}: {rate / 1e9:.0f} GFLOP/s in a matrix product"]
    step, size = stepper(cfg, stage, ema, data, device), cfg.train.batch_size
    for name, seen in phases(stage, cfg).items():
        plain = seconds(lambda seen=seen: step(seen), device, repeats)
        with FlopCounterMode(display=False) as counter:
            step(seen)
        extra = {what: (max(0.0, seconds(lambda at=at: step(at), device, max(1, repeats // 2)) - plain), every)
                 for what, (at, every) in lazy(cfg, seen).items()}  # fmt: skip
        mean = plain + sum(took / every for took, every in extra.values())
        flops = counter.get_total_flops()
        lines.append(
            f"{cfg.stage} {name}: {size / mean:.1f} images/s; a plain step {1e3 * plain:.0f} ms, "
            f"{flops / size / 1e9:.2f} GFLOP an image, {100 * flops / plain / rate:.0f} % of the matrix rate"
        )
        lines += [
            f"    {what}: {1e3 * took:.0f} ms every {every} steps, {100 * took / every / mean:.1f} % of the time"
            for what, (took, every) in extra.items()
        ]
        with parts.named(parts.targets(stage, ema)):
            shares = parts.where(lambda seen=seen: step(seen))
        lines += parts.table(*shares)
    return lines


def stepper(cfg: Config, stage: Stage, ema: object, data: object, device: torch.device) -> Callable[[int], None]:
    """One step of the trainer's loop, as a function of the images seen, on always the same batch."""
    from a3gan.training.batches import all_targets, training_batch
    from a3gan.training.sampler import Sampler, seed_everything

    size, targets = cfg.train.batch_size, all_targets(stage.data, device)
    rows = Sampler(len(data), size, 0).batch(0)

    def step(images_seen: int) -> None:
        seed_everything(0)
        with torch.profiler.record_function("part: data"):
            batch = training_batch(stage, rows, targets)
        stage.step(batch, images_seen)
        ema.update(stage.networks, size, images_seen + size)

    return step


def phases(stage: object, cfg: Config) -> dict[str, int]:
    """Name of each phase of a stage -> a number of images seen at which a step of it, without penalties, begins."""
    size, period = cfg.train.batch_size, _period(cfg)
    starts = {"step": 0}
    if cfg.stage == "a3gan":
        starts = {"reconstruct": stage.judged_from, "suppress": stage.suppress_from, "joint": stage.join_from}
    # One step after a multiple of all periods; the first step of a phase does more than the others as well.
    return {name: (-(-start // (size * period)) * period + period + 1) * size for name, start in starts.items()}


def _period(cfg: Config) -> int:
    loss = cfg.loss
    return loss.r1_every * (loss.path_length_every if cfg.stage == "stylegan2" and loss.path_length else 1)


def lazy(cfg: Config, seen: int) -> dict[str, tuple[int, int]]:
    """Name of each lazy penalty of a config -> (images seen at a step that has it alone, steps between two)."""
    size, loss, found = cfg.train.batch_size, cfg.loss, {}
    start = seen // size - 1  # a multiple of all periods
    path = cfg.stage == "stylegan2" and loss.path_length > 0
    penalties = [name for name, gamma in (("R1", loss.r1_gamma), ("R2", loss.r2_gamma)) if gamma > 0]
    if cfg.stage in ("stylegan2", "a3gan") and penalties:
        alone = (loss.r1_every * k for k in range(loss.path_length_every + 1))
        steps = [s for s in alone if not path or s % loss.path_length_every] or [0]
        found[" and ".join(penalties)] = ((start + steps[0]) * size, loss.r1_every)
    if path:
        alone = (loss.path_length_every * k for k in range(loss.r1_every + 1))
        steps = [s for s in alone if s % loss.r1_every] or [0]
        found["path length"] = ((start + steps[0]) * size, loss.path_length_every)
    return found
