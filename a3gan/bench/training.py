"""The training step of each stage and phase against the machine's matrix rate.

On a busy machine the ratios are what to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from a3gan.bench.timing import matrix_rate, seconds

if TYPE_CHECKING:
    from a3gan.config import Config

FACES = 32  # rendered faces behind the batches: a step costs the same whatever they show


def bench_train(cfg: Config, repeats: int = 5) -> list[str]:
    """One report line a phase: images/s, GFLOP an image, share of the matrix rate; then the costliest operations.

    UserError where the config's weights are missing.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from a3gan.training.batches import all_targets, build_data, make_batch
    from a3gan.training.sampler import Sampler, seed_everything
    from a3gan.training.trainer import build_stage, prepare_device

    device = prepare_device(cfg)
    data, val = build_data(cfg, device, limit=FACES)
    stage, _ = build_stage(cfg, data, val, device)
    size = cfg.train.batch_size
    dtype = torch.bfloat16 if cfg.run.precision == "bfloat16" else torch.float32
    rate = matrix_rate(device, dtype)
    where = f"{device}, {torch.get_num_threads()} threads, {cfg.run.precision}"
    lines = [f"{where}: {rate / 1e9:.0f} GFLOP/s in a matrix product"]
    rows = Sampler(len(data), size, 0).batch(0) % len(data)
    batch = make_batch(data, rows, all_targets(data, device), device, cfg.run.channels_last)
    for name, images_seen in phases(stage, cfg).items():

        def step(images_seen: int = images_seen) -> None:
            seed_everything(0)
            stage.step(batch, images_seen)

        took = seconds(step, device, repeats)
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
        lines.append(
            f"{cfg.stage:11} {name:12} {size / took:7.1f} images/s  {flops / size / 1e9:6.2f} GFLOP an image  "
            f"{100 * flops / took / rate:5.1f} % of the matrix rate"
        )
    return lines + costliest(step)


def phases(stage: object, cfg: Config) -> dict[str, int]:
    """Name of each phase of a stage -> a number of images seen at which a step of it, without R1, begins."""
    # The step counter of lazy R1 must not be a multiple of r1_every: R1 is rare and would be all that is seen.
    after = cfg.train.batch_size * (cfg.loss.r1_every + 1)
    starts = {"step": 0}
    if cfg.stage == "a3gan":
        starts = {"reconstruct": stage.judged_from, "suppress": stage.suppress_from, "joint": stage.join_from}
    size = cfg.train.batch_size
    period = size * cfg.loss.r1_every
    return {name: -(-start // period) * period + after for name, start in starts.items()}


def costliest(step: Callable[[], object], count: int = 8) -> list[str]:
    """The operations that take most of one step's own time, with their share."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(activities=activities) as seen:
        step()
    cuda = torch.cuda.is_available()
    events = seen.key_averages()
    own = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in events}
    whole = sum(own.values()) or 1
    best = sorted(own.items(), key=lambda item: -item[1])[:count]
    return ["where the time goes:"] + [f"  {100 * t / whole:5.1f} %  {name}" for name, t in best]
