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
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan.config import Config, save_config
from a3gan.errors import NotWritten, UserError
from a3gan.files import replacing, sweep
from a3gan.training import carry
from a3gan.training.batches import all_targets, build_data, training_batch
from a3gan.training.descent import descend
from a3gan.training.distributed import Group, local_rank, processes, share_state
from a3gan.training.ema import Ema
from a3gan.training.log import NoLog, RunLog
from a3gan.training.recovery import Recovery
from a3gan.training.sampler import IdentitySampler, Sampler, seed_everything
from a3gan.training.snapshots import Snapshots
from a3gan.training.stage import Batch, Stage
from a3gan.training.stages import stage_class
from a3gan.training.state import find_state, restore
from a3gan.training.summary import first_validation
from a3gan.training.tally import Tally

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)


def train(
    cfg: Config, max_minutes: float | None = None, fresh: bool = False, group: Group | None = None
) -> Path:
    """Trains (or goes on training) what `cfg` says; returns the run's folder. `group`: one that is formed already.

    Ends at train.total_images, after `max_minutes`, or at SIGTERM or SIGINT; each saves first. `fresh` moves an earlier
    run of the same folder aside. The folder then holds config.yaml, log.jsonl, events/, sheets/, checkpoint.safetensors
    (inference), state.safetensors (resume) and, when complete, metrics.json.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    device = prepare_device(cfg)
    with StopSignal() as stop, nullcontext(group) if group else processes(device) as group:
        _train(cfg, fresh, lambda: stop.asked or (deadline is not None and time.monotonic() >= deadline), group)
    return cfg.run_dir


def _train(cfg: Config, fresh: bool, stop: Callable[[], bool], group: Group) -> None:
    folder, device = cfg.run_dir, group.device
    group.together(lambda: part_size(cfg, group.world))
    # Before data and networks: a mismatch should show at once.
    found = share_state(group, group.on_first(lambda: _open(cfg, fresh)))
    data, val = group.together(lambda: build_data(cfg, device))
    stage, ema = group.together(lambda: build_stage(cfg, data, val, device))
    images_seen = group.together(lambda: restore(stage, ema, *found) if found else carry.begin(stage, ema))
    for networks in (stage.networks, ema.nets):
        group.copy_first(networks)
    log = group.on_first(lambda: _start_log(cfg, images_seen)) or NoLog()
    place = f"{group.world} x {device.type}" if group.world > 1 else str(device)
    logger.info("%s: %d faces, %s, from %d images on, in %s", cfg.stage, len(data.files), place, images_seen, folder)
    try:
        loop = Loop(cfg, stage, ema, data, group, folder, log)
        loop.recovery.load(found[1].get("recovery") if found else None)
        loop.run(images_seen, stop)
    finally:
        log.close()


def _open(cfg: Config, fresh: bool) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Makes the run's folder ready; what there is to go on from, or None."""
    folder = cfg.run_dir
    if fresh and folder.exists():
        _move_aside(folder)
    sweep(folder)
    sweep(folder / "sheets")
    return find_state(folder, cfg)


def _start_log(cfg: Config, images_seen: int) -> RunLog:
    folder = cfg.run_dir
    save_config(cfg.model_copy(update={"run": cfg.run.model_copy(update={"dir": str(folder)})}), folder / "config.yaml")
    return RunLog(folder, images_seen, cfg.train.total_images, cfg.run.tensorboard)


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
    if local_rank() >= torch.cuda.device_count():
        raise UserError(f"torchrun: --nproc_per_node is larger than the {torch.cuda.device_count()} CUDA devices here")
    return torch.device("cuda", local_rank()) if "RANK" in os.environ else torch.device("cuda")


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
        self, cfg: Config, stage: Stage, ema: Ema, data: FaceSet, group: Group, folder: Path, log: RunLog | NoLog
    ) -> None:
        self.cfg, self.stage, self.ema = cfg, stage, ema
        self.group, self.device, self.folder, self.log = group, group.device, folder, log
        self.sampler = group.together(lambda: build_sampler(cfg, data, group.world))
        self.targets = all_targets(stage.data, self.device)
        self.tally, self.recovery = Tally(group), Recovery(folder, stage, ema, group)
        self.since, self.since_images = time.monotonic(), 0
        self.snapshots = Snapshots(folder, stage, ema, data, self.recovery)

    def run(self, images_seen: int, stop: Callable[[], bool]) -> None:
        """From `images_seen` to the end, or until `stop()` on one of the processes.

        Process 0 alone looks at faces and writes, while the others wait.
        """
        cfg, size = self.cfg, self.cfg.train.batch_size
        self.snapshots.saved = images_seen or -1
        self.recovery.keep(images_seen)
        if images_seen == 0 and cfg.run.validate_first and not self.group.any(stop()):
            self.alone(self.validate, images_seen)
        self.since, self.since_images = time.monotonic(), images_seen
        while images_seen < cfg.train.total_images and not self.group.any(stop()):
            self.step(images_seen)
            images_seen += size
            told = crossed(images_seen, size, cfg.run.log_every)
            if told:
                self.log_losses(images_seen)
            if images_seen < cfg.train.total_images:  # the last ones are those of `finish`
                self.look(images_seen)
            wanted = crossed(images_seen, size, cfg.run.snapshot_every)
            if wanted:
                self.recovery.keep(images_seen)
            if wanted or told:  # a refused snapshot is tried again at the next log line
                self.alone(self.snapshot, images_seen, wanted)
        self.since, self.since_images = time.monotonic(), images_seen
        self.alone(self.finish, images_seen, stop)

    def alone(self, work: Callable[..., object], *args: Any) -> None:
        """`work(*args)` on process 0; an error there ends all of them."""
        self.group.on_first(lambda: work(*args))

    def step(self, images_seen: int) -> None:
        size, parts = self.cfg.train.batch_size, self.cfg.train.accumulate
        self.warm_up(images_seen)
        length, start = size // (parts * self.group.world), parts * self.group.rank
        makers = [partial(self.batch, images_seen + (start + part) * length) for part in range(parts)]
        outcome = descend(self.stage, makers, images_seen, self.group)
        if outcome.broken:
            self.recovery.meet(images_seen, outcome)
        else:
            self.tally.add(outcome.scalars)
            self.ema.update(self.stage.networks, size, images_seen + size)
        self.log.advance(size)

    def batch(self, position: int) -> Batch:
        """The micro-batch that begins with the run's image number `position`; also seeds all randomness of its step.

        By position, not by process: whoever computes these images draws the same numbers for them.
        """
        rows = self.sampler.batch(position)
        seed_everything(self.cfg.train.seed, "step", position)
        return training_batch(self.stage, rows, self.targets)

    def warm_up(self, images_seen: int) -> None:
        length = self.cfg.train.warmup_images
        if not length:
            return
        factor = min(1.0, (images_seen + self.cfg.train.batch_size) / length)
        for optimizer in self.stage.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def log_losses(self, images_seen: int) -> None:
        values = self.tally.take() | self.recovery.take()
        seconds = max(time.monotonic() - self.since, 1e-9)
        values["images_per_second"] = (images_seen - self.since_images) / seconds
        self.log.scalars(images_seen, values)
        self.since, self.since_images = time.monotonic(), images_seen

    def look(self, images_seen: int) -> None:
        """The sheet and the validation that the last step reached."""
        size, run = self.cfg.train.batch_size, self.cfg.run
        if crossed(images_seen, size, run.sheet_every):
            self.alone(self.draw_sheet, images_seen)
        if crossed(images_seen, size, run.validate_every):
            self.alone(self.validate, images_seen)

    def draw_sheet(self, images_seen: int) -> None:
        with evaluating(self.stage, self.ema) as nets:
            sheet = self.stage.sheet(nets)
        if sheet is None:
            return
        from a3gan.data.ranges import to_pil, to_uint8

        picture = to_uint8(sheet.float().cpu())
        try:
            with replacing(self.folder / "sheets" / f"{images_seen:09d}.png") as temporary:
                to_pil(picture).save(temporary, format="png")
        except NotWritten as error:
            logger.warning("no sheet at %d images: %s", images_seen, error)
        self.log.image(images_seen, picture)

    def validate(self, images_seen: int) -> dict[str, float]:
        seed_everything(self.cfg.train.seed, "validate")
        with evaluating(self.stage, self.ema) as nets:
            metrics = {name: float(value) for name, value in self.stage.validate(nets).items()}
            if metrics:
                self.log.scalars(images_seen, metrics, kind="val")
            self.snapshots.keep_best(images_seen, nets, metrics)
        return metrics

    def snapshot(self, images_seen: int, wanted: bool) -> None:
        """Within the run, where one is wanted or still due: a disk that refuses is a warning."""
        if (wanted or self.snapshots.due) and images_seen < self.cfg.train.total_images:
            with evaluating(self.stage, self.ema) as nets:
                self.snapshots.write(images_seen, nets, {})

    def last_snapshot(self, images_seen: int, metrics: dict[str, float], stop: Callable[[], bool]) -> None:
        """At the end: the disk gets some time, then it is an error."""
        with evaluating(self.stage, self.ema) as nets:
            self.snapshots.insist(images_seen, nets, metrics, stop)

    def finish(self, images_seen: int, stop: Callable[[], bool]) -> None:
        """At the end of the run, or of this sitting: everything on disk."""
        if images_seen < self.cfg.train.total_images:
            if images_seen > self.snapshots.saved or not (self.folder / "state.safetensors").is_file():
                self.last_snapshot(images_seen, {}, stop)
            total = self.cfg.train.total_images
            logger.info("stopped at %d of %d images; the same command goes on", images_seen, total)
            return
        metrics = self.validate(images_seen)
        self.draw_sheet(images_seen)
        self.last_snapshot(images_seen, metrics, stop)
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


def part_size(cfg: Config, world: int) -> int:
    """Images of a micro-batch, of which each of `world` processes has train.accumulate; UserError where none fits."""
    t, parts = cfg.train, world * cfg.train.accumulate
    what = "batch_size", t.batch_size
    if t.identities_per_batch and t.batch_size % parts == 0:
        what = "identities_per_batch", t.identities_per_batch
    if what[1] % parts:
        raise UserError(
            f"train.{what[0]}: {what[1]} does not divide by processes x train.accumulate = {world} x {t.accumulate}; "
            f"take a multiple of {parts}"
        )
    return t.batch_size // parts


def build_sampler(cfg: Config, data: FaceSet, world: int = 1) -> Sampler | IdentitySampler:
    """Of micro-batches."""
    t, size = cfg.train, part_size(cfg, world)
    if t.identities_per_batch:
        return IdentitySampler(data.identity, size // t.images_per_identity, t.images_per_identity, t.seed)
    return Sampler(len(data.files), size, t.seed)


def crossed(images_seen: int, step: int, every: int) -> bool:
    """Whether the last step reached or passed a multiple of `every`; never for 0."""
    return every > 0 and images_seen // every > (images_seen - step) // every


def write_text(path: Path, text: str) -> None:
    """Atomic."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _move_aside(folder: Path) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    shutil.move(str(folder), str(aside))
