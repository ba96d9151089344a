"""From a config to training data, and from an index to a batch on the device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.data.align import MIRROR
from a3gan.errors import UserError
from a3gan.training.stage import Batch

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet
    from a3gan.training.stage import Stage

logger = logging.getLogger(__name__)
_ODD = ("yaw", "roll")  # angles: targets that change sign in a mirror


def build_data(
    cfg: Config, device: torch.device | str = "cpu", limit: int | None = None
) -> tuple[FaceSet, FaceSet | None]:
    """(training faces, validation faces or None) of a config; `limit` caps the number of rendered ones (dry runs).

    Raises UserError where the archive is missing, of another frame or size, or empty after the filters.
    """
    if cfg.data.path is None:
        return _rendered(cfg, device, limit)
    train, val = _archive(cfg, cfg.data.split_train, device), _archive(cfg, cfg.data.split_val, device)
    if train is None:
        raise UserError(f"data.path: {cfg.data.path} has no face of split '{cfg.data.split_train}' (data.split_train)")
    if val is None:
        logger.warning("no face of split '%s' (data.split_val): nothing will be validated", cfg.data.split_val)
    return train, val


def _rendered(cfg: Config, device: torch.device | str, limit: int | None) -> tuple[FaceSet, FaceSet]:
    from a3gan.data.synthetic import synthetic_faces

    count = min(cfg.data.synthetic_count, limit or cfg.data.synthetic_count)
    held_out = min(max(count // 8, 16), 512)
    # P x Q batches need people with several pictures; other stages get one picture a person
    people = max(count // 8, 1) if cfg.train.identities_per_batch else None
    train = synthetic_faces(count, cfg.data.size, cfg.data.synthetic_seed, frame=cfg.data.frame, identities=people)
    people = max(held_out // 8, 1) if people else None
    # 2^20 away: another seed, so other people
    other = cfg.data.synthetic_seed + 2**20
    val = synthetic_faces(held_out, cfg.data.size, other, frame=cfg.data.frame, identities=people)
    if cfg.data.storage == "device":
        return train.to(device), val.to(device)
    return train, val


def _archive(cfg: Config, split: str, device: torch.device | str) -> FaceSet | None:
    """The faces of one split, or None where no archive has it."""
    from a3gan.data.archive import ArchiveReader, FaceSet

    paths = [cfg.data.path] if isinstance(cfg.data.path, str) else cfg.data.path
    parts = []
    for path in paths:
        reader = ArchiveReader(path, cfg.data.size)
        if reader.frame != cfg.data.frame:
            raise UserError(f"data.path: {path} is aligned to '{reader.frame}', data.frame is '{cfg.data.frame}'")
        if any(row["split"] == split for row in reader.rows):
            parts.append(FaceSet.load(path, split=split, storage=cfg.data.storage, device=device, size=cfg.data.size))
    if not parts:
        return None
    faces = FaceSet.concat(parts) if len(parts) > 1 else parts[0]
    inside = torch.nonzero(faces.outside <= cfg.data.max_outside).flatten()
    if len(inside) == 0:
        raise UserError(f"data.path: no face of split '{split}' is within data.max_outside={cfg.data.max_outside}")
    return faces if len(inside) == len(faces) else faces.subset(inside)


def all_targets(faces: FaceSet, device: torch.device | str) -> dict[str, Tensor]:
    """Attribute name -> float [N] on the device, NaN = missing."""
    from a3gan.data.attributes import targets

    return {name: value.float().to(device) for name, value in targets(faces).items()}


def training_batch(stage: Stage, rows: Tensor, targets: dict[str, Tensor]) -> Batch:
    """What a step sees: the rows that the stage draws, else `rows` (int64 [B], CPU), half of them mirrored and all in
    another light.

    targets: `all_targets` of the stage's data.
    """
    cfg, own = stage.cfg, stage.draw(len(rows))
    if own is not None:  # such stages augment first, and lay out in memory what comes of it
        return make_batch(stage.data, own, targets, stage.device, channels_last=False)
    batch = make_batch(stage.data, rows, targets, stage.device, cfg.run.channels_last)
    if cfg.data.flip:
        batch = mirror(batch, (torch.rand(len(rows)) < 0.5).to(stage.device))
    if cfg.data.jitter > 0:
        batch = replace(batch, images=in_another_light(batch.images, cfg.data.jitter))
    return batch


def in_another_light(images: Tensor, strength: float) -> Tensor:
    """`data.augment.jitter` of [B, 3, S, S], in the dtype and memory layout that came in."""
    from a3gan.data.augment import jitter

    return torch.empty_like(images).copy_(jitter(images.float(), strength))


def make_batch(
    faces: FaceSet, index: Tensor, targets: dict[str, Tensor], device: torch.device | str, channels_last: bool = True
) -> Batch:
    """Fetches the rows `index` (int64 [B], CPU) to `device`."""
    images = faces.fetch(index).to(device, non_blocking=True)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    rows = index.to(device)
    return Batch(
        images=images,
        index=rows,
        landmarks=faces.landmarks[index.to(faces.landmarks.device)].to(device),
        identity=faces.identity[index.to(faces.identity.device)].to(device),
        targets={name: value[rows] for name, value in targets.items()},
    )


def mirror(batch: Batch, flipped: Tensor) -> Batch:
    """Mirrors the rows where `flipped` (bool [B]) is true: pixels, landmarks and the targets that have a side."""
    rows = flipped[:, None, None]
    points = batch.landmarks[:, list(MIRROR)].clone()
    points[..., 0] = 1 - points[..., 0]
    targets = {n: torch.where(flipped, -t, t) if n in _ODD else t for n, t in batch.targets.items()}
    return Batch(
        images=torch.where(rows[..., None], batch.images.flip(3), batch.images),
        index=batch.index,
        landmarks=torch.where(rows, points, batch.landmarks),
        identity=batch.identity,
        targets=targets,
    )
