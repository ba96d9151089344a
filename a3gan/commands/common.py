"""What several commands share."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def keep_freed_memory() -> None:
    """Freed memory stays with the process, for glibc's allocator; elsewhere nothing happens. Before any thread starts.

    Networks ask for megabytes and give them back, layer by layer. glibc hands these back to the kernel, which clears
    them again page by page: an eighth of the CPU time of a blurred 1080p clip.
    """
    trim_threshold, map_threshold, most_arenas = -1, -3, -8  # of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(map_threshold, 32 * 2**20)  # the most that it takes
        mallopt(trim_threshold, 2**30)
        mallopt(most_arenas, 1)  # those of other threads are cut into pieces that go back whatever is set
