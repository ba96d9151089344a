"""The first half of pass 1: every n-th frame searched whole. Runs ahead of the second looks (`media.scan`).

What is searched here depends on the frames alone, so it goes on while those looks are taken at what it found before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np

from a3gan.media.detect import Faces
from a3gan.media.threads import at_once

T = TypeVar("T")
CHUNK_BYTES = 100_000_000  # of a chunk's frames, were they converted to RGB
GRAY = 48  # px, longest side of the pictures that cuts are read from
CUT = 22.0  # mean difference (of 255) of a cut
LARGE, COARSER = 1_000_000, 0.709  # pixels from which every second look is at a picture scaled by that


class Detector(Protocol):
    """What `scan` needs; `media.detect.DETECTORS` lists those at hand.

    Used where present: `sensitive() -> Detector`, which reports weak hints too, and `larger(min_face) -> Detector`,
    a quicker one for faces of at least that size.
    """

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]: ...


class Shared:
    """A detector that searches parts of a batch at the same time, where it runs on a CPU.

    Has threads of its own, from batch to batch. A context manager, which ends them.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        cpu = getattr(getattr(detector, "device", None), "type", "cpu") == "cpu"
        self.parts = at_once() if cpu else 1
        self._pool = ThreadPoolExecutor(self.parts, "a3gan-detect")

    def __enter__(self) -> Shared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, items: Sequence[T], search: Callable[[Sequence[T]], list[Faces]]) -> list[Future[list[Faces]]]:
        """Starts `search` of parts of the items, one a thread; `result_of` gives the faces of each item."""
        count = min(self.parts, len(items))
        edges = [len(items) * k // max(1, count) for k in range(count + 1)]
        parts = [items[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        return [self._pool.submit(search, part) for part in parts]

    def detect(self, images: list[np.ndarray]) -> list[Faces]:
        """As the detector's own: a result does not depend on which pictures share a pass, to rounding."""
        return result_of(self.begin(images, self.detector.detect))


def result_of(begun: list[Future[list[Faces]]]) -> list[Faces]:
    """The faces of each item, when they are found."""
    return [faces for part in begun for faces in part.result()]


@dataclass(frozen=True)
class Plan:
    """Which frames are searched whole, at which scale, and what of it counts; see `scan.scan`."""

    stride: int
    scale: int | tuple[int, int] | None
    thresh: float
    info: Any = None  # the reader's; None: frames are asked

    def size(self, frame: Any) -> tuple[int, int]:
        """(width, height) of the full-size frame."""
        return frame.image.shape[1::-1] if self.info is None else (self.info.width, self.info.height)

    def factor(self, frame: Any) -> float:
        """Of the pictures that are searched, to the frame's."""
        width, height = self.size(frame)
        if self.scale is None:
            return 1.0
        if isinstance(self.scale, tuple):
            return min(1.0, self.scale[0] / width, self.scale[1] / height)
        return min(1.0, self.scale / max(width, height))

    def coarse(self, frame: Any, i: int) -> bool:
        """Whether the smallest faces are not looked for: in every second look at a large picture."""
        width, height = self.size(frame)
        large = width * height * self.factor(frame) ** 2 >= LARGE
        return large and self.stride > 1 and i // self.stride % 2 == 1 and i % self.stride == 0

    def strong(self, faces: Faces) -> Faces:
        """Those of at least `thresh`."""
        keep = faces.probability >= self.thresh
        return faces if keep.all() else Faces(faces.boxes[keep], faces.probability[keep], faces.landmarks[keep])


@dataclass
class Chunk:
    """Successive frames; changes: of each to the one before; looks: frames searched whole, among these and the few
    before, and the faces of each in pixels of the full-size frame; last: of the clip."""

    frames: list[Any]
    last: bool
    changes: list[float] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    faces: list[Faces] = field(default_factory=list)


@dataclass
class _Search:
    """A chunk that is being searched."""

    chunk: Chunk
    begun: list[Future[list[Faces]]]


class WholeSearch:
    """Searches a clip chunk by chunk; an iterator is made once.

    A chunk's search begins before that of the one before has ended, so that no core waits for the last picture of
    either. batch: looks of a chunk, None = by the frames' size.
    """

    def __init__(self, detector: Shared, plan: Plan, batch: int | None = None):
        self.detector, self.plan, self.batch = detector, plan, batch
        self.gray: np.ndarray | None = None
        self.before: Any = None  # the last frame of the chunk before
        self.seen = -1  # the last frame searched
        self.count = 0

    def chunks(self, frames: Iterable[tuple[Any, np.ndarray]]) -> Iterator[Chunk]:
        """frames: with their small grey pictures, see `read`."""
        before: _Search | None = None
        for items, last in self._parts(frames):
            search = self._begun(items, last)
            if before is not None:
                yield self._searched(before)
            before = search
        yield self._searched(before)

    def _parts(self, frames: Iterable[tuple[Any, np.ndarray]]) -> Iterator[tuple[list[tuple[Any, np.ndarray]], bool]]:
        """The frames of each chunk, and whether it is the last; one chunk at least."""
        held: list[tuple[Any, np.ndarray]] = []
        most = None
        for item in frames:
            if most is None:
                width, height = self.plan.size(item[0])
                looks = CHUNK_BYTES // (self.plan.stride * width * height * 3)
                most = self.plan.stride * (self.batch or max(1, min(8, looks)))
            if len(held) >= most:
                yield held, False
                held = []
            held.append(item)
        yield held, True

    def _begun(self, items: list[tuple[Any, np.ndarray]], last: bool) -> _Search:
        chunk = Chunk([frame for frame, _ in items], last)
        for _, gray in items:
            chunk.changes.append(0.0 if self.gray is None else change(self.gray, gray))
            self.gray = gray
        start, self.count = self.count, self.count + len(items)
        at = dict(enumerate(chunk.frames, start)) | ({} if self.before is None else {start - 1: self.before})
        chunk.looks = [i for i in self._looks(start, chunk) if i > self.seen]
        asked = [(at[i], partial(self._picture, at[i], i)) for i in chunk.looks]
        if self.detector.parts == 1:  # one thread searches, on a GPU say: it is not to wait for pictures
            asked = [(frame, partial(np.asarray, make())) for frame, make in asked]
        if at:
            self.before, self.seen = at[self.count - 1], max([self.seen, *chunk.looks])
        return _Search(chunk, self.detector.begin(asked, self._found))

    def _found(self, asked: Sequence[tuple[Any, Callable[[], np.ndarray]]]) -> list[Faces]:
        """The faces of frames, each with what makes the picture to search, in pixels of the full-size frame.

        The pictures are made here, in the searching threads: large ones are not held before their part's turn comes.
        """
        pictures = [make() for _, make in asked]
        found = []
        for (frame, _), picture, faces in zip(asked, pictures, self.detector.detector.detect(pictures), strict=True):
            width, height = self.plan.size(frame)
            found.append(self.plan.strong(scaled(faces, width / picture.shape[1], height / picture.shape[0])))
        return found

    def _searched(self, search: _Search) -> Chunk:
        search.chunk.faces += result_of(search.begun)
        return search.chunk

    def _looks(self, start: int, chunk: Chunk) -> list[int]:
        """Frames to search whole, in order; the first may be the last of the chunk before."""
        looks = {i for i in range(start, self.count) if i % self.plan.stride == 0}
        # Whatever may be a cut is looked at on both sides, also what is not known to be one yet.
        jumps = {i for i, value in enumerate(chunk.changes, start) if value >= CUT}
        looks |= jumps | {i - 1 for i in jumps if i}
        if chunk.last and self.count:
            looks.add(self.count - 1)
        return sorted(looks)

    def _picture(self, frame: Any, i: int) -> np.ndarray:
        longest, scale = max(self.plan.size(frame)), self.plan.factor(frame)
        return frame.small(round(longest * scale * (COARSER if self.plan.coarse(frame, i) else 1)))


def read(reader: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
    """Frames with their small grey pictures, both made in the reading thread."""
    for frame in reader:
        yield frame, frame.gray(GRAY).astype(np.float32)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference of two grey pictures beyond a common change of brightness, of 255."""
    difference = after - before
    return float(np.abs(difference - np.median(difference)).mean())


def scaled(faces: Faces, x: float, y: float) -> Faces:
    """Faces of a picture in the coordinates of one x, y times as large; pixel centres are whole numbers."""
    if x == 1 and y == 1:
        return faces
    factor = np.array([x, y], np.float32)
    shift = (factor - 1) / 2
    boxes = faces.boxes * np.tile(factor, 2) + np.tile(shift, 2)
    return Faces(boxes, faces.probability, faces.landmarks * factor + shift)
