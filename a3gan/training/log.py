"""Where a run's numbers go: log.jsonl always, TensorBoard when installed, a progress bar when someone is watching."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from torch import Tensor

logger = logging.getLogger(__name__)
_TOTALS = ("loss", "loss/total", "generator/loss")  # the one number beside the bar
_PLAIN_EVERY = 30.0  # seconds between progress lines where no terminal shows the bar


class RunLog:
    """Writes under `folder`; `start` is the number of images seen when the (resumed) run begins.

    A resumed run first drops lines beyond `start`: they belong to steps that a kill undid.
    """

    def __init__(self, folder: Path, start: int, total: int, tensorboard: bool) -> None:
        from tqdm import tqdm

        self.path = folder / "log.jsonl"
        _truncate(self.path, start)
        self.file = open(self.path, "a", encoding="utf-8")
        self.events = _event_writer(folder, start) if tensorboard else None
        self.silent = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, unit="img", dynamic_ncols=True, disable=self.silent)
        self.start, self.total, self.began, self.spoken = start, total, time.monotonic(), 0.0

    def advance(self, images: int) -> None:
        self.bar.update(images)

    def scalars(self, images: int, values: dict[str, float], kind: str = "train") -> None:
        """One JSON line ``{"images", "kind", ...}`` and one TensorBoard point a value."""
        line = {"images": images, "kind": kind, **{name: _short(value) for name, value in values.items()}}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(f"{kind}/{name}", value, images)
        if not self.silent:
            loss = next((value for name, value in values.items() if name in _TOTALS), None)
            self.bar.set_postfix_str("" if loss is None else f"loss {loss:.4g}")
        elif kind != "train" or time.monotonic() - self.spoken > _PLAIN_EVERY:
            self.spoken = time.monotonic()
            logger.info("%s %d/%d images, %s: %s", kind, images, self.total, self._left(images), _words(values))

    def image(self, images: int, picture: Tensor) -> None:
        """`picture`: uint8 [3,H,W]."""
        if self.events:
            self.events.add_image("sheet", picture, images)

    def close(self) -> None:
        self.bar.close()
        self.file.close()
        if self.events:
            self.events.close()

    def _left(self, images: int) -> str:
        done = images - self.start
        if done <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.began) / done * (self.total - images)
        return f"{seconds / 60:.1f} min left"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _words(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


def _truncate(path: Path, start: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["images"] <= start and start > 0:
                kept.append(line + "\n")
        except (ValueError, KeyError):  # a line that a kill cut short
            continue
    temporary = path.with_name(".log.jsonl.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _event_writer(folder: Path, start: int) -> object | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # noqa: BLE001  (an old tensorboard fails with more than ImportError)
        logger.warning("TensorBoard is not usable (%s); log.jsonl has the same numbers", error)
        return None
    return SummaryWriter(str(folder / "events"), purge_step=start if start else None)
