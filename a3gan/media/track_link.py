"""Linking: which detections of successive frames are one face. Assignment by cost, in face sides; see `media.track`."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from a3gan.media.detect import Faces
    from a3gan.media.track import TrackConfig

NEAR, NEAR_PER_FRAME, NEAREST = 0.5, 0.1, 1.2  # farthest centre in sides: at once, more per frame since, at most
SCALE = np.log(1.8)  # farthest change of size
_NEVER = 1e6


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), -1)
    area_a, area_b = (np.prod(np.maximum(v[:, 2:] - v[:, :2], 0), -1) for v in (a, b))
    return inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-12)


def sides(boxes: np.ndarray) -> np.ndarray:
    """Root of the area of boxes [..., 4]."""
    return np.sqrt(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6), -1))


@dataclass(eq=False)
class Chain:
    """The detections of one face by frame: (box [4], landmarks [5, 2], score); `more`: further boxes to cover."""

    seen: dict[int, tuple[np.ndarray, np.ndarray, float]] = field(default_factory=dict)
    more: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Frames [n], boxes [n, 4], landmarks [n, 5, 2], scores [n], by frame."""
        frames = sorted(self.seen)
        boxes, points, scores = zip(*(self.seen[f] for f in frames), strict=True)
        return np.array(frames), np.stack(boxes), np.stack(points), np.array(scores)

    def cover(self) -> dict[int, np.ndarray]:
        """Frame -> box that holds all detections of it."""
        boxes = {f: [s[0], *self.more.get(f, ())] for f, s in self.seen.items()}
        return {f: np.concatenate((np.min(b, 0)[:2], np.max(b, 0)[2:])) for f, b in boxes.items()}

    def box_at(self, frames: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] at frames within its span, between detections by interpolation."""
        at, boxes, _, _ = self.arrays()
        return np.stack([np.interp(frames, at, boxes[:, k]) for k in range(4)], 1)

    def add(self, frame: int, box: np.ndarray, points: np.ndarray, score: float) -> None:
        """One more detection; of two in a frame the surer leads, and both are covered."""
        if frame not in self.seen:
            self.seen[frame] = (box, points, score)
            return
        old = self.seen[frame]
        # Ties by place, so that the order of merging does not matter.
        if (score, *box) > (old[2], *old[0]):
            self.seen[frame], box = (box, points, score), old[0]
        self.more.setdefault(frame, []).append(box)

    def absorb(self, other: Chain) -> None:
        for frame, (box, points, score) in other.seen.items():
            self.add(frame, box, points, score)
        for frame, boxes in other.more.items():
            self.more.setdefault(frame, []).extend(boxes)


def link_chains(found: Mapping[int, Faces], config: TrackConfig) -> list[Chain]:
    """The chains of one shot; frames in rising order."""
    live: list[Chain] = []
    done: list[Chain] = []
    for frame in sorted(found):
        boxes, points, scores = _sorted(found[frame], config.keep_on)
        still = [c for c in live if frame - max(c.seen) <= config.max_gap]
        done += [c for c in live if frame - max(c.seen) > config.max_gap]
        live = still
        free, open_ = list(range(len(boxes))), list(range(len(live)))
        # Sure detections choose first: a weak one must not take a track from a sure one.
        for part in (scores >= config.start, scores < config.start):
            rows = [i for i in free if part[i]]
            # A weak one is believed only where the face was: otherwise tracks wander off over the background.
            reach = NEAREST if len(rows) and scores[rows].min() >= config.start else NEAR
            for i, j in _assign(live, open_, boxes, points, rows, frame, reach):
                live[j].add(frame, boxes[i], points[i], float(scores[i]))
                free.remove(i)
                open_.remove(j)
        live += [Chain({frame: (boxes[i], points[i], float(scores[i]))}) for i in free]
    chains = _merge(done + live, config.same)
    return [c for c in chains if max(score for _, _, score in c.seen.values()) >= config.alone]


def _sorted(faces: Faces, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 arrays in an order that depends on the faces alone."""
    keep = np.flatnonzero(np.asarray(faces.probability) >= lowest)
    boxes = np.asarray(faces.boxes, np.float64)[keep]
    order = np.lexsort(boxes.T)
    keep = keep[order]
    return boxes[order], np.asarray(faces.landmarks, np.float64)[keep], np.asarray(faces.probability, np.float64)[keep]


def _assign(
    chains: list[Chain], open_: list[int], boxes: np.ndarray, points: np.ndarray, rows: list[int], frame: int,
    reach: float,
) -> list[tuple[int, int]]:
    """Pairs (detection, chain) of least total cost."""
    if not rows or not open_:
        return []
    cost = _cost([chains[j] for j in open_], boxes[rows], points[rows], frame, reach)
    possible = cost < _NEVER
    if possible.sum(0).max() <= 1 and possible.sum(1).max() <= 1:
        pairs = np.nonzero(possible)  # nothing to choose
    else:
        pairs = assignment()(cost)
    return [(rows[i], open_[j]) for i, j in zip(*pairs, strict=True) if possible[i, j]]


@functools.cache
def assignment() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scipy's `linear_sum_assignment(cost)`, without importing its optimisers where that can be done.

    Importing all of them takes as long as linking a long clip, for a function that lies in one small library file.
    """
    spec = importlib.util.find_spec("scipy")
    if spec is not None and spec.origin is not None:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = Path(spec.origin).parent / "optimize" / f"_lsap{suffix}"
            with contextlib.suppress(ImportError, AttributeError):
                loader = importlib.machinery.ExtensionFileLoader("_lsap", str(file))
                module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_lsap", loader))
                loader.exec_module(module)
                return module.linear_sum_assignment
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment


def _cost(chains: list[Chain], boxes: np.ndarray, points: np.ndarray, frame: int, reach: float) -> np.ndarray:
    """Cost [n, m] of taking each of n detections as the next of each of m chains; `_NEVER` where it is too far or too
    different in size."""
    ends = [max(chain.seen) for chain in chains]
    box, marks = (np.stack([c.seen[last][k] for c, last in zip(chains, ends, strict=True)]) for k in (0, 1))
    since = frame - np.array(ends)
    motion = np.stack([_motion(chain, last) for chain, last in zip(chains, ends, strict=True)])
    shift = motion * np.minimum(since, 8)[:, None]
    old, new = sides(box)[None], sides(boxes)[:, None]
    side = (new + old) / 2
    near = np.minimum(NEAR + NEAR_PER_FRAME * since, reach)
    ratio = np.abs(np.log(new / old))
    best = np.full((len(boxes), len(chains)), _NEVER)
    # Where it was, and where its motion leads: the better of the two, since either may be wrong.
    for move in (np.zeros_like(shift), shift):
        at = box + np.tile(move, 2)
        apart = (boxes[:, None, :2] + boxes[:, None, 2:] - at[None, :, :2] - at[None, :, 2:]) / 2
        centre = np.linalg.norm(apart, axis=2) / side
        spread = np.linalg.norm(points[:, None] - marks[None] - move[None, :, None], axis=3).mean(2) / side
        cost = (1 - overlap(boxes, at)) + centre + spread + ratio + 0.02 * since
        best = np.minimum(best, np.where((centre <= near) & (ratio <= SCALE), cost, _NEVER))
    return best


def _motion(chain: Chain, last: int) -> np.ndarray:
    """Motion of the centre per frame [2] between the last two detections; none after a gap."""
    earlier = [f for f in sorted(chain.seen)[-4:-1] if last - f <= 12]
    if not earlier:
        return np.zeros(2)
    old, new = chain.seen[earlier[0]][0], chain.seen[last][0]
    return (new[:2] + new[2:] - old[:2] - old[2:]) / 2 / (last - earlier[0])


def _merge(chains: list[Chain], same: float) -> list[Chain]:
    """Joins chains that lie on one face at the same time. Only pairs that meet in time and place are compared."""
    chains = sorted(chains, key=lambda c: (min(c.seen), *c.seen[min(c.seen)][0]))
    changed = True
    while changed:
        changed = False
        spans = [_span(c) for c in chains]
        for i, one in enumerate(chains):
            if spans[i] is None:
                continue
            for j in range(i + 1, len(chains)):
                if spans[j] is None:
                    continue
                if spans[j][0] > spans[i][1]:
                    break  # by their starts: all others come later still
                if _meet(spans[i], spans[j]) and _is_same(one, chains[j], same):
                    one.absorb(chains[j])
                    spans[i], spans[j] = _span(one), None
                    changed = True
        chains = [c for c, span in zip(chains, spans, strict=True) if span is not None]
    return chains


def _span(chain: Chain) -> tuple[float, ...]:
    """First and last frame of its detections, and the box (x0, y0, x1, y1) around them."""
    boxes = np.stack([box for box, _, _ in chain.seen.values()])
    return min(chain.seen), max(chain.seen), *boxes[:, :2].min(0), *boxes[:, 2:].max(0)


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[1] >= b[0] and b[1] >= a[0] and all(a[k + 2] > b[k] and b[k + 2] > a[k] for k in (2, 3))


def _is_same(one: Chain, other: Chain, same: float) -> bool:
    start, end = max(min(one.seen), min(other.seen)), min(max(one.seen), max(other.seen))
    if start > end:
        return False
    frames = np.arange(start, end + 1)
    a, b = one.box_at(frames), other.box_at(frames)
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), 1)
    union = sides(a) ** 2 + sides(b) ** 2 - inter
    return bool(np.median(inter / np.maximum(union, 1e-12)) >= same)
