"""Generated and real faces to features, once and in pieces: an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan import checkpoint
from a3gan.data.ranges import to_float, to_uint8
from a3gan.errors import UserError
from a3gan.evaluation.features import CROP_SIDE, Features, read_cached, write_cached

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.media.detect import Mtcnn
    from a3gan.models.stylegan2 import Generator
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.identity import Recogniser

VERSION = 1  # raise it when the features of the same pictures change
CHUNK = 512  # pictures between two writes to the cache
Pictures = Callable[[Tensor], Tensor]  # rows int64 [B] -> uint8 [B, 3, S, S] on the device


class Reader(Protocol):
    """Reads something of pictures float [B, 3, S, S] in [-1, 1]; `identity`: what it follows from."""

    identity: str

    def __call__(self, faces: Tensor) -> Features: ...


class Identity:
    """`embedding` float32 [B, E], unit length."""

    def __init__(self, recogniser: Recogniser, frame: str) -> None:
        self.recogniser, self.frame, self.identity = recogniser, frame, f"{recogniser.fingerprint}:{frame}"

    def __call__(self, faces: Tensor) -> Features:
        return {"embedding": self.recogniser(faces, self.frame).float().cpu().numpy()}


class Hidden:
    """`hidden` float32 [B, 96], the attribute network's layer before its classes."""

    def __init__(self, network: AttributeNetwork, frame: str) -> None:
        self.network, self.frame, self.identity = network, frame, f"{network.fingerprint}:{frame}"

    def __call__(self, faces: Tensor) -> Features:
        from a3gan.scorers.attributes import to_face_frame

        maps = self.network.features(to_face_frame(faces, self.frame)[0])
        return {"hidden": self.network.hidden(self.network.squeeze(maps[-1]).flatten(1)).float().cpu().numpy()}


class Found:
    """`found` bool [B]: whether the detector sees a face in the picture, shown at 128 px."""

    def __init__(self, detector: Mtcnn) -> None:
        self.detector, self.identity = detector, f"{detector.name}:{detector.min_face}"

    def __call__(self, faces: Tensor) -> Features:
        if faces.shape[-1] != CROP_SIDE:
            faces = F.interpolate(faces, (CROP_SIDE, CROP_SIDE), mode="bilinear", antialias=True)
        pictures = list(to_uint8(faces).permute(0, 2, 3, 1).cpu().numpy())
        return {"found": np.array([len(found) > 0 for found in self.detector.detect(pictures)])}


def load_generator(name: str, device: torch.device) -> tuple[Generator, dict[str, Any]]:
    """A generator with averaged weights from a checkpoint or carry, float32, frozen; and the file's meta with its
    `sha256`. UserError: missing, cut or foreign file, or one without a generator."""
    from a3gan.config import check
    from a3gan.models.build import build_generator
    from a3gan.training.warm_start import generator_prefix

    path = checkpoint.resolve(name)
    tensors, meta = checkpoint.load(path)
    if meta.get("stage") not in ("stylegan2", "a3gan") or "config" not in meta:
        raise UserError(f"generator: {path}: of stage {meta.get('stage')!r}, which has no generator; give stylegan2's")
    generator = build_generator(check(meta["config"], source=str(path)))
    checkpoint.load_into(generator, tensors, generator_prefix(tensors), path)
    generator = generator.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    return generator, {**meta, "sha256": checkpoint.sha256(path)}


def codes(count: int, z_dim: int, seed: int) -> Tensor:
    """z [count, z_dim] ~ N(0, I), the same on every device and for every batch size."""
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def sampled(generator: Generator, z: Tensor, truncation: float) -> Pictures:
    """The generator's faces by row of z."""
    device = generator.w_mean.device
    return lambda rows: to_uint8(generator(z[rows].to(device), truncation))


def real(faces: FaceSet, device: torch.device) -> Pictures:
    return lambda rows: to_uint8(faces.fetch(rows)).to(device)


def collect(
    pictures: Pictures, count: int, readers: dict[str, Reader], key: Any, cache: Path, batch: int, title: str
) -> Features:
    """What the readers say of `count` pictures, a row each; pieces that were computed before come from the cache.

    key: what the pictures follow from; the first ones are hashed too, so that a change of code is noticed.
    """
    from tqdm import tqdm

    said = json.dumps([VERSION, key, {name: r.identity for name, r in readers.items()}], sort_keys=True)
    digest = hashlib.sha256(said.encode())
    with torch.inference_mode():
        digest.update(pictures(torch.arange(min(count, 4))).cpu().numpy().tobytes())
    pieces = []
    with tqdm(total=count, desc=title, unit="picture", dynamic_ncols=True, disable=None) as bar:
        for rows in torch.arange(count).split(CHUNK):
            path = cache / f"generator-{digest.hexdigest()[:24]}-{int(rows[0])}-{len(rows)}.npz"
            piece = read_cached(path)
            if piece is None:
                piece = _read(pictures, rows, readers, batch)
                write_cached(path, piece)
            pieces.append(piece)
            bar.update(len(rows))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


@torch.inference_mode()
def _read(pictures: Pictures, rows: Tensor, readers: dict[str, Reader], batch: int) -> Features:
    parts = []
    for some in rows.split(batch):
        faces = to_float(pictures(some))
        parts.append({name: value for reader in readers.values() for name, value in reader(faces).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
