"""What a sweep leaves: table.md, results.json, bars.png and faces.png in its folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from a3gan.files import replacing
from a3gan.training.summary import WORDS

if TYPE_CHECKING:
    from a3gan.sweep import Variant

log = logging.getLogger(__name__)

# metric -> head of its column; the words behind it stand under the table
HEADS: dict[str, str] = {
    "reconstruction_l1": "pixels",
    "identity_reconstructed": "id kept at 0",
    "identity_anonymised": "id left at 1",
    "identity_strangers": "strangers",
    "two_seeds": "two seeds",
    "watched_reconstructed": "watcher at 0",
    "watched_anonymised": "watcher at 1",
    "watched_strangers": "watcher strangers",
    "watched_two_seeds": "watcher seeds",
    "smile_agreement": "smile",
    "landmark_error": "landmarks",
}
ROWS = {"reconstruction": 1, "anonymised": 2}  # rows of a run's sheet that are compared (training/a3gan_views.py)


def write(folder: Path, variants: list[Variant]) -> str:
    """Writes the four files (those for which there is something yet); returns the table."""
    text = table(variants)
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(as_json(variants), indent=1) + "\n", encoding="utf-8", newline="\n")
    done = [variant for variant in variants if variant.metrics]
    if done:
        _bars(folder / "bars.png", done)
    sheet = faces(variants)
    if sheet is not None:
        with replacing(folder / "faces.png") as temporary:
            sheet.save(temporary, "PNG", optimize=True)
    return text


def as_json(variants: list[Variant]) -> list[dict]:
    """One entry a variant: name, changes, status, error, images, metrics, folder."""
    return [
        {
            "name": v.name, "changes": v.changes, "status": v.status, "error": v.error, "images": v.images,
            "metrics": v.metrics, "folder": v.folder.as_posix(),
        }
        for v in variants
    ]  # fmt: skip


def metric_names(variants: list[Variant]) -> list[str]:
    """Every metric that some variant has: the known ones in a fixed order, then the others."""
    found = list(dict.fromkeys(name for v in variants for name in v.metrics))
    return [n for n in WORDS if n in found] + [n for n in found if n not in WORDS]


def table(variants: list[Variant]) -> str:
    """Markdown, columns padded so that it can be read in a terminal."""
    names = metric_names(variants)
    rows = [["variant", "images", *(HEADS.get(n, n) for n in names), "what differs"]]
    for v in variants:
        what = ", ".join(f"{k}={json.dumps(value)}" for k, value in v.changes.items()) or "-"
        images = str(v.images) if v.status == "done" else v.status
        rows.append([v.name, images, *(f"{v.metrics[n]:.3f}" if n in v.metrics else "-" for n in names), what])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(cells: list[str]) -> str:
        sides = ["<", *">" * (len(cells) - 2), "<"]
        return "| " + " | ".join(f"{c:{s}{w}}" for c, s, w in zip(cells, sides, widths, strict=True)) + " |"

    marks = ["-" * w if i in (0, len(widths) - 1) else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [line(rows[0]), "| " + " | ".join(marks) + " |", *map(line, rows[1:]), ""]
    lines += [f"- {HEADS.get(n, n)}: {WORDS[n]}" for n in names if n in WORDS]
    lines += [
        "",
        "On validation faces, judged by networks of the losses: this compares variants and proves no privacy.",
        "One seed each: a difference as small as between two seeds of one variant says nothing.",
    ]
    lines += [f"{v.name} failed: {v.error}" for v in variants if v.error]
    return "\n".join(lines) + "\n"


def _bars(path: Path, variants: list[Variant]) -> None:
    """One panel a metric, one bar a variant; dashed: the first variant; dotted: two strangers."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("matplotlib is not installed: no %s (pip install matplotlib)", path.name)
        return
    names = [n for n in metric_names(variants) if not n.endswith("_strangers")]
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(4.4 * across, (0.9 + 0.27 * len(variants)) * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    places = range(len(variants))
    for panel, name in zip(panels, names, strict=False):
        values = [v.metrics.get(name, float("nan")) for v in variants]
        bars = panel.barh(places, values, color=["#4C72B0"] + ["#9DB4D6"] * (len(variants) - 1), height=0.7)
        panel.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
        panel.axvline(values[0], color="#4C72B0", lw=0.8, ls="--")
        if name.endswith(("_anonymised", "two_seeds")):
            whose = "watched" if name.startswith("watched") else "identity"
            panel.axvline(variants[0].metrics.get(f"{whose}_strangers", 0), color="black", lw=0.8, ls=":")
        panel.set_title(WORDS.get(name, name), fontsize=8)
        panel.set_yticks(places, [v.name for v in variants], fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
        panel.margins(x=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # shared
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def faces(variants: list[Variant]) -> Image.Image | None:
    """The same faces under every variant: originals, then a row of each comparison a variant; None without sheets."""
    sheets = {}
    for v in variants:
        found = sorted((v.folder / "sheets").glob("*.png"))
        if found and v.cfg.stage == "a3gan":
            with Image.open(found[-1]) as picture:
                sheets[v.name] = picture.convert("RGB")
    if not sheets:
        return None
    side = variants[0].cfg.data.size
    first = next(iter(sheets.values()))
    left = round(1.6 * side)  # the sheet's own strip of names
    rows = [("original", first, 0)]
    rows += [(f"{name}\n{what}", sheet, row) for name, sheet in sheets.items() for what, row in ROWS.items()]
    strip = max(150, left)
    out = Image.new("RGB", (strip + first.width - left, len(rows) * side), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(max(10, min(16, side // 4)))
    for i, (name, sheet, row) in enumerate(rows):
        draw.multiline_text((6, (i + 0.5) * side), name, fill="black", font=font, anchor="lm")
        out.paste(sheet.crop((left, row * side, sheet.width, (row + 1) * side)), (strip, i * side))
    return out
