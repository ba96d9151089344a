"""Tracks: detections of single frames linked into faces that last, with every gap filled, and nothing dropped.

Pure geometry: no video, no networks. Missing a face in one frame gives it away, so all rules lean to covering: a high
score is not needed to be covered, only to count as sure; gaps are filled forward and back; ends are extended.
Boxes are (x0, y0, x1, y1) and landmarks [5, 2] as in `data.align`, in pixels of the full-size, upright frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.media.track_link import Chain, link_chains, sides
from a3gan.media.track_smooth import smooth

if TYPE_CHECKING:
    from a3gan.media.detect import Faces

FADE = 0.9  # of the motion, per frame beyond a track's end
NESTED, SMALL = 0.8, 0.6  # share of its area inside a larger face, and its side against that one's, of an eye
SOURCES = ("detected", "filled", "extended", "given")


@dataclass
class Sighting:
    """One face in one frame.

    box: float64 [4]; landmarks: float64 [5, 2], None only for a box given by hand; score: of the detector, for filled
    and extended ones that of the weaker neighbour; source: one of `SOURCES`.
    """

    box: np.ndarray
    landmarks: np.ndarray | None
    score: float
    source: str = "detected"

    @property
    def eye_distance(self) -> float:
        """In pixels; NaN without landmarks."""
        return float("nan") if self.landmarks is None else float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))


@dataclass
class Track:
    """One face through one shot.

    number: from 0, by first frame. sightings: frame index -> sighting, without holes from `first` to `last` when made
    by `link`. person: number of the person, -1 = not known (see `media.people`). keep: True = leave this face as it is.
    doubtful: frames whose place is a guess (long gap, low score, fast motion); for the account and --strict.
    sure: whether two detections reached `TrackConfig.start` and it is no part of a larger face; tracks that are not
    sure are still covered.
    """

    number: int
    sightings: dict[int, Sighting]
    person: int = -1
    keep: bool = False
    doubtful: set[int] = field(default_factory=set)
    sure: bool = True

    @property
    def first(self) -> int:
        return min(self.sightings)

    @property
    def last(self) -> int:
        return max(self.sightings)

    @property
    def score(self) -> float:
        """The best score of its sightings."""
        return max(s.score for s in self.sightings.values())

    def count(self, source: str) -> int:
        """Sightings of one source."""
        return sum(s.source == source for s in self.sightings.values())


@dataclass(frozen=True)
class TrackConfig:
    """How detections become tracks. Lengths in frames, distances in face sides (root of the box's area).

    start: score that, reached twice, makes a track sure. alone: score that is covered whatever else is seen. keep_on:
    lowest score that continues a track; chains without one of `alone` are dropped. stride: distance of the frames
    that were looked at, as in `scan`. max_gap: longest gap filled between two detections of a face. sure_gap: gaps
    longer than this are doubtful (0 = twice the stride). extend: frames added at both ends (0 = twice the stride, at
    least 3), of a face seen in one frame only half as many. smoothing: window of the smoother, odd; 0 or 1 = none.
    same: overlap (intersection over union) from which two tracks are one face. fast: motion per frame above which a
    frame is doubtful.
    """

    start: float = 0.9
    alone: float = 0.7
    keep_on: float = 0.3
    stride: int = 4
    max_gap: int = 30
    sure_gap: int = 0
    extend: int = 0
    smoothing: int = 9
    same: float = 0.5
    fast: float = 0.35

    @classmethod
    def of(cls, thresh: float | None = None, stride: int | None = None, **more: Any) -> TrackConfig:
        """From a user's one threshold: `alone`; what is sure is at least that, what continues a track at most."""
        if thresh is not None:
            more |= {"alone": thresh, "start": max(cls.start, thresh), "keep_on": min(cls.keep_on, thresh)}
        return cls(**more, **({} if stride is None else {"stride": stride}))

    @property
    def reach(self) -> int:
        """Frames added at both ends."""
        return self.extend or max(2 * self.stride, 3)

    @property
    def longest_sure(self) -> int:
        return self.sure_gap or 2 * self.stride


def link(
    found: Mapping[int, Faces], frames: int, cuts: Sequence[int] = (), config: TrackConfig | None = None,
    size: tuple[int, int] | None = None,
) -> list[Track]:
    """Tracks of a clip; every detection of at least `alone` lies inside a sighting of its frame.

    Args:
        found: frame index -> faces, for the frames that were looked at; in pixels of the full-size frame.
        frames: number of frames of the clip. cuts: first frames of new shots; no track crosses one.
        config: None = the defaults. size: (width, height); guesses wholly outside it are left out.

    Returns:
        tracks by first frame (then by place), numbered from 0; the order of faces within a frame does not matter.
    """
    config = config or TrackConfig()
    edges = [0, *sorted({int(c) for c in cuts if 0 < c < frames}), frames]
    tracks: list[Track] = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        shot = {f: found[f] for f in sorted(found) if start <= f < end}
        made = [_track(chain, config, len(shot)) for chain in link_chains(shot, config)]
        for track in made:
            _extend(track, start, end, config, size)
        _drop_covered_guesses(made, config)
        _doubt_nested(made)
        tracks += made
    tracks.sort(key=lambda t: (t.first, *t.sightings[t.first].box.tolist()))
    for number, track in enumerate(tracks):
        track.number = number
    return tracks


def _track(chain: Chain, config: TrackConfig, looks: int) -> Track:
    """Fills and smooths the detections of one chain."""
    frames, boxes, points, scores = chain.arrays()
    every = np.arange(frames[0], frames[-1] + 1)
    after = np.searchsorted(frames, every)  # index of the detection at or behind each frame
    before = np.maximum(np.where(frames[after] == every, after, after - 1), 0)
    low = np.minimum(scores[before], scores[after])
    gap = frames[after] - frames[before]
    boxes, points = smooth(frames, boxes, points, chain.cover(), config.smoothing, config.longest_sure)
    detected = np.isin(every, frames)
    sightings = {
        int(f): Sighting(box, point, float(score), "detected" if seen else "filled")
        for f, box, point, score, seen in zip(every, boxes, points, low, detected, strict=True)
    }
    doubt = (gap > config.longest_sure) | (low < config.start) | _fast(boxes, config.fast)
    track = Track(-1, sightings, doubtful={int(f) for f in every[doubt]})
    # One high score alone is often no face at all: patterns flicker, faces last.
    track.sure = bool((scores >= config.start).sum() >= min(2, looks))
    return track


def _fast(boxes: np.ndarray, limit: float) -> np.ndarray:
    """bool [T]: the centre moves by more than `limit` sides to a neighbouring frame."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6), 1))
    step = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.minimum(side[1:], side[:-1])
    step = np.concatenate(([0.0], step, [0.0]))
    return np.maximum(step[1:], step[:-1]) > limit


def _extend(track: Track, start: int, end: int, config: TrackConfig, size: tuple[int, int] | None) -> None:
    """Adds guesses at both ends: the last motion goes on and dies down, within the shot."""
    first, last = track.first, track.last
    # A face seen once, with the frames around it searched, is not guessed to have been there for long.
    reach = config.reach if last > first else min(config.reach, max(config.stride, 3))
    for at, step, stop in ((first, -1, start - 1), (last, 1, end)):
        edge = track.sightings[at]
        span = min(last - first, 2 * config.stride)
        drift = 0.0 if span == 0 else _drift(track.sightings[at - step * span], edge, span)
        for i in range(1, reach + 1):
            frame = at + i * step
            if frame == stop:
                break
            shift = drift * (1 - FADE**i) / (1 - FADE)  # 1 + FADE + FADE^2 ...: a noisy motion does no lasting harm
            box = edge.box + np.tile(np.broadcast_to(shift, 2), 2)
            if size and (box[2] < 0 or box[3] < 0 or box[0] > size[0] or box[1] > size[1]):
                break
            # The face may also stand still: the guess covers both.
            box = np.concatenate((np.minimum(box[:2], edge.box[:2]), np.maximum(box[2:], edge.box[2:])))
            track.sightings[frame] = Sighting(box, edge.landmarks + shift, edge.score, "extended")
    track.sightings = dict(sorted(track.sightings.items()))


def _drift(old: Sighting, new: Sighting, span: int) -> np.ndarray:
    """Motion per frame [2] of the mean of the points, at most a side over the span."""
    motion = (new.landmarks - old.landmarks).mean(0)
    side = np.sqrt(np.prod(np.maximum(new.box[2:] - new.box[:2], 1e-6)))
    length = np.linalg.norm(motion)
    return motion * min(1.0, side / max(length, 1e-9)) / span


def _doubt_nested(tracks: list[Track]) -> None:
    """A small track that lies in a larger sure one in most of its frames is an eye or a mouth taken for a face."""
    sure = [(t, {f: s.box for f, s in t.sightings.items() if s.source != "extended"}) for t in tracks if t.sure]
    for small, boxes in sure:
        for large, _ in sure:
            frames = [f for f in boxes if f in large.sightings] if large is not small else []
            if 2 * len(frames) <= len(boxes):
                continue
            a, b = np.stack([boxes[f] for f in frames]), np.stack([large.sightings[f].box for f in frames])
            shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0).prod(1)
            inside = (shared >= NESTED * sides(a) ** 2) & (sides(a) <= SMALL * sides(b))
            if 2 * inside.sum() > len(boxes):
                small.sure = False
                break


def _drop_covered_guesses(tracks: list[Track], config: TrackConfig) -> None:
    """Where an extended sighting lies on another track's face, the other one has it."""
    from a3gan.media.track_link import overlap

    by_frame: dict[int, list[tuple[Track, Sighting]]] = {}
    for track in tracks:
        for frame, sighting in track.sightings.items():
            by_frame.setdefault(frame, []).append((track, sighting))
    for frame, here in by_frame.items():
        real = np.array([s.box for _, s in here if s.source != "extended"]).reshape(-1, 4)
        if not len(real):
            continue
        for track, sighting in here:
            if sighting.source == "extended" and overlap(sighting.box[None], real).max() >= config.same:
                del track.sightings[frame]
    for track in tracks:
        track.doubtful &= set(track.sightings)
