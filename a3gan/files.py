"""Writing files so that a reader finds the old one or the new one whole, whatever happens in between."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from a3gan.errors import NotWritten


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """`with replacing(path) as temporary`: write to `temporary`; it becomes `path` at once, or not at all.

    The folder is made where it is missing. An OSError in the block becomes NotWritten, one line that names `path`.
    A kill may leave the temporary file; `sweep` removes it.
    """
    path = Path(path)
    # Hidden, without the file's suffix, short enough for any name, and one per thread.
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def not_written(path: str | Path, error: OSError) -> NotWritten:
    """The one line for a file that the system would not let us write."""
    return NotWritten(f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder")


def sweep(folder: Path) -> list[Path]:
    """Removes and returns the temporary files that killed writers left in `folder`, which has one writer at a time."""
    left = [path for path in folder.glob(".*.tmp") if path.is_file()]
    for path in left:
        with suppress(OSError):
            path.unlink()
    return left


_LEFT = re.compile(r"^\.(?P<name>.+?)\.(?P<pid>\d+)(\.\d+)?\.tmp$")


def sweep_dead(paths: Iterable[Path]) -> list[Path]:
    """Removes and returns the temporary files of these outputs whose writers were killed.

    Only files that bear an output's name and the number of a process that does not run here any more; so writers of
    other outputs in the same folder, on this machine or another one, are left in peace.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).update((path.name, path.stem[:40]))
    left = []
    for folder, known in names.items():
        if not folder.is_dir():
            continue
        for path in folder.glob(".*.tmp"):
            match = _LEFT.match(path.name)
            if match and match["name"] in known and not _runs(int(match["pid"])):
                with suppress(OSError):
                    path.unlink()
                    left.append(path)
    return left


def _runs(pid: int) -> bool:
    """Whether a process of that number runs. On Windows always False: there, an open file cannot be removed anyway,
    and asking as on other systems would end the process."""
    if pid == os.getpid():
        return True
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True
