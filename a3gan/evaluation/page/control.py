"""The page's sections on the dial and on what a policy moves, with their drawings."""

from __future__ import annotations

import math
from typing import Any

from a3gan.evaluation import control_report, controllability, dial
from a3gan.evaluation.control_report import steps
from a3gan.evaluation.gather import ORIGINAL
from a3gan.evaluation.page import drawing, tables, words
from a3gan.evaluation.page.drawing import Axis, Spot, Style
from a3gan.evaluation.page.html import Html, tag

Results = dict[str, Any]
LABELLED = (0.0, 1.0)  # steps whose alpha is written beside their mark
USE = (("expression", "agreement", "smile kept"), ("quality", "landmarks", "landmark error, eye distances"))
CELL, ROW, HEAD = 44, 24, 104  # px of the heat map: a cell's width and height, the columns' names
PALEST, STRONGEST = 0.03, 0.55  # opacity of its cells; more would hide the numbers


# --- the dial -------------------------------------------------------------------------------------------------------
def dial_section(results: Results, look: dict[str, Style]) -> list[Html] | None:
    """Verdicts, true matches over alpha by judge, use against true matches, and the table."""
    verdicts = control_report.verdicts(results)
    if not verdicts:
        return None
    judges = list(next(iter(verdicts.values())))
    lines = [
        tag("li", tag("b", f"{method}, judge {judge}"), f": {control_report.verdict_said(verdict)}.")
        for method, by_judge in verdicts.items() for judge, verdict in by_judge.items()
    ]  # fmt: skip
    figures = [_falling(results, look, list(verdicts), judge) for judge in judges]
    figures += [p for use in USE if (p := _along(results, look, list(verdicts), judges[0], use)) is not None]
    about = (results.get("about") or {}).get(dial.NAME) or {}
    text = f"{about['pictures']} pictures of {about['people']} people, {about['pairs']} pairs of one. " if about else ""
    text += "Alpha 0 is the plain reconstruction, 1 the anonymised face; dashed, where it fits: originals. Bars: 95 % "
    text += "intervals. "
    return [
        tag("ul", lines), drawing.legend([look[m] for m in verdicts]),
        tag("div", [tag("figure", figure) for figure in figures], class_="plots"),
        tag("p", text + control_report.RULE, class_="note"), *[_steps(results, method) for method in verdicts],
    ]  # fmt: skip


def _spot(figure: dict[str, Any]) -> Spot:
    return Spot(figure["value"], figure["low"], figure["high"])


def _falling(results: Results, look: dict[str, Style], methods: list[str], judge: str) -> Html:
    """True matches over alpha; that of the originals only where it would not squeeze the others."""
    ways = {
        method: [(alpha, _spot(cell["verification"][judge]["tar"])) for alpha, cell in steps(results, method)]
        for method in methods
    }
    most = max(spot.high for way in ways.values() for _, spot in way)
    x, y = Axis(0.0, 1.0, 52, 400), Axis(0.0, min(1.0, 1.1 * most), 292, 30)
    parts = drawing.axes(x, y, ("alpha", f"true matches, judge {judge}"), drawing.plain_label)
    before = results["tasks"][dial.NAME][ORIGINAL]["none"]["verification"][judge]["tar"]["value"]
    if before <= y.high:
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(before), y2=y(before), class_="guess"))
    for method, way in ways.items():
        style = look[method]
        parts.append(_line(style, drawing.points_of([(x(alpha), y(spot.value)) for alpha, spot in way])))
        for alpha, spot in way:
            parts += drawing.whiskers(style, x, y, Spot(alpha), spot)
            parts.append(drawing.marker(style, x(alpha), y(spot.value), 3.4))
    return drawing.svg(424, 336, f"True matches over alpha, judge {judge}", parts)


def _line(style: Style, points: str) -> Html:
    return tag("polyline", points=points, class_=style.css, stroke="currentColor", stroke_width=1.6, fill="none")


def _along(
    results: Results, look: dict[str, Style], methods: list[str], judge: str, use: tuple[str, str, str]
) -> Html | None:
    """The way of each method from alpha 0 to 1 through the plane of true matches and one figure of use."""
    section, leaf, title = use
    ways: dict[str, list[tuple[float, Spot, Spot]]] = {}
    for method in methods:
        for alpha, cell in steps(results, method):
            figure = cell.get(section, {}).get(leaf)
            if figure is not None and figure["value"] is not None:
                tar = _spot(cell["verification"][judge]["tar"])
                ways.setdefault(method, []).append((alpha, tar, _spot(figure)))
    if not ways:
        return None
    spots = [(tar, up) for way in ways.values() for _, tar, up in way]
    smallest = min([tar.value for tar, _ in spots if tar.value > 0], default=0.01)
    x = Axis(min(10.0 ** math.floor(math.log10(max(smallest, 1e-4) * 0.999)), 0.01), 1.0, 52, 400, log=True)
    y = _height([v for _, up in spots for v in (up.value, up.low, up.high) if v is not None], section == "expression")
    label = drawing.percent_label if section == "expression" else drawing.plain_label
    parts = drawing.axes(x, y, (f"true matches, judge {judge}", f"{title}, along the dial"), y_label=label)
    for method, way in ways.items():
        style = look[method]
        parts.append(_line(style, drawing.points_of([(x(tar.value), y(up.value)) for _, tar, up in way])))
        for alpha, tar, up in way:
            parts += drawing.whiskers(style, x, y, tar, up)
            parts.append(drawing.marker(style, x(tar.value), y(up.value), 3.4))
            if alpha in LABELLED:
                at = {"x": x(tar.value) + 7, "y": y(up.value) - 7}
                parts.append(tag("text", f"α {alpha:g}", **at, class_="soft"))
    return drawing.svg(424, 336, f"{title} against true matches along the dial", parts)


def _height(values: list[float], share: bool) -> Axis:
    """A share that stays high is drawn from the last tenth below it; an error from 0."""
    if not share:
        return Axis(0.0, max(values) * 1.08 or 1.0, 292, 30)
    low = math.floor(min(values) * 10 - 0.01) / 10
    return Axis(max(0.0, low) if low > 0.4 else 0.0, 1.0, 292, 30)


def _steps(results: Results, method: str) -> Html:
    titles, *lines = control_report.step_table(results, method)
    return tables.plain(lines, titles, f"{method}, step by step.")


# --- what a policy moves --------------------------------------------------------------------------------------------
def matrix_section(results: Results) -> list[Html] | None:
    """For each method the summary and two heat maps."""
    grids = control_report.grids(results)
    if not grids:
        return None
    parts: list[Html] = []
    for method, panels in grids.items():
        summary = results["tasks"][controllability.NAME][method]["none"]["summary"]
        parts.append(tag("p", tag("b", method), ". ", control_report.summary_said(summary)))
        figures = [
            tag("figure", tag("figcaption", tag("b", control_report.TITLES[panel])), heat(grid))
            for panel, grid in panels.items()
        ]  # fmt: skip
        parts.append(tag("div", figures, class_="plots wide"))
    text = control_report.explained(results, "Framed", "Grey columns")
    return [*parts, tag("p", text, class_="note")]


def heat(grid: control_report.Grid) -> Html:
    """One panel: a cell for each policy and measured attribute, its number, a frame around what the policy names."""
    left = 112
    parts = []
    for j, column in enumerate(grid.columns):
        at = left + (j + 0.5) * CELL
        name = tag("text", spaced(column), transform=f"translate({at + 4:.0f} {HEAD - 8}) rotate(-50)")
        parts.append(name)
    for i, row in enumerate(grid.rows):
        top = HEAD + i * ROW
        parts.append(tag("text", spaced(row), x=left - 8, y=top + ROW / 2 + 4, text_anchor="end"))
        for j, value in enumerate(grid.value[i]):
            parts += _cell(value, grid.scaled[j], grid.own[i][j], left + j * CELL, top)
    # Frames last, so that no neighbour covers them.
    parts.sort(key=lambda part: 'class="frame"' in part)
    size = left + len(grid.columns) * CELL + 30, HEAD + len(grid.rows) * ROW + 8
    return drawing.svg(*size, "How much each attribute moved under each policy", parts)


def _cell(value: float | None, scaled: bool, own: bool, x: float, y: float) -> list[Html]:
    strength = PALEST + (STRONGEST - PALEST) * min(max(value or 0.0, 0.0), 1.0)
    box = {"x": x + 1, "y": y + 1, "width": CELL - 2, "height": ROW - 2}
    ground = {"class_": "m0", "fill": "currentColor", "fill_opacity": strength} if scaled else {"class_": "empty"}
    shown = words.number(None) if value is None else f"{value:.2f}"
    text = tag("text", shown, x=x + CELL / 2, y=y + ROW / 2 + 4, text_anchor="middle",
               class_=None if scaled else "soft")  # fmt: skip
    return [tag("rect", **box, **ground), text, *([tag("rect", **box, class_="frame")] if own else [])]


def spaced(name: str) -> str:
    """A row's or a column's name as people read it."""
    return name.replace("_", " ")
