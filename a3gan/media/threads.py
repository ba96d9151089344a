"""How many threads torch's operations, decoders and encoders use beside the stages of the video pipeline."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")
_lock = threading.Lock()
_blocks = 0  # of `beside_stages` that are open, in all threads
_before = (0, 0, 0.0)  # threads of torch and of OpenCV outside of them, and the interpreter's switch interval
SWITCH = 0.0005  # seconds until a thread that waits asks the one that runs Python to let it


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def codec_threads() -> int:
    """Of a decoder, or an encoder as quick, beside the stages; 0 = as many as it likes.

    On two cores one thread kept up with the other stages (H.264 and MPEG-4 of up to 1080p), and cost less CPU time and
    memory than the three that would wait for one another (x264 at 1080p: 17 in place of 20 to 23 ms a frame).
    """
    return 1 if cores() <= 2 else 0


def at_once() -> int:
    """How many calls at the same time fill the cores, each of them with torch's threads."""
    import torch

    return max(1, cores() // max(1, torch.get_num_threads()))


def on_all_cores(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[work(item) for item in items]``, as many at the same time as cores are left by torch's own threads.

    Work that goes to and fro between torch and Python fills hardly more than one core by itself.
    """
    count = min(at_once(), len(items))
    if count < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))


@contextmanager
def beside_stages() -> Iterator[int]:
    """Half of the cores at most while the block runs, and afterwards as many as before; gives the number.

    Decoder, encoder and the other stages run in threads of their own. Where torch takes every core as well, its threads
    wait for one another by spinning: on two cores of a busy machine, searching 60 frames of 640x480 took 9 to 42 s
    with two threads and 2 to 4 s with one. Somebody who has set OMP_NUM_THREADS is left their choice.

    OpenCV has one thread a call meanwhile: what it is asked for here takes less time than waking its others. And a
    stage that computes asks for its turn after `SWITCH`, a tenth of the usual, where another one runs Python.

    Also a decorator. The numbers are of the whole process, so work in other threads of a caller has them meanwhile;
    blocks of several threads may overlap, and the last one out restores what was.
    """
    global _blocks, _before
    import cv2
    import torch

    with _lock:
        if not _blocks:
            _before = torch.get_num_threads(), cv2.getNumThreads(), sys.getswitchinterval()
            if "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(min(_before[0], max(1, cores() // 2)))
            cv2.setNumThreads(1)
            sys.setswitchinterval(min(SWITCH, _before[2]))
        _blocks += 1
    try:
        yield torch.get_num_threads()
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                torch.set_num_threads(_before[0])
                cv2.setNumThreads(_before[1])
                sys.setswitchinterval(_before[2])
