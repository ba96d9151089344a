"""`a3gan sweep FILE`: variants of one training config in turn, with equal budget, and the table that compares them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from a3gan.config import Config, all_keys, check, flatten, load_as, load_config, read
from a3gan.errors import NotWritten, UserError
from a3gan.schema import Section, key

if TYPE_CHECKING:
    from a3gan.training.distributed import Group

log = logging.getLogger(__name__)

_EQUAL = ("train.total_images", "train.batch_size", "train.seed", "data.")  # what makes figures comparable


class SweepConfig(Section):
    config: str = key(..., "training config of every variant: a file or the name of a shipped one")
    dir: str = key("runs/sweep", "folder of the sweep: one run a variant, and the tables")
    set: dict[str, Any] = Field(default_factory=dict, description="training keys (dotted) of every variant")
    variants: dict[str, dict[str, Any]] = key(..., "name -> the training keys in which it differs", min_length=1)
    only: list[str] = key([], "run only these variants; empty = all")

    @field_validator("variants")
    @classmethod
    def _names(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in variants:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"{name!r}: a variant's name becomes a folder: letters, digits, _ and - only")
        return variants


@dataclass
class Variant:
    """One run of a sweep. status: 'waiting', 'done', 'stopped' or 'failed' (`error` says why)."""

    name: str
    changes: dict[str, Any]
    cfg: Config
    status: str = "waiting"
    error: str = ""
    images: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.cfg.run_dir


def is_sweep(path: str | Path) -> bool:
    """Whether a YAML is a sweep's: it names variants."""
    return "variants" in read(path)[0]


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> tuple[SweepConfig, list[Variant]]:
    """A sweep file with `key=value` overrides: keys of the sweep (dir, only, ...), all others for every training.

    Raises:
        UserError: a file, key or value that is wrong (the variant is named), or variants of unequal budget.
    """
    if not is_sweep(path):
        raise UserError(f"{path}: names no variants, so it is no sweep's (configs/ablation.yaml is); `a3gan train` it")
    own = set(all_keys(SweepConfig))
    mine = [o for o in overrides if o.partition("=")[0].strip() in own]
    theirs = [o for o in overrides if o not in mine]
    sweep = load_as(SweepConfig, path, mine)
    unknown = [name for name in sweep.only if name not in sweep.variants]
    if unknown:
        raise UserError(f"{path}: only: no variant {unknown[0]!r}; there are {', '.join(sweep.variants)}")
    variants = []
    for name, changes in sweep.variants.items():
        if sweep.only and name not in sweep.only:
            continue
        where = {"run.dir": (Path(sweep.dir) / name).as_posix()}
        try:  # the command line goes over the file's common keys, what makes the variant over both
            cfg = load_config(sweep.config, [*_words(sweep.set), *theirs, *_words(changes | where)])
        except UserError as error:
            raise UserError(f"{path}: variant {name}: {error}") from error
        variants.append(Variant(name, changes, cfg))
    _same_budget(path, variants)
    return sweep, variants


def _words(values: dict[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def _same_budget(path: str | Path, variants: list[Variant]) -> None:
    first, values = variants[0], flatten(variants[0].cfg.model_dump(mode="json"))
    for other in variants[1:]:
        for name, value in flatten(other.cfg.model_dump(mode="json")).items():
            if name.startswith(_EQUAL) and value != values.get(name):
                raise UserError(
                    f"{path}: {name} is {values.get(name)!r} in variant {first.name} and {value!r} in {other.name}; "
                    "variants see the same images in equal number: set it for all"
                )


def run(
    path: str | Path, overrides: list[str] | tuple[str, ...] = (), max_minutes: float | None = None
) -> tuple[Path, list[Variant], str]:
    """Trains what is not done yet and writes table.md, results.json, bars.png and faces.png into the sweep's folder.

    A variant that is done is skipped, one that was interrupted goes on. One that fails is noted and the next begins.
    `max_minutes`, SIGTERM or Ctrl-C end the running variant at a snapshot and then the sweep. Under torchrun the
    processes train each variant together, and process 0 reads and writes the folder.

    Returns:
        (folder, variants, the table as text; empty in processes other than the first).
    """
    from a3gan import sweep_report
    from a3gan.training.distributed import processes
    from a3gan.training.trainer import prepare_device, train

    sweep, variants = load(path, overrides)
    _refuse_missing(path, variants)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    with processes(prepare_device(variants[0].cfg)) as group:

        def report() -> str:
            return sweep_report.write(Path(sweep.dir), variants)

        _share_stock(variants, group)
        for number, variant in enumerate(variants, start=1):
            if variant.status == "done":
                log.info("variant %d of %d, %s: done before", number, len(variants), variant.name)
                continue
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            if group.any(left is not None and left <= 0):
                break
            log.info("variant %d of %d: %s", number, len(variants), variant.name)
            _train(variant, partial(train, variant.cfg, max_minutes=left, group=group), group)
            group.on_first(report)  # after each, so that there is something to look at
            if variant.status == "stopped":
                break
        return Path(sweep.dir), variants, group.on_first(report) or ""


def _refuse_missing(path: str | Path, variants: list[Variant]) -> None:
    """Before hours go into the variants whose weights are there."""
    from a3gan.training.stages import stage_class

    for variant in variants:
        missing = stage_class(variant.cfg.stage).missing_weights(variant.cfg)
        if missing:
            raise UserError(f"{path}: variant {variant.name}: {missing[0]}")


def _train(variant: Variant, train: Callable[[], Path], group: Group) -> None:
    """Trains it and sets its status, alike in all processes. NotWritten ends the sweep: the next would meet that disk.

    So does what only one process knows of: the others wait for it in the middle of a step.
    """
    from a3gan.training.distributed import Elsewhere

    problem: UserError | Elsewhere | None = None
    try:
        train()
    except (UserError, Elsewhere) as error:
        if group.world > 1 and isinstance(error, UserError) and not getattr(error, "known_to_all", False):
            raise
        problem = error
    told = group.gather((isinstance(problem, NotWritten), str(problem) if isinstance(problem, UserError) else ""))
    if problem is not None and any(unwritten for unwritten, _ in told):
        raise problem
    errors = [text for _, text in told if text]
    if errors:
        variant.status, variant.error = "failed", errors[0]
        log.warning("variant %s: %s", variant.name, variant.error)
        return
    _share_stock([variant], group)
    if variant.status != "done":
        variant.status = "stopped"


def _share_stock(variants: list[Variant], group: Group) -> None:
    """`take_stock` on process 0, which sees the runs' folders; its findings for all."""
    if group.first:
        for variant in variants:
            take_stock(variant)
    for variant, status in zip(variants, group.gather([v.status for v in variants])[0], strict=True):
        variant.status = status


def take_stock(variant: Variant) -> None:
    """Sets status, images and metrics from the run's folder; a run of another config counts as not done."""
    record, config = variant.folder / "metrics.json", variant.folder / "config.yaml"
    if not record.is_file() or not config.is_file():
        return
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        was = flatten(check(read(config)[0], source=str(config)).model_dump(mode="json"))
    except (ValueError, UserError):
        return
    now = flatten(variant.cfg.model_dump(mode="json"))
    same = all(was.get(k) == v for k, v in now.items() if not k.startswith("run."))
    if same and found["images_seen"] >= variant.cfg.train.total_images:
        variant.status, variant.images, variant.metrics = "done", found["images_seen"], found["metrics"]


def dry_run(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> str:
    """What a sweep would train, in lines."""
    from a3gan.training.stages import stage_class

    sweep, variants = load(path, overrides)
    first = variants[0].cfg
    lines = [f"{sweep.config}, {first.train.total_images} images each, seed {first.train.seed}, in {sweep.dir}"]
    for variant in variants:
        take_stock(variant)
        what = ", ".join(f"{k}={json.dumps(v)}" for k, v in variant.changes.items()) or "as it is"
        missing = stage_class(variant.cfg.stage).missing_weights(variant.cfg)
        lines.append(f"{variant.name:20} {variant.status:8} {what}" + "".join(f"\n  missing: {m}" for m in missing))
    return "\n".join(lines)
