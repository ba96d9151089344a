"""Features to figures: one row per method and degradation, all from arrays that are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from a3gan.evaluation import detection as detect
from a3gan.evaluation import expression as smile
from a3gan.evaluation import features as feat
from a3gan.evaluation import verification
from a3gan.evaluation.gather import ORIGINAL, Table
from a3gan.evaluation.pairs import Listed
from a3gan.evaluation.pairs import figures as pair_figures
from a3gan.evaluation.pictures import Originals
from a3gan.evaluation.protocol import EvalConfig
from a3gan.evaluation.sets import people
from a3gan.evaluation.statistics import Interval


@dataclass
class Curve:
    """One line of the plot: a judge's scores of original against result."""

    judge: str
    method: str
    genuine: np.ndarray
    impostor: np.ndarray


@dataclass
class Measured:
    """Rows by method and degradation, and what later tasks take from them. found: bool [N], faces that MTCNN finds in
    the whole picture, by (method, degradation)."""

    thresholds: dict[str, Any]
    rows: list[dict[str, Any]]
    curves: list[Curve]
    references: dict[str, verification.Reference]
    found: dict[tuple[str, str], np.ndarray]


def measure(
    cfg: EvalConfig, originals: Originals, tables: dict[str, Table], judges: list[str], pairs: Listed | None = None
) -> Measured:
    """One row of figures per method and degradation; `pairs`: figures of listed pairs as well. A task that is not in
    `cfg.tasks` is left out, but `found`."""
    from a3gan.data.attributes import targets

    identity, who = originals.faces.identity.numpy(), people(originals.faces)
    labels = {name: value.numpy() for name, value in targets(originals.faces).items()}
    first, draw = tables[ORIGINAL], (cfg.bootstrap, cfg.seed)
    embedded = {judge: first["none", f"judge-{judge}"]["embedding"] for judge in judges}
    references = {judge: verification.reference(embedded[judge], identity, cfg.far) for judge in judges}
    boxes, places = reference_boxes(originals, first), {}
    rows, curves = [], []
    for method, table in tables.items():
        for degradation in cfg.degradations:
            found, detected = _detection(cfg, table, degradation, boxes, who)
            places[method, degradation] = found
            row: dict[str, Any] = {"method": method, "degradation": degradation, "detection": detected}
            row |= {"mosaicked": int(table["none", "mosaicked"]["mosaicked"].sum())}
            row |= {"verification": {}, "identification": {}}
            for judge, ref in references.items():
                probe = table[degradation, f"judge-{judge}"]["embedding"]
                row["verification"][judge] = plain(verification.verification(ref, probe, found, *draw))
                if pairs is not None:
                    row["verification"][judge] |= plain(pair_figures(ref, probe, pairs, who, draw))
                row["identification"][judge] = plain(verification.identification(ref, probe, *draw))
                if degradation == "none":
                    curves.append(_curve(judge, method, ref, probe))
            if "expression" in cfg.tasks and ("none", "attributes") in first:
                before, after = first["none", "attributes"], table[degradation, "attributes"]
                row["expression"] = plain(smile.expression(before, after, labels["expression"], who, found, *draw))
                row["attributes"] = plain(smile.binary_heads(before, after, labels, who, *draw))
            rows.append(row)
    thresholds = {
        judge: {"cosine": round(r.threshold, 6), "abs": round(r.threshold_abs, 6), "impostor_pairs": r.impostor_pairs}
        for judge, r in references.items()
    }
    return Measured(thresholds, rows, curves, references, places)


def reference_boxes(originals: Originals, table: Table) -> dict[tuple[str, str], np.ndarray]:
    """Where the face is, by (degradation, scorer), in pixels of the pictures that scorer saw."""
    from a3gan.data import align

    points = originals.points
    found = {}
    for scorer in ("detector", "second"):
        if ("none", scorer) in table:
            whole = detect.reference_boxes(feat.as_faces(table["none", scorer]), points)
            found |= {("none", scorer): whole, ("half", scorer): (whole + 0.5) / 2 - 0.5}
    if ("none", "detector_crop") in table:
        matrices = align.similarity(points, "face", feat.CROP_SIDE)
        crop_points = align.transform_points(torch.from_numpy(points), matrices).numpy()
        faces = feat.as_faces(table["none", "detector_crop"])
        found["none", "detector_crop"] = detect.reference_boxes(faces, crop_points)
    return found


def _detection(
    cfg: EvalConfig, table: Table, degradation: str, boxes: dict[tuple[str, str], np.ndarray], who: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Which faces are found in the whole picture, bool [N], and the figures: MTCNN in picture and crop, the second
    detector in the picture."""
    result, found = {}, None
    for scorer, name in (("detector", "picture"), ("detector_crop", "crop"), ("second", "second")):
        if (degradation, scorer) not in table:
            continue
        where, faces = (
            boxes.get((degradation, scorer), boxes["none", scorer]),
            feat.as_faces(table[degradation, scorer]),
        )
        overlap, score = detect.best_overlap(faces, where), detect.best_score(faces, where)
        result[name] = plain(detect.detection(overlap, who, cfg.bootstrap, cfg.seed, score))
        found = overlap >= detect.MIN_IOU if found is None else found
    return found, result


def _curve(judge: str, method: str, ref: verification.Reference, probe: np.ndarray) -> Curve:
    genuine, impostor = verification.pair_masks(ref.identity)
    scores = verification.cosine(ref.gallery, probe)
    return Curve(judge, method, scores[genuine], scores[impostor])


def plain(figures: dict[str, Interval | float]) -> dict[str, Any]:
    """Figures as JSON values, rounded to six digits; null for what is undefined or infinite."""

    def one(value: Interval | float) -> Any:
        if isinstance(value, Interval):
            return value.as_dict()
        return round(float(value), 6) if np.isfinite(value) else None

    return {name: one(value) for name, value in figures.items()}
