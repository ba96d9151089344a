"""Data sets that `prepare` knows by their own files: CelebA and FFHQ, as they are downloaded.

CelebA (Liu et al., ICCV 2015): `img_align_celeba` or the in-the-wild `img_celeba`, folder or zip, with the text tables
(or the CSVs of a common mirror) beside them, in `Anno/` and `Eval/`, or in the zip. FFHQ (Karras et al., CVPR 2019):
`images1024x1024/`, `thumbnails128x128/` or `in-the-wild-images/`, in sub-folders of a thousand or flat, with
`ffhq-dataset-v2.json` where it is there.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from a3gan.data import prepare_folders
from a3gan.data.attributes import CELEBA_NAMES
from a3gan.data.prepare_sources import FolderPictures, Source, ZipPictures
from a3gan.errors import UserError

log = logging.getLogger(__name__)

LAYOUTS = ("auto", "plain", "celeba", "ffhq", "folders")
_TABLES = {  # what -> file names without ending
    "attributes": "list_attr_celeba",
    "identity": "identity_CelebA",
    "split": "list_eval_partition",
    "aligned": "list_landmarks_align_celeba",
    "wild": "list_landmarks_celeba",
}
_CELEBA_FOLDERS = re.compile(r"img_align_celeba(_png)?|img_celeba")
_SPLITS = {"0": "train", "1": "val", "2": "test"}
_FFHQ_FOLDERS = ("images1024x1024", "thumbnails128x128", "in-the-wild-images")
_FFHQ_JSON = "ffhq-dataset-v2.json"
_FFHQ_TRAIN = 60000  # the authors' split: the first 60,000 train, the other 10,000 validate
_FFHQ_SIDE = 1024  # px that the aligned landmarks of the JSON mean


def detect(src: Path) -> str:
    """'celeba', 'ffhq', 'folders' (names of folders are labels) or 'plain', from names alone; opens no picture."""
    names = _names_near(src)
    if _CELEBA_FOLDERS.fullmatch(src.stem) or any(_CELEBA_FOLDERS.fullmatch(PurePosixPath(n).stem) for n in names):
        return "celeba"
    if any(PurePosixPath(n).stem == _TABLES["attributes"] for n in names):
        return "celeba"
    if _FFHQ_JSON in names or {src.stem, *names} & set(_FFHQ_FOLDERS):
        return "ffhq"
    if prepare_folders.raf_list(src):
        return "folders"
    if src.is_dir():
        found = FolderPictures(src).names()
    else:
        found = list(ZipPictures(src).members) if zipfile.is_zipfile(src) else []
    return "folders" if prepare_folders.means_something(found) else "plain"


def list_layout(src: Path, layout: str) -> list[Source]:
    """All pictures with what a data set's tables or folders say of each, in the order of their numbers or names.

    Raises:
        UserError: no pictures, or a table that cannot be read.
    """
    if layout == "folders":
        return prepare_folders.list_folders(src)
    pictures, base = _pictures(src, layout)
    names = pictures.names() if isinstance(pictures, FolderPictures) else sorted(pictures.members)
    names = [n for n in names if re.fullmatch(r"\d+", PurePosixPath(n).stem)]
    if not names:
        raise UserError(f"{src}: no numbered pictures as {layout} has (000001.jpg, ...); for others: --layout plain")
    log.info("%s: %d pictures in the layout of %s", src, len(names), layout)
    return (_celeba if layout == "celeba" else _ffhq)(names, pictures, base, src)


# --- where things lie -------------------------------------------------------------------------------------------------
def _names_near(src: Path) -> set[str]:
    """Names of a folder's entries (and of the entries of Anno, Eval, Img), or of a zip's top folders and tables."""
    if src.is_dir():
        near = {p.name for p in _entries(src)}
        for inner in ("Anno", "Eval", "Img"):
            near |= {p.name for p in _entries(src / inner)}
        return near
    if src.suffix.lower() == ".zip" and zipfile.is_zipfile(src):
        with zipfile.ZipFile(src) as packed:
            members = packed.namelist()
        tops = {part for name in members for part in PurePosixPath(name).parts[:2] if "." not in part}
        return tops | {PurePosixPath(name).name for name in members if name.endswith((".txt", ".csv", ".json"))}
    return set()


def _entries(folder: Path) -> Iterator[Path]:
    # A folder of 200,000 pictures has no tables in it worth listing it for.
    if folder.is_dir() and not _CELEBA_FOLDERS.fullmatch(folder.name):
        yield from folder.iterdir()


def _pictures(src: Path, layout: str) -> tuple[FolderPictures | ZipPictures, Path]:
    """The pictures, and the folder around which tables are looked for."""
    if src.is_file():
        return ZipPictures(src), src.parent
    if layout == "celeba" and not _CELEBA_FOLDERS.fullmatch(src.name):
        for folder in (src, src / "Img", src / "img"):
            for name in ("img_align_celeba", "img_align_celeba_png", "img_celeba"):
                if (folder / name).is_dir():
                    return FolderPictures(folder / name), src
                if (folder / f"{name}.zip").is_file():
                    return ZipPictures(folder / f"{name}.zip"), src
        raise UserError(f"{src}: CelebA's tables, but no img_align_celeba or img_celeba (folder or zip) beside them")
    if layout == "ffhq":
        for name in _FFHQ_FOLDERS:
            if (src / name).is_dir():
                return FolderPictures(src / name), src
    return FolderPictures(src), src.parent


def _find(names: tuple[str, ...], pictures: FolderPictures | ZipPictures, base: Path) -> tuple[str, str] | None:
    """(where, text) of the first of some file names: near the pictures, or inside their zip."""
    around = [base, base.parent]
    for folder in around:
        for inner in ("", "Anno", "Eval", "anno", "eval"):
            for name in names:
                path = folder / inner / name
                if path.is_file():
                    try:
                        return str(path), path.read_text(encoding="utf-8-sig")
                    except (OSError, UnicodeDecodeError) as error:
                        raise UserError(f"{path}: not a UTF-8 text table ({error})") from error
    if isinstance(pictures, ZipPictures):
        for member in pictures.zip.namelist():
            if PurePosixPath(member).name in names:
                return f"{pictures.zip.filename}/{member}", pictures.zip.read(member).decode("utf-8-sig", "replace")
    return None


# --- CelebA -----------------------------------------------------------------------------------------------------------
def _celeba(names: list[str], pictures: FolderPictures | ZipPictures, base: Path, src: Path) -> list[Source]:
    # In a zip the folder inside says which pictures these are; the in-the-wild ones have landmarks of their own.
    where = pictures.root if isinstance(pictures, FolderPictures) else Path(names[0]).parent
    wild = "img_celeba" in (where.name, src.stem)
    tables: dict[str, dict[str, tuple[str, ...]]] = {}
    columns: list[str] = []
    for what in ("attributes", "identity", "split", "wild" if wild else "aligned"):
        stem = _TABLES[what]
        found = _find((f"{stem}.txt", f"{stem}.csv"), pictures, base)
        if found is None:
            log.warning("%s: CelebA without %s.txt: %s", src, stem, _WITHOUT[what])
        names_of, tables[what] = _celeba_table(*found) if found else ([], {})
        if found and what == "attributes":
            columns = names_of
            if missing := sorted(set(CELEBA_NAMES) - set(columns)):
                raise UserError(f"{found[0]}: lacks the attribute {missing[0]}; get the file again")
    if all(not table for table in tables.values()):
        raise UserError(f"{src}: none of CelebA's tables is there (list_attr_celeba.txt, ...); --layout plain without")
    points = tables["wild" if wild else "aligned"]
    sources = []
    for name in names:
        source, stem = pictures.source(name), PurePosixPath(name).stem
        if person := tables["identity"].get(stem):
            source.identity = f"celeba:{person[0]}"
        if split := tables["split"].get(stem):
            source.split = _SPLITS.get(split[0], "train")
        if row := tables["attributes"].get(stem):
            source.labels = celeba_labels(dict(zip(columns, row, strict=True)))
        if five := points.get(stem):
            source.points = _numbers(five)
        sources.append(source)
    return sources


_WITHOUT = {
    "attributes": "no labels",
    "identity": "no identities",
    "split": "everything is split train",
    "aligned": "the detector finds the landmarks",
    "wild": "the detector finds the landmarks",
}


def _celeba_table(where: str, text: str) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Column names, and file stem -> cells. The text tables may begin with a count and a line of column names."""
    rows: dict[str, tuple[str, ...]] = {}
    columns: list[str] = []
    width = 0
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells or (number == 1 and len(cells) == 1):
            continue
        if re.fullmatch(r"\d+\.\w+", cells[0]):
            width = width or len(columns) or len(cells) - 1
            if len(cells) - 1 != width:
                raise UserError(f"{where}: line {number} has {len(cells) - 1} values, wanted {width}; is it cut short?")
            rows[cells[0].rsplit(".", 1)[0]] = tuple(map(sys.intern, cells[1:]))  # 200,000 rows of 1 and -1
        elif columns or rows:
            raise UserError(f"{where}: line {number} begins with {cells[0]!r}, which is no file name")
        else:
            columns = cells[1:] if cells[0].lower() in ("image_id", "file", "filename") else cells
    return columns, rows


def _numbers(cells: tuple[str, ...]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells] if len(cells) == 10 else None
    except ValueError:
        return None


def celeba_labels(row: dict[str, str]) -> dict[str, str]:
    """CelebA's attributes (1 or -1) as label columns: all 40 as 1 or 0, and what our schema reads of them.

    Smiling gives `expression` (happiness; neutral where not smiling, which CelebA does not tell from other faces),
    Male gives `gender`.
    """
    if not row:
        return {}
    labels = {name: {"1": "1", "-1": "0", "0": "0"}.get(row.get(name, ""), "") for name in CELEBA_NAMES}
    labels["expression"] = {"1": "happiness", "0": "neutral"}.get(labels["Smiling"], "")
    labels["gender"] = {"1": "male", "0": "female"}.get(labels["Male"], "")
    return labels


# --- FFHQ -------------------------------------------------------------------------------------------------------------
def _ffhq(names: list[str], pictures: FolderPictures | ZipPictures, base: Path, src: Path) -> list[Source]:
    inside = isinstance(pictures, FolderPictures)
    where = pictures.root.name if inside else "/".join(PurePosixPath(names[0]).parts[:-1]) or src.stem
    wild = "in-the-wild" in where
    thumbs = re.search(r"(\d+)x\1", where)
    side = int(thumbs.group(1)) if thumbs else _FFHQ_SIDE
    found = _find((_FFHQ_JSON,), pictures, base)
    if found is None:
        log.warning("%s: FFHQ without %s: the detector finds the landmarks", src, _FFHQ_JSON)
    points = dict(_ffhq_points(*found, wild)) if found else {}
    sources = []
    for name in sorted(names, key=lambda n: int(PurePosixPath(n).stem)):
        source, number = pictures.source(name), int(PurePosixPath(name).stem)
        source.split = "train" if number < _FFHQ_TRAIN else "val"
        five = points.get(number)
        if five:
            source.points = five if wild else [v * side / _FFHQ_SIDE for v in five]
        sources.append(source)
    return sources


def _ffhq_points(where: str, text: str, wild: bool) -> Iterator[tuple[int, list[float]]]:
    """(number, five points as ten numbers) of each entry; one is decoded at a time, since the file is 250 MB."""
    decode, at = json.JSONDecoder().raw_decode, text.find("{") + 1
    entry = re.compile(r'[\s,]*"(\d+)"\s*:\s*')
    try:
        while (found := entry.match(text, at)) is not None:
            value, at = decode(text, found.end())
            landmarks = value["in_the_wild" if wild else "image"]["face_landmarks"]
            yield int(found.group(1)), five_points(landmarks)
        if not re.fullmatch(r"[\s,]*\}\s*", text[at:]):
            raise ValueError(f"character {at}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{where}: not the whole {_FFHQ_JSON} ({error}); get it again, or leave it away") from error


def five_points(landmarks: list[list[float]]) -> list[float]:
    """68 points (dlib's order) -> x0, y0, ... of both eyes (mean of six), nose tip and mouth corners."""
    if len(landmarks) != 68:
        raise ValueError(f"{len(landmarks)} landmarks instead of 68")

    def mean(points: list[list[float]]) -> list[float]:
        return [sum(p[axis] for p in points) / len(points) for axis in (0, 1)]

    five = [mean(landmarks[36:42]), mean(landmarks[42:48]), landmarks[30], landmarks[48], landmarks[54]]
    return [float(v) for point in five for v in point[:2]]
