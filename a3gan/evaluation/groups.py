"""The headline figures for parts of the people: by gender label and by skin tone, with the worst part named.

A group is of people, not of pictures: the label or the mean lightness over all pictures of a person. Lightness of
cheeks and forehead depends on the light of the photo as well; it is a rough measure, and no statement on anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.expression import smiling
from a3gan.evaluation.expression_heads import clear
from a3gan.evaluation.quality import mean
from a3gan.evaluation.statistics import Interval
from a3gan.evaluation.verification import Reference, cosine

TERCILES = ("skin dark", "skin medium", "skin light")
GENDERS = ("gender female", "gender male")
# Figure -> whether more is worse.
WORSE_IF_MORE = {
    "tar": True, "fmr": True, "rank1": True, "found": False, "smile_agreement": False, "smile_accuracy": False,
    "landmarks": True,
}  # fmt: skip
LEAST = 5  # people that a group must have to be compared


def by_person(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Each picture's value [N] replaced by the mean over its person's known ones; NaN where none is known."""
    values = np.asarray(values, np.float64)
    _, index = np.unique(person, return_inverse=True)
    known = ~np.isnan(values)
    sums = np.bincount(index, np.where(known, values, 0.0))
    counts = np.bincount(index, known.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums / counts)[index]


def groups(gender: np.ndarray, skin: np.ndarray | None, person: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> bool [N], of the groups that exist.

    gender: class index (0 female, 1 male) or NaN; skin: lightness, None = not known. Terciles are of people: each holds
    a third of them.
    """
    found: dict[str, np.ndarray] = {}
    male = by_person(gender, person)
    for name, rows in zip(GENDERS, (male < 0.5, male > 0.5), strict=True):
        found[name] = rows
    if skin is not None:
        tone = by_person(skin, person)
        _, first = np.unique(person, return_index=True)
        known = first[~np.isnan(tone[first])]
        if len(known) >= 3:
            edges = np.quantile(tone[known], [1 / 3, 2 / 3])
            place = np.searchsorted(edges, tone, "left")
            for k, name in enumerate(TERCILES):
                found[name] = (place == k) & ~np.isnan(tone)
    return {name: rows for name, rows in found.items() if len(np.unique(person[rows])) >= LEAST}


@dataclass(frozen=True)
class Row:
    """What one method and degradation gives per picture; None where a task is off."""

    probe: np.ndarray | None  # embeddings [N, E]
    found: np.ndarray  # bool [N]
    heads: Mapping[str, np.ndarray] | None  # outputs of the attribute judge


def figures(
    parts: Mapping[str, np.ndarray],
    row: Row,
    ref: Reference | None,
    before: Mapping[str, np.ndarray] | None,
    expression: np.ndarray,
    person: np.ndarray,
    draw: tuple[int, int],
) -> dict[str, dict[str, Interval | float | str]]:
    """{group: {figure: value}}, and under `worst` the name of the worst group and under `gap` its distance from the
    best one, for each figure.

    tar: true matches at the threshold of all originals, pairs of one person of the group; fmr: false matches of two
    people of the group; rank1: probes of the group among all originals but their own; found; smile_agreement,
    smile_accuracy; landmarks: error in eye distances. before: the attribute judge on the originals.
    """
    result: dict[str, dict[str, Interval | float | str]] = {name: {} for name in parts}
    scores = cosine(ref.gallery, row.probe) if ref is not None and row.probe is not None else None
    nearest = _nearest(scores) if scores is not None else None
    for name, rows in parts.items():
        cell = result[name]
        if scores is not None:
            cell |= _matches(scores, nearest, ref, rows, draw)
        cell["found"] = statistics.share(row.found[rows], person[rows], *draw)
        if row.heads is not None and before is not None:
            some = rows & clear(expression)
            if some.any():
                now = smiling(row.heads)
                same = (now == smiling(before))[some]
                cell["smile_agreement"] = statistics.share(same, person[some], *draw)
                right = (now == (expression == 1))[some]
                cell["smile_accuracy"] = statistics.share(right, person[some], *draw)
            eyes = np.linalg.norm(before["landmarks"][:, 1] - before["landmarks"][:, 0], axis=1).clip(1e-6)
            error = np.linalg.norm(row.heads["landmarks"] - before["landmarks"], axis=2).mean(1) / eyes
            cell["landmarks"] = mean(error[rows], person[rows], *draw)
    return result | worst(result)


def _nearest(scores: np.ndarray) -> np.ndarray:
    others = scores.copy()
    np.fill_diagonal(others, -np.inf)
    return others.argmax(0)


def _matches(
    scores: np.ndarray, nearest: np.ndarray, ref: Reference, rows: np.ndarray, draw: tuple[int, int]
) -> dict[str, Interval | float]:
    identity = ref.identity
    some = np.flatnonzero(rows & (identity >= 0))
    table, who = scores[np.ix_(some, some)], identity[some]
    same = who[:, None] == who[None]
    other = ~same
    np.fill_diagonal(same, False)
    able = same.any(0)
    return {
        "tar": statistics.share(table[same] > ref.threshold, who[np.nonzero(same)[0]], *draw),
        "fmr": statistics.share_above(table[other], ref.threshold),
        "rank1": statistics.share((identity[nearest[some]] == who)[able], who[able], *draw),
    }


def worst(cells: Mapping[str, Mapping[str, Interval | float | str]]) -> dict[str, dict[str, float | str]]:
    """`worst` and `gap` of figures by group, all groups in one comparison; of shares, only groups that rest on `LEAST`
    people. Where all are equal none is the worst."""
    names: dict[str, float | str] = {}
    gaps: dict[str, float | str] = {}
    for figure, more_is_worse in WORSE_IF_MORE.items():
        values = {group: _value(cell[figure]) for group, cell in cells.items() if figure in cell}
        values = {group: value for group, value in values.items() if not np.isnan(value)}
        if len(values) > 1:
            sign = 1 if more_is_worse else -1
            gaps[figure] = float(max(values.values()) - min(values.values()))
            if gaps[figure] > 0:
                names[figure] = max(values, key=lambda group, of=values, sign=sign: sign * of[group])
    return {"worst": names, "gap": gaps}


def _value(figure: Interval | float | str) -> float:
    if isinstance(figure, Interval):
        return figure.value if figure.people >= LEAST else float("nan")
    return float(figure)
