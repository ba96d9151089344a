"""The aligned archive on disk: one zip with `images/`, `index.csv` (one row a picture) and `meta.json`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from a3gan.data import align
from a3gan.errors import UserError

VERSION = 1
LANDMARK_COLUMNS = tuple(f"{point}_{axis}" for point in align.POINTS for axis in "xy")
MATRIX_COLUMNS = ("m00", "m01", "m02", "m10", "m11", "m12")
# Columns of index.csv that FaceSet keeps in fields of their own.
OWN_COLUMNS = ("file", "split", "identity", "outside", *LANDMARK_COLUMNS)


def landmark_cells(points: torch.Tensor) -> dict[str, str]:
    """Index cells of five points [5, 2] in aligned pixels."""
    return {c: f"{v:.3f}" for c, v in zip(LANDMARK_COLUMNS, points.reshape(-1).tolist(), strict=True)}


class ArchiveReader:
    """One archive opened for reading; safe to use from several threads.

    Raises:
        UserError: no such file, cut short, not written by `a3gan prepare`, newer version, smaller than the size
        wanted.
    """

    def __init__(self, path: str | os.PathLike, size: int | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such archive; make one with: a3gan prepare SRC -o {path}")
        try:
            self.zip = zipfile.ZipFile(self.path)
            meta = json.loads(self.zip.read("meta.json").decode("utf-8"))
            table = csv.DictReader(io.StringIO(self.zip.read("index.csv").decode("utf-8"), newline=""))
            self.rows = list(table)
            self.fields = list(table.fieldnames or ())
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: not a zip, or cut short ({error}); prepare it again") from error
        except (KeyError, ValueError) as error:
            raise UserError(f"{path}: not an archive of a3gan prepare; run: a3gan prepare {path} -o NEW.zip") from error
        if not isinstance(meta, dict) or meta.get("format") != "a3gan-faces":
            raise UserError(f"{path}: not an archive of a3gan prepare; run: a3gan prepare {path} -o NEW.zip")
        if meta.get("version") != VERSION:
            raise UserError(f"{path}: archive version {meta.get('version')}, not {VERSION}; prepare it again")
        missing = [c for c in OWN_COLUMNS if c not in self.fields]
        if missing:
            raise UserError(f"{path}: its index.csv lacks the column {missing[0]}; prepare it again")
        self.meta = meta
        self.frame: str = meta["frame"]
        self.stored_size: int = meta["size"]
        self.size = size or self.stored_size
        if self.size > self.stored_size:
            raise UserError(
                f"{path}: faces of {self.stored_size} px, {self.size} wanted; prepare it with --size {self.size}"
            )
        self._lock = threading.Lock()

    def read(self, names: Sequence[str]) -> torch.Tensor:
        """Members by name as uint8 [B, 3, S, S]; decoded by a few threads when there are many."""
        out = np.empty((len(names), 3, self.size, self.size), dtype=np.uint8)

        def one(i: int) -> None:
            out[i] = self._decode(names[i]).transpose(2, 0, 1)

        if len(names) < 64:
            for i in range(len(names)):
                one(i)
        else:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                for _ in pool.map(one, range(len(names)), chunksize=64):
                    pass
        return torch.from_numpy(out)

    def _decode(self, name: str) -> np.ndarray:
        try:
            with self._lock:
                data = self.zip.read(name)
            picture = Image.open(io.BytesIO(data)).convert("RGB")
        except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
            raise UserError(f"{self.path}: {name} is missing or damaged ({error}); prepare it again") from error
        if picture.size != (self.stored_size, self.stored_size):
            raise UserError(f"{self.path}: {name} is {picture.size[0]} x {picture.size[1]}, not {self.stored_size} px")
        if self.size != self.stored_size:
            # BOX is the exact mean when the ratio is whole; otherwise its steps would show.
            by = Image.Resampling.HAMMING if self.stored_size % self.size else Image.Resampling.BOX
            picture = picture.resize((self.size, self.size), by)
        return np.asarray(picture)


class ArchiveWriter:
    """Writes an archive beside its final name and puts it there when whole; leaves nothing when the block raises."""

    def __init__(self, path: str | os.PathLike, frame: str, size: int, meta: dict | None = None):
        self.path = Path(path)
        self.temporary = self.path.with_name(self.path.name + ".tmp")
        self.meta = {"format": "a3gan-faces", "version": VERSION, "frame": frame, "size": size} | (meta or {})
        self.rows: list[dict[str, str]] = []

    def __enter__(self) -> ArchiveWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.zip = zipfile.ZipFile(self.temporary, "w", zipfile.ZIP_STORED)
        return self

    def add(self, stem: str, suffix: str, data: bytes, row: dict[str, str]) -> None:
        """One encoded picture and its index row (all but `file`, which is made here)."""
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:80] or "face"
        name = f"images/{len(self.rows):06d}_{safe}{suffix}"
        self.zip.writestr(_member(name), data)
        self.rows.append({"file": name} | row)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self.zip.close()
            if kind is not None:
                self.temporary.unlink(missing_ok=True)
        if kind is None:
            with self.temporary.open("rb+") as handle:
                os.fsync(handle.fileno())  # so that a power cut cannot leave the final name on an empty file
            os.replace(self.temporary, self.path)

    def _finish(self) -> None:
        used = dict.fromkeys(key for row in self.rows for key in row)
        lead = [c for c in OWN_COLUMNS if c not in LANDMARK_COLUMNS]
        fields = [*lead, *(c for c in used if c not in OWN_COLUMNS), *LANDMARK_COLUMNS]
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, fields, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        self.zip.writestr(_member("index.csv"), text.getvalue().encode("utf-8"), zipfile.ZIP_DEFLATED)
        meta = {**self.meta, "faces": len(self.rows)}
        self.zip.writestr(_member("meta.json"), json.dumps(meta, indent=1, ensure_ascii=False).encode("utf-8"))


def _member(name: str) -> zipfile.ZipInfo:
    # A fixed date: the same pictures and settings give the same bytes.
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
