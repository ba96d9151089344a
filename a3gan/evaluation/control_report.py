"""The dial and what a policy moves as the reports show them: from `results.json` to words, tables and grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from a3gan.evaluation import controllability, dial
from a3gan.evaluation.controllability import EVERYTHING, LEAST, NOTHING, PANELS, units
from a3gan.evaluation.gather import ORIGINAL
from a3gan.evaluation.report import as_table, percent

Results = dict[str, Any]
Figures = dict[str, Any]


# --- the dial -------------------------------------------------------------------------------------------------------
def steps(results: Results, method: str) -> list[tuple[float, Figures]]:
    """(alpha, figures) of one method, from `results.json`; [] where it was not measured."""
    cells = ((results.get("tasks") or {}).get(dial.NAME) or {}).get(method, {}).get("none", {})
    return [(alpha, cells[dial.key(alpha)]) for alpha in dial.STEPS if dial.key(alpha) in cells]


def verdicts(results: Results) -> dict[str, dict[str, Figures]]:
    """method -> judge -> verdict."""
    task = (results.get("tasks") or {}).get(dial.NAME) or {}
    return {method: by["none"]["verdict"] for method, by in task.items() if "verdict" in by["none"]}


RULE = (
    "It falls where no step matches more pairs of one person than any earlier step, and the last one fewer than the "
    "first: \"more\" and \"fewer\" mean that the 95 % interval of the difference, over the same pairs and drawing "
    "people, excludes 0."
)  # fmt: skip


def verdict_said(verdict: Figures) -> str:
    """One verdict in words: `falls with alpha; the plain shares never rise; Spearman -1.000`."""
    broken = [f"{after:g} matches more than {before:g}" for before, after in verdict["rises"]]
    rises = f" (alpha {'; '.join(broken)})" if broken else "" if verdict["falls"] else " (the last step is no lower)"
    most = 100 * (verdict["largest_rise"]["value"] or 0.0)
    plain = "never rise" if verdict["never_rises"] else f"rise by at most {most:.2f} %"
    rank = "undefined" if verdict["spearman"] is None else f"{verdict['spearman']:.3f}"
    head = "falls with alpha" if verdict["falls"] else f"does not fall with alpha{rises}"
    return f"{head}; the plain shares {plain}; Spearman {rank}"


def step_table(results: Results, method: str) -> list[list[str]]:
    """Titles, then a line for the originals and for each step: true matches and own pictures matched by judge, use,
    mosaicked faces."""
    untouched = results["tasks"][dial.NAME][ORIGINAL]["none"]
    lines = []
    for name, cell in [("originals", untouched), *((f"{alpha:g}", cell) for alpha, cell in steps(results, method))]:
        line = {"alpha": name}
        for judge, by in cell["verification"].items():
            line[f"true matches, {judge}"] = percent(by["tar"], 2)
            line[f"own picture matched, {judge}"] = percent(by["same_picture"])
        if "expression" in cell:
            line["smile kept"] = percent(cell["expression"]["agreement"])
        if "quality" in cell:
            line["landmark error, eye distances"] = f"{cell['quality']['landmarks']['value']:.3f}"
        lines.append(line | {"mosaicked": str(cell["mosaicked"])})
    return [list(lines[0]), *(list(line.values()) for line in lines)]


# --- what a policy moves --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Grid:
    """One panel for drawing. rows: names, the first without a diagonal. columns: attributes, by unit. value: [R][C], in
    differences of strangers where `scaled`, else as it is; None = not measured. own: which cells are the diagonal."""

    rows: list[str]
    columns: list[str]
    scaled: list[bool]
    value: list[list[float | None]]
    own: list[list[bool]]


def grids(results: Results) -> dict[str, dict[str, Grid]]:
    """method -> panel -> grid, from `results.json`."""
    task = (results.get("tasks") or {}).get(controllability.NAME) or {}
    scale = task.get(ORIGINAL, {}).get("none", {}).get("stranger", {})
    return {
        method: {panel: _grid(by["none"][panel], scale) for panel in PANELS}
        for method, by in task.items() if method != ORIGINAL
    }  # fmt: skip


def _grid(rows: dict[str, Figures], scale: dict[str, float]) -> Grid:
    columns = [(unit.name, a) for unit in units() for a in unit.attributes]
    by = [scale.get(f"{a}_moved") or 0.0 for _, a in columns]
    values = []
    for cells in rows.values():
        read = [cells[f"{a}_moved"]["value"] for _, a in columns]
        values.append([v / s if v is not None and s >= LEAST else v for v, s in zip(read, by, strict=True)])
    own = [[unit == row for unit, _ in columns] for row in rows]
    return Grid(list(rows), [a for _, a in columns], [s >= LEAST for s in by], values, own)


TITLES = {"only": "Only this may change", "but": "All but this may change"}


def explained(results: Results, own: str, unscaled: str) -> str:
    """What the grids show and rest on. own, unscaled: how the named cells and the columns without a scale look."""
    text = (
        "How much each attribute (columns) moved under each policy (rows), as the attribute judge and the measures of "
        "landmarks and colour read original and result: 1 = as much as between two strangers, 0 = not at all. "
        f"{own}: what the policy names."
    )
    if not all(all(grid.scaled) for panels in grids(results).values() for grid in panels.values()):
        text += (
            f" {unscaled} have no scale, since strangers hardly differ there: they show the share read differently, or "
            "the mean change of the value, as it is."
        )
    about = (results.get("about") or {}).get(controllability.NAME)
    if about:
        left = ", ".join(f"{method} {count}" for method, count in about["mosaicked"].items())
        text += f" {about['pictures']} pictures of {about['people']} people; of them mosaicked, and left out: {left}."
    return text


def summary_said(summary: Figures) -> str:
    """The summary in words."""
    only, but = (summary[panel] for panel in PANELS)

    def number(figure: Figures) -> str:
        return "–" if figure["value"] is None else f"{figure['value']:.2f}"

    low, high = (summary["selectivity"][end] for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return (
        f"Only this: the named attribute moves by {number(only['diagonal'])}, the others by "
        f"{number(only['off_diagonal'])}. All but this: the named one {number(but['diagonal'])}, the others "
        f"{number(but['off_diagonal'])}. With nothing allowed all move by {number(summary[NOTHING]['moved'])}, "
        f"with everything by {number(summary[EVERYTHING]['moved'])}. "
        f"Selectivity {number(summary['selectivity'])}{interval}: 0 = the policy steers nothing, "
        "1 = it moves what it names as far as a stranger's, and nothing else."
    )


# --- results.md -----------------------------------------------------------------------------------------------------
def markdown(results: Results) -> list[str]:
    """Lines of both sections; [] where neither was measured."""
    lines: list[str] = []
    for method, by_judge in verdicts(results).items():
        titles, *cells = step_table(results, method)
        lines += ["", f"## The dial: {method}", ""]
        lines += [f"- judge {judge}: {verdict_said(verdict)}." for judge, verdict in by_judge.items()]
        lines += ["", RULE, "", *as_table(titles, cells)]
    for method, panels in grids(results).items():
        summary = results["tasks"][controllability.NAME][method]["none"]["summary"]
        lines += ["", f"## What a policy moves: {method}", "", summary_said(summary), ""]
        lines.append(explained(results, "Bold", "Columns in brackets"))
        for panel, grid in panels.items():
            names = [name if scaled else f"({name})" for name, scaled in zip(grid.columns, grid.scaled, strict=True)]
            head = [TITLES[panel].lower(), *(name.replace("_", " ") for name in names)]
            lines += ["", *as_table(head, [_line(grid, i) for i in range(len(grid.rows))])]
    return lines


def _line(grid: Grid, i: int) -> list[str]:
    shown = ["-" if value is None else f"{value:.2f}" for value in grid.value[i]]
    cells = [f"**{text}**" if own else text for text, own in zip(shown, grid.own[i], strict=True)]
    return [grid.rows[i].replace("_", " "), *cells]
