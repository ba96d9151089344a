"""Aligned data sets in memory, on a device or read from disk: `FaceSet`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from a3gan.data import align
from a3gan.data.archive_file import LANDMARK_COLUMNS, OWN_COLUMNS, ArchiveReader, ArchiveWriter, landmark_cells
from a3gan.data.ranges import to_float, to_pil
from a3gan.errors import UserError

STORAGES = ("memory", "disk", "device")
TRUTH = "truth:"  # columns of an archive that hold numeric ground truth


@dataclass
class FaceSet:
    """An aligned data set of N faces of side S.

    images: uint8 [N, 3, S, S], or None when the pictures stay on disk. landmarks: float32 [N, 5, 2] in frame units
    [0, 1]. identity: int64 [N], -1 where unknown, else an index into identity_names. columns: raw label columns, ""
    where missing. outside: float32 [N], share of the pixels outside the source. truth: numeric ground truth,
    rendered faces only.
    """

    images: torch.Tensor | None
    files: list[str]
    landmarks: torch.Tensor
    identity: torch.Tensor
    identity_names: list[str]
    split: list[str]
    columns: dict[str, list[str]]
    outside: torch.Tensor
    frame: str
    size: int
    truth: dict[str, torch.Tensor] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")
    readers: list[ArchiveReader] | None = None  # storage "disk": files[i] is a member of readers[reader_of[i]]
    reader_of: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.files)

    @staticmethod
    def load(
        path: str | os.PathLike | Sequence[str | os.PathLike],
        split: str | Iterable[str] | None = None,
        storage: str = "memory",
        device: torch.device | str | None = None,
        size: int | None = None,
    ) -> FaceSet:
        """Open one archive, or several as one set.

        Args:
            path: archive, or a list of archives of one frame (and one size, unless `size` is given).
            split: keep only this split (or these); None keeps all.
            storage: "memory" (uint8 in RAM), "disk" (read at each fetch), "device" (uint8 on `device`).
            device: where `fetch` puts its batches; default CPU.
            size: side wanted; a larger archive is shrunk by area, a smaller one refused.

        Raises:
            UserError: no such file, cut short, not our archive, wrong frame or size, empty split.
        """
        if storage not in STORAGES:
            raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")
        if not isinstance(path, str | os.PathLike):
            return FaceSet.concat([FaceSet.load(p, split, storage, device, size) for p in path])
        reader = ArchiveReader(path, size)
        rows = reader.rows
        if split is not None:
            wanted = {split} if isinstance(split, str) else set(split)
            rows = [row for row in rows if row["split"] in wanted]
            if not rows:
                there = ", ".join(sorted({row["split"] for row in reader.rows}))
                raise UserError(f"{path}: no pictures in split {'/'.join(sorted(wanted))}; its splits: {there}")
        images = None
        if storage != "disk":
            images = reader.read([row["file"] for row in rows])
        faces = _from_rows(rows, images, reader)
        if storage == "disk":
            faces.readers, faces.reader_of = [reader], torch.zeros(len(rows), dtype=torch.int64)
        device = torch.device(device or "cpu")
        faces.device = device
        if storage == "device" and images is not None:
            faces.images = images.to(device)
        return faces

    def fetch(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Pictures by index [B] as float [B, 3, S, S] in [-1, 1] on the set's device."""
        index = torch.as_tensor(index, dtype=torch.int64)
        if self.images is not None:
            picked = self.images[index.to(self.images.device)]
            return to_float(picked.to(self.device, non_blocking=True))
        index = index.cpu()
        out = torch.empty((len(index), 3, self.size, self.size), dtype=torch.uint8)
        owner = self.reader_of[index]
        for number in owner.unique().tolist():
            at = (owner == number).nonzero()[:, 0]
            out[at] = self.readers[number].read([self.files[i] for i in index[at].tolist()])
        return to_float(out.to(self.device))

    def to(self, device: torch.device | str) -> FaceSet:
        """The same set with its pictures (if in memory) and its batches on `device`; labels stay on the CPU."""
        device = torch.device(device)
        images = None if self.images is None else self.images.to(device)
        return replace(self, images=images, device=device)

    def subset(self, index: torch.Tensor | Sequence[int]) -> FaceSet:
        """The faces at `index` (integers, or a boolean mask [N]), in that order. Identity numbers and names stay."""
        index = torch.as_tensor(index)
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        index = index.to(torch.int64).cpu()
        rows = index.tolist()
        return replace(
            self,
            images=None if self.images is None else self.images[index.to(self.images.device)],
            files=[self.files[i] for i in rows],
            landmarks=self.landmarks[index],
            identity=self.identity[index],
            split=[self.split[i] for i in rows],
            columns={name: [values[i] for i in rows] for name, values in self.columns.items()},
            outside=self.outside[index],
            truth={name: values[index] for name, values in self.truth.items()},
            reader_of=None if self.reader_of is None else self.reader_of[index],
        )

    @staticmethod
    def concat(sets: Sequence[FaceSet]) -> FaceSet:
        """Several sets as one. Equal identity names are one person; a label column that a set lacks is "" there, a
        truth NaN.

        Raises:
            UserError: frames or sizes differ, or some sets are in memory and others on disk.
        """
        if not sets:
            raise UserError("no data set given")
        first = sets[0]
        for other in sets[1:]:
            if other.frame != first.frame:
                raise UserError(f"data sets of frames {first.frame} and {other.frame} do not mix; prepare both alike")
            if other.size != first.size:
                raise UserError(f"data sets of {first.size} and {other.size} px do not mix; load both with one size")
            if (other.images is None) != (first.images is None):
                raise UserError("data sets in memory and on disk do not mix; load them with one storage")
        names = list(dict.fromkeys(name for s in sets for name in s.identity_names))
        number = {name: i for i, name in enumerate(names)}
        identity = []
        for s in sets:
            table = torch.tensor([number[name] for name in s.identity_names] + [-1], dtype=torch.int64)
            identity.append(table[s.identity])  # -1 picks the last entry, which is -1
        columns = dict.fromkeys(name for s in sets for name in s.columns)
        truth = dict.fromkeys(name for s in sets for name in s.truth)
        readers, reader_of = [], []
        for s in sets:
            if s.readers is not None:
                reader_of.append(s.reader_of + len(readers))
                readers += s.readers
        return replace(
            first,
            images=None if first.images is None else torch.cat([s.images for s in sets]),
            files=[name for s in sets for name in s.files],
            landmarks=torch.cat([s.landmarks for s in sets]),
            identity=torch.cat(identity),
            identity_names=names,
            split=[name for s in sets for name in s.split],
            columns={c: [v for s in sets for v in s.columns.get(c, [""] * len(s))] for c in columns},
            outside=torch.cat([s.outside for s in sets]),
            truth={t: torch.cat([_truth(s, t, sets) for s in sets]) for t in truth},
            readers=readers or None,
            reader_of=torch.cat(reader_of) if reader_of else None,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the set as an archive, lossless (PNG). A truth of one number a face becomes a column `truth:name`."""
        with ArchiveWriter(path, self.frame, self.size) as writer:
            for i, name in enumerate(self.files):
                picture = self.images[i] if self.images is not None else self.readers[self.reader_of[i]].read([name])[0]
                buffer = io.BytesIO()
                to_pil(picture).save(buffer, "PNG")
                who = int(self.identity[i])
                row = {key: values[i] for key, values in self.columns.items()}
                row |= {f"{TRUTH}{k}": repr(float(v[i])) for k, v in self.truth.items() if v.ndim == 1}
                row |= {"split": self.split[i], "identity": self.identity_names[who] if who >= 0 else ""}
                row |= landmark_cells(align.to_pixels(self.landmarks[i].double(), self.size))
                row["outside"] = f"{float(self.outside[i]):.4f}"
                stem = Path(name).stem
                writer.add(stem.split("_", 1)[1] if re.match(r"\d+_.", stem) else stem, ".png", buffer.getvalue(), row)


def _truth(faces: FaceSet, name: str, sets: Sequence[FaceSet]) -> torch.Tensor:
    if name in faces.truth:
        return faces.truth[name]
    like = next(s.truth[name] for s in sets if name in s.truth)
    return torch.full((len(faces), *like.shape[1:]), float("nan"))


def _from_rows(rows: list[dict[str, str]], images: torch.Tensor | None, reader: ArchiveReader) -> FaceSet:
    try:
        return _parsed(rows, images, reader)
    except (ValueError, TypeError) as error:
        raise UserError(f"{reader.path}: its index.csv is damaged ({error}); prepare it again") from error


def _parsed(rows: list[dict[str, str]], images: torch.Tensor | None, reader: ArchiveReader) -> FaceSet:
    points = np.array([[float(row[c]) for c in LANDMARK_COLUMNS] for row in rows], dtype=np.float64).reshape(-1, 5, 2)
    # Names of the whole archive, not only of this split: the numbers of two splits of one file then agree.
    names = list(dict.fromkeys(row["identity"] for row in reader.rows if row["identity"]))
    number = {name: i for i, name in enumerate(names)}
    labels = [c for c in reader.fields if c not in OWN_COLUMNS and not c.startswith(TRUTH)]
    truth = [c for c in reader.fields if c.startswith(TRUTH)]
    return FaceSet(
        images=images,
        files=[row["file"] for row in rows],
        landmarks=align.to_units(torch.from_numpy(points), reader.stored_size).float(),
        identity=torch.tensor([number.get(row["identity"], -1) for row in rows], dtype=torch.int64),
        identity_names=names,
        split=[row["split"] for row in rows],
        columns={c: [row[c] or "" for row in rows] for c in labels},
        outside=torch.tensor([float(row["outside"] or 0) for row in rows], dtype=torch.float32),
        frame=reader.frame,
        size=reader.size,
        truth={c[len(TRUTH) :]: torch.tensor([float(row[c] or "nan") for row in rows]) for c in truth},
    )


def pxq_indices(identity: torch.Tensor, p: int, q: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """One batch of P people with Q pictures each: int64 [p * q], the pictures of one person side by side.

    Args:
        identity: int64 [N], -1 = unknown (never drawn).
        p: people, drawn without replacement among those with at least two pictures (q = 1: among all).
        q: pictures each, without replacement where the person has that many, else all of them once and then repeats.

    Raises:
        UserError: fewer than p such people.
    """
    known = (identity >= 0).nonzero()[:, 0]
    order = known[torch.argsort(identity[known], stable=True)]
    _, counts = identity[order].unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    able = (counts >= min(q, 2)).nonzero()[:, 0]
    if len(able) < p:
        raise UserError(f"a batch of {p} people needs as many with {min(q, 2)} or more pictures; there are {len(able)}")
    chosen = able[torch.randperm(len(able), generator=generator)[:p]]
    batch = []
    for person in chosen.tolist():
        count, start = int(counts[person]), int(starts[person])
        rounds = [torch.randperm(count, generator=generator) for _ in range(-(-q // count))]
        batch.append(order[start + torch.cat(rounds)[:q]])
    return torch.cat(batch)
