"""The loop that every stage shares: data, steps, averages, logs, snapshots, resume. Everything is counted in images."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.config import Config, save_config
from a3gan.errors import UserError
from a3gan.training.batches import all_targets, build_data, make_batch, mirror
from a3gan.training.ema import Ema
from a3gan.training.log import RunLog
from a3gan.training.sampler import IdentitySampler, Sampler, seed_everything
from a3gan.training.stage import Batch, Stage
from a3gan.training.stages import stage_class
from a3gan.training.state import find_state, restore, save_inference, save_state
from a3gan.training.summary import first_validation

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)


def train(cfg: Config, max_minutes: float | None = None, fresh: bool = False) -> Path:
    """Trains (or goes on training) what `cfg` says; returns the run's folder.

    Ends at train.total_images, after `max_minutes`, or at SIGTERM or SIGINT; each saves first. `fresh` moves an earlier
    run of the same folder aside. The folder then holds config.yaml, log.jsonl, events/, sheets/, checkpoint.safetensors
    (inference), state.safetensors (resume) and, when complete, metrics.json.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    with StopSignal() as stop:
        _train(cfg, fresh, lambda: stop.asked or (deadline is not None and time.monotonic() >= deadline))
    return cfg.run_dir


def _train(cfg: Config, fresh: bool, stop: Callable[[], bool]) -> None:
    device = prepare_device(cfg)
    folder = cfg.run_dir
    if fresh and folder.exists():
        _move_aside(folder)
    found = find_state(folder, cfg)  # before data and networks: a mismatch should show at once
    data, val = build_data(cfg, device)
    stage, ema = build_stage(cfg, data, val, device)
    images_seen = restore(stage, ema, *found) if found else 0
    save_config(cfg.model_copy(update={"run": cfg.run.model_copy(update={"dir": str(folder)})}), folder / "config.yaml")
    logger.info("%s: %d faces, %s, from %d images on, in %s", cfg.stage, len(data.files), device, images_seen, folder)
    log = RunLog(folder, images_seen, cfg.train.total_images, cfg.run.tensorboard)
    try:
        Loop(cfg, stage, ema, data, device, folder, log).run(images_seen, stop)
    finally:
        log.close()


def prepare_device(cfg: Config) -> torch.device:
    """The device of a config, with threads and CUDA's fast paths set; UserError when cuda is asked for and absent."""
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    if cfg.run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device: cuda is asked for, but torch sees no CUDA device; use run.device=cpu or auto")
    if cfg.run.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32; convolutions use it by torch's default
    return torch.device("cuda")


def build_stage(cfg: Config, data: FaceSet, val: FaceSet, device: torch.device) -> tuple[Stage, Ema]:
    """The stage with its networks on the device and the averages at their start; depends on train.seed alone."""
    seed_everything(cfg.train.seed, "init")
    stage = stage_class(cfg.stage)(cfg, data, val, device)
    for net in stage.networks.values():
        net.to(device)
        if cfg.run.channels_last:
            net.to(memory_format=torch.channels_last)
        net.train()
    return stage, Ema(stage.networks, tuple(stage.ema_names), cfg.train.ema_half_life)


class Loop:
    """One run. `run` is the story; the other methods are its sentences."""

    def __init__(
        self, cfg: Config, stage: Stage, ema: Ema, data: FaceSet, device: torch.device, folder: Path, log: RunLog
    ) -> None:
        self.cfg, self.stage, self.ema, self.data = cfg, stage, ema, data
        self.device, self.folder, self.log = device, folder, log
        self.sampler = build_sampler(cfg, data)
        self.targets = all_targets(data, device)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.since, self.since_images = time.monotonic(), 0

    def run(self, images_seen: int, stop: Callable[[], bool]) -> None:
        """From `images_seen` to the end, or until `stop()`."""
        cfg, size = self.cfg, self.cfg.train.batch_size
        saved = images_seen
        if images_seen == 0 and cfg.run.validate_first and not stop():
            self.validate(images_seen)
        self.since, self.since_images = time.monotonic(), images_seen
        while images_seen < cfg.train.total_images and not stop():
            self.step(images_seen)
            images_seen += size
            if crossed(images_seen, size, cfg.run.log_every):
                self.log_losses(images_seen)
            if crossed(images_seen, size, cfg.run.sheet_every):
                self.draw_sheet(images_seen)
            if crossed(images_seen, size, cfg.run.validate_every):
                self.validate(images_seen)
            if crossed(images_seen, size, cfg.run.snapshot_every) and images_seen < cfg.train.total_images:
                self.snapshot(images_seen, {})
                saved = images_seen
        self.since, self.since_images = time.monotonic(), images_seen
        self.finish(images_seen, saved)

    def step(self, images_seen: int) -> None:
        size = self.cfg.train.batch_size
        batch = self.batch(images_seen)
        self.warm_up(images_seen)
        losses = self.stage.step(batch, images_seen)
        self.collect(losses, batch, images_seen)
        self.ema.update(self.stage.networks, size, images_seen + size)
        self.log.advance(size)

    def batch(self, images_seen: int) -> Batch:
        """The batch at this point of the run; also seeds all randomness of the step."""
        cfg = self.cfg
        seed_everything(cfg.train.seed, "step", images_seen)
        batch = make_batch(self.data, self.sampler.batch(images_seen), self.targets, self.device, cfg.run.channels_last)
        if cfg.data.flip:
            batch = mirror(batch, (torch.rand(cfg.train.batch_size) < 0.5).to(self.device))
        return batch

    def warm_up(self, images_seen: int) -> None:
        length = self.cfg.train.warmup_images
        if not length:
            return
        factor = min(1.0, (images_seen + self.cfg.train.batch_size) / length)
        for optimizer in self.stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def collect(self, losses: dict[str, Tensor], batch: Batch, images_seen: int) -> None:
        """Adds up without waiting for the device; on the CPU a non-finite term stops the run at its own step."""
        for name, value in losses.items():
            value = torch.as_tensor(value, dtype=torch.float32, device=self.device).detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if self.device.type == "cpu":
            self.means(images_seen, batch)

    def means(self, images_seen: int, batch: Batch | None = None) -> dict[str, float]:
        """Mean of every term since the last log line; UserError when one is not finite."""
        if not self.sums:
            return {}
        values = dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))
        broken = [name for name, value in values.items() if not -float("inf") < value < float("inf")]
        if broken:
            where = self.folder / "nonfinite_batch.safetensors"
            batch = batch or self.batch(max(0, images_seen - self.cfg.train.batch_size))
            checkpoint.save(where, {"images": batch.images, "index": batch.index}, {"images_seen": images_seen})
            raise UserError(
                f"{self.folder}: not finite at {images_seen} images: {', '.join(broken)}; the batch is in {where}; "
                "the last snapshot is sound: lower train.lr or set train.grad_clip, or run.precision=float32"
            )
        return {name: value / self.counts[name] for name, value in values.items()}

    def log_losses(self, images_seen: int) -> None:
        values = self.means(images_seen)
        seconds = max(time.monotonic() - self.since, 1e-9)
        values["images_per_second"] = (images_seen - self.since_images) / seconds
        self.log.scalars(images_seen, values)
        self.sums, self.counts = {}, {}
        self.since, self.since_images = time.monotonic(), images_seen

    def draw_sheet(self, images_seen: int) -> None:
        with evaluating(self.stage, self.ema) as nets:
            sheet = self.stage.sheet(nets)
        if sheet is None:
            return
        from a3gan.data.ranges import to_pil, to_uint8

        picture = to_uint8(sheet.float().cpu())
        path = self.folder / "sheets" / f"{images_seen:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil(picture).save(path)
        self.log.image(images_seen, picture)

    def validate(self, images_seen: int) -> dict[str, float]:
        seed_everything(self.cfg.train.seed, "validate")
        with evaluating(self.stage, self.ema) as nets:
            metrics = {name: float(value) for name, value in self.stage.validate(nets).items()}
        if metrics:
            self.log.scalars(images_seen, metrics, kind="val")
        return metrics

    def snapshot(self, images_seen: int, metrics: dict[str, float]) -> None:
        self.means(images_seen)  # never save what is broken
        with evaluating(self.stage, self.ema) as nets:
            save_inference(self.folder, self.stage, nets, images_seen, self.data, metrics)
        save_state(self.folder, self.stage, self.ema, images_seen)

    def finish(self, images_seen: int, saved: int) -> None:
        """At the end of the run, or of this sitting: everything on disk."""
        if images_seen < self.cfg.train.total_images:
            if images_seen > saved or not (self.folder / "state.safetensors").is_file():
                self.snapshot(images_seen, {})
            total = self.cfg.train.total_images
            logger.info("stopped at %d of %d images; the same command goes on", images_seen, total)
            return
        metrics = self.validate(images_seen)
        self.draw_sheet(images_seen)
        self.snapshot(images_seen, metrics)
        before = first_validation(self.log.path)
        record = {"stage": self.cfg.stage, "images_seen": images_seen, "before": before, "metrics": metrics}
        write_text(self.folder / "metrics.json", json.dumps(record, indent=1) + "\n")
        logger.info("done: %d images, %s", images_seen, self.folder / "checkpoint.safetensors")


class evaluating:  # noqa: N801  (used like a function, as torch.no_grad)
    """`with evaluating(stage, ema) as nets`: every network in eval mode, EMA copies in place, no gradients."""

    def __init__(self, stage: Stage, ema: Ema) -> None:
        self.stage, self.nets = stage, ema.merged(stage.networks)
        self.grad = torch.no_grad()

    def __enter__(self) -> dict[str, nn.Module]:
        self.modes = {name: net.training for name, net in self.stage.networks.items()}
        for net in self.stage.networks.values():
            net.eval()
        self.grad.__enter__()
        return self.nets

    def __exit__(self, *exc: object) -> None:
        self.grad.__exit__(*exc)
        for name, net in self.stage.networks.items():
            net.train(self.modes[name])


class StopSignal:
    """Turns SIGTERM and SIGINT into a wish to stop after this step; a second SIGINT interrupts as usual."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        logger.info("stopping after this step")

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def build_sampler(cfg: Config, data: FaceSet) -> Sampler | IdentitySampler:
    t = cfg.train
    if t.identities_per_batch:
        return IdentitySampler(data.identity, t.identities_per_batch, t.images_per_identity, t.seed)
    return Sampler(len(data.files), t.batch_size, t.seed)


def crossed(images_seen: int, step: int, every: int) -> bool:
    """Whether the last step reached or passed a multiple of `every`; never for 0."""
    return every > 0 and images_seen // every > (images_seen - step) // every


def write_text(path: Path, text: str) -> None:
    """Atomic."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _move_aside(folder: Path) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    shutil.move(str(folder), str(aside))
