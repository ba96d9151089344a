"""The account of a run: what was found, what was done to it, and how sure that is. JSON beside every video.

It holds no picture and no embedding; it does hold times and places of faces in no finer grain than frame ranges.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from a3gan.data.align import inverse_of, similarity_of, warp
from a3gan.data.ranges import to_float
from a3gan.errors import UserError
from a3gan.files import replacing
from a3gan.media.threads import on_all_cores

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.media.pipeline import Face, Work
    from a3gan.media.track import Track

SAMPLES = 12  # faces of a track that are compared with the original
BLOCKS, BLOCK = 4, 12  # runs of frames of a track on which jitter is read, and their length
SHEET_SIDE = 128  # px
SIDE = 64  # px, of the small recogniser
STATEMENT = (
    "residual is the cosine between a face before and after, as read by identity_small, a weak recogniser (on photos "
    "it never saw: 0.56 for one person, 0.09 for two). A high value shows that identity was left; a low one proves "
    "nothing: a better recogniser, or a person who knows the scene, may still recognise somebody. Faces that the "
    "detector never found are in no number here; look at the result."
)


@dataclass
class Sample:
    """One face compared: frame index; small crops float [3, SIDE, SIDE]; for the sheet uint8 [3, B, B] or None."""

    frame: int
    before: Tensor
    after: Tensor
    sheet: tuple[Tensor, Tensor] | None = None


@dataclass
class Entry:
    """What became of one track."""

    track: Track
    status: Counter = field(default_factory=Counter)  # of `FaceRecord` -> faces
    reasons: Counter = field(default_factory=Counter)
    redacted: list[int] = field(default_factory=list)  # frames
    samples: list[Sample] = field(default_factory=list)
    points: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # frame -> before, after, in its px


class Ledger:
    """Is told of every face by `pipeline.SecondPass`; gives the account of the tracks.

    Args:
        tracks: of the clip. method: that anonymises. sheet: also keep pictures for the contact sheet.
        compare: read residual similarity and jitter (needs the shipped `identity_small`).
    """

    def __init__(self, tracks: Sequence[Track], method: FaceAnonymizer, sheet: bool = False, compare: bool = True):
        self.entries = {track.number: Entry(track) for track in tracks}
        self.method, self.sheet, self.compare = method, sheet, compare
        self._sampled = {t.number: set(_spread(_clear(t), SAMPLES)) for t in tracks if not t.keep}
        self._jitter = {t.number: _blocks(t) for t in tracks if not t.keep}
        self._frames = set().union(*self._sampled.values()) if self._sampled else set()

    def wants(self, work: Work) -> bool:
        """Whether `composed` needs the frame as it was."""
        if work.index not in self._frames:
            return False
        return self.sheet or any(self._is_sample(face, work) and self._as_cut(face) is None for face in work.faces)

    def _is_sample(self, face: Face, work: Work) -> bool:
        return (self.compare or self.sheet) and work.index in self._sampled.get(face.track.number, ())

    def _as_cut(self, face: Face) -> Tensor | None:
        """The crop that `_crop` would make, where the method had the same one made."""
        same = (self.method.frame, self.method.size) == ("face", SIDE)
        return face.crop.face if same and face.crop is not None else None

    def synthesised(self, faces: Sequence[Face]) -> None:
        """Keeps the points of faces in the blocks that jitter is measured on, if the method reads any."""
        for face in faces if self.compare else ():
            if face.crop.points is None or not self._reads_jitter(face):
                continue
            inverse = inverse_of(face.crop.matrix)
            pixels = face.crop.points.double().numpy() * self.method.size - 0.5
            old, new = pixels @ inverse[:, :2].T + inverse[:, 2]
            self.entries[face.track.number].points[face.index] = old, new

    def _reads_jitter(self, face: Face) -> bool:
        return face.record.status == "synthesised" and face.index in self._jitter.get(face.track.number, ())

    def composed(self, work: Work, original: np.ndarray | None) -> None:
        """Counts the faces of a frame, and compares those that are samples."""
        for face in work.faces:
            entry = self.entries[face.track.number]
            entry.status[face.record.status] += 1
            if face.record.status == "mosaicked":
                entry.reasons[face.record.reason.split(":")[0].split("(")[0].strip()] += 1
                entry.redacted.append(work.index)
            if self._is_sample(face, work):
                self._sample(entry, work, original, face)

    def _sample(self, entry: Entry, work: Work, original: np.ndarray | None, face: Face) -> None:
        points = face.sighting.landmarks
        if points is None or not np.isfinite(points).all():
            return
        try:
            before = self._as_cut(face)
            before = _crop(original, points, "face", SIDE) if before is None else before
            pair = (before, _crop(work.image, points, "face", SIDE))
            sheet = None
            if self.sheet:
                sheet = tuple(_crop(image, points, "ffhq", SHEET_SIDE) for image in (original, work.image))
        except ValueError:
            return
        entry.samples.append(Sample(work.index, *map(to_float, pair), sheet))

    def tracks(self) -> list[dict[str, Any]]:
        """One record per track, as JSON can hold it."""
        recogniser = None
        if self.compare and any(entry.samples for entry in self.entries.values()):
            from a3gan.scorers.identity import small_recogniser

            try:
                recogniser = small_recogniser()
            except UserError:  # an installation without it still anonymises
                recogniser = None
        return on_all_cores(lambda entry: self._track(entry, recogniser), list(self.entries.values()))

    def _track(self, entry: Entry, recogniser: Any) -> dict[str, Any]:
        track = entry.track
        record: dict[str, Any] = {
            "track": track.number,
            "person": track.person,
            "first": track.first,
            "last": track.last,
            "score": round(track.score, 4),
            "sure": track.sure,
            "faces": len(track.sightings),
            "sources": dict(Counter(s.source for s in track.sightings.values())),
            "kept": track.keep,
            "replaced": entry.status["synthesised"] + entry.status["redacted"],
            "fallback": entry.status["mosaicked"],
            "fallback_because": dict(entry.reasons),
            "fallback_frames": ranges(entry.redacted),
            "doubtful": len(track.doubtful),
            "doubtful_frames": ranges(track.doubtful),
        }
        if recogniser is not None and entry.samples:
            record["residual"] = residual(entry.samples, recogniser)
        if (steps := jitter(entry.points)) is not None:
            record["jitter"] = steps
        return record


def _clear(track: Track) -> list[int]:
    """Frames in which a track's face was found, else all of them."""
    seen = [i for i, s in track.sightings.items() if s.source == "detected" and s.landmarks is not None]
    return sorted(seen or track.sightings)


def _spread(frames: Sequence[int], count: int) -> list[int]:
    """At most `count` of the frames, evenly spread, the ends a little within."""
    if len(frames) <= count:
        return list(frames)
    return [frames[int((i + 0.5) * len(frames) / count)] for i in range(count)]


def _blocks(track: Track) -> set[int]:
    """Frames of at most `BLOCKS` runs of `BLOCK` frames, evenly spread over a track."""
    frames = sorted(track.sightings)
    if len(frames) <= BLOCKS * BLOCK:
        return set(frames)
    starts = [int((i + 0.5) * len(frames) / BLOCKS - BLOCK / 2) for i in range(BLOCKS)]
    return {frame for start in starts for frame in frames[start : start + BLOCK]}


def _crop(image: np.ndarray, points: np.ndarray, frame: str, size: int) -> Tensor:
    matrix = similarity_of(points, frame, size)
    return torch.from_numpy(warp(image, matrix, size)[0]).permute(2, 0, 1).contiguous()


@torch.inference_mode()
def residual(samples: Sequence[Sample], recogniser: Any) -> dict[str, Any]:
    """Cosines to the original: mean and largest; of the mean faces ('person'); and how alike the faces of the track
    are, before and after. still_recognised: by 'person', `media.people` would take the two for one."""
    from a3gan.media.people import SAME

    before = recogniser(torch.stack([s.before for s in samples]))
    after = recogniser(torch.stack([s.after for s in samples]))
    cosine = (before * after).sum(1)
    record = {
        "faces": len(samples),
        "mean": round(float(cosine.mean()), 3),
        "largest": round(float(cosine.max()), 3),
    }
    if len(samples) > 1:
        other = ~torch.eye(len(samples), dtype=torch.bool)
        record["within_original"] = round(float((before @ before.T)[other].mean()), 3)
        record["within_result"] = round(float((after @ after.T)[other].mean()), 3)
    person = float(torch.nn.functional.cosine_similarity(before.mean(0), after.mean(0), 0))
    record |= {"person": round(person, 3), "still_recognised": person >= SAME}
    return record


def jitter(points: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any] | None:
    """Motion of the five points from frame to frame, root mean square, in eye distances of the original.

    original and result: of each by itself, both read by the same network with the same noise; added: of their
    difference, so what the new face moves beyond the old one's motion. None for fewer than 4 pairs of frames.
    """
    pairs = [(points[i], points[i + 1]) for i in sorted(points) if i + 1 in points]
    if len(pairs) < 4:
        return None
    steps: dict[str, list[float]] = {"original": [], "result": [], "added": []}
    for (old0, new0), (old1, new1) in pairs:
        eyes = max(float(np.linalg.norm(old0[1] - old0[0])), 1e-6)
        for name, step in (
            ("original", old1 - old0), ("result", new1 - new0), ("added", (new1 - old1) - (new0 - old0)),
        ):  # fmt: skip
            steps[name].append(float((step**2).sum(1).mean()) / eyes**2)
    return {"pairs": len(pairs)} | {name: round(float(np.sqrt(np.mean(v))), 4) for name, v in steps.items()}


def ranges(frames: Iterable[int]) -> list[list[int]]:
    """Frame numbers as [first, last] runs."""
    runs: list[list[int]] = []
    for frame in sorted(frames):
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    return runs


def totals(tracks: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Sums over the records of tracks."""
    sources: Counter = Counter()
    for track in tracks:
        sources.update(track["sources"])
    done = [track for track in tracks if not track["kept"]]
    return {
        "tracks": len(tracks),
        "sure_tracks": sum(track["sure"] for track in tracks),
        "people": len({track["person"] for track in tracks if track["person"] >= 0}),
        "faces": sum(track["faces"] for track in tracks),
        **{name: sources[name] for name in ("detected", "filled", "extended", "given")},
        "replaced": sum(track["replaced"] for track in done),
        "fallback": sum(track["fallback"] for track in done),
        "kept": sum(track["faces"] for track in tracks if track["kept"]),
        "doubtful": sum(track["doubtful"] for track in done),
        "still_recognised": sum(track.get("residual", {}).get("still_recognised", False) for track in done),
    }


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """An account, or None where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
