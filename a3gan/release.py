"""Makes shipped weights of a run's checkpoint.

    python -m a3gan.release RUN/checkpoint.safetensors checkpoints/NAME.safetensors

Half precision, no path of the machine it was trained on, and a line in ``manifest.json`` beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path, PurePath
from typing import Any

import torch

from a3gan import checkpoint
from a3gan.errors import UserError


def ship(source: Path, target: Path) -> Path:
    """Write ``target`` from an inference checkpoint: float tensors as float16, the rest as it is; then the manifest.

    UserError for the state of a run (it is for resuming) and for a value that half precision cannot hold.
    """
    tensors, meta = checkpoint.load(source)
    if meta.get("kind") == "state":
        raise UserError(f"{source}: the state of a run, for resuming it; ship the checkpoint beside it")
    halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    broken = [k for k, v in halved.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{source}: {broken[0]} has values beyond half precision; such weights cannot be shipped")
    meta = {**meta, "config": portable(meta["config"]), "parent": checkpoint.sha256(source)}
    checkpoint.save(target, halved, meta)
    write_manifest(target.parent)
    return target


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The config without folders of one machine: paths are cut to their last part, the run's folder is left out."""

    def last(path: Any) -> Any:
        if isinstance(path, list):
            return [last(one) for one in path]
        return PurePath(path).name if isinstance(path, str) else path

    config = json.loads(json.dumps(config))
    config["run"]["dir"] = None
    config["data"]["path"] = last(config["data"]["path"])
    config["model"]["generator"]["weights"] = last(config["model"]["generator"]["weights"])
    scorers = config["scorers"]
    scorers["attributes"] = last(scorers["attributes"])
    scorers["lpips_backbone"] = last(scorers["lpips_backbone"])
    for recogniser in scorers["recognisers"]:
        recogniser["path"] = last(recogniser["path"])
    return config


def write_manifest(folder: Path) -> None:
    """``manifest.json``: of every weights file its sha256, size in bytes, stage and the images it saw."""
    entries = {}
    for path in sorted(folder.glob("*.safetensors")):
        meta = checkpoint.load_meta(path)
        entries[path.name] = {
            "sha256": checkpoint.sha256(path),
            "bytes": path.stat().st_size,
            "stage": meta.get("stage"),
            "images_seen": meta.get("images_seen"),
        }
    temporary = folder / ".manifest.tmp"
    temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "manifest.json")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 for a user's error."""
    parser = argparse.ArgumentParser(prog="python -m a3gan.release", description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint.safetensors of a run")
    parser.add_argument("target", type=Path, help="file to write, in checkpoints/")
    options = parser.parse_args(arguments)
    try:
        print(ship(options.source, options.target))
    except UserError as error:
        print(f"a3gan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
