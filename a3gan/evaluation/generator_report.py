"""The files of a generator's evaluation: `results.json`, `results.md`, `samples.png`, `paths.png`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3gan.data.ranges import to_pil
from a3gan.files import replacing

COLUMNS = 8  # of the sheet of samples
PATHS = 6  # rows of the sheet of paths
FRAMES = 9  # pictures of each


class Results(dict):
    """What `results.json` holds; `str()` gives its tables."""

    def __str__(self) -> str:
        return markdown(self)


def write(folder: Path, results: Results, samples: Tensor, paths: list[Tensor]) -> None:
    """Writes the files, each whole or not at all. samples: uint8 [N, 3, S, S]; paths: uint8 [T, 3, S, S] each."""
    for name, text in (("results.json", json.dumps(_plain(results), indent=1)), ("results.md", markdown(results))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    save_grid(folder / "samples.png", samples, COLUMNS)
    few = [way[torch.linspace(0, len(way) - 1, min(FRAMES, len(way))).long()] for way in paths]
    save_grid(folder / "paths.png", torch.cat(few), len(few[0]))


def save_grid(path: Path, faces: Tensor, columns: int) -> None:
    """uint8 [N, 3, S, S] as a PNG, row by row; an unfinished row is filled with white."""
    rows = math.ceil(len(faces) / columns)
    white = faces.new_full((rows * columns - len(faces), *faces.shape[1:]), 255)
    grid = torch.cat([faces, white]).unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    with replacing(path) as temporary:
        to_pil(grid.flatten(3, 4).flatten(1, 2)).save(temporary, format="png")


def markdown(results: dict[str, Any]) -> str:
    """The figures as tables, each with what real faces reach beside it."""
    made = results["generator"]
    lines = [
        f"# Generator {made['file']}",
        "",
        f"{made['size']} px, {made['parameters'] / 1e6:.2f} M parameters, {made['images_seen']} images seen; "
        f"{results['config']['samples']} samples, truncation {results['config']['truncation']:g}, seed "
        f"{results['config']['seed']}, against split {results['config']['data']['split']}.",
        "",
    ]
    for title, (head, rows) in _tables(results).items():
        lines += [f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows] + [""]
    return "\n".join(lines)


def _tables(results: dict[str, Any]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Title -> (head, rows)."""
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    for name, cell in results["distance"].items():
        rows = [[word, cell[word], cell[f"train_{word}"], cell.get(f"{word}_floor", "")]
                for word in ("frechet", "kernel", "precision", "recall")]  # fmt: skip
        tables[f"Distance of the sets, features {name.removeprefix('by_')}"] = (
            ["", "samples", "training faces", "halves of the compared faces"],
            rows,
        )
    found, match, near = results["detection"], results["matches"], results["memorised"]
    low, high = match["samples"]["low"], match["samples"]["high"]
    tables["Faces"] = (
        ["", "samples", "real faces"],
        [
            ["found by MTCNN", found["samples"], found["test"]],
            [f"pairs of two that match (95 %: {_cell(low)} to {_cell(high)})", match["samples"]["value"], match["far"]],
        ],
    )
    names = [*near["samples"]]
    tables["Highest cosine to a training face: quantiles, and share above the threshold"] = (
        ["", *names],
        [[kind, *(near[kind][name] for name in names)] for kind in ("samples", "test")]
        + [["samples nearer than 99 % of test", near["excess"], *[""] * (len(names) - 1)]],
    )
    tables["Paths between samples: largest step over mean step"] = (
        ["path", "distance", "mean over paths", "worst path", "mean step"],
        [[kind, name, cell["jump"], cell["jump_worst"], cell["step"]]
         for kind, cells in results["paths"].items() for name, cell in cells.items()],
    )  # fmt: skip
    if "inversion" in results:
        cell = results["inversion"]
        tables[f"Inversion of {cell['images']} compared faces in W+"] = (
            ["L1 (of a range of 2)", "PSNR, dB", "identity cosine", "matched", "cosine of strangers"],
            [[cell[name] for name in ("l1", "psnr", "identity", "matched", "strangers")]],
        )
    return tables


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON knows no NaN: null. Figures are rounded to six digits after the point."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
