"""`report.html` as one string: everything in it comes from `results.json` and the pictures of faces."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from a3gan.evaluation import listing
from a3gan.evaluation.page import control, drawing, protocol_text, summary, tables, words
from a3gan.evaluation.page.html import Html, tag
from a3gan.evaluation.page.style import CSS

Results = dict[str, Any]
MAX_CURVE_PANELS = 6
ATTACKED = (  # figures of attackers in their table; the others stand under "Every figure"
    "rank1 rank1_off_the_shelf rank1_included rank1_reverse same_picture tar auc d_sys two_keys_matched key_auc "
    "alpha0_rank1 ssim perceptual"
).split()


def page(results: Results, faces: Mapping[str, bytes] | None = None, speed: Mapping[str, Any] | None = None) -> str:
    """The whole page; the same arguments give the same text.

    faces: method -> PNG of a strip. speed: what `speed.measure` gives; it is no part of the results.
    """
    if speed:
        by_batch = {m: {"none": {f"{b}": cell for b, cell in cells.items()}} for m, cells in speed["methods"].items()}
        results = {**results, "tasks": {**(results.get("tasks") or {}), "speed": by_batch}}
    table = listing.table(results)
    methods = list(dict.fromkeys(row["method"] for row in results["rows"]))
    look = drawing.styles(methods)
    main = results["config"]["method"][0]
    sections = [
        ("summary", "", _top(results, table, methods, main, look)),
        ("table", "Methods by tasks", _table(table, methods, look)),
        ("plane", "Privacy against use", _planes(results, table, methods, look)),
        ("dial", "The dial", control.dial_section(results, look)),
        ("control", "What a policy moves", control.matrix_section(results)),
        ("attackers", "Attackers that learned", _attackers(results, table, methods, look)),
        ("roc", "ROC curves", _curves(results, look)),
        ("groups", "By group", _groups(results, table, methods, look)),
        ("faces", "Faces", _faces(results, faces or {})),
        ("all", "Every figure", _everything(table, methods, look)),
        ("protocol", "How it was measured", protocol_text.protocol(results)),
        ("origin", "Origin and repetition", protocol_text.origin(results)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    links = [[tag("a", title, href=f"#{key}"), " "] for key, title, _ in shown if title]
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
    data, judges = results["data"], ", ".join(summary.judging(results, table)) or "none"
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
        title = f"Limits: {len(gate) - len(broken)} of {len(gate)} kept" + (
            ", this must not be published" if broken else ""
        )
        lines = tag("ul", [tag("li", line) for line in broken]) if broken else None
        parts.append(tag("div", tag("p", tag("b", title)), lines, class_=f"banner {'bad' if broken else 'good'}"))
    if results.get("warnings"):
        parts.append(tag("div", [tag("p", line) for line in results["warnings"]], class_="banner bad"))
    if results.get("off"):
        parts.append(tag("div", [tag("p", line) for line in results["off"]], class_="banner"))
    return parts


def _table(table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]) -> Html:
    caption = (
        "Below each value its 95 % interval, then the same figure after JPEG at quality 75 (J) and at half size (½). "
        "Shaded: better than every other method with intervals that do not overlap (original and identity hide nothing "
        "and take no part)."
    )
    return tables.figures(headline_parts(table), table, methods, look, caption)


# Section (a `*` stands for any one word), title ({} is that word), and the figures of the first table.
HEADLINES: tuple[tuple[str, str, str], ...] = (
    ("verification.*", "Verification: who is still recognised by judge {}",
     "tar tar_found tar_own eer psr pairs_accuracy"),
    ("identification.*", "Search by judge {}: is the first name right", "rank1 rank1_included rank1_reverse map"),
    ("detection.picture", "Detection: MTCNN on the whole picture", "found iou"),
    ("detection.crop", "Detection: MTCNN on the aligned crop", "found"),
    ("detection.second", "Detection: the second detector", "found iou"),
    ("tasks.fatigue.frames_with_several.*", "Detection: frames with several faces, detector {}", "ap recall false"),
    ("expression", "Expression: does the smile stay",
     "agreement agreement_found accuracy on_results_accuracy from_results_accuracy head_agreement"),
    ("tasks.fatigue.stills", "Fatigue: stills",
     "yawning_agreement_found yawning_balanced eyes_closed_agreement_found eyes_closed_balanced"),
    ("tasks.fatigue.clips", "Fatigue: clips",
     "eye_error mouth_error perclos_error yawns_missed yawns_added closures_missed closures_added jitter_added"),
    ("tasks.quality.*", "Quality: distance of the sets, features {}", "frechet kernel"),
    ("tasks.quality", "Quality: each picture against its original",
     "landmarks yaw_error pitch_error roll_error perceptual_face perceptual_around colour_face colour_around"),
    ("tasks.attributes.keep", "Attributes that must stay", "same shift correlation"),
    ("tasks.attributes.change", "Attributes that may change", "same shift"),
    ("tasks.attributes.all", "Attributes (methods without a policy)", "same shift"),
    ("tasks.train-on-anonymised", "A set to train on: a recogniser learned from results, tested on real pictures",
     "auc tar rank1 accuracy pairs_accuracy"),
    ("tasks.train-on-anonymised.leak.*", "A set to train on: originals found again, judge {}", "own_rank1"),
    ("tasks.dial.verdict.*", "The dial: does it hide, judge {}", "drop largest_rise spearman"),
    ("tasks.controllability.summary", "Control: does a policy move what it names, and nothing else", "selectivity"),
    ("tasks.cost", "Networks", "steps parameters mib"),
    ("tasks.speed.*", "Speed: aligned faces on this machine, {} a pass", "seconds_per_face faces_per_second"),
)  # fmt: skip


def headline_parts(table: tables.Table) -> list[tuple[str, list[str]]]:
    """The figures of the first table, in titled parts."""
    parts = []
    sections = list(dict.fromkeys(figure.section for figure in table.values()))
    for wanted, title, leaves in HEADLINES:
        for section in sections:
            if (word := _matched(wanted, section)) is not None:
                some = [f"{section}.{leaf}" for leaf in leaves.split()]
                known = {name for name, _, _ in table}
                parts.append((title.format(word.replace("_", " ")), [name for name in some if name in known]))
    return parts


def _matched(wanted: str, section: str) -> str | None:
    """What the star stands for; '' where there is none; None where the section is another one."""
    one, other = wanted.split("."), section.split(".")
    if len(one) != len(other) or any(a not in ("*", b) for a, b in zip(one, other, strict=True)):
        return None
    return next((b for a, b in zip(one, other, strict=True) if a == "*"), "")


def _planes(
    results: Results, table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]
) -> list[Html] | None:
    """Every pair of a privacy and a use figure that is there."""
    figures = []
    judge = next(iter(summary.judging(results, table)), None)
    privacy = [(f"verification.{judge}.tar", "true matches", None)]
    chance = table.get((f"identification.{judge}.rank1_chance", "original", "none"))
    privacy.append((f"identification.{judge}.rank1", "found by search (rank 1)", chance.value if chance else None))
    if results.get("attackers"):
        chance = next((f for (n, _, _), f in table.items() if n == "attackers.adaptive.rank1_chance"), None)
        privacy.append(("strongest", "found by the strongest attacker", chance.value if chance else None))
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
        "Left: fewer recognised. Up: more usable. Bars are 95 % intervals; the horizontal axis is logarithmic, and "
        "what lies below its end is drawn at the end."
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
    parts: list[Html] = protocol_text.budget(results)
    known = tables.names(table, "attackers")
    searches = [n for n in known if n.rsplit(".", 1)[-1] == "rank1"]
    note = "Share of searches whose first name is right; dashed: guessing."
    parts.append(_chart([(n, f"{n}_chance") for n in searches], note, table, methods, look))
    told = [n for n in known if n.startswith("attackers.soft.") and n.endswith(".told_learned")]
    note = "Share of originals whose attribute an attacker reads off the result rightly; dashed: the commonest class."
    parts.append(_chart([(n, n.replace("told_learned", "told_chance")) for n in told], note, table, methods, look))
    parts.append(tables.figures(attacker_parts(table), table, [m for m in methods if m != "original"], look))
    return parts


def attacker_parts(table: tables.Table) -> list[tuple[str, list[str]]]:
    """The figures of the attackers' table, a part for each attacker and reading."""
    of: dict[str, list[str]] = {}
    for name in tables.names(table, "attackers"):
        section, leaf = name.rsplit(".", 1)
        if leaf in ATTACKED and not section.startswith("attackers.soft"):
            of.setdefault(summary.words_of(section).capitalize(), []).append(name)
    for some in of.values():
        some.sort(key=lambda name: ATTACKED.index(name.rsplit(".", 1)[-1]))
    return list(of.items())


def _chart(
    names: Sequence[tuple[str, str]],
    note: str,
    table: tables.Table,
    methods: Sequence[str],
    look: dict[str, drawing.Style],
) -> Html | None:
    """A row for each figure (and what guessing gives), a mark for each method."""
    lines = []
    for name, chance in names:
        spots = [(look[m], _spot(f)) for m, f in tables.by_method(table, name, methods).items() if f.value is not None]
        guess = next((f.value for (n, _, d), f in table.items() if n == chance and d == "none"), None)
        if spots:
            lines.append(drawing.Row(summary.words_of(name.rsplit(".", 1)[0]), spots, guess))
    if not lines:
        return None
    used = [look[m] for m in methods if any(style.name == m for line in lines for style, _ in line.spots)]
    return tag("figure", drawing.legend(used), drawing.rows(lines, note), tag("figcaption", note), class_="mid")


def _groups(
    results: Results, table: tables.Table, methods: Sequence[str], look: dict[str, drawing.Style]
) -> list[Html] | None:
    """A chart for each figure of the task `groups`: a row for each group, a mark for each method."""
    charts: dict[str, list[drawing.Row]] = {}
    for name in tables.names(table, "tasks.groups"):
        row = tables.by_method(table, name, methods)
        _, _, group, leaf = name.split(".", 3)
        # Of what should be low, the untouched rows are near 100 % and would squeeze the others.
        untouched = words.BASELINES if words.meaning(name).better == "lower" else ()
        spots = [(look[m], _spot(f)) for m, f in row.items() if f.value is not None and m not in untouched]
        if spots and group not in ("worst", "gap"):
            charts.setdefault(leaf, []).append(drawing.Row(group.replace("_", " "), spots))
    if not charts:
        return None
    figures = []
    for leaf, lines in charts.items():
        meaning = words.meaning(f"tasks.groups.{leaf}")
        label = drawing.percent_label if meaning.unit == "share" else drawing.plain_label
        better = f", {tables.ARROWS[meaning.better]}" if meaning.better else ""
        title = tag("figcaption", tag("b", meaning.title), better, tag("br"), _worst(results, leaf, meaning.unit))
        figures.append(tag("figure", title, drawing.rows(lines, meaning.title, label=label)))
    count = (results.get("about") or {}).get("groups") or {}
    text = "People: " + ", ".join(f"{group} {number}" for group, number in count.items()) + ". " if count else ""
    text += (
        "Groups are of people, by the data's gender label (how a person looks on the photos) and by thirds of the "
        "skin's lightness as measured on the photos, light of the scene included."
    )
    legend = drawing.legend([look[m] for m in methods])
    return [legend, tag("div", figures, class_="plots wide"), tag("p", text, class_="note")]


def _worst(results: Results, leaf: str, unit: str) -> str:
    """`Worst: a3gan skin dark (3.1 % apart), blur ...`."""
    parts = []
    for method, cells in results["tasks"]["groups"].items():
        cell = cells.get("none") or {}
        group, gap = (cell.get("worst") or {}).get(leaf), (cell.get("gap") or {}).get(leaf)
        if group and gap and method not in words.BASELINES:
            parts.append(f"{method} {group} ({words.number(gap, unit)} from the best)")
    return f"Worst: {'; '.join(parts)}." if parts else ""


def _faces(results: Results, faces: Mapping[str, bytes]) -> list[Html] | None:
    if not faces:
        return None
    parts: list[Html] = []
    if (results["config"].get("report") or {}).get("faces") == "own":
        text = "This page shows real photographs next to their anonymised versions. Do not publish it."
        parts.append(tag("div", tag("p", tag("b", text)), class_="banner bad"))
    else:
        text = "Drawn people. Drawings are unlike what a method trained on photos knows; it may do better on photos."
        parts.append(tag("p", text, class_="note"))
    strips = []
    for title, png in faces.items():
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        strips.append(tag("figure", tag("figcaption", title), tag("img", src=source, alt=f"faces, {title}")))
    return [*parts, tag("div", strips, class_="strips")]


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
