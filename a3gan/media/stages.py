"""Pass 2 over a video whose faces are known: decode, align, anonymise in batches, compose, encode.

Batches hold faces of many frames. Each stage runs in a thread of its own (`flow`), so memory does not grow with the
length of the clip.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from a3gan.anonymizers.anonymizer import Anonymizer
from a3gan.anonymizers.records import Crop, FaceRecord, fail
from a3gan.media.detections import find_landmarks
from a3gan.media.fit import unfit
from a3gan.media.flow import DEPTH, Flow
from a3gan.media.threads import at_once

if TYPE_CHECKING:
    from a3gan.data.attributes import Policy
    from a3gan.media.account import Ledger
    from a3gan.media.track import Sighting, Track
    from a3gan.media.video import Frame
    from a3gan.media.video_patch import Box

BATCH = {"cpu": 16, "cuda": 128}  # faces a pass by default
PENDING = {"cpu": 24, "cuda": 192}  # frames that wait for a batch to fill, at most
PENDING_BYTES = 256 * 2**20  # and the bytes of their pictures, and of those whose passes run
PASSES, CROWD = 2, 2.0  # that run at the same time, at most, and from how many faces a frame on
QUEUE, QUEUE_BYTES = 32, 48 * 2**20  # frames, and bytes of them, that wait on either side of the passes, at most
HOLD = 8  # frames: between two redactions of a track that are no further apart, new faces would only flash up
Progress = Callable[[str, int, int | None], None]  # stage, frames done, frames of all


@dataclass
class Face:
    """One face of one frame on its way. crop: None for redactions, asked for or needed. index: of the frame."""

    track: Track
    sighting: Sighting
    record: FaceRecord
    index: int
    crop: Crop | None = None


@dataclass
class Work:
    """A frame with its faces; `image` is changed in place.

    stored: the decoded picture, where what is outside the boxes `changed` may be written as it is there.
    """

    index: int
    pts: int
    image: np.ndarray
    faces: list[Face] = field(default_factory=list)
    stored: Any = None
    changed: list[Box] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of its pictures."""
        return self.image.nbytes if self.stored is None else self.image.nbytes * 3 // 2


class SecondPass:
    """Align, synthesise and compose as stages over frames whose faces are known.

    Args:
        anonymizer: the method, and how redactions are done.
        tracks: of the clip. seeds: seed of each track's new face, by its number.
        ledger: told of every face of every frame. batch: faces a pass, unless the anonymizer knows better.
        policy, alpha: None = the anonymizer's.
    """

    def __init__(
        self, anonymizer: Anonymizer, tracks: Sequence[Track], seeds: dict[int, int], ledger: Ledger | None = None, *,
        batch: int | None = None, policy: Policy | None = None, alpha: float | None = None,
    ):  # fmt: skip
        device = anonymizer.method.device.type
        self.anonymizer, self.policy, self.alpha, self.ledger = anonymizer, policy, alpha, ledger
        self._batch, self.pending = batch or BATCH.get(device, 16), PENDING.get(device, 24)
        self.seeds = seeds
        self.hold, self.redact_unsure = HOLD, True
        self.colours: dict[int, Tensor] = {}  # of each track, so that they are steady
        self.by_frame: dict[int, list[tuple[Track, Sighting]]] = {}
        for track in tracks:
            for index, sighting in track.sightings.items():
                self.by_frame.setdefault(index, []).append((track, sighting))
        # One face a frame leaves the other stages as much to do: there two passes only take the cache from each other.
        crowd = sum(map(len, self.by_frame.values())) >= CROWD * max(1, len(self.by_frame))
        beside = crowd and anonymizer.method.concurrent and device == "cpu"
        self.passes = min(PASSES, at_once()) if beside else 1

    @property
    def batch(self) -> int:
        """Faces a pass: the anonymizer makes its number smaller where memory runs out."""
        return min(self._batch, self.anonymizer.batch_size or self._batch)

    def align(self, frames: Iterable[Frame]) -> Iterator[Work]:
        """Cuts every face out of its frame, before any of them is changed."""
        for frame in frames:
            image = np.require(frame.image, requirements=["C", "W"])
            work = Work(frame.index, frame.pts, image, stored=getattr(frame, "stored", None))
            for track, sighting in self.by_frame.get(frame.index, ()):
                work.faces.append(self._aligned(work.image, work.index, track, sighting))
                if getattr(frame, "damaged", False):
                    track.doubtful.add(frame.index)
            yield work

    def _aligned(self, image: np.ndarray, index: int, track: Track, sighting: Sighting) -> Face:
        points = sighting.landmarks
        if points is None and self.anonymizer.method.redaction is None and not track.keep:
            points = find_landmarks(image, sighting.box, self.anonymizer.detector)  # a box drawn by hand
        box = tuple(float(v) for v in sighting.box)
        seed = self.seeds[track.number]
        record = FaceRecord(box, points, float(sighting.score), seed, track=track.number)
        face = Face(track, sighting, record, index)
        if track.keep:
            record.status, record.reason = "kept", "asked for"
        elif self.anonymizer.method.redaction is None:
            if points is None:
                fail(record, "no landmarks")
            elif not track.sure and self.redact_unsure:
                # Most are no faces at all: a mosaic there says less than a face on a wall, and hides as much.
                fail(record, "seen too faintly or too briefly")
            elif reason := unfit(sighting.box, points):
                fail(record, reason)
            elif (found := self.anonymizer.align(image, record)) is not None:
                face.crop = Crop(record, *found)
        return face

    def synthesise(self, works: Iterable[Work]) -> Iterator[Work]:
        """New faces for all, in passes over as many faces as a batch holds, whatever frames they are of.

        Where a picture has many faces this takes longer than all other stages, and a pass fills one core: so the next
        pass begins while the one before runs. Which faces share a pass follows from the frames alone.
        """
        with ThreadPoolExecutor(self.passes, "a3gan-pass") as pool:
            going: deque[Future[list[Work]]] = deque()
            for part in self._parts(works, going):
                going.append(pool.submit(self._pass, part))
                while len(going) >= self.passes:
                    yield from going.popleft().result()
            while going:
                yield from going.popleft().result()

    def _parts(self, works: Iterable[Work], going: Sequence[Any]) -> Iterator[list[Work]]:
        """Successive frames for a pass each; those without a face wait for no other, unless passes are `going`."""
        waiting: list[Work] = []
        faces = 0
        for work in works:
            waiting.append(work)
            faces += sum(face.crop is not None for face in work.faces)
            full = len(waiting) * work.bytes * self.passes > PENDING_BYTES or len(waiting) >= self.pending
            if faces >= self.batch or full or not (faces or going):
                yield waiting
                waiting, faces = [], 0
        yield waiting

    def _pass(self, works: list[Work]) -> list[Work]:
        faces = [face for work in works for face in work.faces if face.crop is not None]
        start = 0
        while start < len(faces):
            part = faces[start : start + self.batch]
            self.anonymizer.fill([face.crop for face in part], self.policy, self.alpha)
            if self.ledger is not None:
                self.ledger.synthesised(part)
            start += len(part)
        return works

    def steady(self, works: Iterable[Work]) -> Iterator[Work]:
        """Redacts new faces in short stretches between two redactions of their track, which would flicker.

        `hold` frames late; big pictures are held less long.
        """
        held: deque[Work] = deque()
        last: dict[int, int] = {}  # track -> frame of its last fallback
        for work in works:
            hold = min(self.hold, PENDING_BYTES // max(work.bytes, 1))
            for face in work.faces:
                if face.record.status != "mosaicked":
                    continue
                number, since = face.track.number, last.get(face.track.number, -hold - 2)
                last[number] = work.index
                if 1 < work.index - since <= hold + 1:
                    between = [f for w in held if w.index > since for f in w.faces if f.track.number == number]
                    for other in between:
                        if other.record.status == "synthesised":
                            fail(other.record, "between faces that could not be replaced")
            held.append(work)
            while len(held) > hold:
                yield held.popleft()
        yield from held

    def compose(self, works: Iterable[Work]) -> Iterator[Work]:
        """Puts the new faces into their frames and redacts what could not be made."""
        for work in works:
            original = work.image.copy() if self.ledger is not None and self.ledger.wants(work) else None
            crops = [face.crop for face in work.faces if face.crop is not None]
            records = [face.record for face in work.faces]
            work.changed = self.anonymizer.compose(work.image, records, crops, memory=self.colours)
            if self.ledger is not None:
                self.ledger.composed(work, original)
            work.faces = []  # their tensors are done with
            yield work


def run_second_pass(
    reader: Iterable[Frame], write: Callable[..., None], stages: SecondPass,
    progress: Progress | None = None, total: int | None = None, show: Callable[[np.ndarray], None] | None = None,
) -> tuple[int, dict[str, float]]:  # fmt: skip
    """Runs all stages; `write(image, pts)` and `show(image)` are called in this thread, in order.

    Of frames whose decoded picture is at hand, `write(image, pts, stored, changed)`, see `VideoWriter.write`.
    Returns the number of frames, and the seconds each stage worked ('encode' is `write`).
    """
    frames, encode = 0, 0.0
    # A pass takes a batch of frames at once: with shorter queues the stages before and after it stand still meanwhile.
    info = getattr(reader, "info", None)
    depth = DEPTH if info is None else max(DEPTH, min(QUEUE, QUEUE_BYTES * 2 // (info.width * info.height * 9)))
    with Flow() as flow:
        decoded = flow.ahead("decode", reader)
        aligned = flow.ahead("align", stages.align(decoded), depth)
        made = flow.ahead("synthesise", stages.steady(stages.synthesise(aligned)), depth)
        for work in flow.ahead("compose", stages.compose(made)):
            began = time.perf_counter()
            write(work.image, work.pts, *(() if work.stored is None else (work.stored, work.changed)))
            encode += time.perf_counter() - began
            frames += 1
            if show is not None:
                show(work.image)
            if progress is not None:
                progress("write", frames, total)
    return frames, flow.busy | {"encode": encode}
