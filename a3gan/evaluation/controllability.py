"""Task `controllability`: does a policy move what it lets change, and nothing else?

For every attribute that a policy can turn by itself, two policies: only this may change, and all but this may change.
Every attribute is then read by the attribute judge and the measures of landmarks and colour, on original and result.
How much it moved is compared with how much it differs between two strangers, so that attributes share one scale: 0 =
as on the original, 1 = as on somebody else's face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.data.attributes import SCHEMA, Policy, Schema
from a3gan.evaluation import kept, statistics
from a3gan.evaluation.dial import lacking, some_people
from a3gan.evaluation.gather import ORIGINAL, Table
from a3gan.evaluation.quality import mean
from a3gan.evaluation.statistics import Interval

if TYPE_CHECKING:
    from a3gan.evaluation.tasks import Bench

NAME = "controllability"
PANELS = ("only", "but")  # only this may change; all but this may change
NOTHING, EVERYTHING = "nothing", "everything"  # the first row of each panel: its policy without an exception
LEAST = 0.02  # of what strangers must differ by for a scale: LFW has hardly a yawn
Figures = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """What a policy can turn by itself: an attribute, or those that one head of the network gives (an eye cannot close
    while its opening stays). name: the attribute's, or the group's where it is the whole group."""

    name: str
    attributes: tuple[str, ...]


def units(schema: Schema = SCHEMA) -> tuple[Unit, ...]:
    """In the order of the schema."""
    members: dict[str, list[str]] = {}
    group = {attribute.name: attribute.group for attribute in schema}
    for attribute in schema:
        own = attribute.source if attribute.source.startswith("head:") else attribute.name
        members.setdefault(own, []).append(attribute.name)
    return tuple(
        Unit(names[0] if len(names) == 1 else group[names[0]] or names[0], tuple(names)) for names in members.values()
    )


def policies(schema: Schema = SCHEMA) -> dict[tuple[str, str], Policy]:
    """(panel, row) -> policy; the first row of `only` lets nothing change, that of `but` everything."""
    found = {("only", NOTHING): Policy("everything", keep=("*",)), ("but", EVERYTHING): Policy("everything")}
    for unit in units(schema):
        others = tuple(a.name for a in schema if a.name not in unit.attributes)
        found["only", unit.name] = Policy("everything", keep=others)
        found["but", unit.name] = Policy("everything", keep=unit.attributes)
    return found


def able(bench: Bench) -> list[str]:
    """The methods that follow a policy."""
    return [name for name, method in bench.gather.methods.items() if "policy" in method.supports]


def off(bench: Bench) -> str:
    """Why it cannot be measured here, or ''."""
    if bench.attributes is None:
        return "no attributes_judge"
    return lacking(bench, able(bench), "a policy to follow")


def measure(bench: Bench) -> dict[str, dict[str, Figures]]:
    """By method under "none": `only` and `but`, by row and NAME_moved, and `summary`; of the originals `stranger`.

    Faces that some policy's result had to be mosaicked for take no part: no policy steers a mosaic.
    """
    from a3gan.evaluation.tasks import scorers_of_faces

    originals, scorers = some_people(bench), scorers_of_faces(bench)
    person = originals.faces.identity.numpy()

    def tables(name: str, label: str, policy: Policy | None = None) -> Table:
        return bench.gather.tables(originals, scorers, ["none"], [name], label, policy)[name]

    def read(table: Table) -> kept.Reading:
        return kept.read(table["none", "attributes"], table["none", "looks"], bench.temperatures)

    before = read(tables(ORIGINAL, NAME))
    scale = strangers(kept.strangers(before, person, bench.cfg.seed))
    result: dict[str, dict[str, Figures]] = {ORIGINAL: {"none": {"stranger": scale}}}
    bench.about[NAME] = {"pictures": len(person), "people": len(np.unique(person)), "mosaicked": {}}
    for name in able(bench):
        made = {place: tables(name, f"{place[0]} {place[1]}", policy) for place, policy in policies().items()}
        whole = ~np.any([table["none", "mosaicked"]["mosaicked"] for table in made.values()], axis=0)
        bench.about[NAME]["mosaicked"][name] = int((~whole).sum())
        moves = {place: _rows(moved(before, read(table)), whole) for place, table in made.items()}
        result[name] = {"none": figures(moves, scale, person[whole], bench.draw)}
    return result


def _rows(values: Mapping[str, np.ndarray], some: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[some] for name, value in values.items()}


def strangers(found: Mapping[str, float]) -> dict[str, float]:
    """NAME_moved between two strangers, from `kept.strangers`: share read differently, or mean difference of values."""
    return {
        f"{a.name}_moved": found[f"{a.name}_shift"] if a.kind == "continuous" else 1 - found[f"{a.name}_same"]
        for a in SCHEMA if f"{a.name}_{'shift' if a.kind == 'continuous' else 'same'}" in found
    }  # fmt: skip


def moved(before: kept.Reading, after: kept.Reading) -> dict[str, np.ndarray]:
    """How much each attribute moved on each picture, float [N]: a class 0 or 1, a value the absolute difference."""
    return {
        a.name: np.abs(after[a.name] - before[a.name]) if a.kind == "continuous"
        else (after[a.name] != before[a.name]).astype(np.float64)
        for a in SCHEMA
    }  # fmt: skip


def figures(
    moves: Mapping[tuple[str, str], Mapping[str, np.ndarray]], scale: Mapping[str, float], person: np.ndarray,
    draw: tuple[int, int],
) -> Figures:  # fmt: skip
    """NAME_moved by panel and row, and `summary` on the common scale (see `summary`)."""
    result: Figures = {panel: {} for panel in PANELS}
    for (panel, row), values in moves.items():
        cell: dict[str, Interval] = {}
        for attribute in SCHEMA:
            average = mean if attribute.kind == "continuous" else statistics.share
            cell[f"{attribute.name}_moved"] = average(values[attribute.name], person, *draw)
        result[panel][row] = cell
    return result | {"summary": summary(moves, scale, person, draw)}


def scaled(scale: Mapping[str, float]) -> list[Unit]:
    """The units with those of their attributes that strangers differ in by `LEAST`; none without any."""
    of = {unit: tuple(a for a in unit.attributes if scale.get(f"{a}_moved", 0.0) >= LEAST) for unit in units()}
    return [Unit(unit.name, names) for unit, names in of.items() if names]


def summary(
    moves: Mapping[tuple[str, str], Mapping[str, np.ndarray]], scale: Mapping[str, float], person: np.ndarray,
    draw: tuple[int, int],
) -> Figures:  # fmt: skip
    """The square of units against units, in units of the difference of strangers, each unit the mean over its own
    attributes.

    only, but: `diagonal`, mean over the units of how much the named one moved, and `off_diagonal`, mean of the others;
    nothing, everything: `moved`, mean over the units; selectivity: mean of (only: diagonal less off-diagonal) and (but:
    off-diagonal less diagonal). Every unit is as often row as column, so that what always moves or never does cancels
    out: 0 = the policy steers nothing, 1 = what may change becomes a stranger's and the rest stays.
    """
    some = scaled(scale)

    def each(place: tuple[str, str], unit: Unit) -> np.ndarray:
        return np.mean([moves[place][a] / scale[f"{a}_moved"] for a in unit.attributes], axis=0)

    def over(*cells: np.ndarray) -> Interval:
        return mean(np.mean(cells, axis=0), person, *draw) if cells else mean(np.zeros(0), np.zeros(0))

    result: Figures = {}
    contrast = []
    for panel, sign in zip(PANELS, (1, -1), strict=True):
        own = [each((panel, unit.name), unit) for unit in some]
        others = [each((panel, row.name), unit) for row in some for unit in some if unit != row]
        result[panel] = {"diagonal": over(*own), "off_diagonal": over(*others)}
        if own and others:
            contrast.append(sign * (np.mean(own, axis=0) - np.mean(others, axis=0)))
    for panel, row in zip(PANELS, (NOTHING, EVERYTHING), strict=True):
        result[row] = {"moved": over(*(each((panel, row), unit) for unit in some))}
    return result | {"selectivity": over(*contrast)}
