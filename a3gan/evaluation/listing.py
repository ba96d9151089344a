"""Every figure of a `results.json` as one flat list with names, for the gate, the page and the tables.

A figure's name is its path without method and picture: `verification.b.tar`, `detection.picture.found`,
`tasks.fatigue.yawning_agreement`, `attackers.parrot.rank1`. What it means stands in the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROW_KEYS = ("method", "degradation")  # of a row: not figures


@dataclass(frozen=True)
class Figure:
    """One number of one method on one kind of picture. low, high: its 95 % interval, None where it has none.

    value None: nothing was there to count.
    """

    name: str
    method: str
    degradation: str
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    people: int | None = None

    @property
    def leaf(self) -> str:
        """The last word of the name: what the catalogue knows."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def section(self) -> str:
        """Everything before the last word."""
        return self.name.rsplit(".", 1)[0] if "." in self.name else ""


def figures(results: dict[str, Any]) -> list[Figure]:
    """All figures of an evaluation, in the order of the file."""
    found: list[Figure] = []
    for row in results.get("rows", []):
        for key, value in row.items():
            if key not in ROW_KEYS:
                found += _walk(value, key, row["method"], row["degradation"])
    for top in ("tasks", "attackers"):
        for part, by_method in (results.get(top) or {}).items():
            for method, by_degradation in by_method.items():
                if not isinstance(by_degradation, dict):
                    continue
                for degradation, value in by_degradation.items():
                    found += _walk(value, f"{top}.{part}", method, degradation)
    return found


def _walk(value: Any, name: str, method: str, degradation: str) -> Iterator[Figure]:
    if isinstance(value, dict) and "value" in value:
        ends = [value.get(key) for key in ("low", "high", "count", "people")]
        yield Figure(name, method, degradation, value["value"], *ends)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{name}.{key}", method, degradation)
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield Figure(name, method, degradation, value)


def table(results: dict[str, Any]) -> dict[tuple[str, str, str], Figure]:
    """The same by (name, method, degradation)."""
    return {(f.name, f.method, f.degradation): f for f in figures(results)}


def apart(one: Figure, other: Figure) -> bool:
    """Whether two intervals do not overlap: what it takes to call one of two methods better."""
    if None in (one.low, one.high, other.low, other.high):
        return False
    return one.high < other.low or other.high < one.low
