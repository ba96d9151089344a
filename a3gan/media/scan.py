"""Pass 1 over a video: where faces are, in frames enough that tracking can fill the rest.

Every n-th frame is searched whole, and the first, the last and both sides of every cut. Where two searched frames do
not agree (a face came, went, jumped), the frames between are searched as well, each around that face only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from a3gan.media.detect import Faces
from a3gan.media.track_link import overlap, sides

log = logging.getLogger(__name__)

STRIDE = 4
LONGEST = 1920  # px; larger frames are scaled to this
CHUNK_BYTES = 200_000_000  # of the frames held at a time
GRAY = 48  # px, longest side of the pictures that cuts are read from
CUT, CUT_RATIO = 22.0, 3.0  # mean difference (of 255) of a cut, and against the frames before and after
AROUND = 1.5  # face sides searched around a face on a second look
LOOK = 48  # px: faces are scaled to this on a second look; the last network of MTCNN sees no more
HINT = 0.3  # score from which a detection makes a second look worthwhile


class Detector(Protocol):
    """What `scan` needs; `media.detect.DETECTORS` lists those at hand.

    Used where present: `sensitive() -> Detector`, which reports weak hints too, and `larger(min_face) -> Detector`,
    a quicker one for faces of at least that size.
    """

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]: ...


@dataclass
class Scan:
    """Result of pass 1. found: frame -> faces in pixels of the full-size frame, for frames searched whole or in part.

    cuts: first frames of new shots. whole: frames that were searched whole. info: the reader's.
    """

    found: dict[int, Faces] = field(default_factory=dict)
    frames: int = 0
    cuts: list[int] = field(default_factory=list)
    info: Any = None
    stride: int = STRIDE
    whole: set[int] = field(default_factory=set)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the full-size frame."""
        return None if self.info is None else (self.info.width, self.info.height)


def scan(
    reader: Iterable[Any], detector: Detector, *, stride: int = STRIDE, scale: int | tuple[int, int] | None = LONGEST,
    thresh: float = 0.0, progress: Callable[[int, int | None], None] | None = None, batch: int | None = None,
) -> Scan:  # fmt: skip
    """Searches a video.

    Args:
        reader: a `VideoReader`, or any iterable of frames with index, `image`, `small(longest)` and `gray(longest)`.
        detector: see `Detector`.
        stride: every how many frames are searched whole; 1 = all.
        scale: longest side, or (width, height) at most, that frames are scaled to; None = full size.
        thresh: detections below are dropped. progress: called with (frames done, of all or None).
        batch: frames searched at a time; None = by their size.
    """
    from a3gan.media.flow import Flow

    info = getattr(reader, "info", None)
    # Weak hints are wanted here: they are looked into, and kept only where a track confirms them.
    detector = detector.sensitive() if hasattr(detector, "sensitive") else detector
    worker = _Scanner(detector, max(1, stride), scale, thresh, Scan(info=info, stride=max(1, stride)))
    total = getattr(info, "frames", None)
    with Flow() as flow:
        frames = flow.ahead("decode", _read(reader), depth=2 * max(1, stride))
        for chunk in _chunks(frames, max(1, stride), batch, info):
            worker.take(*chunk)
            if progress is not None:
                progress(worker.result.frames, total)
    return worker.result


def _read(reader: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray]]:
    """Frames with their small grey pictures, both made in the reading thread."""
    for frame in reader:
        yield frame, frame.gray(GRAY).astype(np.float32)


def _chunks(frames: Iterator, stride: int, batch: int | None, info: Any) -> Iterator[tuple[list, bool]]:
    """(frames, whether they are the last)."""
    held: list = []
    most = None
    for item in frames:
        if most is None:
            most = stride * (batch or max(1, min(8, CHUNK_BYTES // (stride * _pixels(info, item[0]) * 3))))
        if len(held) >= most:
            yield held, False
            held = []
        held.append(item)
    yield held, True


def _pixels(info: Any, frame: Any) -> int:
    return info.width * info.height if info is not None else frame.image.shape[0] * frame.image.shape[1]


class _Scanner:
    """State between chunks: the frames whose second look is still to come, and the changes from frame to frame.

    looks: all frames searched whole, in order; alone[k]: faces that only one of looks k and k + 1 has, with which of
    the two; ready: the first pair of looks whose frames between still wait.
    """

    def __init__(self, detector: Detector, stride: int, scale: Any, thresh: float, result: Scan):
        self.detector, self.stride, self.scale, self.thresh = detector, stride, scale, thresh
        self.near = detector.larger(LOOK // 2) if hasattr(detector, "larger") else detector
        self.result = result
        self.held: list[Any] = []
        self.gray: np.ndarray | None = None
        self.changes: list[float] = []
        self.looks: list[int] = []
        self.alone: list[list[tuple[np.ndarray, int]]] = []
        self.ready = 0

    def take(self, items: list[tuple[Any, np.ndarray]], last: bool) -> None:
        """Searches one chunk."""
        start = self.result.frames
        for frame, gray in items:
            self.changes.append(0.0 if self.gray is None else change(self.gray, gray))
            self.gray = gray
            self.held.append(frame)
        self.result.frames += len(items)
        self._note_cuts(start, last)
        if not self.held:
            return
        base = self.result.frames - len(self.held)
        seen = self.looks[-1] if self.looks else -1
        looks = [i for i in self._looks(base, last) if i > seen]
        self._whole(looks, base)
        self.looks += looks
        for a, b in zip(self.looks[len(self.alone) : -1], self.looks[len(self.alone) + 1 :], strict=True):
            self.alone.append([] if self._cut(b) else unmatched(self.result.found[a], self.result.found[b]))
        # A pair waits for the next one, which may know more of a face that comes.
        for k in range(self.ready, len(self.alone) - (not last)):
            self._between(k, base)
            self.ready = k + 1
        self.held = self.held[self.looks[self.ready] - base :]

    def _cut(self, i: int) -> bool:
        return self.changes[i] >= CUT

    def _note_cuts(self, start: int, last: bool) -> None:
        # A cut needs the frame after it to be told from a flash; that of a chunk's last frame is decided with the next.
        end = self.result.frames if last else self.result.frames - 1
        for i in range(max(1, start - 1), end):
            if is_cut(self.changes, i) and i not in self.result.cuts:
                self.result.cuts.append(i)

    def _looks(self, base: int, last: bool) -> list[int]:
        """Frames to search whole among those held, in order."""
        end = self.result.frames
        looks = {i for i in range(base, end) if i % self.stride == 0}
        # Whatever may be a cut is looked at on both sides, also what is not known to be one yet.
        jumps = {i for i in range(max(base, 1), end) if self._cut(i)}
        looks |= jumps | {i - 1 for i in jumps if i - 1 >= base}
        if last:
            looks.add(end - 1)
        return sorted(looks)

    def _whole(self, looks: list[int], base: int) -> None:
        pictures = [self._picture(self.held[i - base]) for i in looks]
        for i, picture, faces in zip(looks, pictures, self.detector.detect(pictures), strict=True):
            width, height = self._size(self.held[i - base])
            self.result.found[i] = self._strong(_scaled(faces, width / picture.shape[1], height / picture.shape[0]))
            self.result.whole.add(i)

    def _picture(self, frame: Any) -> np.ndarray:
        width, height = self._size(frame)
        scale = max(width, height) if self.scale is None else self.scale
        if isinstance(scale, tuple):
            scale = round(max(width, height) * min(1.0, scale[0] / width, scale[1] / height))
        return frame.small(min(scale, max(width, height)))

    def _size(self, frame: Any) -> tuple[int, int]:
        return self.result.size or frame.image.shape[1::-1]

    def _strong(self, faces: Faces) -> Faces:
        keep = faces.probability >= self.thresh
        return faces if keep.all() else Faces(faces.boxes[keep], faces.probability[keep], faces.landmarks[keep])

    def _between(self, k: int, base: int) -> None:
        """Second look at the frames between looks k and k + 1, around faces that only one of the two has.

        And around those that have gone just before or come just after: the search of single frames may have missed
        them at first.
        """
        a, b = self.looks[k], self.looks[k + 1]
        near = [box for box, _ in self.alone[k]]
        if k > 0 and not self._cut(a):
            near += [box for box, side in self.alone[k - 1] if side == 0]
        if k + 1 < len(self.alone) and not self._cut(b):
            near += [box for box, side in self.alone[k + 1] if side == 1]
        frames = [self.held[i - base] for i in range(a + 1, b)]
        if not near or not frames:
            return
        size = self._size(frames[0])
        windows = [w for w in (window(box, size) for box in _apart(near)) if w is not None]
        crops = []
        for frame in frames:
            image = frame.small(max(size))
            crops += [_crop(image, place, to) for place, to in windows]
        found = iter(self.near.detect(crops))
        for i in range(a + 1, b):
            parts = [_back(next(found), place, to, size) for place, to in windows]
            self.result.found[i] = self._strong(_joined(parts))


def window(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Where to look for the face of a box again: (x0, y0, x1, y1) within a picture of that (width, height), and the
    (width, height) to scale it to. Where it can, it is moved into the picture rather than cut; None if too small."""
    side = float(sides(box))
    whole = max(1, round((1 + 2 * AROUND) * side))
    extent = np.minimum(whole, size)
    low = np.clip(np.round((box[:2] + box[2:] - extent) / 2), 0, size - extent).astype(int)
    to = np.maximum(np.round((1 + 2 * AROUND) * LOOK * extent / whole), 1).astype(int)
    return None if min(extent) < 12 or min(to) < LOOK // 2 else (np.concatenate((low, low + extent)), tuple(to.tolist()))


def _crop(image: np.ndarray, place: np.ndarray, to: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    x0, y0, x1, y1 = place
    part = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    return np.asarray(part.resize(to, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _back(faces: Faces, place: np.ndarray, to: tuple[int, int], size: tuple[int, int]) -> Faces:
    """Faces of a crop in pixels of the picture, without those that touch an edge of the crop inside it."""
    low, high = place[:2], place[2:]
    faces = _scaled(faces, *((high - low) / to).tolist())
    faces = Faces(faces.boxes + np.tile(low, 2), faces.probability, faces.landmarks + low)
    return _within(faces, np.concatenate((np.where(low > 0, low, -np.inf), np.where(high < size, high, np.inf))))


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference of two grey pictures beyond a common change of brightness, of 255."""
    difference = after - before
    return float(np.abs(difference - np.median(difference)).mean())


def is_cut(changes: Sequence[float], i: int) -> bool:
    """Whether frame i starts a new shot: much changed, and much less just before and after."""
    around = [changes[j] for j in (i - 2, i - 1, i + 1, i + 2) if 0 < j < len(changes)]
    return changes[i] >= CUT and changes[i] >= CUT_RATIO * max(around, default=0.0)


def unmatched(a: Faces, b: Faces) -> list[tuple[np.ndarray, int]]:
    """Boxes of faces that have no counterpart in the other frame, each with 0 (of `a`) or 1 (of `b`)."""
    boxes = np.concatenate((a.boxes, b.boxes)).astype(np.float64)
    if not len(boxes):
        return []
    score = np.concatenate((a.probability, b.probability))
    frame = np.repeat((0, 1), (len(a), len(b)))
    partner = (overlap(boxes, boxes) >= 0.3) & (frame[:, None] != frame[None])
    rows = [i for i in np.argsort(-score, kind="stable") if score[i] >= HINT and not partner[i].any()]
    return [(boxes[i], int(frame[i])) for i in rows]


def _apart(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Of boxes that overlap the first only."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if not kept or overlap(box[None], np.stack(kept)).max() < 0.3:
            kept.append(box)
    return kept


def _scaled(faces: Faces, x: float, y: float) -> Faces:
    """Faces of a picture in the coordinates of one x, y times as large; pixel centres are whole numbers."""
    if x == 1 and y == 1:
        return faces
    factor = np.array([x, y], np.float32)
    shift = (factor - 1) / 2
    boxes = faces.boxes * np.tile(factor, 2) + np.tile(shift, 2)
    return Faces(boxes, faces.probability, faces.landmarks * factor + shift)


def _within(faces: Faces, edge: np.ndarray) -> Faces:
    """Without what touches the edge [4] of a crop: half a face there is taken for another one."""
    keep = ((faces.boxes[:, :2] > edge[:2]) & (faces.boxes[:, 2:] < edge[2:])).all(1)
    return Faces(faces.boxes[keep], faces.probability[keep], faces.landmarks[keep])


def _joined(parts: list[Faces]) -> Faces:
    """One `Faces` of several looks at a frame; of detections of one face the surest stays."""
    keys = ("boxes", "probability", "landmarks")
    boxes, score, points = (np.concatenate([getattr(part, key) for part in parts]) for key in keys)
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if not kept or overlap(boxes[i : i + 1], boxes[kept]).max() < 0.5:
            kept.append(int(i))
    return Faces(boxes[kept], score[kept], points[kept])
