"""Clips through the whole video pipeline: what is read of each face, frame by frame, before and after.

The faces of the original are found once; every method gets the same tracks, and both clips are read at the places of
the original's tracks. `identity` goes through the same coder, so its row says what the coder alone does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.data import align
from a3gan.data.ranges import to_float
from a3gan.errors import UserError
from a3gan.evaluation.fatigue import Reading
from a3gan.evaluation.features import Features, as_faces, read_cached, write_cached

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.media.detect import Faces
    from a3gan.media.track import Track
    from a3gan.scorers.attributes import AttributeNetwork

VERSION = 2  # raise it when the readings of the same clip change
SIDE, BATCH = 128, 64  # px of the frame `face`; faces a pass of the network
LEAST = 2.0  # seconds that a track must last to be read
LONGEST = 960  # px to which frames are shrunk for the detectors
LEAST_EYES = 40.0  # px between the eyes, median over a track; of smaller moving faces the judge only guesses
SURE = 0.9  # score from which MTCNN's find in the original is a reference box


@dataclass
class Clip:
    """One original with its tracks. until: seconds that are used, None = all. sampled: frames for the detectors."""

    path: Path
    tracks_file: Path
    tracks: list[Track]
    rate: float
    until: float | None
    sampled: list[int]
    digest: str

    @property
    def name(self) -> str:
        return self.path.stem


def open_clip(path: str | Path, folder: Path, detector: Callable[[], Any], seconds: float, frames: int) -> Clip:
    """Finds the tracks of a clip, or reads them from `folder` where an earlier run left them.

    seconds: of its start that are used, 0 = all. frames: how many with several faces are sampled at most.
    UserError: no such file, or no video.
    """
    from a3gan.media.detection_files import as_detections
    from a3gan.media.detections import load, save
    from a3gan.media.pipeline import find_tracks
    from a3gan.media.settings import Settings

    path = Path(path)
    if not path.is_file():
        raise UserError(f"data.clips: {path}: no such file")
    settings = Settings(end=seconds or None, identity="track")
    digest = hashlib.sha256(path.read_bytes() + f"{VERSION}|{seconds}".encode()).hexdigest()[:24]
    file = folder / f"{path.stem}-{digest}.json"
    if not file.is_file():
        found = find_tracks(path, detector, settings)
        folder.mkdir(parents=True, exist_ok=True)
        save(file, as_detections(path, found, settings))
    made = load(file)
    from fractions import Fraction

    rate = float(Fraction(made.rate or "25"))
    return Clip(path, file, made.tracks, rate, settings.end, several(made.tracks, frames), digest)


def several(tracks: Sequence[Track], most: int) -> list[int]:
    """At most `most` frames, evenly spread over those in which two tracks or more have a detected face."""
    counts: dict[int, int] = {}
    for track in tracks:
        for frame, sighting in track.sightings.items():
            if track.sure and sighting.source == "detected":
                counts[frame] = counts.get(frame, 0) + 1
    frames = sorted(frame for frame, count in counts.items() if count > 1)
    return [frames[i * len(frames) // most] for i in range(most)] if len(frames) > most else frames


def long_tracks(clip: Clip) -> list[Track]:
    """Those that are read: sure, `LEAST` seconds long, with landmarks all the way, large enough (`LEAST_EYES`)."""
    long = [t for t in clip.tracks if t.sure and len(t.sightings) >= LEAST * clip.rate]
    long = [t for t in long if all(s.landmarks is not None for s in t.sightings.values())]
    return [t for t in long if np.median([s.eye_distance for s in t.sightings.values()]) >= LEAST_EYES]


# --- anonymising ----------------------------------------------------------------------------------------------------
def anonymise(
    clip: Clip, output: Path, method: FaceAnonymizer, detector: Any, policy: Any, alpha: float, seed: int
) -> None:
    """Writes the method's clip to `output` by the pipeline of `a3gan anonymize`, without sound."""
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.media.pipeline import anonymize_video
    from a3gan.media.settings import Settings

    settings = Settings(
        method=method.name, policy=None if policy is None else str(policy), alpha=alpha, seed=seed, end=clip.until,
        audio=False, detections=str(clip.tracks_file), identity="track",
    )  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    anonymize_video(clip.path, output, Anonymizer(method, detector), settings, compare=False)


# --- reading --------------------------------------------------------------------------------------------------------
def read(
    clip: Clip, video: Path, network: AttributeNetwork, detectors: dict[str, Any], device: torch.device
) -> Features:
    """What `readings` and `found` unpack: heads and points of every long track, finds of the sampled frames.

    video: the original (its first `until` seconds are read) or a method's clip. detectors: by name.
    """
    from a3gan.media.video import VideoReader

    tracks, sampled = long_tracks(clip), set(clip.sampled)
    rows: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for track in tracks:
        for frame, sighting in track.sightings.items():
            rows.setdefault(frame, []).append((track.number, sighting.landmarks, None))
    waiting: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []
    made: dict[tuple[int, int], tuple[float, float, np.ndarray]] = {}
    result: dict[str, list[Faces]] = {name: [] for name in detectors}
    end = clip.until if video == clip.path else None
    with VideoReader(video, end=end) as reader:
        for frame in reader:
            for number, points, _ in rows.get(frame.index, ()):
                matrix = align.similarity(points[None], "face", SIDE)[0]
                crop = torch.from_numpy(align.warp(frame.image, matrix, SIDE)[0]).permute(2, 0, 1)
                waiting.append((number, frame.index, crop, matrix))
            if len(waiting) >= BATCH:
                made |= _heads(waiting, network, device)
                waiting = []
            if frame.index in sampled and detectors:
                small, scale = shrunk(frame.image)
                for name, detector in detectors.items():
                    faces = detector.detect([small])[0]
                    faces.boxes = ((faces.boxes + 0.5) / scale - 0.5).astype(np.float32)
                    result[name].append(faces)
    made |= _heads(waiting, network, device)
    return _packed(tracks, made, result)


def shrunk(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A frame whose longer side is at most `LONGEST`, and its scale."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    if scale == 1.0:
        return image, 1.0
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA), scale


@torch.inference_mode()
def _heads(
    waiting: list[tuple[int, int, torch.Tensor, torch.Tensor]], network: AttributeNetwork, device: torch.device
) -> dict[tuple[int, int], tuple[float, float, np.ndarray]]:
    if not waiting:
        return {}
    faces = to_float(torch.stack([crop for _, _, crop, _ in waiting])).to(device)
    outputs = {name: value.float().cpu() for name, value in network(faces).items()}
    back = align.invert(torch.stack([matrix for *_, matrix in waiting]))
    points = align.transform_points(align.to_pixels(outputs["landmarks"].double(), SIDE), back).numpy()
    closed, yawning = (outputs[name].tolist() for name in ("eyes_closed", "yawning"))
    return {(number, frame): (closed[i], yawning[i], points[i]) for i, (number, frame, _, _) in enumerate(waiting)}


def _packed(
    tracks: Sequence[Track], made: dict[tuple[int, int], tuple[float, float, np.ndarray]],
    found: dict[str, list[Faces]],
) -> Features:  # fmt: skip
    keys = [(t.number, frame) for t in tracks for frame in sorted(t.sightings) if (t.number, frame) in made]
    packed: Features = {
        "track": np.array([number for number, _ in keys], np.int64),
        "frame": np.array([frame for _, frame in keys], np.int64),
        "eyes_closed": np.array([made[key][0] for key in keys], np.float32),
        "yawning": np.array([made[key][1] for key in keys], np.float32),
        "points": np.array([made[key][2] for key in keys], np.float64).reshape(-1, 5, 2),
    }
    for name, frames in found.items():
        packed[f"{name}:number"] = np.array([len(faces) for faces in frames], np.int64)
        empty = [np.zeros((0, 4), np.float32)]
        packed[f"{name}:boxes"] = np.concatenate(empty + [faces.boxes for faces in frames])
        packed[f"{name}:probability"] = np.concatenate([e[:, 0] for e in empty] + [f.probability for f in frames])
    return packed


def readings(clip: Clip, features: Features) -> list[Reading]:
    """One `Reading` per track, in the order of their numbers."""
    result = []
    for number in np.unique(features["track"]).tolist():
        rows = features["track"] == number
        parts = (features[name][rows] for name in ("eyes_closed", "yawning", "points"))
        result.append(Reading(clip.name, number, clip.rate, *parts))
    return result


def found(features: Features, detector: str) -> list[Faces]:
    """A detector's finds in the sampled frames."""
    parts = {name: features[f"{detector}:{name}"] for name in ("boxes", "probability", "number")}
    return as_faces(parts)


def references(features: Features, detector: str) -> list[np.ndarray]:
    """Boxes of the sure finds in each sampled frame of the original."""
    return [faces.boxes[faces.probability >= SURE] for faces in found(features, detector)]


# --- cached ---------------------------------------------------------------------------------------------------------
def collect(
    clip: Clip, method: FaceAnonymizer | None, key: dict[str, Any], network: AttributeNetwork,
    detectors: dict[str, Any], folder: Path, policy: Any, alpha: float, seed: int, device: torch.device,
) -> Features:  # fmt: skip
    """`read` of the original (method None) or of a method's clip, which is made first and kept beside, as `key` says
    of method, weights and settings."""
    named = {name: getattr(detector, "name", name) for name, detector in detectors.items()}
    parts = [VERSION, clip.digest, clip.sampled, key, network.fingerprint, named]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    name = "original" if method is None else method.name
    path = folder / f"{clip.name}-{name}-{digest}.npz"
    features = read_cached(path)
    if features is None:
        video = clip.path
        if method is not None:
            video = folder / f"{clip.name}-{name}-{digest}.mp4"
            if not video.is_file():
                anonymise(clip, video, method, next(iter(detectors.values())), policy, alpha, seed)
        features = read(clip, video, network, detectors, device)
        write_cached(path, features)
    return features
