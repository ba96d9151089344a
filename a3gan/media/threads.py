"""How many threads torch's operations use beside the stages of the video pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T, R = TypeVar("T"), TypeVar("R")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_all_cores(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[work(item) for item in items]``, as many at the same time as cores are left by torch's own threads.

    Work that goes to and fro between torch and Python fills hardly more than one core by itself.
    """
    count = min(max(1, cores() // max(1, torch.get_num_threads())), len(items))
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

    Also a decorator. The number is of the whole process, so torch work in other threads of a caller has it meanwhile.
    """
    before = torch.get_num_threads()
    wanted = before if "OMP_NUM_THREADS" in os.environ else min(before, max(1, cores() // 2))
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        if wanted != before:
            torch.set_num_threads(before)
