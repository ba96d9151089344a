"""Folder names as labels: splits, expressions, yawns, eyes, genders and people, level by level of a tree or zip.

A level means one thing for all its folders: `train`/`test` are splits, `happy`/`sad`/... or RAF-DB's `1`..`7` (Li et
al., CVPR 2017) are expressions, `yawn`/`no_yawn` and `open`/`closed` are the label, `male`/`female` the gender, YawDD's
names of clips (`10-MaleGlasses-Yawning`; Abtahi et al., MMSys 2014) person and gender. The deepest level that means
none of these is the person. RAF-DB's own list file (`list_patition_label.txt`) is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from a3gan.data.prepare_sources import FolderPictures, Source, ZipPictures
from a3gan.errors import UserError

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
EXPRESSIONS = {
    "neutral": "neutral", "happy": "happiness", "happiness": "happiness", "smile": "happiness", "smiling": "happiness",
    "sad": "sadness", "sadness": "sadness", "angry": "anger", "anger": "anger", "fear": "fear", "fearful": "fear",
    "disgust": "disgust", "disgusted": "disgust", "surprise": "surprise", "surprised": "surprise",
    "contempt": "contempt", "other": "other",
}  # fmt: skip
RAF_CODES = {
    "1": "surprise", "2": "fear", "3": "disgust", "4": "happiness", "5": "sadness", "6": "anger", "7": "neutral",
}  # fmt: skip
LABELS = {
    "yawn": "yawn", "yawning": "yawn", "no_yawn": "no_yawn", "noyawn": "no_yawn", "not_yawning": "no_yawn",
    "open": "open", "open_eyes": "open", "eyes_open": "open", "closed": "closed", "closed_eyes": "closed",
    "eyes_closed": "closed",
}  # fmt: skip
GENDERS = {"male": "male", "men": "male", "man": "male", "female": "female", "women": "female", "woman": "female"}
YAWDD = re.compile(r"(\d+)\s*-\s*(male|female)(\w*?)-(.+)", re.IGNORECASE)
RAF_LISTS = ("list_patition_label.txt", "list_partition_label.txt")  # the first as the authors spell it
RAF_LEAST = 5  # of the seven codes: fewer numbered folders may be anything


@dataclass(frozen=True)
class Level:
    """What the folders at one depth mean: kind of split, expression, label, gender, clip or identity; '' nothing."""

    kind: str
    values: dict[str, str]


def levels(names: Sequence[str]) -> list[Level]:
    """The meaning of every depth of a tree, from the paths of its pictures."""
    trees = [PurePosixPath(name).parts[:-1] for name in names]
    depth = max((len(parts) for parts in trees), default=0)
    found = [_level(sorted({parts[k] for parts in trees if len(parts) > k})) for k in range(depth)]
    for k in range(1, depth):  # RAF-DB's numbers mean something below splits only
        folders = {parts[k] for parts in trees if len(parts) > k}
        if found[k - 1].kind == "split" and folders <= set(RAF_CODES) and len(folders) >= RAF_LEAST:
            found[k] = Level("expression", RAF_CODES)
    free = [k for k, level in enumerate(found) if not level.kind]
    for k in reversed(free):
        # A single folder above others is a wrapper, not a person.
        if k == depth - 1 or len({parts[k] for parts in trees if len(parts) > k}) > 1:
            found[k] = Level("identity", {})
            break
    return found


def _level(folders: Sequence[str]) -> Level:
    words = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in folders}
    for kind, known, least in (
        ("split", SPLITS, 1), ("expression", EXPRESSIONS, 2), ("label", LABELS, 2), ("gender", GENDERS, 2),
    ):  # fmt: skip
        if len(folders) >= least and all(word in known for word in words.values()):
            return Level(kind, {name: known[word] for name, word in words.items()})
    if folders and all(YAWDD.fullmatch(name) for name in folders):
        return Level("clip", {})
    return Level("", {})


def means_something(names: Sequence[str]) -> bool:
    """Whether any level is more than a person or nothing."""
    return any(level.kind not in ("", "identity") for level in levels(names))


def list_folders(src: Path) -> list[Source]:
    """All pictures of a tree or zip, labelled by their folders (and RAF-DB's list), in the order of their names.

    UserError: a line of the list is wrong.
    """
    pictures = FolderPictures(src) if src.is_dir() else ZipPictures(src)
    names = pictures.names() if isinstance(pictures, FolderPictures) else sorted(pictures.members)
    found, raf = levels(names), raf_list(src)
    sources = []
    for name in names:
        source = pictures.source(name)
        for level, folder in zip(found, PurePosixPath(name).parts[:-1], strict=False):
            _apply(source, level, folder)
        stem = PurePosixPath(name).stem.removesuffix("_aligned")
        if stem in raf:
            source.labels["expression"] = raf[stem]
            source.split = stem.split("_", 1)[0]
            source.identity = ""
        sources.append(source)
    return sources


def _apply(source: Source, level: Level, folder: str) -> None:
    if level.kind == "split":
        source.split = level.values[folder]
    elif level.kind in ("expression", "label", "gender"):
        source.labels[level.kind] = level.values[folder]
    elif level.kind == "identity":
        source.identity = folder
    elif level.kind == "clip":
        number, gender, _, _ = YAWDD.fullmatch(folder).groups()
        # People are numbered anew for each gender. What a clip shows is no label of its single frames.
        source.identity, source.labels["gender"] = f"{gender.lower()}-{int(number)}", gender.lower()


def raf_list(src: Path) -> dict[str, str]:
    """RAF-DB's list beside the pictures, in EmoLabel/ or one folder up: file stem -> expression; {} without one.

    Its lines: `train_00001.jpg 5`; the word before the first underscore is the split.
    """
    around = [src, src.parent, src.parent.parent] if src.is_dir() else [src.parent]
    for folder in around:
        for inner in ("", "EmoLabel"):
            for name in RAF_LISTS:
                if (folder / inner / name).is_file():
                    return _read_raf(folder / inner / name)
    return {}


def _read_raf(path: Path) -> dict[str, str]:
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        stem = PurePosixPath(words[0]).stem
        if len(words) != 2 or words[1] not in RAF_CODES or stem.split("_", 1)[0] not in SPLITS:
            raise UserError(
                f"{path}, line {number}: expected `train_00001.jpg 5` with a class from 1 to 7, got {line!r}"
            )
        rows[stem] = RAF_CODES[words[1]]
    return rows
