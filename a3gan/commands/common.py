"""What several commands share."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def debug_option(function: Callable) -> Callable:
    """Adds --debug to a command; the last line of defence in `a3gan.cli.main` reads it."""

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().obj["debug"] = True

    text = "Show the traceback of an error."
    return click.option("--debug", is_flag=True, expose_value=False, is_eager=True, callback=note, help=text)(function)


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of a command: the garbage collector rests, and later passes over what torch's have made.

    That is half a million objects that all stay. Walking through them, again and again while they come and once more
    at exit, took more than half a second of a command's time.
    """
    first, running = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        if running:
            gc.enable()


def keep_freed_memory(warm: int = 0) -> None:
    """Freed memory stays with the process, for glibc's allocator; elsewhere nothing happens. Before any thread starts.

    Networks ask for megabytes and give them back, layer by layer. glibc hands these back to the kernel, which clears
    them again page by page: an eighth of the CPU time of a blurred 1080p clip.

    warm: bytes that a thread touches beforehand, while this one imports: the kernel clears a page at its first touch,
    and a virtual machine may have to fetch it from its host first, which took 0.8 to 3.4 s a GiB. Left out where there
    is no core or no memory to spare.
    """
    trim_threshold, map_threshold, most_arenas = -1, -3, -8  # of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(map_threshold, 32 * 2**20)  # the most that it takes
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(most_arenas, 1)  # those of other threads are cut into pieces that go back whatever is set
    except (OSError, AttributeError, TypeError):  # another C library
        return
    from a3gan.media.threads import cores

    if warm and cores() > 1 and _free_memory() > 8 * warm:
        with contextlib.suppress(RuntimeError):  # no thread to be had
            threading.Thread(target=_touch, args=(libc, warm), name="a3gan-warm", daemon=True).start()


def _free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that nothing uses, of what a container (control group v2) may have; 0 where the system says nothing."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
    with contextlib.suppress(OSError, ValueError):  # no such file, or 'max': no limit
        free = min(free, int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text()))
    return free


def _touch(libc: ctypes.CDLL, size: int, block: int = 8 * 2**20) -> None:
    """Asks for `size` bytes at once, and gives them back block by block, each touched."""
    malloc, free = libc.malloc, libc.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [malloc(block) for _ in range(size // block)]
    for address in filter(None, blocks):
        ctypes.memset(address, 0, block)
        free(address)
