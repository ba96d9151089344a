"""Raw pictures in place of an archive: a folder, zip or table in `data.path` is prepared into the run's cache first.

Splits: those of the table or of the folders' names. Where there are none, people are put aside for the attackers and
heads that learn (`data.set_aside`, by a hash of the name: the same people every time), and the others are judged.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from a3gan.data.archive_file import LANDMARK_COLUMNS
from a3gan.data.prepare_sources import Source, list_sources
from a3gan.errors import UserError
from a3gan.files import replacing

if TYPE_CHECKING:
    from a3gan.evaluation.protocol import Archive, EvalConfig

log = logging.getLogger(__name__)
SIZE = 128  # px of an archive made here, frame `face`: what the judges see


def is_raw(path: str | Path) -> bool:
    """Whether a path holds raw pictures rather than an archive of `a3gan prepare`: a folder, a table, another zip."""
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as packed:
        return not {"meta.json", "index.csv"} <= set(packed.namelist())


def prepared(cfg: EvalConfig) -> EvalConfig:
    """The config with an archive in place of every raw source, made into the cache where it is not there yet, and with
    folders of clips replaced by the clips in them.

    UserError: as of `prepare`, and where the judged split does not exist.
    """
    data = cfg.data
    update: dict[str, object] = {"clips": clips(data.clips)}
    if data.path is not None:
        update |= _archive(data.path, data.photos, cfg)
        update["more"] = [a.model_copy(update=_archive(a.path, a.photos, cfg)) for a in data.more]
    return cfg.model_copy(update={"data": data.model_copy(update=update)})


def _archive(path: str, photos: str | None, cfg: EvalConfig) -> dict[str, str | None]:
    """`path` and `photos` of the archive that stands for a source. A raw one's pictures are its photos."""
    if not is_raw(path):
        return {"path": path, "photos": photos}
    from a3gan.data import prepare_layouts
    from a3gan.data.prepare import prepare

    src = Path(path)
    sources = list_sources(src, layout="auto")
    known = src.suffix.lower() != ".csv" and prepare_layouts.detect(src) in ("celeba", "ffhq")
    table = not known and split_people(sources, cfg.data.set_aside, cfg.data.split)
    digest = hashlib.sha256(repr((SIZE, [source.key for source in sources])).encode()).hexdigest()[:16]
    output = cfg.run_dir / "cache" / f"{src.stem}-{digest}.zip"
    if not output.is_file():
        log.info("%s: %d pictures are prepared into %s", path, len(sources), output)
        listed = _write_table(output.with_suffix(".csv"), sources) if table else None
        log.info("%s", prepare(photos_of(src) if table else src, output, size=SIZE, table=listed))
    return {"path": str(output), "photos": photos or str(photos_of(src))}


def photos_of(src: Path) -> Path:
    """Where the pictures of a raw source lie: itself, or what a table speaks of."""
    if src.suffix.lower() != ".csv":
        return src
    packed = src.with_suffix(".zip")
    return packed if packed.is_file() else src.parent


def split_people(sources: Sequence[Source], set_aside: float, judged: str) -> bool:
    """Gives people a split where a source has none (all are `train`): `train` for those set aside, else `judged`.

    True where it did. A picture of no known person is a person of its own.
    """
    if {source.split for source in sources} != {"train"} or judged == "train":
        return False

    def place(person: str) -> str:
        return hashlib.sha256(person.encode("utf-8", "surrogatepass")).hexdigest()

    people = sorted({source.identity or source.name for source in sources}, key=place)
    aside = set(people[: round(set_aside * len(people))])
    for source in sources:
        source.split = "train" if (source.identity or source.name) in aside else judged
    return True


def _write_table(path: Path, sources: Sequence[Source]) -> Path:
    """The sources as a table that `prepare` reads."""
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "identity", "split", *LANDMARK_COLUMNS, *labels])
        for source in sources:
            points = source.points or [""] * len(LANDMARK_COLUMNS)
            own = [source.labels.get(label, "") for label in labels]
            writer.writerow([source.name, source.identity, source.split, *points, *own])
    return path


def clips(paths: Sequence[str]) -> list[str]:
    """Video files: those named, and those in a named folder (searched through), in the order of their names."""
    from a3gan.media.video import VIDEO_SUFFIXES

    found: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(str(path))
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not inside:
            raise UserError(f"data.clips: {path}: no videos in this folder")
        found += [str(p) for p in inside]
    return found


def describe(archive: Archive, split: str) -> str:
    """What one source holds, in a line, for the dry run: `lfw.zip: 1873 faces of 908 people in split test, 128 px`."""
    from a3gan.data.archive import FaceSet

    if is_raw(archive.path):
        sources = list_sources(Path(archive.path), layout="auto")
        people = len({source.identity for source in sources if source.identity})
        labels = sorted({label for source in sources for label in source.labels})
        text = f"{archive.path}: {len(sources)} raw pictures of {people} named people, to be prepared"
        return text + (f"; labels {', '.join(labels)}" if labels else "; no labels")
    faces = FaceSet.load(archive.path, split=split, storage="disk")
    people = len(set(faces.identity.tolist()) - {-1})
    return f"{archive.path}: {len(faces)} faces of {people} people in split {split}, {faces.size} px"
