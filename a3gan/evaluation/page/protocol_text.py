"""The protocol in words, and where the numbers come from."""

from __future__ import annotations

import shlex
from typing import Any

from a3gan.evaluation.page import tables, words
from a3gan.evaluation.page.html import Html, tag

Results = dict[str, Any]

ATTACKERS = {
    "parrot": "P5: a recogniser trained on anonymised, named pictures of other people; it then compares anonymised "
    "with anonymised pictures",
    "adaptive": "P6: the same, trained on pairs of original and result; it compares originals with results",
    "inversion": "P7: a network that learned to draw the original from the result; the judge looks at what it drew",
    "linkability": "P8: are two results told to be of one person, with a key for each picture and with one key for "
    "all; by the judge as it is and by what the parrot learned",
    "background": "P9: the face is painted grey on both sides, so that only what lies around it is compared; and the "
    "face alone",
    "soft": "P10: smile, gender label, tones, pose and proportions of the original, told from the result",
    "keys": "P11: what is it worth to know the seed of a result, and do two seeds make two people",
    "suppressed": "a network that learned to read the person from the features that the method calls free of identity, "
    "before any face is drawn",
}


def protocol(results: Results) -> list[Html]:
    """What was done, for a reader who knows no term of the field."""
    cfg, data = results["config"], results["data"]
    far = words.number(cfg["far"], "share")
    words_of = {"none": "as they are", "jpeg75": "after JPEG compression at quality 75", "half": "at half size"}
    seen = ", ".join(words_of.get(name, name) for name in cfg.get("degradations", ["none"]))
    items = [
        f"The pictures: {data['pictures']} of {data['people']} people of the split {cfg['data']['split']}; it "
        f"must hold people whom no training saw. {data['people_with_two']} people have two or more, which "
        f"makes {data['genuine_pairs']} pairs "
        f"of one person. Judged: {data['judged']}.",
        "Every method works on the same faces, placed by the same five points. Its pictures are judged "
        f"{seen}, and kept without loss in between. A method that "
        "returns a picture unchanged ends the run (identity excepted).",
        "The judges are recognisers that took no part in training; one that did, or one of its family, is refused. "
        "They see every face cut out where it was in the original, also where no detector finds it any more.",
        "Verification: an original and a result of another picture of the same person match when their similarity is "
        f"above a threshold. It is fixed on pairs of originals of two people so that {far} of these match, and not on "
        "results, which would flatter the method. A further figure sets it anew on results, for an attacker who knows.",
        "Search: a result looks for its person among all originals, its own original left out (in a second figure: "
        "left in). Beside each share stands what guessing gives, and what shuffled names give.",
        "A face that no detector finds counts as hidden in one figure and is judged all the same in another; for use "
        "it counts as lost. Both are shown.",
        f"Intervals of 95 %: {cfg['bootstrap']} bootstrap draws of people, not of pictures, since two pictures of one "
        "person are no independent evidence. Where nothing was seen, the upper bound is that of one trial a person "
        "(Clopper and Pearson, 1934), about 3 / n.",
        "The rows original and identity are the sanity check: a judge that does not recognise originals proves "
        f"nothing. Policy: {cfg['policy'] or 'preset expression'}, alpha {cfg['alpha']:g}, seed {cfg['seed']}.",
    ]
    if own := (results.get("about") or {}).get("train_on"):
        items.append(
            f"A set to train on: a small recogniser ({own['parameters']} parameters, {own['steps']} steps of "
            f"{own['batch']}) learned from nothing but a method's results, {own['pictures']} pictures of "
            f"{own['people']} other people (split {own['split']}), and was tested on {own['tested']} real pictures of "
            "the judged people. Originals found again: of these results, how many have their own original nearest."
        )
    parts = [tag("ul", [tag("li", item) for item in items])]
    attackers = [name for name in results.get("attackers") or {} if name in ATTACKERS]
    if attackers:
        lines = [tag("li", tag("b", name), ": ", ATTACKERS[name], ".") for name in attackers]
        parts += [tag("h3", "The attackers"), tag("ul", lines)]
    parts.append(
        tag("p", "A small share proves that these recognisers and attackers, with this budget, found little on these "
            "people. It is no guarantee: people who know the person, clothes, place and voice are not in it.")
    )  # fmt: skip
    return parts


def budget(results: Results) -> list[Html]:
    """What the attackers were given, and whether each works."""
    attack = results.get("attack") or {}
    given, p0 = attack.get("budget") or {}, (attack.get("p0") or {}).get("rank1") or {}
    text = "Each learned from the method's output on people who are not judged, with one budget for all methods."
    if given:
        steps = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in given["steps"].items())
        text += (
            f" Learned from: {given['pictures']} pictures of {given['people']} people (split {given['split']}), "
            f"at most {given['per_person']} of one, {given['degradations']}. Judged: {given['judged_pictures']} "
            f"pictures of {given['judged_people']} people. Steps: {steps}; batches of {given['batch']}. "
            f"All start from {given['starts_from']}."
        )
    parts = [tag("p", text, class_="note")]
    if works := attack.get("works"):
        parts += [tag("h3", "Do the attackers work?"), sanity(works, p0.get("value"))]
    return parts


def sanity(works: dict[str, Any], ceiling: float | None) -> Html:
    """What each attacker reaches where it must succeed."""
    rows = []
    for name, verdict in works.items():
        said = {True: "works", False: "fails: its figures prove nothing", None: "not tested"}[verdict["works"]]
        shown = [
            f"{where.replace('_', ' ')} {words.number(verdict[where], 'share')}"
            for where in verdict if where not in ("figure", "needed", "works")
        ]  # fmt: skip
        figure = words.meaning(verdict["figure"]).title
        needed = words.number(verdict["needed"], "share")
        rows.append((name, figure, needed, ", ".join(shown) or "–", tag("b", said) if not verdict["works"] else said))
    caption = "Where nothing, or next to nothing, was hidden an attacker must recognise."
    if ceiling is not None:
        caption += f" The recogniser itself names {words.number(ceiling, 'share')} of the originals rightly (P0)."
    return tables.plain(rows, ("attacker", "figure", "needed", "reached", ""), caption)


def origin(results: Results) -> list[Html]:
    """Command, versions, hashes and settings."""
    rows: list[tuple[Any, Any]] = [("data", tag("code", results["data"]["digest"]))]
    for name, key in results["methods"].items():
        if sha := key.get("weights_sha256"):
            rows.append((f"weights of {name}", tag("code", sha)))
    rows += [(f"judge {name}", tag("code", print_)) for name, print_ in results["judges"].items()]
    if results.get("attributes_judge"):
        rows.append(("attribute judge", tag("code", results["attributes_judge"])))
    rows += [
        (name.replace("_", " "), tag("code", words.as_json(v))) for name, v in (results.get("hashes") or {}).items()
    ]
    versions = results.get("versions") or {"a3gan": results["version"]}
    rows.append(("versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    cfg = results["config"]
    settings = "\n".join(f"{name}: {words.as_json(value)}" for name, value in cfg.items())
    return [
        tag("pre", command(results)),
        tables.plain(rows, ("what", "its hash or version")),
        tag("details", tag("summary", "All settings"), tag("pre", settings)),
        tag("footer", "The same data, weights and settings give the same numbers on one machine; results.json beside "
            "this page holds all of them."),
    ]  # fmt: skip


def command(results: Results) -> str:
    """What repeats this evaluation, in a shell."""
    return shlex.join(results["command"]) if results.get("command") else "a3gan evaluate CONFIG"
