"""What makes `prepare` restartable: finished pictures are kept in a folder beside the output until it is whole."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

log = logging.getLogger(__name__)


class Journal:
    """Append-only store: `pictures.bin` holds the encoded pictures, `journal.jsonl` one line each (key, place, row).

    The first line of the journal holds the settings; with other settings everything starts over. A line cut short by
    a kill is dropped with what followed its picture, so that a restart loses at most the picture under way.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.settings = folder, settings
        self.rows: dict[str, dict[str, str]] = {}
        self._place: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines, pictures = self.folder / "journal.jsonl", self.folder / "pictures.bin"
        good = self._recover(lines, pictures)
        # Both are cut to their last whole entry before anything is appended.
        self._lines = lines.open("r+b" if lines.exists() else "w+b")
        self._pictures = pictures.open("r+b" if pictures.exists() else "w+b")
        self._lines.truncate(good)
        self._lines.seek(good)
        self._end = max((start + length for start, length in self._place.values()), default=0)
        self._pictures.truncate(self._end)
        if not good:
            self._lines.write(json.dumps({"settings": self.settings}).encode() + b"\n")
        elif self.rows:
            log.info("%s: continuing after %d pictures", self.folder, len(self.rows))
        return self

    def _recover(self, lines: Path, pictures: Path) -> int:
        """Read what an earlier run left; returns the length of the valid part of the journal (0 = start over)."""
        if not lines.is_file() or not pictures.is_file():
            return 0
        stored, good = pictures.stat().st_size, 0
        with lines.open("rb") as handle:
            for number, line in enumerate(handle):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                    if number == 0:
                        if entry["settings"] != self.settings:
                            log.info("%s: other settings; starting over", self.folder)
                            return 0
                    else:
                        start, length = entry["place"]
                        if start + length > stored:
                            break
                        self.rows[entry["key"]], self._place[entry["key"]] = entry["row"], (start, length)
                except (ValueError, TypeError, KeyError):
                    break
                good += len(line)
        return good

    def add(self, key: str, data: bytes, row: dict[str, str]) -> None:
        """Store one finished picture (data b"" for a skipped one)."""
        if data:
            self._pictures.seek(self._end)
            self._pictures.write(data)
            self._pictures.flush()
        place = (self._end, len(data))
        self._lines.write(json.dumps({"key": key, "place": place, "row": row}).encode() + b"\n")
        self._lines.flush()
        self._end += len(data)
        self.rows[key], self._place[key] = row, place

    def read(self, key: str) -> bytes:
        """The encoded picture stored under a key."""
        start, length = self._place[key]
        self._pictures.seek(start)
        return self._pictures.read(length)

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._pictures.close()

    def remove(self) -> None:
        """Delete the folder: the archive is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)
