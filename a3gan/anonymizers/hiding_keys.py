"""Key files of hidden pictures: whoever has one has the faces."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3gan.anonymizers.hiding import FaceKey
from a3gan.errors import UserError
from a3gan.files import replacing

FORMAT = "a3gan-key-1"
_ENTRY = "a3gan-key"  # of the safetensors header; its value is JSON
WARNING = "this key IS the face: who has it needs no picture to see it"


@dataclass(frozen=True)
class PictureKey:
    """What recovering a picture takes.

    faces: the secrets; matrices: float64 [2, 3] each, pixels of the picture to those of the aligned face. frame, size:
    of the faces. steps: of DDIM. weights: name of the file of the diffusion model, digest: its sha256. picture: sha256
    of the protected picture's pixels; width, height: its own.
    """

    faces: list[FaceKey]
    matrices: list[Tensor]
    frame: str
    size: int
    steps: int
    weights: str
    digest: str
    picture: str
    width: int
    height: int


_PLAIN = {
    "frame": str, "size": int, "steps": int, "weights": str, "digest": str, "picture": str, "width": int, "height": int,
}  # fmt: skip


def write_key(path: str | Path, key: PictureKey, overwrite: bool = False) -> Path:
    """Writes a key file whole or not at all, readable by its owner alone (mode 0600; Windows has no such modes).

    Raises UserError where it exists and `overwrite` is not set: a lost key is a lost face. NotWritten: full disk and
    the like.
    """
    from safetensors.torch import save

    path = Path(path)
    refuse_existing(path, overwrite)
    tensors = {}
    for i, (face, matrix) in enumerate(zip(key.faces, key.matrices, strict=True)):
        tensors |= {f"{i}.noise": face.noise.float(), f"{i}.conditions": face.conditions.float()}
        tensors[f"{i}.matrix"] = matrix.double()
    meta = {"format": FORMAT, "warning": WARNING} | {name: getattr(key, name) for name in _PLAIN}
    data = save({k: v.cpu().contiguous().clone() for k, v in tensors.items()}, {_ENTRY: json.dumps(meta)})
    with replacing(path) as temporary:
        # Created with its mode, so that there is no moment at which others could read it.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return path


def refuse_existing(path: Path, overwrite: bool) -> None:
    """UserError where a key file is there already, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists; a key that is overwritten is lost, name another file or give --overwrite")


def read_key(path: str | Path) -> PictureKey:
    """Reads what `write_key` wrote; UserError for a missing, cut, foreign or newer file, or one that was tampered with
    so that its tensors do not fit."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such key file")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole key file ({error}); it may be cut, take a copy of it") from error
    meta = _meta(path, header)
    count = len(tensors) // 3
    faces, matrices = [], []
    for i in range(count):
        face = FaceKey(*(_tensor(path, tensors, f"{i}.{name}", 3, torch.float32) for name in ("noise", "conditions")))
        faces.append(face)
        matrices.append(_tensor(path, tensors, f"{i}.matrix", 2, torch.float64))
    if not count:
        raise UserError(f"{path}: holds no face")
    return PictureKey(faces, matrices, **{name: meta[name] for name in _PLAIN})


def _meta(path: Path, header: dict[str, str]) -> dict[str, Any]:
    try:
        meta = json.loads(header[_ENTRY])
        known = meta["format"] == FORMAT
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a key file of a3gan; give the one that `a3gan hide` wrote") from error
    if not known:
        raise UserError(f"{path}: key format {meta['format']!r}; this version reads {FORMAT}, update a3gan")
    for name, kind in _PLAIN.items():
        if not isinstance(meta.get(name), kind):
            raise UserError(f"{path}: its {name} is missing or broken; take a copy of the key")
    return meta


def _tensor(path: Path, tensors: dict[str, Tensor], name: str, ndim: int, dtype: torch.dtype) -> Tensor:
    value = tensors.get(name)
    if value is None or value.ndim != ndim or value.dtype != dtype or not bool(value.isfinite().all()):
        raise UserError(f"{path}: its {name} is missing or broken; take a copy of the key")
    return value
