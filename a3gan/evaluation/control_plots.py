"""`dial.png` and `controllability.png`; the same results give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.evaluation.control_report import PANELS, TITLES, Grid, grids, steps, verdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = dict[str, Any]
DECADES = (1e-3, 1e-2, 1e-1, 1.0)  # of the axis of true matches; less is drawn at its start
USE = (("expression", "agreement", "smile kept"), ("quality", "landmarks", "landmark error, eye distances"))


def plot_dial(path: Path, results: Results) -> None:
    """True matches over alpha, a panel per judge, and use against the first judge's true matches along the dial."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = verdicts(results)
    judges = list(next(iter(judged.values())))
    first = steps(results, next(iter(judged)))[0][1]
    use = [one for one in USE if one[0] in first]
    figure = Figure(figsize=(4.6 * (len(judges) + len(use)), 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # the file needs no window and no global state
    axes = figure.subplots(1, len(judges) + len(use), squeeze=False)[0]
    for axis, judge in zip(axes, judges, strict=False):
        _falling(axis, results, list(judged), judge)
    for axis, one in zip(axes[len(judges) :], use, strict=True):
        _along(axis, results, list(judged), judges[0], one)
    figure.savefig(path, format="png", metadata={"Software": None})


def _falling(axis: Axes, results: Results, methods: list[str], judge: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for method in methods:
        made = [(alpha, cell["verification"][judge]["tar"]) for alpha, cell in steps(results, method)]
        x, ends = [alpha for alpha, _ in made], [[f[end] for _, f in made] for end in ("low", "value", "high")]
        axis.plot(x, ends[1], marker="o", markersize=4, label=method)
        axis.fill_between(x, ends[0], ends[2], alpha=0.2, linewidth=0)
    axis.set(xlabel="alpha", ylabel="true matches", title=f"judge {judge}", xlim=(0, 1))
    axis.set_ylim(0, None)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(frameon=False, fontsize=9)
    _bare(axis)


def _along(axis: Axes, results: Results, methods: list[str], judge: str, use: tuple[str, str, str]) -> None:
    section, leaf, title = use
    for method in methods:
        made = steps(results, method)
        x = [max(cell["verification"][judge]["tar"]["value"], DECADES[0]) for _, cell in made]
        figures = [cell[section][leaf] for _, cell in made]
        y = [figure["value"] for figure in figures]
        below, above = ([abs(figure[end] - figure["value"]) for figure in figures] for end in ("low", "high"))
        axis.errorbar(x, y, [below, above], marker="o", markersize=4, elinewidth=1, label=method)
        for (alpha, _), across, up in zip(made, x, y, strict=True):
            if alpha in (0.0, 1.0):
                place = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": 8}
                axis.annotate(f"alpha {alpha:g}", (across, up), **place)
    axis.set(xscale="log", xlabel=f"true matches, judge {judge}", ylabel=title, title="along the dial")
    axis.set_xlim(DECADES[0], DECADES[-1])
    axis.set_xticks(DECADES, [f"{100 * share:g} %" for share in DECADES])
    axis.set_ylim(*((None, 1.0) if section == "expression" else (0, None)))
    _bare(axis)


def _bare(axis: Axes) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def plot_matrix(path: Path, results: Results) -> None:
    """Two heat maps with numbers for each method; see `control_report.explained`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = grids(results)
    figure = Figure(figsize=(17.5, 6.2 * len(drawn)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(drawn), len(PANELS), squeeze=False)
    for line, (method, panels) in zip(axes, drawn.items(), strict=True):
        for axis, (panel, grid) in zip(line, panels.items(), strict=True):
            _heat(axis, grid)
            axis.set_title(f"{method}: {TITLES[panel].lower()}")
    figure.savefig(path, format="png", metadata={"Software": None})


def _heat(axis: Axes, grid: Grid) -> None:
    from matplotlib.patches import Rectangle

    values = np.array([[np.nan if v is None else v for v in row] for row in grid.value])
    axis.imshow(
        np.where(np.array(grid.scaled)[None], values, np.nan), cmap="Blues", vmin=0.0, vmax=1.5, aspect="auto"
    )  # fmt: skip
    axis.set_facecolor("0.94")  # of columns without a scale
    columns, rows = ([name.replace("_", " ") for name in some] for some in (grid.columns, grid.rows))
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    for (i, j), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.2f}"
        colour = "white" if grid.scaled[j] and value > 1.1 else "0.15"
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        if grid.own[i][j]:
            axis.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, edgecolor="black", linewidth=1.4))
