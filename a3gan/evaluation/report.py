"""The files of an evaluation: `results.json` (everything), `report.html` (one page), `results.md` (tables to read),
`roc.png` and, where they were measured, `dial.png` and `controllability.png` (plots)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.errors import UserError
from a3gan.files import replacing

if TYPE_CHECKING:
    from a3gan.evaluation.figures import Curve
    from a3gan.evaluation.protocol import Limit

log = logging.getLogger(__name__)
CURVE_POINTS = 101  # of a drawn ROC curve, over five powers of ten


class Results(dict):
    """What `results.json` holds; `str()` gives its tables."""

    def __str__(self) -> str:
        return markdown(self)


def write(
    folder: Path,
    results: dict[str, Any],
    curves: list[Curve],
    faces: Mapping[str, bytes] | None = None,
    limits: Mapping[str, Limit] | None = None,
    speed: Mapping[str, Any] | None = None,
) -> None:
    """Writes the files; each appears whole or not at all. Adds `curves`, `warnings` and `limits` to the results.

    faces: strips for the page (`page.faces.strips`). speed: what `speed.keep` gives, for the page alone. UserError,
    after everything is written, where a limit names a figure that is not there.
    """
    from a3gan.evaluation import limits as gate
    from a3gan.evaluation import sanity
    from a3gan.evaluation.page.page import page

    folder.mkdir(parents=True, exist_ok=True)
    results["curves"], results["warnings"], wrong = thin(curves), sanity.warnings(results), None
    results["limits"] = []
    try:
        results["limits"] = [one.as_dict() for one in gate.check(results, limits or {})]
    except UserError as error:
        wrong = error
    _replace(folder / "results.json", lambda p: _text(p, json.dumps(results, indent=1, ensure_ascii=False) + "\n"))
    _replace(folder / "results.md", lambda p: _text(p, markdown(results)))
    _replace(folder / "report.html", lambda p: _text(p, page(results, faces, speed)))
    for name, plot in plots(results).items():
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            log.warning("matplotlib is not installed: no %s (pip install matplotlib)", name)
        else:
            _replace(folder / name, plot)
    if wrong is not None:
        raise wrong


def plots(results: dict[str, Any]) -> dict[str, Callable[[Path], None]]:
    """File name -> what draws it, of those that these results have something for."""
    from a3gan.evaluation import control_plots, control_report

    found: dict[str, Callable[[Path], None]] = {}
    if results["curves"]:
        found["roc.png"] = lambda path: plot_roc(path, results["curves"], results["config"]["far"])
    if control_report.verdicts(results):
        found["dial.png"] = lambda path: control_plots.plot_dial(path, results)
    if control_report.grids(results):
        found["controllability.png"] = lambda path: control_plots.plot_matrix(path, results)
    return found


def thin(curves: list[Curve]) -> dict[str, dict[str, list[list[float]]]]:
    """ROC curves as {judge: {method: [false, true]}} at `CURVE_POINTS` false match rates, even on a log axis."""
    from a3gan.evaluation.statistics import roc

    grid, result = np.logspace(-5, 0, CURVE_POINTS), {}
    for curve in curves:
        false, true = roc(curve.genuine, curve.impostor)
        # The rate is a step: between two points nothing more is accepted.
        matched = true[np.searchsorted(false, grid, "right") - 1]
        lines = [[float(f"{v:.4g}") for v in grid], [round(float(v), 5) for v in matched]]
        result.setdefault(curve.judge, {})[curve.method] = lines
    return result


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    with replacing(path) as temporary:
        make(temporary)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


# --- tables ---------------------------------------------------------------------------------------------------------
def percent(figure: dict[str, Any] | float | None, digits: int = 1) -> str:
    """`12.3 % (10.1-14.9)`; nothing seen: `0 of 812 (< 1.0 %)`, the bound resting on the number of people."""
    if figure is None:
        return "-"
    if not isinstance(figure, dict):
        return f"{100 * figure:.{digits}f} %"
    if figure["value"] is None:
        return "-"
    if figure["value"] == 0:
        return f"0 of {figure['count']} (< {100 * figure['high']:.{digits}f} %)"
    low, high = (f"{100 * figure[end]:.{digits}f}" for end in ("low", "high"))
    return f"{100 * figure['value']:.{digits}f} % ({low}-{high})"


def markdown(results: dict[str, Any]) -> str:
    """All tables, with the protocol in words."""
    from a3gan.evaluation import control_report

    data, cfg = results["data"], results["config"]
    lines = ["# Evaluation", ""]
    lines += [
        f"{data['pictures']} pictures (split `{cfg['data']['split']}`) of {data['people']} people, "
        f"{data['people_with_two']} of them with two or more: {data['genuine_pairs']} pairs of one person. "
        f"Judged: {data['judged']}. Policy: `{cfg['policy'] or 'preset expression'}`, alpha {cfg['alpha']:g}, "
        f"seed {cfg['seed']}.",
        "",
        f"Brackets: 95 % intervals, bootstrap over people ({cfg['bootstrap']} replicates) with the threshold and the "
        "pairs of two people fixed. `0 of n` comes with its upper bound, as for one trial a person. Lower is better "
        "for privacy, higher for use. Recognisers see every picture aligned by the five points of its original, also "
        "where no detector finds a face any more: an attacker who knows where the face was.",
    ]
    for judge in results["thresholds"]:
        lines += ["", *_privacy(results, judge)]
    lines += ["", *_use(results), *_tasks(results), *control_report.markdown(results), *_attackers(results)]
    for title, some in (("Turned off", results.get("off")), ("Doubtful", results.get("warnings"))):
        lines += ["", f"## {title}", "", *(f"- {line}" for line in some)] if some else []
    if gate := results.get("limits"):
        lines += ["", "## Limits", "", *(f"- {'kept' if one['kept'] else 'BROKEN'}: {one['text']}" for one in gate)]
    return "\n".join(lines) + "\n"


def _tasks(results: dict[str, Any]) -> list[str]:
    """The headline figures of the other tasks, of pictures as they are: figures down, methods across."""
    from a3gan.evaluation import listing
    from a3gan.evaluation.page.page import headline_parts

    table = listing.table(results)
    parts = [(t, names) for t, names in headline_parts(table) if any(n.startswith("tasks.") for n in names)]
    lines = _by_method(results, table, parts)
    return ["", "## Fatigue, quality, attributes", "", *lines] if lines else []


def _attackers(results: dict[str, Any]) -> list[str]:
    """What attackers who learned still find, of pictures as they are, and whether they work."""
    from a3gan.evaluation import listing
    from a3gan.evaluation.page import words
    from a3gan.evaluation.page.page import attacker_parts

    table = listing.table(results)
    lines = _by_method(results, table, attacker_parts(table))
    works = (results.get("attack") or {}).get("works") or {}
    for name, verdict in works.items():
        said = {True: "works", False: "FAILS where it must succeed", None: "was not tested"}[verdict["works"]]
        lines += ["", f"{name} {said} (needed: {words.number(verdict['needed'], 'share')})."]
    return ["", "## Attackers that learned from results of other people", "", *lines] if lines else []


def _by_method(results: dict[str, Any], table: dict[Any, Any], parts: list[tuple[str, list[str]]]) -> list[str]:
    """Figures down, methods across, with intervals; rows that are figures of another's floor are left out."""
    from a3gan.evaluation.page import tables, words

    methods = list(dict.fromkeys(row["method"] for row in results["rows"]))
    rows = []
    for title, names in parts:
        for name in names:
            row = tables.by_method(table, name, methods)
            if tables.is_floor(name, table) or all(f.value is None for f in row.values()):
                continue
            unit = words.meaning(name).unit
            cells = [words.sentence(row[m], unit) if m in row else "-" for m in methods]
            beside = tables.floors(name, table, methods)
            rows.append([f"{title}: {words.title(name)}" + (f" ({beside})" if beside else ""), *cells])
    return as_table(["figure", *methods], rows) if rows else []


def as_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _privacy(results: dict[str, Any], judge: str) -> list[str]:
    far, limit = results["config"]["far"], results["thresholds"][judge]
    chance = results["rows"][0]["identification"][judge]
    matches = ["method", "picture", "true matches", "not found = hidden", "by abs. cosine", "threshold set anew"]
    matches += ["false matches", "EER", "AUC", "same picture matched", "cosine genuine / impostor", "shuffled labels"]
    ranks = ["method", "picture", "rank 1", "with the same picture", "by abs. cosine", "by -cosine", "reverse"]
    ranks += ["shuffled labels"]
    of_matches, of_ranks = [], []
    for row in results["rows"]:
        name, v, r = [row["method"], row["degradation"]], row["verification"][judge], row["identification"][judge]
        cells = [percent(v[k], 2) for k in ("tar", "tar_found", "tar_abs", "tar_own", "fmr", "eer")]
        cells += [_number(v["auc"]["value"]), percent(v["same_picture"], 2)]
        cells += [f"{_number(v['cosine_genuine'])} / {_number(v['cosine_impostor'])}", percent(v["tar_floor"], 2)]
        of_matches.append(name + cells)
        keys = ("rank1", "rank1_included", "rank1_abs", "rank1_opposite", "rank1_reverse", "rank1_floor")
        of_ranks.append(name + [percent(r[k], 2) for k in keys])
    return [
        f"## Who is still recognised: judge {judge}",
        "",
        "Original against result, all pairs of different pictures, both ways. Threshold "
        f"{limit['cosine']:.3f}: false match rate {far:g} on {limit['impostor_pairs']} pairs of originals.",
        "",
        *as_table(matches, of_matches),
        "",
        "The result looks for its person among the originals, its own original left out. By guessing: "
        f"{percent(chance['rank1_chance'], 2)}; with the same picture {percent(chance['rank1_included_chance'], 2)}.",
        "",
        *as_table(ranks, of_ranks),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _use(results: dict[str, Any]) -> list[str]:
    extra = sorted({name for row in results["rows"] for name in row.get("attributes", {})})
    smiles = "agreement" in results["rows"][0].get("expression", {})
    smile = ("agreement", "agreement_found", "accuracy") if smiles else ()
    head = ["method", "picture", "found", "found in the crop", *["smile agrees", "found and agrees", "smile right"]]
    head = head[: 4 + len(smile)] + [name.replace("_", " ") for name in extra] + ["mosaicked"]
    rows = []
    for row in results["rows"]:
        cells = [percent(row["detection"][where]["found"]) for where in ("picture", "crop")]
        cells += [percent(row["expression"][name]) for name in smile]
        cells += [percent(row["attributes"].get(name)) for name in extra]
        rows.append([row["method"], row["degradation"], *cells, str(row["mosaicked"])])
    return [
        "## What is still usable",
        "",
        "Found: MTCNN finds a face that overlaps the original one (IoU at least 0.5), in the whole picture and in the "
        "aligned crop. Smile: share of the pictures labelled neutral or happiness that the attribute judge reads as it "
        "read the original; the same with faces not found counted as lost; and read as labelled. Mosaicked: faces that "
        "could not be synthesised.",
        "",
        *as_table(head, rows),
    ]


# --- plot -----------------------------------------------------------------------------------------------------------
def plot_roc(path: Path, curves: Mapping[str, Mapping[str, list[list[float]]]], far: float) -> None:
    """ROC of every method (as `thin` gives them), a panel per judge, false match rate on a logarithmic axis. The same
    curves give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(curves), 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # the file needs no window and no global state
    grid = np.logspace(-5, 0, CURVE_POINTS)
    for axis, (judge, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for method, (false, true) in lines.items():
            axis.plot(false, true, label=method, linewidth=1.5)
        axis.plot(grid, grid, color="0.6", linestyle=":", linewidth=1, label="guessing")
        axis.axvline(far, color="0.8", linewidth=1, zorder=0)
        axis.set(
            xscale="log",
            xlim=(1e-5, 1),
            ylim=(0, 1.02),
            xlabel="false match rate",
            ylabel="true match rate",
            title=f"judge {judge}",
        )
        axis.legend(loc="center left", frameon=False, fontsize=9)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(path, format="png", metadata={"Software": None})
