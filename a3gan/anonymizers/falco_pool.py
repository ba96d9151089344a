"""The generated faces of FALCO as codes: `falco_64.safetensors` and what stage `falco` makes.

A pool belongs to one generator and one encoder, those of the A3GAN checkpoint that it was drawn for, and names that
file by its hash: codes of one generator are noise to another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.anonymizers.a3gan import A3ganAnonymizer
from a3gan.errors import UserError
from a3gan.models.stylegan2 import Generator


class Pool(nn.Module):
    """`count` codes of W+ as a mean, a basis and coordinates, with one vector each for the search.

    rows: of the mean; L for codes of W+, 1 for codes of W, whose one row serves all. rank: number of coordinates.
    features: width of the vectors. A pool under way holds `filled` faces, the rest are zeros.
    """

    codes: Tensor
    mean: Tensor
    basis: Tensor
    features: Tensor
    filled: Tensor

    def __init__(self, count: int, rank: int, rows: int, w_dim: int, features: int):
        super().__init__()
        self.register_buffer("codes", torch.zeros(count, rank))
        self.register_buffer("mean", torch.zeros(rows, w_dim))
        self.register_buffer("basis", torch.zeros(rank, rows, w_dim))
        self.register_buffer("features", torch.zeros(count, features))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.filled)

    def w_plus(self, index: Tensor, rows: int) -> Tensor:
        """Codes [n, rows, w_dim] of the faces `index` (int64 [n]); rows = L of the generator."""
        w = self.mean + torch.einsum("nk,krd->nrd", self.codes[index], self.basis)
        return w.expand(-1, rows, -1)

    @torch.no_grad()
    def render(self, generator: Generator, index: Tensor) -> Tensor:
        """Pictures [n, 3, S, S] in [-1, 1] of the faces `index`."""
        return generator.synthesis(self.w_plus(index, generator.rows)).clamp(-1, 1)


def load_pool(name_or_path: str | Path) -> tuple[Pool, dict[str, Any], Path]:
    """A pool by path or shipped name, its metadata and its path; UserError for a file of another stage or an empty one.
    """
    path = checkpoint.resolve(name_or_path)
    tensors, meta = checkpoint.load(path)
    if meta.get("stage") != "falco" or meta.get("kind") == "state":
        stage = "the state of a run" if meta.get("kind") == "state" else f"weights of stage {meta.get('stage')!r}"
        raise UserError(f"{path}: {stage}; wanted is a pool of generated faces, as stage 'falco' writes it")
    own = checkpoint.subset(tensors, "pool")
    try:
        pool = Pool(*own["codes"].shape, *own["mean"].shape, own["features"].shape[1])
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: holds no pool of faces; make it again with stage 'falco'") from error
    checkpoint.load_into(pool, tensors, "pool", path)
    if not len(pool):
        raise UserError(f"{path}: the pool holds no faces yet; let stage 'falco' run to its end")
    return pool.float().eval(), meta, path


def load_model(pool_meta: dict[str, Any], pool_path: Path, model: str | Path | None, device: Any) -> A3ganAnonymizer:
    """The A3GAN checkpoint that a pool belongs to: `model`, else by the name in the pool (shipped, or beside the file).

    UserError where it is not there or is another one.
    """
    wanted = pool_meta["model"]
    beside = pool_path.parent / f"{wanted['name']}.safetensors"
    path = checkpoint.resolve(model or (beside if beside.is_file() else wanted["name"]))
    found = checkpoint.sha256(path)
    if found != wanted["sha256"]:
        raise UserError(
            f"{pool_path}: its faces are codes of {wanted['name']} ({wanted['sha256'][:12]}); {path} is another model "
            f"({found[:12]}). Make a pool for it: a3gan train configs/falco/pool_64.yaml model.weights={path}"
        )
    return A3ganAnonymizer(path, device)
