"""Makes shipped weights of a run's checkpoint.

    python -m a3gan.release RUN/checkpoint.safetensors checkpoints/NAME.safetensors

Half precision or 8 bits, no path of the machine it was trained on, and a line in ``manifest.json`` beside it. Of a
carry, ``--only net/discriminator`` ships one network: with the model's own weights it is enough to train on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path, PurePath
from typing import Any

import torch

from a3gan import checkpoint, packing
from a3gan.errors import UserError


def ship(source: Path, target: Path, bits: int = 16, only: str | None = None) -> Path:
    """Write ``target`` from a checkpoint or a carry: float tensors as float16, the rest as it is; then the manifest.
    A pool of generated faces goes without the vectors of its search.

    bits: 16, or 8 for large tensors as int8 (`packing`). only: ship nothing but the tensors below this name.
    UserError for the state of a run (it is for resuming), for a value that half precision cannot hold, and for a name
    below which there is nothing.
    """
    tensors, meta = checkpoint.load(source)
    if meta.get("kind") == "state":
        raise UserError(f"{source}: the state of a run, for resuming it; ship the checkpoint beside it")
    if meta.get("stage") == "falco":
        # A third of the file, and made again from the codes in seconds, by whatever network the search is to use.
        tensors = tensors | {"pool.features": tensors["pool.features"][:, :0]}
        meta = {k: v for k, v in meta.items() if k != "features"}
    if only is not None:
        tensors = {k: v for k, v in tensors.items() if k.startswith(f"{only}.")}
        if not tensors:
            raise UserError(f"{source}: holds nothing named '{only}'")
    halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    broken = [k for k, v in halved.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{source}: {broken[0]} has values beyond half precision; such weights cannot be shipped")
    meta = {k: v for k, v in meta.items() if k != "format"}  # that of this file may be another
    meta = {**meta, "config": portable(meta["config"]), "parent": checkpoint.sha256(source)}
    checkpoint.save(target, packing.pack(halved) if bits == 8 else halved, meta)
    write_manifest(target.parent)
    return target


SHEET = (4, 8)  # rows (one seed each) and columns of the sheet beside shipped A3GAN weights
MIXED = 3  # people whose codes are averaged into one column


@torch.no_grad()
def generator_sheet(weights: Path) -> Path:
    """Write ``NAME.png`` beside a generator's weights: faces of fixed codes, neither truncated nor chosen."""
    from a3gan.evaluation.generator_features import codes, load_generator

    generator, _ = load_generator(str(weights), torch.device("cpu"))
    drawn = generator(codes(SHEET[0] * SHEET[1], generator.z_dim, seed=0))
    return _save(weights, torch.cat([torch.cat(list(row), 2) for row in drawn.split(SHEET[1])], 1))


@torch.no_grad()
def sheet(weights: Path, archive: Path, split: str = "val") -> Path:
    """Write ``NAME.png`` beside A3GAN weights: generated faces only, so that the card shows nobody.

    Each column is the mean code of ``MIXED`` people of ``archive`` with the mean of their attributes, each row one seed
    under the default policy. UserError for other weights or a split with too few faces.
    """
    from a3gan.anonymizers.a3gan import A3ganAnonymizer
    from a3gan.data.archive import FaceSet
    from a3gan.data.attributes import Policy
    from a3gan.models.injection import seed_codes

    method = A3ganAnonymizer(weights, "cpu")
    faces = FaceSet.load(archive, split=split, size=method.size, storage="disk")
    rows, columns = SHEET
    if len(faces) < columns * MIXED:
        raise UserError(f"{archive}: split {split!r} has {len(faces)} faces, the sheet mixes {columns * MIXED}")
    spread = torch.linspace(0, len(faces) - 1, columns * MIXED).long()  # neighbours may be one person
    x = faces.fetch(spread)
    model = method.model
    w = model.fusion(model.encoder(x, torch.ones(len(x))).features).unflatten(0, (columns, MIXED)).mean(1)
    a = method.logits(x).unflatten(0, (columns, MIXED)).mean(1)
    c = Policy.parse().vector().expand(columns, -1)
    drawn = []
    for seed in range(1, rows + 1):
        delta = model.ainet(w, a, c, seed_codes([seed] * columns, method.z_dim)).delta
        drawn.append(torch.cat(list(model.generator.synthesis(w + delta)), 2))
    return _save(weights, torch.cat(drawn, 1))


def _save(weights: Path, picture: torch.Tensor) -> Path:
    """The picture [3, H, W] in [-1, 1] as ``NAME.png`` beside ``NAME.safetensors``."""
    from PIL import Image

    from a3gan.data.ranges import to_pil, to_uint8

    path = weights.with_suffix(".png")
    # 256 colours of its own: half of the file, and nothing that a card's reader would see.
    to_pil(to_uint8(picture.clamp(-1, 1))).quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    return path


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The config without folders of one machine: paths are cut to their last part, the run's folder is left out."""

    def last(path: Any) -> Any:
        if isinstance(path, list):
            return [last(one) for one in path]
        return PurePath(path).name if isinstance(path, str) else path

    config = json.loads(json.dumps(config))
    config["run"]["dir"] = None
    config["run"]["begin"] = last(config["run"].get("begin"))
    config["data"]["path"] = last(config["data"]["path"])
    config["model"]["weights"] = last(config["model"]["weights"])
    for part in ("generator", "encoder", "discriminator"):
        config["model"][part]["weights"] = last(config["model"][part].get("weights"))
    scorers = config["scorers"]
    scorers["attributes"] = last(scorers["attributes"])
    scorers["lpips_backbone"] = last(scorers["lpips_backbone"])
    scorers["farl"] = last(scorers.get("farl"))
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
    parser.add_argument("--bits", type=int, choices=(8, 16), default=16, help="of a weight (default 16)")
    parser.add_argument("--only", metavar="NAME", help="ship the tensors below this name alone: net/discriminator")
    parser.add_argument(
        "--sheet", metavar="ARCHIVE", nargs="?", const="", help="also draw generated faces, A3GAN's from this archive"
    )
    options = parser.parse_args(arguments)
    try:
        print(ship(options.source, options.target, options.bits, options.only))
        if options.sheet is not None:
            archive = options.sheet
            print(sheet(options.target, Path(archive)) if archive else generator_sheet(options.target))
    except UserError as error:
        print(f"a3gan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
