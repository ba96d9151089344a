"""The first screen: who can still be recognised, by whom, how certainly; what is still usable; what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a3gan.evaluation.listing import Figure
from a3gan.evaluation.page import words
from a3gan.evaluation.page.drawing import Style
from a3gan.evaluation.page.html import Html, tag
from a3gan.evaluation.page.tables import Table

Results = dict[str, Any]
LEARNED = ("parrot", "adaptive", "inversion", "background")  # who need nothing but published pictures


def judging(results: Results, table: Table) -> list[str]:
    """The judges with figures of verification: none where that task is off, though judges are named."""
    known = {name for name, _, _ in table}
    return [judge for judge in results["judges"] if f"verification.{judge}.tar" in known]


def cards(results: Results, table: Table, method: str) -> Html:
    """Three cards about one method."""
    parts = [
        ("Who can still be recognised, by whom", _recognised(results, table, method)),
        ("What is still usable", _usable(table, method)),
        ("What it costs", _costs(results, table, method)),
    ]
    made = [tag("div", tag("h3", title), lines, class_="card") for title, lines in parts]
    return tag("div", made, class_="summary")


def _recognised(results: Results, table: Table, method: str) -> list[Html]:
    lines = []
    far = words.number(results["config"]["far"], "share")
    for judge in judging(results, table):
        if (tar := table.get((f"verification.{judge}.tar", method, "none"))) is None:
            continue
        before = table.get((f"verification.{judge}.tar", "original", "none"))
        lines.append(tag("p", tag("span", words.value(tar), class_="big"), _certain(tar), class_="first"))
        text = f"of the pairs of one person are still matched by recogniser {judge}, which knows nothing of this method"
        if before is not None:
            text += f"; between originals it matches {words.number(before.value, 'share')}"
        lines.append(tag("p", f"{text}, with {far} of the pairs of two people mistaken for one."))
        rank, chance = (table.get((f"identification.{judge}.{k}", method, "none")) for k in ("rank1", "rank1_chance"))
        if rank is not None and rank.value is not None:
            share = words.sentence(rank)
            text = f"Searched among all originals, its own photo left out, the first name is right in {share}"
            lines.append(
                tag("p", text + (f"; guessing gives {words.number(chance.value, 'share')}." if chance else "."))
            )
    if found := strongest(table, method):
        chance = table.get((f"{found.section}.{found.leaf}_chance", method, "none"))
        text = [
            "The strongest attacker who learned from this method's output on other people, ",
            tag("b", words_of(found.section)), f", names the right person in {words.sentence(found)}",
            f"; guessing gives {words.number(chance.value, 'share')}." if chance else ".",
        ]  # fmt: skip
        lines.append(tag("p", text))
    elif lines and not results.get("attackers"):
        lines.append(tag("p", "No attacker was trained against it: a determined one may do better than this."))
    why = "Verification was not measured" if results["judges"] else "No judge was given"
    return lines or [tag("p", f"{why}: nothing is known of this.")]


def _certain(figure: Figure) -> Html | None:
    if figure.low is None or figure.high is None or figure.value is None:
        return None
    if figure.value == 0:
        return tag("small", f"at most {words.number(figure.high, 'share')}, with 95 % confidence")
    low, high = words.number(figure.low, "share"), words.number(figure.high, "share")
    return tag("small", f"between {low} and {high}, with 95 % confidence ({figure.people} people)")


def strongest(table: Table, method: str) -> Figure | None:
    """The attacker's search that is right most often on pictures as they are, of those who need no inside knowledge."""
    found = [table.get((f"attackers.{attacker}.rank1", method, "none")) for attacker in LEARNED]
    return max((f for f in found if f is not None and f.value is not None), key=lambda f: f.value, default=None)


def words_of(section: str) -> str:
    """`linkability, same key, parrot` of attackers.linkability.same_key.parrot."""
    return ", ".join(part.replace("_", " ") for part in section.split(".")[1:])


def _usable(table: Table, method: str) -> list[Html]:
    lines = []
    found = table.get(("detection.picture.found", method, "none"))
    if found is not None:
        lines.append(tag("p", tag("span", words.value(found), class_="big"), _certain(found), class_="first"))
        lines.append(tag("p", "of the faces are still found by a face detector where they were."))
    for name, text in (
        ("expression.agreement_found", "Smiling or neutral is read as on the original, faces not found lost: {}."),
        ("tasks.fatigue.stills.yawning_agreement_found", "Yawning, the same: {}."),
        ("tasks.fatigue.stills.eyes_closed_agreement_found", "Closed eyes, the same: {}."),
    ):  # fmt: skip
        figure = table.get((name, method, "none"))
        if figure is not None and figure.value is not None:
            lines.append(tag("p", text.format(words.sentence(figure))))
    return lines or [tag("p", "Nothing was measured.")]


def _costs(results: Results, table: Table, method: str) -> list[Html]:
    lines = []
    fast = [
        f for (name, m, d), f in table.items()
        if m == method and d == "none" and name.startswith("tasks.speed.") and f.leaf == "faces_per_second"
    ]  # fmt: skip
    for figure in fast:
        batch = figure.section.rsplit(".", 1)[-1]
        text = " aligned faces a second, one at a time" if batch == "1" else f" in passes of {batch}"
        shown = words.number(figure.value)
        big = batch == "1"
        lines.append(tag("p", tag("span", shown, class_="big") if big else shown, text))
    for name, text in (
        ("tasks.quality.landmarks", "The points of the face move by {} of the eyes' distance."),
        ("tasks.quality.colour_around", "Around the face colours change by ΔE {}."),
    ):
        figure = table.get((name, method, "none"))
        if figure is not None and figure.value is not None:
            shown = words.number(figure.value, "share" if "landmarks" in name else "")
            lines.append(tag("p", text.format(shown)))
    lost = [row["mosaicked"] for row in results["rows"] if row["method"] == method and row["degradation"] == "none"]
    if lost and lost[0] is not None:
        count = results["data"]["pictures"]
        lines.append(tag("p", f"{lost[0]} of {count} faces could not be replaced and were mosaicked."))
    return lines


def comparison(results: Results, table: Table, methods: Sequence[str], look: dict[str, Style]) -> Html:
    """A few figures a method, for those who read nothing else."""
    judge = next(iter(judging(results, table)), None)
    columns = [
        ("pairs still matched", f"verification.{judge}.tar"),
        ("found by search", f"identification.{judge}.rank1"),
        ("strongest attacker", ""),
        ("face still found", "detection.picture.found"),
        ("smile kept", "expression.agreement_found"),
        ("seconds a face, of 16 at once", "tasks.speed.16.seconds_per_face"),
    ]
    rows = {m: [table.get((n, m, "none")) if n else strongest(table, m) for _, n in columns] for m in methods}
    used = [i for i in range(len(columns)) if any(row[i] is not None for row in rows.values())]
    body = []
    for method, row in rows.items():
        cells = [tag("td", words.value(f, words.meaning(f).unit) if (f := row[i]) is not None else "–") for i in used]
        dot = tag("span", "", class_=f"swatch {look[method].css}", style="background:currentColor")
        body.append(tag("tr", tag("th", dot, method, scope="row"), cells))
    top = tag("thead", tag("tr", tag("th", "", scope="col"), [tag("th", columns[i][0], scope="col") for i in used]))
    return tag("div", tag("table", top, tag("tbody", body), class_="short"), class_="scroll")
