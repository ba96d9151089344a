"""When a run is written down, and what happens when the disk refuses: go on, try again, and say so at the end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from a3gan import checkpoint
from a3gan.errors import NotWritten, UserError
from a3gan.training.carry import save_carry
from a3gan.training.ema import Ema
from a3gan.training.recovery import Recovery
from a3gan.training.stage import Stage
from a3gan.training.state import BEST, CHECKPOINT, save_inference, save_state

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)
RETRY = 10.0  # seconds between two attempts at the end of a run


class Snapshots:
    """The snapshots of one run. `saved`: images seen at the newest one on disk, -1 before the first.

    Nobody watches an unattended run, and a disk that another job filled may have room again in an hour. So a snapshot
    that cannot be written is a warning; the one before stays whole, and the run tries again. Only at the end, after
    run.save_patience, is it an error.
    """

    def __init__(self, folder: Path, stage: Stage, ema: Ema, data: FaceSet, recovery: Recovery) -> None:
        self.folder, self.stage, self.ema, self.data, self.recovery = folder, stage, ema, data, recovery
        self.saved = -1
        self.due = False  # one was refused and is to be tried again
        self.problem: NotWritten | None = None

    def write(self, images_seen: int, nets: dict[str, nn.Module], metrics: dict[str, float]) -> bool:
        """Inference checkpoint, state and, with run.carry, the carry; `nets` are the averaged networks. False where the
        disk refused.
        """
        keep = self.stage.cfg.run.keep_last
        try:
            save_inference(self.folder / CHECKPOINT, self.stage, nets, images_seen, self.data, metrics, keep)
            save_state(self.folder, self.stage, self.ema, images_seen, recovery=self.recovery.state())
            if self.stage.cfg.run.carry:
                save_carry(self.folder, self.stage, self.ema, images_seen)
        except NotWritten as error:
            if self.problem is None or not self.due:
                logger.warning("no snapshot at %d images: %s; training goes on and tries again", images_seen, error)
            self.due, self.problem = True, error
            return False
        if self.due:
            logger.warning("the snapshot is on disk again, at %d images", images_seen)
        self.due, self.saved = False, images_seen
        return True

    def insist(
        self, images_seen: int, nets: dict[str, nn.Module], metrics: dict[str, float], stop: Callable[[], bool]
    ) -> None:
        """The last snapshot of a sitting: tries for run.save_patience minutes, or until `stop()`; then UserError."""
        deadline = time.monotonic() + 60 * self.stage.cfg.run.save_patience
        while not self.write(images_seen, nets, metrics):
            if stop() or time.monotonic() >= deadline:
                last = f"the last snapshot is of {self.saved} images" if self.saved >= 0 else "there is no snapshot"
                raise UserError(f"{self.problem}; at the end of {images_seen} images, {last}: the same command goes on")
            time.sleep(RETRY)

    def keep_best(self, images_seen: int, nets: dict[str, nn.Module], metrics: dict[str, float]) -> bool:
        """Writes best.safetensors where these metrics beat those in the one on disk, by run.best; whether it did.

        The file is its own record, so that a resumed run knows what there is to beat. The untrained networks (0 images)
        do not compete: a picture of nothing has the lowest identity cosine of all. UserError for an unknown metric.
        """
        wanted = self.stage.cfg.run.best
        if wanted is None or not metrics:
            return False
        name, goal = wanted.split()
        if name not in metrics:
            raise UserError(f"run.best: no metric {name!r} in this run's validation; it has {', '.join(metrics)}")
        value, path = metrics[name], self.folder / BEST
        if images_seen == 0 or not math.isfinite(value):
            return False
        before = best_so_far(path, wanted)
        if before is not None and not (value < before if goal == "min" else value > before):
            return False
        best = {"metric": name, "goal": goal, "value": value}
        try:
            save_inference(path, self.stage, nets, images_seen, self.data, metrics, best=best)
        except NotWritten as error:
            logger.warning("the best so far (%s %.6g, at %d images) is lost: %s", name, value, images_seen, error)
            return False
        logger.info("best so far: %s %.6g, at %d images", name, value, images_seen)
        return True


def best_so_far(path: Path, wanted: str) -> float | None:
    """The value that best.safetensors reached by this metric and goal; None where it has none of that kind."""
    if not path.is_file():
        return None
    try:
        best = checkpoint.load_meta(path).get("best", {})
    except UserError as error:
        logger.warning("%s; a new one takes its place", error)
        return None
    same = f"{best.get('metric')} {best.get('goal')}" == wanted
    return best["value"] if same else None
