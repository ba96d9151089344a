"""The archives of an evaluation: the first is the main one (who is recognised, what smiles), others add labels that it
lacks, such as yawns and closed eyes; and the people that heads and calibrations learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from a3gan.errors import UserError
from a3gan.evaluation.pictures import Originals, Photos

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.evaluation.protocol import EvalConfig

RENDERED = 1_000_003  # seed of the judged rendered people: training's start from data.synthetic_seed = 0
RENDERED_OTHERS = 3_000_017  # of those that heads learn from


@dataclass
class EvalSet:
    """One archive's judged pictures. labels: attribute name -> float [N], class index or NaN."""

    name: str
    originals: Originals
    labels: dict[str, np.ndarray]

    @property
    def person(self) -> np.ndarray:
        return people(self.originals.faces)

    def has(self, label: str) -> bool:
        """Whether any picture carries that label."""
        return bool((~np.isnan(self.labels[label])).any())


def people(faces: FaceSet) -> np.ndarray:
    """int64 [N]: the person of each picture; one of unknown identity is a person of its own, numbered below 0."""
    identity = faces.identity.numpy()
    return np.where(identity >= 0, identity, -1 - np.arange(len(identity)))


def load_sets(cfg: EvalConfig) -> list[EvalSet]:
    """The main archive's set, then those of `data.more`."""
    from a3gan.data.archive import FaceSet

    data = cfg.data
    if data.path is None:
        from a3gan.data.synthetic import synthetic_faces

        if data.photos is not None:
            raise UserError("data.photos: rendered faces (data.path: null) have no photos; set it to null")
        faces = synthetic_faces(data.synthetic_count, data.synthetic_size, RENDERED, identities=data.synthetic_people)
        return [_set("rendered", whole_people(faces, data.max_images, cfg.seed), None)]
    found = []
    for number, archive in enumerate(data.archives):
        faces = FaceSet.load(archive.path, split=data.split)
        if data.only is not None and number == 0:
            faces = only(faces, data.only, archive.path)
        faces = whole_people(faces, data.max_images, cfg.seed)
        name = Path(archive.path).stem
        if name in (one.name for one in found):
            raise UserError(f"data.path: {archive.path}: a second archive called {name}; rename one")
        found.append(_set(name, faces, archive.photos))
    return found


def _set(name: str, faces: FaceSet, photos: str | None) -> EvalSet:
    from a3gan.data.attributes import targets

    labels = {key: value.numpy() for key, value in targets(faces).items()}
    return EvalSet(name, Originals(faces, Photos(photos, faces) if photos else None), labels)


def only(faces: FaceSet, listed: str, source: str) -> FaceSet:
    """The faces of the pictures that a file lists, by their names or the ends of their paths, in the archive's order.

    UserError: no such file, or a picture of it that is not among the judged ones of `source`.
    """
    wanted = read_list(listed)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(faces.columns.get("source", faces.files)):
        for known in {name, name.rsplit("/", 1)[-1]}:
            rows.setdefault(known, []).append(row)
    if lacking := [name for name in wanted if name not in rows]:
        raise UserError(
            f"data.only={listed}: {len(lacking)} of {len(wanted)} pictures are not among the judged ones of {source}, "
            f"first {lacking[0]}; the list goes with another archive or split"
        )
    return faces.subset(sorted({row for name in wanted for row in rows[name]}))


def read_list(listed: str) -> list[str]:
    """Names of a text file, one a line; what follows a # is a comment. UserError for a file that is not there."""
    from a3gan.config import find_config

    try:
        text = find_config(listed).read_text(encoding="utf-8")
    except UserError as error:
        raise UserError(f"data.only={listed}: no such file, and none of that name in configs/") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.only={listed}: cannot be read as UTF-8 text ({error})") from error
    names = [line.partition("#")[0].strip() for line in text.splitlines()]
    return list(dict.fromkeys(filter(None, names)))


def whole_people(faces: FaceSet, at_most: int, seed: int) -> FaceSet:
    """About `at_most` pictures (0 = all): people in a shuffled order, each with all pictures, as long as they fit."""
    if not at_most or len(faces) <= at_most:
        return faces
    who = people(faces)
    chosen, count = [], 0
    for person in np.random.default_rng(seed).permutation(np.unique(who)):
        rows = np.flatnonzero(who == person)
        if count + len(rows) > at_most and count:
            continue
        chosen.append(rows)
        count += len(rows)
    return faces.subset(np.sort(np.concatenate(chosen)).tolist())


def learning_set(cfg: EvalConfig) -> EvalSet | None:
    """Other people with expression labels, for heads that learn from originals or results; None where there are none.

    About `heads.images` pictures of `heads.split` of the main archive, labelled neutral or happiness, whole people.
    UserError where that is the judged split.
    """
    from a3gan.data.archive import FaceSet
    from a3gan.evaluation.expression_heads import clear

    data = cfg.data
    if not cfg.heads.images:
        return None
    if data.path is None:
        from a3gan.data.synthetic import synthetic_faces

        count = min(cfg.heads.images, data.synthetic_count)
        one = _set("rendered", synthetic_faces(count, data.synthetic_size, RENDERED_OTHERS, identities=count), None)
    else:
        if cfg.heads.split == data.split:
            raise UserError(f"heads.split={cfg.heads.split}: is the judged split; heads learn from other people")
        if cfg.heads.split not in _splits(data.path):
            return None
        one = _set("learning", FaceSet.load(data.path, split=cfg.heads.split, storage="disk"), None)
    known = clear(one.labels["expression"])
    # A quick look needs no good heads.
    count = min(cfg.heads.images, 4 * data.max_images) if data.max_images else cfg.heads.images
    faces = whole_people(one.originals.faces.subset(np.flatnonzero(known).tolist()), count, cfg.seed)
    chosen = _set(one.name, faces, data.photos)
    smile = chosen.labels["expression"] == 1
    return chosen if smile.any() and not smile.all() else None


def calibration_sets(cfg: EvalConfig) -> list[EvalSet]:
    """Pictures with labels of yawns or closed eyes, of the split that calibrates (`heads.calibration`), not judged."""
    from a3gan.data.archive import FaceSet

    if cfg.data.path is None or cfg.heads.calibration == cfg.data.split:
        return []
    found = []
    for archive in cfg.data.archives:
        if cfg.heads.calibration in _splits(archive.path):
            faces = FaceSet.load(archive.path, split=cfg.heads.calibration)
            one = _set(f"{Path(archive.path).stem}-{cfg.heads.calibration}", faces, archive.photos)
            if one.has("yawning") or one.has("eyes_closed"):
                found.append(one)
    return found


def _splits(path: str) -> set[str]:
    from a3gan.data.archive_file import ArchiveReader

    return {row["split"] for row in ArchiveReader(path).rows}
