"""Writing files so that a reader finds the old one or the new one whole, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
