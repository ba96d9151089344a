"""Pass 1 over a video: where faces are, in frames enough that tracking can fill the rest.

Every n-th frame is searched whole, and the first, the last and both sides of every cut. Where two searched frames do
not agree (a face came, went, jumped), the frames between are searched as well, each around that face only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.media.detect import Faces
from a3gan.media.scan_whole import CUT, Chunk, Detector, Plan, Shared, WholeSearch, read, scaled
from a3gan.media.track_link import overlap, sides

if TYPE_CHECKING:
    from a3gan.media.crops import Crops

log = logging.getLogger(__name__)

STRIDE = 4
LONGEST = 1920  # px; larger frames are scaled to this
CUT_RATIO = 3.0  # change at a cut against that before and after
AROUND = 1.5  # face sides searched around a face on a second look
LOOK = 40  # px: faces are scaled to this on a second look; the last network of MTCNN sees no more
HINT = 0.3  # score from which a detection makes a second look worthwhile
SURE = 0.9  # score of faces whose motion is believed


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
    crops: Crops | None = None,
) -> Scan:  # fmt: skip
    """Searches a video.

    Args:
        reader: a `VideoReader`, or any iterable of frames with index, `image`, `small(longest)` and `gray(longest)`.
        detector: see `Detector`.
        stride: every how many frames are searched whole; 1 = all.
        scale: longest side, or (width, height) at most, that frames are scaled to; None = full size.
        thresh: detections below are dropped. progress: called with (frames done, of all or None).
        batch: frames searched at a time; None = by their size.
        crops: is given the faces of every frame that was looked at, when no more will be found in it.
    """
    from a3gan.media.flow import Flow

    info = getattr(reader, "info", None)
    # Weak hints are wanted here: they are looked into, and kept only where a track confirms them.
    detector = detector.sensitive() if hasattr(detector, "sensitive") else detector
    plan = Plan(max(1, stride), scale, thresh, info)
    near = detector.larger(LOOK // 2) if hasattr(detector, "larger") else detector
    total = getattr(info, "expected_frames", None)
    with Shared(detector) as far, Shared(near) as around, Flow() as flow:
        worker = _Scanner(around, getattr(detector, "min_face", 20), plan, Scan(info=info, stride=plan.stride), crops)
        frames = flow.ahead("decode", read(reader), depth=2 * plan.stride)
        for chunk in flow.ahead("search", WholeSearch(far, plan, batch).chunks(frames), depth=1):
            worker.take(chunk)
            if progress is not None:
                progress(worker.result.frames, total)
    return worker.result


Ask = tuple[int, tuple[int, ...], tuple[int, int]]  # a second look: frame, window (x0, y0, x1, y1), (width, height)


class _Scanner:
    """Second looks, and their state between chunks: frames at hand, and the changes from frame to frame.

    near: the detector for them; min_face: the smallest face that is looked for in whole frames.
    crops: see `scan`.
    looks: all frames searched whole, in order; alone[k]: faces that only one of looks k and k + 1 has, with which of
    the two.
    """

    def __init__(self, near: Shared, min_face: int, plan: Plan, result: Scan, crops: Crops | None = None):
        self.near, self.min_face, self.plan, self.result, self.crops = near, min_face, plan, result, crops
        self.held: list[Any] = []
        self.changes: list[float] = []
        self.looks: list[int] = []
        self.alone: list[list[tuple[np.ndarray, int]]] = []
        self.second: dict[Ask, Faces] = {}  # what second looks at a chunk have found

    def take(self, chunk: Chunk) -> None:
        """Looks again where a chunk's frames do not agree."""
        start = self.result.frames
        self.held += chunk.frames
        self.changes += chunk.changes
        self.result.frames += len(chunk.frames)
        self._note_cuts(start, chunk.last)
        if not self.held:
            return
        base = self.result.frames - len(self.held)
        self.result.found |= zip(chunk.looks, chunk.faces, strict=True)
        self.result.whole |= set(chunk.looks)
        self.looks += chunk.looks
        self._small(chunk.looks, base)
        pairs = range(len(self.alone), len(self.looks) - 1)
        self.alone += [self._unmatched(k) for k in pairs]
        # Of all pairs at once, what is sure to be looked at, then what that leads on to as far as it is known by then
        # (`_around` looks at the rest): a pass over a few small pictures takes nearly as long as one over many.
        alone = [(self._inside(k), [box for box, _ in self.alone[k]]) for k in pairs]
        self._look([ask for frames, boxes in alone for ask in self._asks(frames, boxes)], base)
        for frames, boxes in alone:
            self._around(frames, boxes, base)
        on = [look for k in pairs for look in self._between(k)]
        self._look([ask for frames, boxes in on for ask in self._asks(frames, boxes)], base)
        for k in pairs:
            for frames, boxes in self._between(k):
                self._around(frames, boxes, base)
        self.second.clear()
        # A face that comes between the next two looks may have been there before: those frames stay at hand.
        done = self.looks[max(0, len(self.looks) - 2)] - base
        self._cut_out(self.held if chunk.last else self.held[:done], base)
        self.held = self.held[done:]

    def _cut_out(self, frames: list[Any], base: int) -> None:
        """Gives the faces of these frames, the first of them frame `base`, to `crops`."""
        if self.crops is None:
            return
        longest = max(self.plan.size(self.held[0]))
        for i, frame in enumerate(frames, base):
            if i in self.result.found:
                self.crops.add(i, self.result.found[i], partial(frame.small, longest))

    def _unmatched(self, k: int) -> list[tuple[np.ndarray, int]]:
        a, b = self.looks[k : k + 2]
        if self._cut(b):
            return []
        steady = k > 0 and not self._cut(a) and a - self.looks[k - 1] == b - a
        before = self.result.found[self.looks[k - 1]] if steady else None
        return unmatched(self.result.found[a], self.result.found[b], before)

    def _cut(self, i: int) -> bool:
        return self.changes[i] >= CUT

    def _note_cuts(self, start: int, last: bool) -> None:
        # A cut needs the frame after it to be told from a flash; that of a chunk's last frame is decided with the next.
        end = self.result.frames if last else self.result.frames - 1
        for i in range(max(1, start - 1), end):
            if is_cut(self.changes, i) and i not in self.result.cuts:
                self.result.cuts.append(i)

    def _small(self, looks: list[int], base: int) -> None:
        """Where the smallest faces were not looked for: a second look at those of the looks before and after."""
        boxes: dict[int, list[np.ndarray]] = {}
        for i in looks:
            frame = self.held[i - base]
            if not self.plan.coarse(frame, i):
                continue
            most = 2 * self.min_face / self.plan.factor(frame)
            place = self.looks.index(i)
            beside = self.looks[max(0, place - 1) : place] + self.looks[place + 1 : place + 2]
            boxes[i] = [
                box for k in beside for box in self.result.found[k].boxes.astype(np.float64) if sides(box) < most
            ]
        self._look([ask for i, around in boxes.items() for ask in self._asks([i], around)], base)
        for i, around in boxes.items():
            self._around([i], around, base)

    def _between(self, k: int) -> Iterator[tuple[range, list[np.ndarray]]]:
        """Frames and boxes to look around: the frames between looks k and k + 1, faces that only one of the two has.

        As far as they are seen there, they are followed on: back into the pair of looks before, where the search of
        single frames may have missed them, and on into the next pair. What comes second depends on what is seen by the
        first.
        """
        a, b = self.looks[k : k + 2]
        boxes = [box for box, _ in self.alone[k]]
        on = k > 0 and not self._cut(a)
        yield self._inside(k), boxes + (self._seen(k - 1, 0, range(a - 2, a)) if on else [])
        if on:
            yield self._inside(k - 1), self._seen(k, 1, range(a + 1, min(a + 3, b)))

    def _inside(self, k: int) -> range:
        """The frames between looks k and k + 1."""
        return range(self.looks[k] + 1, self.looks[k + 1])

    def _seen(self, k: int, side: int, frames: Iterable[int]) -> list[np.ndarray]:
        """Boxes that only one look of pair k has and that second looks met in one of the frames."""
        met = [self.result.found[i].boxes for i in frames if i in self.result.found and i not in self.result.whole]
        around = np.concatenate([np.zeros((0, 4)), *met])
        return [box for box, which in self.alone[k] if which == side and _close(box, around)]

    def _asks(self, frames: Iterable[int], boxes: list[np.ndarray]) -> list[Ask]:
        """Second looks around the boxes in each of the frames, frame by frame."""
        size = self.plan.size(self.held[0])
        windows = [w for w in (window(box, size) for box in _apart(boxes)) if w is not None]
        return [(i, tuple(place.tolist()), to) for i in frames for place, to in windows]

    def _look(self, asks: list[Ask], base: int) -> None:
        """Takes the second looks that were not taken yet, all in one batch."""
        asks = [ask for ask in dict.fromkeys(asks) if ask not in self.second]
        if not asks:
            return
        size = self.plan.size(self.held[0])
        crops, last, image = [], -1, None
        for i, place, to in asks:
            if i != last:
                last, image = i, self.held[i - base].small(max(size))
            crops.append(_crop(image, place, to))
        for ask, faces in zip(asks, self.near.detect(crops), strict=True):
            self.second[ask] = _back(faces, np.array(ask[1]), ask[2], size)

    def _around(self, frames: Iterable[int], boxes: list[np.ndarray], base: int) -> None:
        """Looks around the boxes; what is found joins what is known of those frames."""
        if not boxes:
            return
        asks = self._asks(frames, boxes)
        self._look(asks, base)
        for i in frames:
            known = [self.result.found[i]] if i in self.result.found else []
            parts = [self.second[ask] for ask in asks if ask[0] == i]
            if known or parts:
                self.result.found[i] = self.plan.strong(_joined(known + parts))


def window(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Where to look for the face of a box again: (x0, y0, x1, y1) within a picture of that (width, height), and the
    (width, height) to scale it to. Where it can, it is moved into the picture rather than cut; None if too small."""
    side = float(sides(box))
    whole = max(1, round((1 + 2 * AROUND) * side))
    extent = np.minimum(whole, size)
    low = np.clip(np.round((box[:2] + box[2:] - extent) / 2), 0, size - extent).astype(int)
    to = np.maximum(np.round((1 + 2 * AROUND) * LOOK * extent / whole), 1).astype(int)
    if min(extent) < 12 or min(to) < LOOK // 2:
        return None
    return np.concatenate((low, low + extent)), tuple(to.tolist())


def _crop(image: np.ndarray, place: tuple[int, ...], to: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    x0, y0, x1, y1 = place
    part = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    return np.asarray(part.resize(to, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _back(faces: Faces, place: np.ndarray, to: tuple[int, int], size: tuple[int, int]) -> Faces:
    """Faces of a crop in pixels of the picture, without those that touch an edge of the crop inside it."""
    low, high = place[:2], place[2:]
    faces = scaled(faces, *((high - low) / to).tolist())
    faces = Faces(faces.boxes + np.tile(low, 2), faces.probability, faces.landmarks + low)
    return _within(faces, np.concatenate((np.where(low > 0, low, -np.inf), np.where(high < size, high, np.inf))))


def is_cut(changes: Sequence[float], i: int) -> bool:
    """Whether frame i starts a new shot: much changed, and much less just before and after."""
    around = [changes[j] for j in (i - 2, i - 1, i + 1, i + 2) if 0 < j < len(changes)]
    return changes[i] >= CUT and changes[i] >= CUT_RATIO * max(around, default=0.0)


def unmatched(a: Faces, b: Faces, before: Faces | None = None) -> list[tuple[np.ndarray, int]]:
    """Boxes of faces that have no counterpart in the other frame, each with 0 (of `a`) or 1 (of `b`).

    A counterpart overlaps, or lies where a steady motion leads that began in `before`, as long before `a` as `b` after.
    """
    boxes = np.concatenate((a.boxes, b.boxes)).astype(np.float64)
    if not len(boxes):
        return []
    score = np.concatenate((a.probability, b.probability))
    frame = np.repeat((0, 1), (len(a), len(b)))
    near = overlap(boxes, boxes) >= 0.3
    if before is not None and len(before) and len(a) and len(b):
        led = _led(before, a, b)
        near[: len(a), len(a) :] |= led
        near[len(a) :, : len(a)] |= led.T
    partner = near & (frame[:, None] != frame[None])
    rows = [i for i in np.argsort(-score, kind="stable") if score[i] >= HINT and not partner[i].any()]
    return [(boxes[i], int(frame[i])) for i in rows]


def _led(before: Faces, a: Faces, b: Faces) -> np.ndarray:
    """bool [n, m]: the motion from a sure face of `before` to one of `a` goes on to one of `b`."""
    old, now, new = (faces.boxes.astype(np.float64) for faces in (before, a, b))
    side = sides(now)
    step = np.linalg.norm((now[None] - old[:, None]).reshape(len(old), len(now), 2, 2).mean(2), axis=2)
    change = np.abs(np.log(side[None] / sides(old)[:, None]))
    sure = (before.probability >= SURE)[:, None] & (a.probability >= SURE)[None]
    moved = sure & (step <= 1.5 * side) & (change <= 0.25)
    there = overlap((2 * now[None] - old[:, None]).reshape(-1, 4), new).reshape(len(old), len(now), len(new)) >= 0.5
    return (moved[..., None] & there).any(0) & (b.probability >= SURE)[None]


def _close(box: np.ndarray, others: np.ndarray) -> bool:
    """Whether the centre of one of the others [n, 4] lies on the box or up to half a side beside it."""
    centre = (others[:, :2] + others[:, 2:]) / 2
    slack = sides(box) / 2
    return bool(((centre >= box[:2] - slack) & (centre <= box[2:] + slack)).all(1).any())


def _apart(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Of boxes that overlap the first only."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if not kept or overlap(box[None], np.stack(kept)).max() < 0.3:
            kept.append(box)
    return kept


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
