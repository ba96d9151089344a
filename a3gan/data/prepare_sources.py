"""What `prepare` reads: a folder tree, a zip, or a table (CSV) with labels. All become one list of `Source`."""

from __future__ import annotations

import csv
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from a3gan.data.archive_file import LANDMARK_COLUMNS
from a3gan.errors import UserError

# Files with other endings are no pictures. Kinds that this Pillow cannot open are listed as well, so that they are
# reported.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .ppm .pgm .jp2 .avif .heic .heif".split()
)
# Made by prepare itself; such a column of a table is dropped.
RESERVED = frozenset(("source", "source_sha256", "outside", "eye_distance", *(f"m{r}{c}" for r in "01" for c in "012")))


class Missing(Exception):
    """The table names a file that is not there."""


@dataclass
class Source:
    """One picture to prepare: its name, a stamp that changes when the file does, labels, and how to read its bytes."""

    name: str
    stamp: str
    read: Callable[[], bytes]
    identity: str = ""
    split: str = "train"
    labels: dict[str, str] = field(default_factory=dict)
    points: list[float] | None = None  # x0, y0, x1, ... in pixels of the upright picture

    @property
    def key(self) -> str:
        """Changes when the file, its labels or its landmarks do: what a restarted run compares."""
        what = repr((self.name, self.stamp, self.identity, self.split, sorted(self.labels.items()), self.points))
        return hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class ZipPictures:
    """The pictures of a zip by member name; reading is safe from several threads."""

    def __init__(self, path: Path):
        try:
            self.zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: not a zip, or cut short ({error})") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        self.members = {
            info.filename: info for info in self.zip.infolist() if _is_picture(PurePosixPath(info.filename))
        }
        self._lock = threading.Lock()

    def source(self, name: str) -> Source:
        info = self.members.get(name)
        if info is None:
            return Source(name, "missing", _missing)

        def read() -> bytes:
            with self._lock:
                return self.zip.read(info)

        return Source(name, f"{info.CRC:08x}-{info.file_size}", read)


class FolderPictures:
    """The pictures below a folder by path relative to it, with forward slashes."""

    def __init__(self, root: Path):
        self.root = root

    def names(self) -> list[str]:
        found = (p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        return sorted(name for name in found if _is_picture(PurePosixPath(name)))

    def source(self, name: str) -> Source:
        path = self.root / name
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return Source(name, "missing", _missing)
        return Source(name, f"{stat.st_size}-{stat.st_mtime_ns}", path.read_bytes)


def _missing() -> bytes:
    raise Missing


def _is_picture(path: PurePosixPath) -> bool:
    # macOS writes hidden twins (._x.jpg, __MACOSX/) that are no pictures.
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def list_sources(src: Path, table: Path | None = None, layout: str = "plain") -> list[Source]:
    """All pictures of a folder, a zip (labels from `table` if given) or a CSV table, in a fixed order.

    Folder and bare zip: a picture in a sub-folder has that folder's name as its identity. Table: see
    `prepare.prepare`. layout: one of `prepare_layouts.LAYOUTS`; a table means 'plain'.

    Raises:
        UserError: the source or table is missing, empty, of no known kind, or names only absent files.
    """
    if not src.exists():
        raise UserError(f"{src}: no such folder, zip or table")
    if layout != "plain" and table is None and (src.is_dir() or src.suffix.lower() == ".zip"):
        from a3gan.data import prepare_layouts  # it builds on this module

        layout = prepare_layouts.detect(src) if layout == "auto" else layout
        if layout != "plain":
            return prepare_layouts.list_layout(src, layout)
    if src.is_dir():
        pictures = FolderPictures(src)
        sources = _from_table(table, pictures) if table else _by_folder(pictures, pictures.names())
    elif src.suffix.lower() == ".csv":
        if table is not None:
            raise UserError(f"{src}: is a table already; leave --table {table} out")
        sources = _from_table(src, _beside(src))
    elif zipfile.is_zipfile(src) or src.suffix.lower() == ".zip":
        pictures = ZipPictures(src)
        if table:
            sources = _from_table(table, pictures)
        elif "meta.json" in pictures.zip.namelist() and "index.csv" in pictures.zip.namelist():
            raise UserError(f"{src}: is a prepared archive already; prepare the raw photos instead")
        else:
            sources = _by_folder(pictures, list(pictures.members))
    else:
        raise UserError(f"{src}: expected a folder, a zip or a CSV table")
    if not sources:
        raise UserError(f"{src}: no pictures found ({' '.join(sorted(SUFFIXES))})")
    return sources


def _beside(table: Path) -> FolderPictures | ZipPictures:
    """The pictures of a table: beside it; if its first one is not there, in a zip of the same stem."""
    folder, packed = FolderPictures(table.parent), table.with_suffix(".zip")
    if packed.is_file():
        first = next((row["file"] for row in _rows(table)[1] if row["file"]), "")
        if folder.source(first).stamp == "missing":
            return ZipPictures(packed)
    return folder


def _by_folder(pictures: FolderPictures | ZipPictures, names: list[str]) -> list[Source]:
    sources = []
    for name in names:
        source = pictures.source(name)
        source.identity = PurePosixPath(name).parent.name
        sources.append(source)
    return sources


def _rows(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not table.is_file():
        raise UserError(f"{table}: no such table")
    try:
        text = table.read_text(encoding="utf-8-sig")  # Excel puts a byte order mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a UTF-8 text table ({error})") from error
    try:
        delimiter = ";" if text.split("\n", 1)[0].count(";") > text.split("\n", 1)[0].count(",") else ","
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
        fields = [(name or "").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = fields
        rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
    except csv.Error as error:
        raise UserError(f"{table}: not a CSV table ({error})") from error
    if "file" not in fields:
        raise UserError(f"{table}: needs a column 'file'; its columns: {', '.join(fields) or 'none'}")
    return fields, rows


def _from_table(table: Path, pictures: FolderPictures | ZipPictures) -> list[Source]:
    fields, rows = _rows(table)
    has_points = all(c in fields for c in LANDMARK_COLUMNS)
    taken = {"file", "split", "identity", *LANDMARK_COLUMNS, *RESERVED}
    sources = []
    for row in rows:
        if not row["file"]:
            continue
        source = pictures.source(row["file"].replace("\\", "/"))
        source.split = row.get("split") or "train"
        # A cluster number means something in its own table only, so the table's name goes before it.
        cluster = row.get("identity_cluster", "")
        source.identity = row.get("identity") or (f"{table.stem}:{cluster}" if cluster else "")
        source.labels = {c: row[c] for c in fields if c and c not in taken}
        if has_points:
            source.points = _points([row[c] for c in LANDMARK_COLUMNS])
        sources.append(source)
    if sources and all(source.stamp == "missing" for source in sources):
        first = _where(sources[0], pictures)
        raise UserError(f"{table}: none of its {len(sources)} files exists; the first is looked for as {first}")
    return sources


def _where(source: Source, pictures: FolderPictures | ZipPictures) -> str:
    if isinstance(pictures, ZipPictures):
        return f"{source.name} in {pictures.zip.filename}"
    return str(pictures.root / source.name)


def _points(cells: list[str]) -> list[float] | None:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    return values if all(abs(v) < 1e6 for v in values) else None  # also drops nan
