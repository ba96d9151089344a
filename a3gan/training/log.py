"""Where a run's numbers go: log.jsonl always, TensorBoard when installed, a progress bar when someone is watching."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from a3gan.files import not_written, replacing

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
        self.waiting = b""  # lines that the disk has not taken yet
        try:
            _truncate(self.path, start, over=start >= total)
            # Unbuffered: what the disk refuses must not be written half, later.
            self.file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise not_written(self.path, error) from error
        self.events = _event_writer(folder, start) if tensorboard else None
        self.hook, threading.excepthook = threading.excepthook, self._thread_failed
        self.silent = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, unit="img", dynamic_ncols=True, disable=self.silent)
        self.start, self.total, self.began, self.spoken = start, total, time.monotonic(), 0.0

    def advance(self, images: int) -> None:
        self.bar.update(images)

    def scalars(self, images: int, values: dict[str, float], kind: str = "train") -> None:
        """One JSON line ``{"images", "kind", ...}`` and one TensorBoard point a value."""
        line = {"images": images, "kind": kind, **{name: _short(value) for name, value in values.items()}}
        self._line(json.dumps(line) + "\n")
        self._event(lambda events: [events.add_scalar(f"{kind}/{n}", v, images) for n, v in values.items()])
        if not self.silent:
            loss = next((value for name, value in values.items() if name in _TOTALS), None)
            self.bar.set_postfix_str("" if loss is None else f"loss {loss:.4g}")
        elif kind != "train" or time.monotonic() - self.spoken > _PLAIN_EVERY:
            self.spoken = time.monotonic()
            logger.info("%s %d/%d images, %s: %s", kind, images, self.total, self._left(images), _words(values))

    def image(self, images: int, picture: Tensor) -> None:
        """`picture`: uint8 [3,H,W]."""
        self._event(lambda events: events.add_image("sheet", picture, images))

    def close(self) -> None:
        self.bar.close()
        if self.waiting:
            self._line("")
        self.file.close()
        self._event(lambda events: events.close())
        threading.excepthook = self.hook

    def _line(self, text: str) -> None:
        """Appends whole lines. Those that a full disk refuses wait for the next one."""
        refused = bool(self.waiting)
        self.waiting += text.encode("utf-8")
        whole = self.file.tell()
        try:
            if self.file.write(self.waiting) != len(self.waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.waiting = b""
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.truncate(whole)
                self.file.seek(whole)
            if not refused:
                logger.warning("%s; its lines are kept until there is room", not_written(self.path, error))

    def _event(self, write: Callable[[Any], object]) -> None:
        """TensorBoard's own thread dies of a full disk: then this sitting goes on without."""
        if self.events is None:
            return
        try:
            write(self.events)
        except OSError as error:
            self.events = None
            logger.warning("TensorBoard's events stop here (%s); log.jsonl has the same numbers", error)

    def _thread_failed(self, args: Any) -> None:
        """Instead of a traceback where TensorBoard's thread met the disk: the next event says it in a line."""
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            self.hook(args)

    def _left(self, images: int) -> str:
        done = images - self.start
        if done <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.began) / done * (self.total - images)
        return f"{seconds / 60:.1f} min left"


class NoLog:
    """What processes other than the first log to: nothing."""

    def advance(self, images: int) -> None: ...

    def scalars(self, images: int, values: dict[str, float], kind: str = "train") -> None: ...

    def image(self, images: int, picture: Tensor) -> None: ...

    def close(self) -> None: ...


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _words(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


def _truncate(path: Path, start: int, over: bool = False) -> None:
    """Drops what lies ahead of `start`; `over`: all is trained, so the last validation comes again as well."""
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            again = over and line["images"] == start and line["kind"] == "val"
            if line["images"] <= start and start > 0 and not again:
                kept.append(text + "\n")
        except (ValueError, KeyError):  # a line that a kill cut short
            continue
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _event_writer(folder: Path, start: int) -> object | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # noqa: BLE001  (an old tensorboard fails with more than ImportError)
        logger.warning("TensorBoard is not usable (%s); log.jsonl has the same numbers", error)
        return None
    try:
        return SummaryWriter(str(folder / "events"), purge_step=start if start else None)
    except OSError as error:
        logger.warning("%s; log.jsonl has the same numbers", not_written(folder / "events", error))
        return None
