"""Pass 1 of a command's first video, begun while the networks of pass 2 are still being loaded: `EarlySearch`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a3gan.media.jobs import Job
from a3gan.media.threads import beside_stages

if TYPE_CHECKING:
    from a3gan.media.pipeline import Found
    from a3gan.media.settings import Settings


class Left(Exception):
    """Inside the search: nobody wants it any more."""


class EarlySearch:
    """`find_tracks` of one file in a thread. A context manager: leaving it stops a search that still runs.

    progress: (stage, frames done, of all), may be set at any time; called in the thread.
    """

    def __init__(self, source: Path, settings: Settings, detector: Callable[[], Any]):
        self.source, self.progress = source, None
        self._settings, self._detector = settings, detector
        self._found: Found | None = None
        self._error: BaseException | None = None
        self._left, self._stack = threading.Event(), ExitStack()
        self._thread = threading.Thread(target=self._search, name="a3gan-early", daemon=True)

    @classmethod
    def of(
        cls, jobs: Sequence[Job], settings: Settings, overwrite: bool, detector: Callable[[], Any]
    ) -> EarlySearch | None:
        """Of the first of the jobs; None where that is no video, or may not have to be searched."""
        first = jobs[0]
        if first.kind != "video" or settings.detections is not None or (first.output.exists() and not overwrite):
            return None
        return cls(first.source, settings, detector)

    def __enter__(self) -> EarlySearch:
        # Here and not in the thread alone: OpenMP keeps the number for each thread that sets it.
        self._stack.enter_context(beside_stages())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        self._stack.close()

    def found(self) -> Found:
        """What was found, when it is; raises what the search raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def _search(self) -> None:
        from a3gan.media.pipeline import find_tracks

        try:
            self._found = find_tracks(self.source, self._detector, self._settings, self._note)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it must reach who asks for the result)
            self._error = error

    def _note(self, stage: str, done: int, total: int | None) -> None:
        if self._left.is_set():
            raise Left
        if self.progress is not None:
            self.progress(stage, done, total)
