"""Tables of the page: figures down, methods across, with intervals, the better direction and the best value marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a3gan.evaluation.listing import Figure
from a3gan.evaluation.page import words
from a3gan.evaluation.page.drawing import Style
from a3gan.evaluation.page.html import Html, tag

Table = dict[tuple[str, str, str], Figure]  # (name, method, degradation)
MANY = 7  # columns from which on a table is wider than the text
SHORT = {"jpeg75": "J", "half": "½"}
FLOORS = {  # figures that stand beside another one
    "_chance": "guessing", "_floor": "shuffled names", "_untrained": "untrained", "_blurred": "learned from blur",
}  # fmt: skip
HALVES = ("frechet", "kernel")  # their floor is the distance of two halves of the originals
ARROWS = {"lower": "↓ lower is better", "higher": "↑ higher is better"}


def names(table: Table, start: str) -> list[str]:
    """Names of the figures below a section, each once, in the order of the file."""
    return list(dict.fromkeys(name for name, _, _ in table if name == start or name.startswith(start + ".")))


def by_method(table: Table, name: str, methods: Sequence[str], degradation: str = "none") -> dict[str, Figure]:
    """One figure of every method that has it."""
    found = {m: table.get((name, m, degradation)) for m in methods}
    return {m: f for m, f in found.items() if f is not None}


def cell(figure: Figure | None, table: Table, meaning: words.Meaning, is_best: bool) -> Html:
    """Value, interval, and the same after JPEG and at half size."""
    if figure is None:
        return tag("td", "–")
    parts: list[Any] = [words.value(figure, meaning.unit)]
    if inside := words.brackets(figure, meaning.unit):
        parts.append(tag("small", inside))
    after = []
    for degradation, short in SHORT.items():
        other = table.get((figure.name, figure.method, degradation))
        if other is not None and other.value is not None:
            after.append(f"{short} {words.number(other.value, meaning.unit).removesuffix(words.PER_CENT)}")
    if after:
        parts.append(tag("small", " · ".join(after)))
    return tag("td", parts, class_="best" if is_best else None)


def head(methods: Sequence[str], look: dict[str, Style]) -> Html:
    """The methods as column titles, with their colours."""
    cells = []
    for method in methods:
        dot = tag("span", "", class_=f"swatch {look[method].css}", style="background:currentColor")
        cells.append(tag("th", dot, method, scope="col"))
    return tag("thead", tag("tr", tag("th", "", scope="col"), cells))


def figures(
    parts: Sequence[tuple[str, Sequence[str]]],
    table: Table,
    methods: Sequence[str],
    look: dict[str, Style],
    caption: str = "",
) -> Html:
    """A table of named figures in titled parts; a figure that no method has is left out."""
    body = []
    for title, some in parts:
        shown = [name for name in some if not is_floor(name, table)]
        lines = [line for name in shown if (line := _line(name, table, methods)) is not None]
        if lines:
            body.append(tag("tr", tag("th", title, colspan=len(methods) + 1, scope="rowgroup"), class_="part"))
            body += lines
    if not body:
        return Html("")
    note = tag("caption", caption) if caption else None
    wide = "scroll many" if len(methods) > MANY else "scroll"
    return tag("div", tag("table", note, head(methods, look), tag("tbody", body)), class_=wide)


def _line(name: str, table: Table, methods: Sequence[str]) -> Html | None:
    row = by_method(table, name, methods)
    if all(figure.value is None for figure in row.values()):
        return None
    meaning = words.meaning(next(iter(row.values())))
    winner = words.best(row, meaning.better)
    title: list[Any] = [words.title(next(iter(row.values())))]
    if meaning.better:
        title.append(tag("small", ARROWS[meaning.better], class_="better"))
    if beside := floors(name, table, methods):
        title.append(tag("small", beside))
    cells = [cell(row.get(method), table, meaning, method == winner) for method in methods]
    return tag("tr", tag("th", title, scope="row"), cells)


def floors(name: str, table: Table, methods: Sequence[str]) -> str:
    """What guessing and shuffled names give for a figure: `guessing 0.37 %, shuffled names 0.40 %`."""
    parts = []
    for ending, text in FLOORS.items():
        text = "two halves of the originals" if name.rsplit(".", 1)[-1] in HALVES else text
        row = by_method(table, name + ending, methods)
        seen = [figure.value for figure in row.values() if figure.value is not None]
        if seen:
            parts.append(f"{text} {words.number(max(seen), words.meaning(name).unit)}")
    return ", ".join(parts)


def is_floor(name: str, table: Table) -> bool:
    """Whether a figure only stands beside another one."""
    known = {n for n, _, _ in table}
    return any(name.endswith(ending) and name.removesuffix(ending) in known for ending in FLOORS)


def plain(rows: Sequence[Sequence[Any]], titles: Sequence[str], caption: str = "") -> Html:
    """A table of words."""
    note = tag("caption", caption) if caption else None
    lines = [tag("tr", tag("th", row[0], scope="row"), [tag("td", c) for c in row[1:]]) for row in rows]
    top = tag("thead", tag("tr", [tag("th", t, scope="col") for t in titles]))
    return tag("div", tag("table", note, top, tag("tbody", lines), class_="words"), class_="scroll")
