"""What becomes of a run whose step is not finite: skip it; once, go back; then stop and say which term it was."""

from __future__ import annotations

import copy
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from a3gan import checkpoint
from a3gan.errors import NotWritten, UserError
from a3gan.training.descent import Outcome
from a3gan.training.distributed import Group
from a3gan.training.ema import Ema

if TYPE_CHECKING:
    from a3gan.training.stage import Stage

logger = logging.getLogger(__name__)
SOON = 100  # steps; a second step within them is no accident of one batch


class Recovery:
    """A step that is not finite moves no weight and no average (descent.py), so one alone is only skipped.

    A second one within `SOON` steps says that the weights themselves have come to a bad place: networks, averages and
    optimisers go back to where `keep` was last called, and the run goes on with the images that come next (the same
    ones would end the same). If it happens yet again that soon, the run ends. Processes see the same gradients, so they
    decide alike without asking.
    """

    def __init__(self, folder: Path, stage: Stage, ema: Ema, group: Group) -> None:
        self.folder, self.stage, self.ema, self.group = folder, stage, ema, group
        self.last: int | None = None  # images seen at the last step that was not finite
        self.went_back: int | None = None  # images seen of the weights that it went back to
        self.skipped: dict[str, int] = {}  # term -> steps skipped, since the trainer last took them for its log

    def keep(self, images_seen: int) -> None:
        """A copy in the CPU's memory of all that training moves: what to go back to."""
        self.kept = (images_seen, _copy(self._state()), dict(self.stage.plain_state()))

    def state(self) -> dict[str, Any]:
        """JSON-able: what has happened so far, for a resumed run to count on from."""
        return {"last": self.last, "went_back": self.went_back, "skipped": dict(self.skipped)}

    def load(self, state: dict[str, Any] | None) -> None:
        """Takes back what `state` gave; None (a new run, or a file without it): nothing has happened."""
        state = state or {}
        self.last, self.went_back = state.get("last"), state.get("went_back")
        self.skipped = dict(state.get("skipped", {}))

    def meet(self, images_seen: int, outcome: Outcome) -> None:
        """After a step at `images_seen` that `outcome.broken` names; raises UserError where it must end."""
        terms = ", ".join(outcome.broken)
        for name in outcome.broken:
            self.skipped[name] = self.skipped.get(name, 0) + 1
        where = self._save(images_seen, outcome)
        size = self.stage.cfg.train.batch_size
        again = self.last is not None and images_seen - self.last <= SOON * size
        self.last = images_seen
        if not again:
            words = "not finite at %d images: %s; the step is skipped, its batch is in %s"
            logger.warning(words, images_seen, terms, where)
        elif self.went_back is None:
            self._go_back()
            words = "again not finite at %d images: %s; back to the weights at %d images"
            logger.warning(words, images_seen, terms, self.went_back)
        else:
            error = UserError(
                f"{self.folder}: not finite at {images_seen} images: {terms}; going back to the weights at "
                f"{self.went_back} images did not help; the batch is in {where}; the last snapshot is sound: "
                "the same command goes on from it with train.grad_clip=1 or run.precision=float32; with a lower "
                "train.lr begin anew (--fresh)"
            )
            self.group.on_first(partial(_fail, error))

    def take(self) -> dict[str, float]:
        """`skipped/<term>` -> steps that it cost since the last call."""
        taken, self.skipped = self.skipped, {}
        return {f"skipped/{name}": float(count) for name, count in taken.items()}

    def _state(self) -> list[Any]:
        nets = [*self.stage.networks.values(), *self.ema.nets.values()]
        return [net.state_dict() for net in nets] + [o.state_dict() for o in self.stage.optimizers.values()]

    def _go_back(self) -> None:
        nets = [*self.stage.networks.values(), *self.ema.nets.values()]
        for part, state in zip([*nets, *self.stage.optimizers.values()], self.kept[1], strict=True):
            part.load_state_dict(_copy(state))
        self.stage.load_plain_state(dict(self.kept[2]))
        self.went_back = self.kept[0]

    def _save(self, images_seen: int, outcome: Outcome) -> Path:
        """The batch as a file beside the snapshots; a disk that refuses is no reason to stop."""
        rank = f".process{outcome.holder}" if outcome.holder else ""
        path = self.folder / f"nonfinite_batch{rank}.safetensors"
        if outcome.holder != self.group.rank:
            return path
        tensors = {
            "images": torch.cat([batch.images for batch in outcome.batches]),
            "index": torch.cat([batch.index for batch in outcome.batches]),
        }
        try:
            checkpoint.save(path, tensors, {"images_seen": images_seen, "terms": outcome.broken})
        except NotWritten as error:
            logger.warning("the batch is lost: %s", error)
        return path


def _fail(error: UserError) -> None:
    raise error


def _copy(value: Any) -> Any:
    """Deep, tensors to the CPU with their memory layout, so that optimisers add in the same order again."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((k, _copy(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_copy(v) for v in value)
    return copy.copy(value)
