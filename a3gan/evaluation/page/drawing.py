"""Inline SVG of an evaluation: the privacy-utility plane, ROC curves, rows of intervals. Numbers in, markup out.

Every method has a colour (a CSS class, so that dark pages change it) and a marker, so that a print without colour tells
them apart too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from a3gan.evaluation.page.html import Html, tag
from a3gan.evaluation.page.style import METHOD_COLOURS

LABELS = 210  # px for the names of a chart's rows
MARKERS = ("circle", "square", "diamond", "triangle", "down", "cross", "plus")


@dataclass(frozen=True)
class Style:
    """How one method is drawn."""

    name: str
    css: str
    marker: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method, by its place in the list; `original` has its own."""
    others = [method for method in methods if method != "original"]
    found = {m: Style(m, f"m{i % METHOD_COLOURS}", MARKERS[i % len(MARKERS)]) for i, m in enumerate(others)}
    return {m: found.get(m, Style(m, "original", "circle")) for m in methods}


@dataclass(frozen=True)
class Spot:
    """A value with its interval (None: has none)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Axis:
    """Values to pixels: linear, or logarithmic where `log`; values beyond its ends are drawn on the end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = nice_step(self.high - self.low)
        count = math.floor((self.high - self.low) / step + 1e-9)
        first = math.ceil(self.low / step - 1e-9) * step
        return [round(first + i * step, 10) for i in range(count + 1) if first + i * step <= self.high + 1e-9]


def nice_step(span: float, about: int = 5) -> float:
    """1, 2 or 5 times a power of ten, for about so many ticks."""
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)


def percent_label(value: float) -> str:
    """A tick in per cent, without zeros at its end."""
    return f"{100 * value:.6f}".rstrip("0").rstrip(".") + " %"


def plain_label(value: float) -> str:
    """A tick as a short number."""
    return f"{value:.6g}"


def marker(style: Style, x: float, y: float, size: float = 5) -> Html:
    """A method's mark around (x, y)."""
    s = size
    points = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "diamond": [(0, -1.35 * s), (1.35 * s, 0), (0, 1.35 * s), (-1.35 * s, 0)],
        "triangle": [(0, -1.2 * s), (1.15 * s, s), (-1.15 * s, s)],
        "down": [(0, 1.2 * s), (1.15 * s, -s), (-1.15 * s, -s)],
    }.get(style.marker)
    if points:
        return tag("path", d=_outline([(x + dx, y + dy) for dx, dy in points]), class_=style.css, fill="currentColor")
    if style.marker in ("cross", "plus"):
        arms = (
            [((-s, -s), (s, s)), ((-s, s), (s, -s))]
            if style.marker == "cross"
            else [((-s, 0), (s, 0)), ((0, -s), (0, s))]
        )
        d = "".join(f"M{_n(x + a)} {_n(y + b)}L{_n(x + c)} {_n(y + e)}" for (a, b), (c, e) in arms)
        return tag("path", d=d, class_=style.css, stroke="currentColor", stroke_width=2.5, fill="none")
    return tag("circle", cx=x, cy=y, r=s, class_=style.css, fill="currentColor")


def _outline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points) + "Z"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def legend(shown: Sequence[Style]) -> Html:
    """Marks and names in a row."""
    entries = []
    for style in shown:
        mark = tag("svg", marker(style, 8, 8, 5), viewBox="0 0 16 16", aria_hidden="true")
        entries.append(tag("span", mark, style.name))
    return tag("div", entries, class_="legend")


# --- frames ---------------------------------------------------------------------------------------------------------
def axes(x: Axis, y: Axis, titles: tuple[str, str], x_label=percent_label, y_label=percent_label) -> list[Html]:
    """Grid, ticks, the two lines and the titles (below, above) of a drawing."""
    parts = []
    for value in x.ticks():
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.end, class_="grid"))
        parts.append(tag("text", x_label(value), x=x(value), y=y.start + 17, text_anchor="middle", class_="soft"))
    for value in y.ticks():
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", y_label(value), x=x.start - 7, y=y(value) + 4, text_anchor="end", class_="soft"))
    parts.append(tag("path", d=f"M{_n(x.start)} {_n(y.end)}V{_n(y.start)}H{_n(x.end)}", class_="axis"))
    parts.append(tag("text", titles[0], x=(x.start + x.end) / 2, y=y.start + 36, text_anchor="middle"))
    parts.append(tag("text", titles[1], x=x.start - 44, y=y.end - 12, text_anchor="start"))
    return parts


def svg(width: float, height: float, title: str, parts: Sequence[Html]) -> Html:
    """The drawing as a whole, with its title for those who do not see it."""
    return tag("svg", tag("title", title), list(parts), viewBox=f"0 0 {_n(width)} {_n(height)}", role="img")


def plane(points: Sequence[tuple[Style, Spot, Spot]], titles: tuple[str, str], chance: float | None = None) -> Html:
    """Privacy (x, shares, logarithmic, lower is better) against use (y, shares, higher is better), with intervals."""
    smallest = min([s.value for _, s, _ in points if s.value > 0] + [chance or 1.0])
    floor = 10.0 ** math.floor(math.log10(max(smallest, 1e-4) * 0.999))
    lowest = min((min(v for v in (s.low, s.value) if v is not None) for _, _, s in points), default=0.0)
    bottom = min(0.9, math.floor(lowest * 10 - 0.01) / 10) if lowest > 0.5 else 0.0
    x, y = Axis(min(floor, 0.01), 1.0, 52, 400, log=True), Axis(max(bottom, 0.0), 1.0, 292, 30)
    parts = axes(x, y, titles)
    parts.append(tag("text", "↖ better", x=x.start + 8, y=y.end + 16, class_="soft"))
    if chance:
        parts.append(tag("line", x1=x(chance), x2=x(chance), y1=y.start, y2=y.end, class_="guess"))
        parts.append(tag("text", "guessing", x=x(chance) + 4, y=y.start - 6, class_="soft"))
    for style, across, up in points:
        parts += whiskers(style, x, y, across, up)
    taken: list[tuple[float, float]] = []
    for style, across, up in points:
        parts.append(marker(style, x(across.value), y(up.value)))
        parts.append(_free_label(style, x(across.value), y(up.value), x, y, taken))
    return svg(424, 336, f"{titles[1]} against {titles[0]}", parts)


def whiskers(style: Style, x: Axis, y: Axis, across: Spot, up: Spot) -> list[Html]:
    """The intervals of both values around a point, where they have one."""
    lines = []
    if across.low is not None and across.high is not None:
        lines.append(((x(across.low), y(up.value)), (x(across.high), y(up.value))))
    if up.low is not None and up.high is not None:
        lines.append(((x(across.value), y(up.low)), (x(across.value), y(up.high))))
    return [
        tag("line", x1=a, y1=b, x2=c, y2=d, class_=style.css, stroke="currentColor", stroke_width=1.6, opacity=0.75)
        for (a, b), (c, d) in lines
    ]


def _free_label(style: Style, px: float, py: float, x: Axis, y: Axis, taken: list[tuple[float, float]]) -> Html:
    """The method's name beside its mark, where no earlier name stands."""
    right = px < (x.start + x.end) / 2 + 40
    at = px + 10 if right else px - 10
    rows = [py - 9, py + 17, py - 24, py + 32, py + 47, py - 39]
    free = [
        r for r in rows if y.end + 8 < r < y.start - 4 and all(abs(r - b) > 13 or abs(at - a) > 95 for a, b in taken)
    ]
    row = free[0] if free else rows[0]
    taken.append((at, row))
    return tag("text", style.name, x=at, y=row, text_anchor="start" if right else "end", class_="title")


def roc(curves: Sequence[tuple[Style, Sequence[float], Sequence[float]]], far: float, title: str) -> Html:
    """True match rate over false match rate (logarithmic) of every method: (style, false, true), both rising."""
    x, y = Axis(1e-5, 1.0, 52, 400, log=True), Axis(0.0, 1.0, 292, 30)
    parts = axes(x, y, ("false matches (pairs of two people)", f"true matches, {title}"))
    steps = [10 ** (-5 + 5 * i / 60) for i in range(61)]
    parts.append(tag("polyline", points=points_of([(x(v), y(v)) for v in steps]), class_="guess"))
    parts.append(tag("line", x1=x(far), x2=x(far), y1=y.start, y2=y.end, class_="guess"))
    for style, false, true in curves:
        line = points_of([(x(f), y(t)) for f, t in zip(false, true, strict=True) if f >= x.low])
        parts.append(tag("polyline", points=line, class_=style.css, stroke="currentColor", stroke_width=2, fill="none"))
        for k in range(len(false) // 8, len(false), max(1, len(false) // 4)):
            parts.append(marker(style, x(false[k]), y(true[k]), 3.4))
    return svg(424, 336, f"ROC curves, {title}", parts)


def points_of(points: Sequence[tuple[float, float]]) -> str:
    """Pixels as a polyline has them."""
    return " ".join(f"{_n(px)},{_n(py)}" for px, py in points)


@dataclass(frozen=True)
class Row:
    """One line of a chart of intervals: what it is called and a value for each method; `guess`: what chance gives."""

    title: str
    spots: Sequence[tuple[Style, Spot]]
    guess: float | None = None


def rows(lines: Sequence[Row], title: str, log: bool = False, low: float | None = None, label=percent_label) -> Html:
    """Rows of intervals over one axis, a mark for each method, guessing as a short dashed line."""
    pitch, width = 13, 660
    values = [v for line in lines for _, s in line.spots for v in (s.value, s.low, s.high) if v is not None]
    most = max(values, default=1.0)
    top = 1.0 if 0.4 < most <= 1.0 else most * 1.05 or 1.0
    if log:
        seen = [v for v in values + [line.guess or 0 for line in lines] if v > 0]
        x = Axis(
            10.0 ** math.floor(math.log10(max(min(seen, default=0.01), 1e-4))), top, LABELS + 10, width - 28, log=True
        )
    else:
        x = Axis(min(low if low is not None else 0.0, *values) if values else 0.0, top, LABELS + 10, width - 28)
    heights = [max(26, pitch * len(line.spots) + 12) for line in lines]
    bottom = 14 + sum(heights)
    parts = []
    for value in x.ticks():
        parts.append(tag("line", x1=x(value), x2=x(value), y1=10, y2=bottom, class_="grid"))
        parts.append(tag("text", label(value), x=x(value), y=bottom + 16, text_anchor="middle", class_="soft"))
    at = 14.0
    for line, height in zip(lines, heights, strict=True):
        middle = at + height / 2
        parts.append(tag("text", line.title, x=LABELS, y=middle + 4, text_anchor="end"))
        if line.guess is not None:
            parts.append(tag("line", x1=x(line.guess), x2=x(line.guess), y1=at + 3, y2=at + height - 3, class_="guess"))
        first = middle - pitch * (len(line.spots) - 1) / 2
        for i, (style, spot) in enumerate(line.spots):
            y = first + i * pitch
            if spot.low is not None and spot.high is not None:
                parts.append(
                    tag("line", x1=x(spot.low), x2=x(spot.high), y1=y, y2=y, class_=style.css, stroke="currentColor",
                        stroke_width=2, opacity=0.75)
                )  # fmt: skip
            parts.append(marker(style, x(spot.value), y, 4))
        at += height
        parts.append(tag("line", x1=8, x2=width - 8, y1=at, y2=at, class_="grid"))
    return svg(width, bottom + 24, title, parts)
