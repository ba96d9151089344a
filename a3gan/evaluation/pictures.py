"""The pictures that are judged: originals, and what a method makes of them, as a user would share them.

With the photos at hand a face is aligned, anonymised and pasted back by the rules of `Anonymizer` (a face that fails
is mosaicked); the five known points take the detector's place, so that methods are compared on the same faces.
Without them the picture is the aligned crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from a3gan.data import align, degrade
from a3gan.data.ranges import to_float, to_uint8
from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.data.archive import FaceSet
    from a3gan.data.attributes import Policy


@dataclass
class View:
    """B pictures, uint8 [H, W, 3] of any sizes, and the five points [B, 5, 2] of their faces in pixels of each.

    before: of results, the undegraded originals that they were made from.
    """

    pictures: list[np.ndarray]
    points: np.ndarray
    before: View | None = None

    def aligned(self, frame: str, size: int) -> torch.Tensor:
        """The faces cut out by their points, as float [B, 3, size, size] in [-1, 1]."""
        matrices = align.similarity(self.points, frame, size)
        cut = [align.warp(picture, matrix, size)[0] for picture, matrix in zip(self.pictures, matrices, strict=True)]
        return to_float(torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous())


@dataclass
class Originals:
    """The faces that are judged, and where their pictures come from (`photos` None: the crops themselves)."""

    faces: FaceSet
    photos: Photos | None = None
    points: np.ndarray = field(init=False)  # float64 [N, 5, 2], pixels of the picture

    def __post_init__(self) -> None:
        points = align.to_pixels(self.faces.landmarks.double(), self.faces.size)
        if self.photos is not None:
            points = align.transform_points(points, align.invert(self.photos.matrices))
        self.points = points.numpy()

    def view(self, rows: Sequence[int]) -> View:
        if self.photos is not None:
            return View([self.photos.read(i) for i in rows], self.points[rows])
        crops = to_uint8(self.faces.fetch(list(rows))).permute(0, 2, 3, 1).cpu().numpy()
        return View(list(crops), self.points[rows])

    def digest(self) -> str:
        """Hash over pixels (by the hashes that `prepare` noted of its sources, where it did), points and people."""
        digest = hashlib.sha256(self.points.tobytes())
        names = self.faces.identity_names
        digest.update("\n".join(names[i] if i >= 0 else "" for i in self.faces.identity.tolist()).encode())
        digest.update(f"{self.photos is not None}|{self.faces.frame}|{self.faces.size}".encode())
        if "source_sha256" in self.faces.columns:
            digest.update("\n".join(self.faces.columns["source_sha256"]).encode())
        else:
            for rows in torch.arange(len(self.faces)).split(256):
                digest.update(to_uint8(self.faces.fetch(rows)).cpu().numpy().tobytes())
        return digest.hexdigest()


class Photos:
    """The photos that an archive was prepared from, by row; each is checked against the hash noted then."""

    def __init__(self, path: str | Path, faces: FaceSet):
        from a3gan.data.archive_file import MATRIX_COLUMNS
        from a3gan.data.prepare_sources import FolderPictures, ZipPictures

        self.path, columns = Path(path), faces.columns
        lacking = [c for c in ("source", "source_sha256", *MATRIX_COLUMNS) if c not in columns]
        if lacking:
            raise UserError(
                f"data.photos={path}: the archive lacks the column {lacking[0]}; prepare it again, "
                "or set data.photos=null"
            )
        if not self.path.exists():
            raise UserError(
                f"data.photos={path}: no such folder or zip; name what the archive was prepared from, "
                "or null to judge the crops"
            )
        self.pictures = FolderPictures(self.path) if self.path.is_dir() else ZipPictures(self.path)
        self.names, self.hashes = columns["source"], columns["source_sha256"]
        cells = [[float(value) for value in columns[c]] for c in MATRIX_COLUMNS]
        self.matrices = torch.tensor(cells, dtype=torch.float64).T.reshape(-1, 2, 3)  # photo pixels to crop pixels

    def read(self, row: int) -> np.ndarray:
        """uint8 [H, W, 3], upright. UserError where it is not the photo that was prepared."""
        import io

        from PIL import Image

        from a3gan.data.prepare_sources import Missing
        from a3gan.data.ranges import upright_rgb

        name = self.names[row]
        try:
            data = self.pictures.source(name).read()
        except (Missing, OSError) as error:
            raise UserError(
                f"data.photos={self.path}: has no {name}; name what the archive was prepared from"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.hashes[row]:
            raise UserError(
                f"data.photos={self.path}: {name} is not the photo that was prepared; prepare the archive again"
            )
        return np.array(upright_rgb(Image.open(io.BytesIO(data))))


@dataclass
class Method:
    """A method with its settings for the whole run. policy, alpha: None / 1 where it supports neither."""

    anonymizer: FaceAnonymizer
    policy: Policy | None
    alpha: float
    seeds: list[int]  # one for each face of the set

    def apply(self, originals: Originals, rows: Sequence[int]) -> tuple[View, np.ndarray]:
        """The method's pictures for some rows, and which of them had to be mosaicked, bool [B].

        Raises UserError where a picture came back as it was, unless the method is `identity`.
        """
        before = originals.view(rows)
        seeds = [self.seeds[i] for i in rows]
        if originals.photos is None:
            after, failed = self._crops(before, originals.faces.frame, seeds), np.zeros(len(rows), bool)
        else:
            after, failed = self._photos(before, seeds)
        if self.anonymizer.name != "identity":
            for row, old, new in zip(rows, before.pictures, after.pictures, strict=True):
                if old.shape == new.shape and np.array_equal(old, new):
                    file = originals.faces.files[row]
                    raise UserError(f"method {self.anonymizer.name}: {file} came back unchanged; it hides nothing")
        after.before = before
        return after, failed

    def _anonymize(self, faces: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        if self.alpha:
            seeds = self.anonymizer.settle(faces, seeds, self.policy)
        return self.anonymizer.anonymize(faces, policy=self.policy, seeds=seeds, alpha=self.alpha)

    def _crops(self, before: View, own_frame: str, seeds: list[int]) -> View:
        """Without photos: the result is brought to the size of the crops that came in."""
        frame, size, own_size = self.anonymizer.frame, self.anonymizer.size, before.pictures[0].shape[0]
        if frame != own_frame:
            raise UserError(
                f"method {self.anonymizer.name} wants frame {frame!r}, the archive has {own_frame!r}; give data.photos"
            )
        faces = to_float(torch.from_numpy(np.stack(before.pictures)).permute(0, 3, 1, 2).contiguous())
        result = _resized(self._anonymize(_resized(faces, size), seeds), own_size)
        return View(list(to_uint8(result).permute(0, 2, 3, 1).cpu().numpy()), before.points)

    def _photos(self, before: View, seeds: list[int]) -> tuple[View, np.ndarray]:
        from a3gan.anonymizers.anonymizer import Anonymizer, FaceRecord
        from a3gan.evaluation.detection import landmark_boxes

        canvases = [picture.copy() for picture in before.pictures]
        boxes = landmark_boxes(before.points)
        records = [
            FaceRecord(tuple(b), p, 1.0, s) for b, p, s in zip(boxes.tolist(), before.points, seeds, strict=True)
        ]
        Anonymizer(self.anonymizer).apply(canvases, [[record] for record in records], self.policy, self.alpha)
        failed = np.array([record.status == "mosaicked" for record in records], bool)
        return View(canvases, before.points), failed


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def degraded(view: View, name: str) -> View:
    """`none`: as it is; `jpeg75`: JPEG of quality 75; `half`: half as wide and high by means of four pixels."""
    if name == "none":
        return view
    pictures = [to_float(torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()) for picture in view.pictures]
    if name == "jpeg75":
        changed, points = [degrade.jpeg(picture, 75) for picture in pictures], view.points
    elif name == "half":
        # Edges map to edges: x' + 1/2 = (x + 1/2) / 2.
        changed, points = [degrade.half_size(picture) for picture in pictures], (view.points + 0.5) / 2 - 0.5
    else:
        raise ValueError(f"unknown degradation {name!r}")
    pictures = [to_uint8(picture)[0].permute(1, 2, 0).contiguous().numpy() for picture in changed]
    return View(pictures, points, view.before)


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Row numbers 0 .. count - 1 in runs of `size`."""
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
