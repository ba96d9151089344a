"""`Anonymizer`: pictures in, the same pictures with other faces out. What `from a3gan import Anonymizer` gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.anonymizers.base import FaceAnonymizer, Redaction, face_seed
from a3gan.anonymizers.methods import METHODS, create, method_of_weights
from a3gan.anonymizers.records import Crop, FaceRecord, Result, fail, records_of
from a3gan.data.align import similarity_of, warp
from a3gan.data.attributes import Policy
from a3gan.data.mask import face_mask
from a3gan.data.ranges import to_float
from a3gan.errors import UserError
from a3gan.media.compose import paste, seam_fit, shade, steadied
from a3gan.media.fit import unfit
from a3gan.media.pictures import Picture, opened, restore
from a3gan.media.redact import STRONG, redact

if TYPE_CHECKING:
    from a3gan.media.detect import Faces, Mtcnn
    from a3gan.media.pipeline import VideoReport

__all__ = ["Anonymizer", "Crop", "FaceRecord", "Result"]

log = logging.getLogger(__name__)

MOST_OUTSIDE = 0.5  # share of the aligned crop outside the picture above which there is too little face to go by
LEAST_CHANGE = 0.02  # mean change under the oval, of a range of 2, below which a face counts as left as it was
# What one face may raise. torch.OutOfMemoryError is a RuntimeError; a CPU's is one as well, or a MemoryError.
FAULTS = (RuntimeError, ValueError, ArithmeticError, MemoryError)
Seeds = Sequence | Callable[[int, np.ndarray, list[FaceRecord]], Sequence[int | None]]


class Anonymizer:
    """Finds the faces of pictures, anonymises them in one pass and puts them back.

    Args:
        method: what changes aligned faces; one with a `redaction` is done at the picture's own resolution instead.
        detector: with `detect(list of uint8 [H, W, 3]) -> list[Faces]`; None = MTCNN, loaded at its first use.
        policy, seed, alpha: used where a call names none.
        thresh: finds of a lower probability are left out; 0 = whatever the detector gives.
        mask_scale: size of what is replaced against the method's own: 1.3 = 30 % more on each side (a synthetic face
            ends where its frame does). boxes: redact whole boxes in place of ovals.
        fallback: for faces that cannot be synthesised; a coarse mosaic, or e.g. Redaction('solid').
        batch_size: faces a pass at most, None = the method's own; halved by itself where memory runs out.

    >>> anonymizer = Anonymizer.from_pretrained("a3gan_64")
    >>> picture = anonymizer(Image.open("photo.jpg"), policy="keep=expression change=gender", seed=7)

    A pipeline calls the stages by themselves: `align` (or `crops`), `synthesise` (or `fill`), `compose`.
    """

    def __init__(
        self, method: FaceAnonymizer, detector: Mtcnn | None = None, *, policy: str | Policy | None = None,
        seed: int | str = 0, alpha: float = 1.0, thresh: float = 0.0, mask_scale: float = 1.0, boxes: bool = False,
        fallback: Redaction = STRONG, batch_size: int | None = None,
    ):  # fmt: skip
        if not 0.5 <= mask_scale <= 3:
            raise UserError(f"mask_scale {mask_scale}: must be from 0.5 to 3; 1 = the method's own size")
        if not 0 <= thresh < 1:
            raise UserError(f"thresh {thresh}: must be from 0 to below 1")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size {batch_size}: must be at least 1")
        self.method, self._detector = method, detector
        self.policy, self.seed, self.alpha, self.thresh = as_policy(policy), seed, alpha, thresh
        self.mask_scale, self.boxes, self.fallback, self.batch_size = mask_scale, boxes, fallback, batch_size
        self._said: set[type] = set()  # faults that have been logged

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "a3gan", device: str | torch.device | None = None, **options: Any
    ) -> Anonymizer:
        """From a method's name ('a3gan', 'falco', 'blur' ...), of its shipped weights, or a checkpoint's or ONNX path.

        device: None or 'auto' = cuda where there is one. Raises UserError if nothing of that name exists. A method with
        options of its own: ``Anonymizer(create("falco", margin=0.5))`` of `anonymizers.methods`.
        """
        name = str(name_or_path)
        if name in METHODS and name not in checkpoint.shipped() and not Path(name).is_file():
            return cls(create(name, device=device), **options)
        return cls(create(method_of_weights(name_or_path), weights=name_or_path, device=device), **options)

    def __call__(self, images: Any, **options: Any) -> Any:
        """The picture (or each of a list) with its faces anonymised: kind, size, dtype and device as they came.

        images: PIL picture (a turned one comes back upright), RGB(A) array [H, W, 3 or 4], uint8 or uint16, tensor
        [3, H, W] or [N, 3, H, W], uint8 or float in [-1, 1], `Picture`; or a list of these. Options, errors: `process`.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            results = self.process(images, **options)
            return torch.stack([result.image for result in results]) if results else images.clone()
        results = self.process(images, **options)
        return [result.image for result in results] if isinstance(results, list) else results.image

    def process(
        self, images: Any, *, policy: str | Policy | None = None, seed: int | str | None = None,
        alpha: float | None = None, seeds: Seeds | None = None, faces: Sequence[Faces] | Faces | None = None,
    ) -> Result | list[Result]:  # fmt: skip
        """As a call, with a record of every face: a `Result`, or a list of them for a list or a batch.

        Args:
            policy: text or `Policy`, what may change. alpha: strength in [0, 1].
            seed: face i of a picture gets `face_seed(seed, i)`, whatever other pictures come along.
            seeds: a seed for each face in place of that: a list of them (for each of a list of pictures), or a function
                (number of the picture, its uint8 RGB array [H, W, 3], its records) -> list. None = keep this face.
            faces: detections in place of the detector's, one `Faces` a picture.

        Raises UserError: a picture of a kind or shape not listed in `__call__`, a policy or alpha that the method does
        not support, not as many seeds as faces.
        """
        many = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        sources = list(images) if many else [images]
        seed, alpha = self.seed if seed is None else seed, self.alpha if alpha is None else alpha
        chosen = as_policy(policy) or self.policy
        # An impossible request must fail even where no picture has a face.
        method, size = self.method, self.method.size
        method.anonymize(torch.zeros(0, 3, size, size), policy=chosen, seeds=[], alpha=alpha)
        pictures = [opened(image) for image in sources]
        found = self._find(pictures) if faces is None else list(faces if many else [faces])
        if len(found) != len(sources):
            raise UserError(f"faces: {len(found)} for {len(sources)} pictures; give one for each")
        records = [records_of(one, seed, self.thresh) for one in found]
        if seeds is not None:
            _set_seeds(records, pictures, seeds if many or callable(seeds) else [seeds])
        self.apply(pictures, records, chosen, alpha)
        pairs = zip(sources, pictures, records, strict=True)
        results = [Result(restore(picture, source), faces) for source, picture, faces in pairs]
        return results if many else results[0]

    def aligned(
        self, faces: Tensor, policy: str | Policy | None = None, seeds: Sequence[int] | None = None,
        alpha: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Ready-aligned faces, float [N, 3, S, S] in [-1, 1] of the method's frame and size: no detector, no mosaic.

        seeds: one per face; None = `face_seed(seed, i)`. A face that still resembles is drawn with another
        (`FaceAnonymizer.settle`). Errors: `FaceAnonymizer.anonymize`.
        """
        seeds = [face_seed(self.seed, i) for i in range(len(faces))] if seeds is None else seeds
        alpha, chosen = self.alpha if alpha is None else alpha, as_policy(policy) or self.policy
        if alpha and self.method.redraw:
            seeds = self.method.settle(faces, seeds, chosen)
        return self.method.anonymize(faces, policy=chosen, seeds=seeds, alpha=alpha)

    def detect(self, images: Any) -> Faces | list[Faces]:
        """The faces of a picture (or of each of a list), in pixels of the upright picture; kinds as in `__call__`."""
        many = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        found = self._find([opened(image) for image in (images if many else [images])])
        return found if many else found[0]

    @property
    def detector(self) -> Mtcnn:
        """The face detector, on the method's device; loaded at its first use."""
        if self._detector is None:
            from a3gan.media.detect import load_detector

            self._detector = load_detector(device=self.method.device)
        return self._detector

    def process_video(self, source: str | Path, output: str | Path, **options: Any) -> VideoReport:
        """Anonymises a video file, see `media.pipeline.anonymize_video`; options: fields of `media.settings.Settings`,
        and that function's arguments."""
        from a3gan.media.pipeline import anonymize_with

        return anonymize_with(self, source, output, **options)

    def apply(
        self, pictures: Sequence[np.ndarray | Picture], records: Sequence[Sequence[FaceRecord]],
        policy: Policy | None = None, alpha: float | None = None,
    ) -> None:  # fmt: skip
        """Anonymises known faces in place, those of all pictures in one pass; marks the records with what became.

        pictures: uint8 [H, W, 3] or `Picture`; records: the faces of each.
        """
        own = [picture if isinstance(picture, Picture) else Picture(picture) for picture in pictures]
        crops = [self.crops(one.view(), faces) for one, faces in zip(own, records, strict=True)]
        flat = [crop for some in crops for crop in some]
        self.settle(flat, policy, alpha)
        self.fill(flat, policy, alpha)
        for picture, faces, some in zip(own, records, crops, strict=True):
            self.compose(picture.rgb, faces, some, top=picture.top)

    def crops(self, canvas: np.ndarray, records: Sequence[FaceRecord]) -> list[Crop]:
        """The faces of a picture, uint8 [H, W, 3], that are to be synthesised, aligned; those that fail, and those that
        `media.fit.unfit` says cannot be, are marked."""
        if self.method.redaction is not None:
            return []
        crops = []
        for record in records:
            if record.status != "synthesised":
                continue
            if reason := unfit(np.asarray(record.box), record.landmarks):
                fail(record, reason)
            elif (found := self.align(canvas, record)) is not None:
                crops.append(Crop(record, *found))
        return crops

    def align(self, canvas: np.ndarray, record: FaceRecord) -> tuple[Tensor, Tensor] | None:
        """Crop uint8 [3, S, S] and matrix [2, 3]; None, with the record marked, where that fails."""
        try:
            matrix = similarity_of(record.landmarks, self.method.frame, self.method.size)
            if not np.isfinite(matrix).all():
                raise ValueError("its points coincide")
            face, outside = warp(canvas, matrix, self.method.size)
            if outside > MOST_OUTSIDE:
                raise ValueError(f"{outside:.0%} of it lie outside the picture")
        except FAULTS as error:
            return fail(record, f"could not be aligned: {error}")
        return torch.from_numpy(face).permute(2, 0, 1).contiguous(), torch.from_numpy(matrix)

    def settle(self, crops: Sequence[Crop], policy: Policy | None = None, alpha: float | None = None) -> None:
        """Gives each record a seed by which its face does not resemble it, see `FaceAnonymizer.settle`."""
        if not crops or not self.method.redraw or not (self.alpha if alpha is None else alpha):
            return
        faces = to_float(torch.stack([crop.face for crop in crops]))
        seeds = [crop.record.seed for crop in crops]
        try:
            seeds = self.method.settle(faces, seeds, policy or self.policy)
        except FAULTS as error:  # `fill` meets the same fault, tries its halves and says whose it is
            log.debug("no other seeds were tried (%s)", error)
        for crop, seed in zip(crops, seeds, strict=True):
            crop.record.seed = seed

    def fill(self, crops: Sequence[Crop], policy: Policy | None = None, alpha: float | None = None) -> None:
        """`synthesise` for crops of any pictures or frames: sets `result`, `points` and `fit`, cheaper for many."""
        if crops:
            before = to_float(torch.stack([crop.face for crop in crops]))
            after, points = self._made(before, [crop.record for crop in crops], policy, alpha)
            read = [None] * len(crops) if points is None else points.cpu()
            for crop, result, pair in zip(crops, after.cpu(), read, strict=True):
                crop.result, crop.points, crop.fit = result, pair, None
            self._fit([crop for crop in crops if crop.record.status == "synthesised"])

    def synthesise(
        self, before: Tensor, records: Sequence[FaceRecord], policy: Policy | None = None, alpha: float | None = None
    ) -> Tensor:
        """New faces for aligned ones, both float [N, 3, S, S], in batches; marks the records of those that fail."""
        return self._made(before, records, policy, alpha)[0]

    def _made(
        self, before: Tensor, records: Sequence[FaceRecord], policy: Policy | None, alpha: float | None
    ) -> tuple[Tensor, Tensor | None]:
        """`synthesise`, and the points [N, 2, 5, 2] that the method read before and after, if it does."""
        if not len(before):
            return before, None
        policy, alpha = policy or self.policy, self.alpha if alpha is None else alpha
        step, parts = self.batch_size or len(before), []
        for start in range(0, len(before), step):
            parts.append(self._passes(before[start : start + step], records[start : start + step], policy, alpha))
        after = torch.cat(parts)
        mask = _oval(self.method.size, self.method.frame).to(after)
        change = ((after - before).abs() * mask).mean((1, 2, 3)) / mask.mean()
        (fine, points), change = self._judged(before, after), change.tolist()
        # alpha = 0 asks for the reconstruction; then the old face is what should come back.
        must_change = self.method.synthesises and alpha > 0
        for i, record in enumerate(records):
            if record.status == "synthesised" and not fine[i]:
                fail(record, "its result is no face in the old place")
            elif record.status == "synthesised" and must_change and not change[i] >= LEAST_CHANGE:
                fail(record, "its result is too close to the original")
        return after, points

    def compose(
        self, canvas: np.ndarray, records: Sequence[FaceRecord], crops: Sequence[Crop], *,
        memory: dict[Any, Tensor] | None = None, top: float | None = None,
    ) -> list[tuple[int, int, int, int]]:  # fmt: skip
        """Puts the filled crops of one picture back, in place, and redacts every other face that is not to be kept.

        Gives the boxes (x0, y0, x1, y1) that hold all that changed.

        memory: for video, one dict for all frames: colour corrections by `FaceRecord.track`, which makes them steady.
        top: the canvas's value of white; None = 255 or 65535.
        """
        # Far faces first, so that near ones cover them; redactions last, so that nothing of another crop covers one.
        good = [crop for crop in crops if crop.record.status == "synthesised" and crop.result is not None]
        good.sort(key=lambda crop: crop.record.box[3] - crop.record.box[1])
        done, changed = set(), []
        for crop, face in zip(good, self._matched(good, memory), strict=True):
            try:
                options = {"grow": self.mask_scale, "top": top}
                changed.append(paste(canvas, face, None, crop.matrix, self.method.frame, False, **options))
                done.add(id(crop.record))
            except FAULTS as error:
                fail(crop.record, f"could not be put back ({error})")
        own = self.method.redaction
        for record in records:
            if own is not None and record.status == "synthesised":
                record.status = "kept" if own.kind == "none" else "redacted"
            elif record.status == "synthesised" and id(record) not in done:
                fail(record, "was not synthesised")
            if record.status in ("redacted", "mosaicked"):
                kind = own if record.status == "redacted" and own is not None else self.fallback
                options = {"grow": self.mask_scale, "oval": not self.boxes, "top": top}
                changed.append(redact(canvas, record.box, record.landmarks, kind, **options))
        return [box for box in changed if box is not None]

    def _matched(self, crops: Sequence[Crop], memory: dict[Any, Tensor] | None) -> Tensor | list:
        """The new faces [N, 3, S, S] in the colours of their surroundings."""
        if not crops:
            return []
        faces = torch.stack([crop.result for crop in crops])
        if not self.method.synthesises:
            return faces
        self._fit([crop for crop in crops if crop.fit is None])
        fit = torch.stack([crop.fit for crop in crops])
        for i, track in enumerate(crop.record.track for crop in crops):
            if memory is not None and track is not None:
                fit[i] = memory[track] = steadied(fit[i], memory.get(track)).clone()
        return shade(faces, fit)

    def _fit(self, crops: Sequence[Crop]) -> None:
        """Sets the crops' `fit`, if the method's faces are new ones."""
        if crops and self.method.synthesises:
            before = to_float(torch.stack([crop.face for crop in crops]))
            fits = seam_fit(torch.stack([crop.result for crop in crops]), before, self.method.frame)
            for crop, fit in zip(crops, fits, strict=True):
                crop.fit = fit

    def _find(self, pictures: Sequence[Picture]) -> list[Faces]:
        """Faces of each. With transparency, both of what shows over white and of what lies below."""
        from a3gan.media.detect import joined

        # A detector of somebody's own need not know about faces that the border cuts.
        detect = getattr(self.detector, "detect_cut", self.detector.detect)
        found = detect([picture.view() for picture in pictures])
        clear = [i for i, picture in enumerate(pictures) if picture.transparent]
        for i, more in zip(clear, detect([pictures[i].over_white() for i in clear]), strict=True):
            found[i] = joined(found[i], more)
        return found

    def _passes(self, before: Tensor, records: Sequence[FaceRecord], policy: Policy | None, alpha: float) -> Tensor:
        """One pass; after a fault two of half the size, and so on: one bad face, or too little memory, spoils no more
        than it must."""
        try:
            seeds = [record.seed for record in records]
            return self.method.anonymize(before, policy=policy, seeds=seeds, alpha=alpha)
        except FAULTS as error:
            if len(records) == 1:
                fail(records[0], f"could not be synthesised ({error})")
                return before.clone()
            half = (len(records) + 1) // 2
            if _out_of_memory(error):
                log.warning("out of memory with %d faces a pass; going on with %d", len(records), half)
                self.batch_size = half
                if self.method.device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                # Once for each kind of fault, not for every half of every batch; the records name each face's.
                level = logging.DEBUG if type(error) in self._said else logging.WARNING
                self._said.add(type(error))
                log.log(level, "a pass over %d faces failed (%s); trying its halves", len(records), error)
        parts = (slice(0, half), slice(half, None))
        return torch.cat([self._passes(before[part], records[part], policy, alpha) for part in parts])

    def _judged(self, before: Tensor, after: Tensor) -> tuple[list[bool], Tensor | None]:
        """Which results are acceptable, and the points that the method read for that, if it says."""
        step = self.batch_size or len(before)
        pairs = zip(before.split(step), after.split(step), strict=True)
        fine, points = zip(*(self.method.judged(old, new) for old, new in pairs), strict=True)
        return torch.cat(fine).tolist(), None if points[0] is None else torch.cat(points)


@lru_cache(maxsize=8)
def _oval(size: int, frame: str) -> Tensor:
    return face_mask(size, frame)


def as_policy(policy: str | Policy | None) -> Policy | None:
    """A `Policy` of itself or of its text; None stays None. UserError for another type or wrong text."""
    if policy is None or isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        return Policy.parse(policy)
    raise UserError(f"policy {policy!r}: must be text such as 'keep=expression change=gender', or a Policy")


def _set_seeds(records: list[list[FaceRecord]], pictures: list[Picture], seeds: Seeds) -> None:
    if not callable(seeds) and len(seeds) != len(records):
        raise UserError(f"seeds: {len(seeds)} lists for {len(records)} pictures; give one for each")
    for number, (faces, picture) in enumerate(zip(records, pictures, strict=True)):
        own = list(seeds(number, picture.view(), faces) if callable(seeds) else seeds[number])
        if len(own) != len(faces):
            raise UserError(f"seeds: {len(own)} for the {len(faces)} faces of picture {number}; give one per face")
        for record, value in zip(faces, own, strict=True):
            if value is None:
                record.status, record.reason = "kept", "asked for"
            else:
                record.seed = int(value)


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "out of memory" in text or "alloc" in text
