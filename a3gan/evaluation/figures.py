"""Features to figures: one row per method and degradation, all from arrays that are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.evaluation import detection as detect
from a3gan.evaluation import expression as smile
from a3gan.evaluation import features as feat
from a3gan.evaluation import verification
from a3gan.evaluation.pictures import Originals
from a3gan.evaluation.protocol import EvalConfig
from a3gan.evaluation.statistics import Interval

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

ORIGINAL = "original"  # the row that no method touched
Table = dict[tuple[str, str], feat.Features]  # (degradation, scorer) -> features


def people(faces: FaceSet) -> np.ndarray:
    """int64 [N]: the person of each picture; one of unknown identity is a person of its own, numbered below 0."""
    identity = faces.identity.numpy()
    return np.where(identity >= 0, identity, -1 - np.arange(len(identity)))


@dataclass
class Curve:
    """One line of the plot: a judge's scores of original against result."""

    judge: str
    method: str
    genuine: np.ndarray
    impostor: np.ndarray


def measure(
    cfg: EvalConfig, originals: Originals, tables: dict[str, Table], judges: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Curve]]:
    """Thresholds by judge, one row of figures per method and degradation, and the scores behind the plot."""
    from a3gan.data.attributes import targets

    identity, who = originals.faces.identity.numpy(), people(originals.faces)
    labels = {name: value.numpy() for name, value in targets(originals.faces).items()}
    first, draw = tables[ORIGINAL], (cfg.bootstrap, cfg.seed)
    embedded = {judge: first["none", f"judge-{judge}"]["embedding"] for judge in judges}
    references = {judge: verification.reference(embedded[judge], identity, cfg.far) for judge in judges}
    boxes = _reference_boxes(originals, first)
    rows, curves = [], []
    for method, table in tables.items():
        for degradation in cfg.degradations:
            found, detected = _detection(cfg, table, degradation, boxes, who)
            row: dict[str, Any] = {"method": method, "degradation": degradation, "detection": detected}
            row |= {"mosaicked": int(table["none", "mosaicked"]["mosaicked"].sum())}
            row |= {"verification": {}, "identification": {}}
            for judge, ref in references.items():
                probe = table[degradation, f"judge-{judge}"]["embedding"]
                row["verification"][judge] = plain(verification.verification(ref, probe, found, *draw))
                row["identification"][judge] = plain(verification.identification(ref, probe, *draw))
                if degradation == "none":
                    curves.append(_curve(judge, method, ref, probe))
            if ("none", "attributes") in first:
                before, after = first["none", "attributes"], table[degradation, "attributes"]
                row["expression"] = plain(smile.expression(before, after, labels["expression"], who, found, *draw))
                row["attributes"] = plain(smile.binary_heads(before, after, labels, who, *draw))
            rows.append(row)
    thresholds = {
        judge: {"cosine": round(r.threshold, 6), "abs": round(r.threshold_abs, 6), "impostor_pairs": r.impostor_pairs}
        for judge, r in references.items()
    }
    return thresholds, rows, curves


def _reference_boxes(originals: Originals, table: Table) -> dict[tuple[str, str], np.ndarray]:
    """Where the face is, by (degradation, scorer), in pixels of the pictures that scorer saw."""
    from a3gan.data import align

    points = originals.points
    whole = detect.reference_boxes(feat.as_faces(table["none", "detector"]), points)
    matrices = align.similarity(points, "face", feat.CROP_SIDE)
    crop_points = align.transform_points(torch.from_numpy(points), matrices).numpy()
    crop = detect.reference_boxes(feat.as_faces(table["none", "detector_crop"]), crop_points)
    return {("none", "detector"): whole, ("half", "detector"): (whole + 0.5) / 2 - 0.5, ("none", "detector_crop"): crop}


def _detection(
    cfg: EvalConfig, table: Table, degradation: str, boxes: dict[tuple[str, str], np.ndarray], who: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Which faces are found in the whole picture, bool [N], and the figures for picture and crop."""
    result, found = {}, None
    for scorer, name in (("detector", "picture"), ("detector_crop", "crop")):
        where = boxes.get((degradation, scorer), boxes["none", scorer])
        overlap = detect.best_overlap(feat.as_faces(table[degradation, scorer]), where)
        result[name] = plain(detect.detection(overlap, who, cfg.bootstrap, cfg.seed))
        found = overlap >= detect.MIN_IOU if found is None else found
    return found, result


def _curve(judge: str, method: str, ref: verification.Reference, probe: np.ndarray) -> Curve:
    genuine, impostor = verification.pair_masks(ref.identity)
    scores = verification.cosine(ref.gallery, probe)
    return Curve(judge, method, scores[genuine], scores[impostor])


def plain(figures: dict[str, Interval | float]) -> dict[str, Any]:
    """Figures as JSON values, rounded to six digits."""
    return {
        name: value.as_dict() if isinstance(value, Interval) else (None if np.isnan(value) else round(float(value), 6))
        for name, value in figures.items()
    }
