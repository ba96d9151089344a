"""`report.html` as one string: everything in it comes from `results.json` and the pictures of faces."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from a3gan.evaluation import listing
from a3gan.evaluation.page import drawing, protocol_text, summary, tables, words
from a3gan.evaluation.page.html import Html, tag
from a3gan.evaluation.page.style import CSS

Results = dict[str, Any]
MAX_CURVE_PANELS = 6


def page(results: Results, faces: Mapping[str, bytes] | None = None) -> str:
    """The whole page; the same arguments give the same text. faces: title -> PNG of a sheet."""
    table = listing.table(results)
    methods = list(dict.fromkeys(row["method"] for row in results["rows"]))
    look = drawing.styles(methods)
    main = results["config"]["method"][0]
    sections = [
        ("summary", "", _top(results, table, methods, main, look)),
        ("table", "Methods by tasks", _table(results, table, methods, look)),
        ("plane", "Privacy against use", _planes(results, table, methods, look)),
        ("attackers", "Attackers that learned", _attackers(results, table, methods, look)),
        ("roc", "ROC curves", _curves(results, look)),
        ("groups", "By group", _groups(table, methods, look)),
        ("faces", "Faces", _faces(results, faces or {})),
        ("all", "Every figure", _everything(table, methods, look)),
        ("protocol", "How it was measured", protocol_text.protocol(results)),
        ("origin", "Origin and repetition", protocol_text.origin(results)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    links = [tag("a", title, href=f"#{key}") for key, title, _ in shown if title]
    body = []
    for key, title, content in shown:
        body.append(tag("section", tag("h2", title) if title else None, content, id=key))
        if key == "summary":
            body.append(tag("nav", links))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"a3gan evaluation: {', '.join(results['config']['method'])}"),
        tag("style", Html(CSS)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", body)), lang="en") + "\n"


# --- sections -------------------------------------------------------------------------------------------------------
def _top(
    results: Results, table: tables.Table, methods: Sequence[str], main: str, look: dict[str, drawing.Style]
) -> list[Html]:
    data, judges = results["data"], ", ".join(results["judges"]) or "none"
    lead = (
        f"{data['pictures']} pictures of {data['people']} people (split {results['config']['data']['split']}), "
        f"{data['judged']}. Recognisers that judge: {judges}."
    )
    others = [m for m in methods if m not in ("original", main)]
    parts = [tag("h1", f"How anonymous, how usable: {main}"), tag("p", lead, class_="lead"), _banners(results)]
    parts.append(summary.cards(results, table, main))
    if others:
        parts += [tag("h3", "Beside it"), summary.comparison(results, table, [main, *others, "original"], look)]
    return parts


def _banners(results: Results) -> list[Html]:
    parts = []
    gate = results.get("limits")
    if gate:
        broken = [line["text"] for line in gate if not line["kept"]]
        title = f"Limits: {len(gate) - len(broken)} of {len(gate)} kept" + (", this must not be published" if broken else "")
        lines = tag("ul", [tag("li", line) for line in broken]) if broken else None
        parts.append(tag("div", tag("p", tag("b", title)), lines, class_=f"banner {'bad' if broken else 'good'}"))
    if results.get("warnings"):
        parts.append(tag("div", [tag("p", line) for line in results["warnings"]], class_="banner bad"))
    if results.get("off"):
        parts.append(tag("div", [tag("p", line) for line in results["off"]], class_="banner"))
    return parts


def _table(results: Results, table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]) -> Html:
    caption = (
        "Below each value its 95 % interval, then the same figure after JPEG at quality 75 (J) and at half size (½). Shaded: "
        "better than every other method with intervals that do not overlap (original and identity hide nothing and take "
        "no part)."
    )
    return tables.figures(headline_parts(results, table), table, methods, look, caption)


def headline_parts(results: Results, table: tables.Table) -> list[tuple[str, list[str]]]:
    """The figures of the first table, in titled parts."""
    parts = []
    for judge in results["judges"]:
        keys = [f"verification.{judge}.{k}" for k in ("tar", "tar_found", "tar_own", "eer", "psr")]
        keys += [f"identification.{judge}.{k}" for k in ("rank1", "rank1_included", "rank1_reverse")]
        parts.append((f"Verification: who is still recognised by judge {judge}", keys))
    parts.append(("Detection: is the face still found", tables.names(table, "detection")))
    parts.append(("Expression: does the smile stay", tables.names(table, "expression")))
    parts.append(("Other readings of the attribute judge", tables.names(table, "attributes")))
    for task in results.get("tasks") or {}:
        if task != "groups":
            some = [n for n in tables.names(table, f"tasks.{task}") if words.meaning(n).better]
            parts.append((task.capitalize(), some))
    return parts


def _planes(
    results: Results, table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]
) -> list[Html] | None:
    """Every pair of a privacy and a use figure that is there."""
    figures = []
    judge = next(iter(results["judges"]), None)
    privacy = [(f"verification.{judge}.tar", "true matches", None)]
    chance = table.get((f"identification.{judge}.rank1_chance", "original", "none"))
    privacy.append((f"identification.{judge}.rank1", "found by search (rank 1)", chance.value if chance else None))
    if results.get("attackers"):
        privacy.append(("strongest", "found by the strongest attacker", privacy[-1][2]))
    use = [("detection.picture.found", "faces found"), ("expression.agreement_found", "smile kept, face found")]
    for up, y_title in use:
        for across, x_title, guess in privacy:
            points = []
            for method in methods:
                a, b = table.get((across, method, "none")), table.get((up, method, "none"))
                a = summary.strongest(table, method) if across == "strongest" else a
                if a is not None and b is not None and a.value is not None and b.value is not None:
                    points.append((look[method], _spot(a), _spot(b)))
            if len(points) > 1:
                figures.append(tag("figure", drawing.plane(points, (x_title, y_title), guess)))
    if not figures:
        return None
    text = (
        "Left: fewer recognised. Up: more usable. Bars are 95 % intervals; the horizontal axis is logarithmic, and what "
        "lies below its end is drawn at the end."
    )
    return [tag("p", text, class_="note"), tag("div", figures, class_="plots")]


def _spot(figure: listing.Figure) -> drawing.Spot:
    return drawing.Spot(figure.value, figure.low, figure.high)


def _curves(results: Results, look: dict[str, drawing.Style]) -> list[Html] | None:
    panels = []
    for judge, by_method in list((results.get("curves") or {}).items())[:MAX_CURVE_PANELS]:
        lines = [(look[method], *ends) for method, ends in by_method.items() if method in look]
        panels.append(tag("figure", drawing.roc(lines, results["config"]["far"], f"judge {judge}")))
    if not panels:
        return None
    shown = [look[m] for m in look if any(m in c for c in results["curves"].values())]
    text = "Original against result, pictures as they are. Dotted: guessing, and the false match rate of the tables."
    return [drawing.legend(shown), tag("div", panels, class_="plots"), tag("p", text, class_="note")]


def _attackers(
    results: Results, table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]
) -> list[Html] | None:
    attackers = results.get("attackers") or {}
    if not attackers:
        return None
    searches = [n for n in tables.names(table, "attackers") if n.rsplit(".", 1)[-1] in summary.SEARCH]
    lines = []
    for name in searches:
        row = tables.by_method(table, name, methods)
        spots = [(look[m], _spot(f)) for m, f in row.items() if f.value is not None]
        chance = next((f for (n, _, d), f in table.items() if n == f"{name}_chance" and d == "none"), None)
        if spots:
            title = summary.attacker_title(next(iter(row.values())))
            suffix = "" if name.endswith(".rank1") else f" ({words.meaning(name).title})"
            lines.append(drawing.Row(title + suffix, spots, chance.value if chance else None))
    parts: list[Html] = [protocol_text.budget(results)]
    if lines:
        used = [look[m] for m in methods if any(style.name == m for line in lines for style, _ in line.spots)]
        note = "Share of searches whose first name is right; dashed: guessing."
        chart = drawing.rows(lines, "Attackers: share of right first names")
        parts.append(tag("figure", drawing.legend(used), chart, tag("figcaption", note), class_="mid"))
    of = [(name.capitalize(), tables.names(table, f"attackers.{name}")) for name in attackers]
    parts.append(tables.figures(of, table, [m for m in methods if m != "original"], look))
    return parts


def _groups(table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]) -> list[Html] | None:
    """A chart for each figure of the task `groups`: a row for each group, a mark for each method."""
    charts: dict[str, list[drawing.Row]] = {}
    for name in tables.names(table, "tasks.groups"):
        row = tables.by_method(table, name, methods)
        spots = [(look[m], _spot(f)) for m, f in row.items() if f.value is not None and f.low is not None]
        if spots:
            group = " ".join(name.split(".")[2:-1]).replace("_", " ")
            charts.setdefault(name.rsplit(".", 1)[-1], []).append(drawing.Row(group, spots))
    if not charts:
        return None
    figures = [
        tag("figure", drawing.rows(lines, words.meaning(leaf).title), tag("figcaption", words.meaning(leaf).title))
        for leaf, lines in charts.items()
    ]
    return [drawing.legend([look[m] for m in methods]), tag("div", figures, class_="plots")]


def _faces(results: Results, faces: Mapping[str, bytes]) -> list[Html] | None:
    if not faces:
        return None
    parts: list[Html] = []
    if (results["config"].get("report") or {}).get("faces") == "own":
        text = "This page shows real photographs next to their anonymised versions. Do not publish it."
        parts.append(tag("div", tag("p", tag("b", text)), class_="banner bad"))
    for title, png in faces.items():
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        parts.append(tag("figure", tag("img", src=source, alt=title), tag("figcaption", title)))
    return parts


def _everything(table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]) -> list[Html]:
    sections: dict[str, list[str]] = {}
    for name, _, _ in table:
        some = sections.setdefault(name.rsplit(".", 1)[0] if "." in name else "run", [])
        if name not in some:
            some.append(name)
    return [
        tag("details", tag("summary", section), tables.figures([(section, some)], table, methods, look))
        for section, some in sections.items()
    ]
