"""Stages that overlap: each runs in a thread of its own and hands its items on through a bounded queue.

A stage is an iterator; `Flow.ahead` runs it in a thread and gives its items in order. Chained, they form a pipeline
that holds no more items than its queues do:

    with Flow() as flow:
        frames = flow.ahead("decode", reader)
        faces = flow.ahead("align", align(frames))
        for item in faces: ...

What one stage raises comes out of the stages after it, so at last out of the loop; leaving the block stops the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
DEPTH = 4  # items that wait between two stages
_TICK = 0.05  # seconds after which a blocked stage looks whether all is to stop


class Stopped(Exception):
    """Inside a stage: another one failed, or the consumer left."""


class Flow:
    """Threads of one run. `busy`: seconds that each stage worked, waiting for others not counted."""

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}
        self._waited: dict[int, float] = {}  # thread -> seconds spent at queues
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops and joins every stage."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def ahead(self, name: str, items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
        """The items, made in a thread of their own up to `depth` ahead of who takes them; its errors are raised here.

        Errors get a note with the stage's name (`stage_of`), the first stage's in a chain.
        """
        line: queue.Queue = queue.Queue(depth)
        thread = threading.Thread(target=self._work, args=(name, items, line), name=f"a3gan-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._take(line)

    def waited(self) -> float:
        """Seconds that the calling thread spent waiting at queues."""
        return self._waited.get(threading.get_ident(), 0.0)

    def _work(self, name: str, items: Iterable[T], line: queue.Queue) -> None:
        began = time.perf_counter()
        iterator = iter(items)
        try:
            for item in iterator:
                self._put(line, (item, None))
            self._put(line, (None, StopIteration()))
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  (whatever it is, it must reach the consumer)
            if stage_of(error) is None:
                error.add_note(_NOTE + name)
            try:
                self._put(line, (None, error))
            except Stopped:
                pass
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
            self.busy[name] = self.busy.get(name, 0.0) + time.perf_counter() - began - self.waited()

    def _put(self, line: queue.Queue, item: object) -> None:
        self._wait(lambda: line.put(item, timeout=_TICK), queue.Full)

    def _take(self, line: queue.Queue) -> Iterator[T]:
        while True:
            item, error = self._wait(lambda: line.get(timeout=_TICK), queue.Empty)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item

    def _wait(self, attempt, blocked: type[Exception]):  # noqa: ANN001, ANN202
        began = time.perf_counter()
        try:
            while not self._stop.is_set():
                try:
                    return attempt()
                except blocked:
                    continue
            raise Stopped
        finally:
            ident = threading.get_ident()
            self._waited[ident] = self._waited.get(ident, 0.0) + time.perf_counter() - began


_NOTE = "a3gan stage: "


def stage_of(error: BaseException) -> str | None:
    """Which stage raised it, if it came through a `Flow`."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith(_NOTE)]
    return notes[0][len(_NOTE) :] if notes else None
