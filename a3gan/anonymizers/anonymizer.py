"""`Anonymizer`: pictures in, the same pictures with other faces out. What `from a3gan import Anonymizer` gives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.anonymizers.a3gan import DEFAULT_WEIGHTS, A3ganAnonymizer
from a3gan.anonymizers.base import FaceAnonymizer, face_seed, pick_device
from a3gan.anonymizers.methods import METHODS, create
from a3gan.data.align import similarity, warp
from a3gan.data.attributes import Policy
from a3gan.data.mask import face_mask
from a3gan.data.ranges import to_float
from a3gan.errors import UserError
from a3gan.media.compose import mosaic_box, paste
from a3gan.media.pictures import restore, to_array

if TYPE_CHECKING:
    from a3gan.media.detect import Faces, Mtcnn

log = logging.getLogger(__name__)

MOST_OUTSIDE = 0.5  # share of the aligned crop outside the picture above which there is too little face to go by
LEAST_CHANGE = 0.02  # mean change under the oval, of a range of 2, below which a face counts as left as it was


@dataclass
class FaceRecord:
    """What became of one face. box (x0, y0, x1, y1) and landmarks [5, 2] in pixels of the upright picture.

    status: 'synthesised' or 'mosaicked'; reason: why it was mosaicked, else ''. seed: of its new face.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    probability: float
    seed: int
    status: str = "synthesised"
    reason: str = ""


@dataclass
class Result:
    """One picture: `image` of the kind that came in, and a record per face, the highest first."""

    image: Any
    faces: list[FaceRecord] = field(default_factory=list)

    @property
    def mosaicked(self) -> int:
        """Faces that could not be synthesised and were mosaicked instead."""
        return sum(face.status == "mosaicked" for face in self.faces)


@dataclass
class _Crop:
    """One aligned face: of picture `picture`, its `number`-th; face uint8 [3, S, S]; matrix [2, 3] picture to crop."""

    picture: int
    number: int
    face: Tensor
    matrix: Tensor


class Anonymizer:
    """Finds the faces of pictures, anonymises them in one pass and puts them back.

    Args:
        method: what changes aligned faces.
        detector: with `detect(list of uint8 [H, W, 3]) -> list[Faces]`; None = MTCNN, loaded at its first use.
        policy, seed, alpha: used where a call names none.

    >>> anonymizer = Anonymizer.from_pretrained("a3gan_64")
    >>> picture = anonymizer(Image.open("photo.jpg"), policy="keep=expression change=gender", seed=7)
    """

    def __init__(
        self, method: FaceAnonymizer, detector: Mtcnn | None = None, *, policy: str | Policy | None = None,
        seed: int | str = 0, alpha: float = 1.0,
    ):
        self.method, self._detector = method, detector
        self.policy, self.seed, self.alpha = _policy(policy), seed, alpha

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None, **options: Any
    ) -> Anonymizer:
        """From a checkpoint's path, the name of shipped weights, or a method without weights ('blur', 'pixelate' ...).

        device: None or 'auto' = cuda where there is one. Raises UserError if nothing of that name exists.
        """
        name, device = str(name_or_path), pick_device(device)
        if name in METHODS and name != "a3gan" and name not in checkpoint.shipped() and not Path(name).exists():
            return cls(create(name, device=device), **options)
        return cls(A3ganAnonymizer(DEFAULT_WEIGHTS if name == "a3gan" else name_or_path, device), **options)

    def __call__(self, images: Any, **options: Any) -> Any:
        """The picture (or each of a list) with its faces anonymised: kind, size, dtype and device as they came.

        images: PIL picture (a turned one comes back upright), RGB uint8 array [H, W, 3], tensor [3, H, W] or
        [N, 3, H, W], uint8 or float in [-1, 1]; or a list of these. Options and errors: `process`.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            results = self.process(images, **options)
            return torch.stack([result.image for result in results]) if results else images.clone()
        results = self.process(images, **options)
        return [result.image for result in results] if isinstance(results, list) else results.image

    def process(
        self, images: Any, *, policy: str | Policy | None = None, seed: int | str | None = None,
        alpha: float | None = None,
    ) -> Result | list[Result]:
        """As a call, with a record of every face: a `Result`, or a list of them for a list or a batch.

        policy: text or `Policy`, what may change. seed: face i of a picture gets `face_seed(seed, i)`, whatever other
        pictures come along. alpha: strength in [0, 1]. UserError: a picture of a kind or shape not listed in
        `__call__`, a policy or alpha that the method does not support.
        """
        many = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        sources = list(images) if many else [images]
        canvases = [to_array(image) for image in sources]
        records = self._anonymize(canvases, policy, seed, alpha)
        pairs = zip(sources, canvases, records, strict=True)
        results = [Result(restore(canvas, source), faces) for source, canvas, faces in pairs]
        return results if many else results[0]

    def aligned(
        self, faces: Tensor, policy: str | Policy | None = None, seeds: Sequence[int] | None = None,
        alpha: float | None = None,
    ) -> Tensor:
        """Ready-aligned faces, float [N, 3, S, S] in [-1, 1] of the method's frame and size: no detector, no mosaic.

        seeds: one per face; None = `face_seed(seed, i)`. Errors: `FaceAnonymizer.anonymize`.
        """
        seeds = [face_seed(self.seed, i) for i in range(len(faces))] if seeds is None else seeds
        alpha = self.alpha if alpha is None else alpha
        return self.method.anonymize(faces, policy=_policy(policy) or self.policy, seeds=seeds, alpha=alpha)

    def detect(self, images: Any) -> Faces | list[Faces]:
        """The faces of a picture (or of each of a list), in pixels of the upright picture; kinds as in `__call__`."""
        many = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        found = self.detector.detect([to_array(image) for image in (images if many else [images])])
        return found if many else found[0]

    @property
    def detector(self) -> Mtcnn:
        """The face detector, on the method's device; loaded at its first use."""
        if self._detector is None:
            from a3gan.media.detect import load_detector

            self._detector = load_detector(device=self.method.device)
        return self._detector

    def _anonymize(
        self, canvases: list[np.ndarray], policy: str | Policy | None, seed: int | str | None, alpha: float | None
    ) -> list[list[FaceRecord]]:
        """Changes uint8 pictures in place; a record per face and picture. A face that is not replaced is mosaicked."""
        seed, alpha = self.seed if seed is None else seed, self.alpha if alpha is None else alpha
        chosen = _policy(policy) or self.policy
        # An impossible request must fail even where no picture has a face.
        method, size = self.method, self.method.size
        method.anonymize(torch.zeros(0, 3, size, size), policy=chosen, seeds=[], alpha=alpha)
        records, crops = [], []
        for picture, (canvas, faces) in enumerate(zip(canvases, self.detector.detect(canvases), strict=True)):
            records.append(_records(faces, seed))
            for number, record in enumerate(records[-1]):
                crop = self._align(canvas, record)
                if crop is not None:
                    crops.append(_Crop(picture, number, *crop))
        faces = torch.stack([crop.face for crop in crops]) if crops else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
        targets = [records[crop.picture][crop.number] for crop in crops]
        before = to_float(faces)
        after = self._synthesise(before, targets, chosen, alpha)
        # Far faces first, so that near ones cover them; mosaics after all, so that nothing of another crop covers one.
        for i in reversed(range(len(crops))):
            crop, record = crops[i], targets[i]
            if record.status == "synthesised":
                try:
                    canvas = canvases[crop.picture]
                    paste(canvas, after[i], before[i], crop.matrix, method.frame, match=method.synthesises)
                except (ValueError, RuntimeError) as error:
                    _fail(record, f"could not be put back ({error})")
        for canvas, faces in zip(canvases, records, strict=True):
            for record in faces:
                if record.status == "mosaicked":
                    mosaic_box(canvas, record.box, record.landmarks)
        return records

    def _align(self, canvas: np.ndarray, record: FaceRecord) -> tuple[Tensor, Tensor] | None:
        """Crop uint8 [3, S, S] and matrix [2, 3]; None, with the record marked, where that fails."""
        try:
            matrix = similarity(record.landmarks[None], self.method.frame, self.method.size)[0]
            if not matrix.isfinite().all():
                raise ValueError("its points coincide")
            face, outside = warp(canvas, matrix, self.method.size)
            if outside > MOST_OUTSIDE:
                raise ValueError(f"{outside:.0%} of it lie outside the picture")
        except (ValueError, RuntimeError, MemoryError) as error:
            return _fail(record, f"could not be aligned: {error}")
        return torch.from_numpy(face).permute(2, 0, 1).contiguous(), matrix

    def _synthesise(self, before: Tensor, records: list[FaceRecord], policy: Policy | None, alpha: float) -> Tensor:
        """One pass over all faces; marks the records of those that fail. float [N, 3, S, S]."""
        if not len(before):
            return before
        try:
            after = self._method(before, records, policy, alpha)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            log.warning("a pass over %d faces failed (%s); trying them one by one", len(before), error)
            after = before.clone()
            for i, record in enumerate(records):
                try:
                    after[i] = self._method(before[i : i + 1], [record], policy, alpha)[0]
                except (RuntimeError, ValueError, ArithmeticError) as single:
                    _fail(record, f"could not be synthesised ({single})")
        mask = face_mask(self.method.size, self.method.frame)
        change = ((after - before).abs() * mask).mean((1, 2, 3)) / mask.mean()
        fine = self.method.acceptable(before, after).tolist()
        # alpha = 0 asks for the reconstruction; then the old face is what should come back.
        must_change = self.method.synthesises and alpha > 0
        for i, record in enumerate(records):
            if record.status == "synthesised" and not fine[i]:
                _fail(record, "its result is no face in the old place")
            elif record.status == "synthesised" and must_change and not change[i] >= LEAST_CHANGE:
                _fail(record, "its result is too close to the original")
        return after

    def _method(self, faces: Tensor, records: list[FaceRecord], policy: Policy | None, alpha: float) -> Tensor:
        seeds = [record.seed for record in records]
        return self.method.anonymize(faces, policy=policy, seeds=seeds, alpha=alpha)


def _records(faces: Faces, seed: int | str) -> list[FaceRecord]:
    rows = zip(faces.boxes, faces.landmarks, faces.probability, strict=True)
    return [
        FaceRecord(tuple(float(v) for v in box), np.asarray(points, np.float64), float(p), face_seed(seed, i))
        for i, (box, points, p) in enumerate(rows)
    ]


def _fail(record: FaceRecord, reason: str) -> None:
    record.status, record.reason = "mosaicked", reason
    log.info("face at %s mosaicked: %s", [round(v) for v in record.box], reason)


def _policy(policy: str | Policy | None) -> Policy | None:
    if policy is None or isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        return Policy.parse(policy)
    raise UserError(f"policy {policy!r}: must be text such as 'keep=expression change=gender', or a Policy")
