"""Tracks as a JSON file that a person may edit and feed back: `a3gan detect`, then `--detections FILE`.

    {"what": "a3gan detections", "version": 1, "file": "drive.mp4", "size": [640, 480], "frames": 429, "rate": "30",
     "tracks": [{"track": 0, "person": 0, "keep": false, "sightings": [
       {"frame": 0, "box": [266.1, 110.4, 509.3, 413.0], "landmarks": [[x, y], five of them], "score": 0.9998,
        "source": "detected"}]}]}

Pixels of the upright, full-size frame. To edit: delete a track or sightings; set "keep": true to leave a face as it is;
add a sighting with only "frame" and "box" (landmarks null or missing: the box is redacted, unless landmarks can be
found in it). A track with only "track" and "sightings" is enough.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from a3gan.errors import UserError
from a3gan.files import replacing
from a3gan.media.track import SOURCES, Sighting, Track

VERSION = 1
WHAT = "a3gan detections"


@dataclass
class Detections:
    """Tracks of one file. size (width, height), frames, rate: None = not said; cuts: first frames of shots."""

    tracks: list[Track]
    file: str = ""
    size: tuple[int, int] | None = None
    frames: int | None = None
    rate: str | None = None
    cuts: list[int] = field(default_factory=list)
    how: dict[str, Any] = field(default_factory=dict)


def save(path: str | Path, detections: Detections) -> None:
    """Writes the file: whole, or not at all."""
    path = Path(path)
    record = {
        "what": WHAT, "version": VERSION, "file": detections.file, "size": detections.size and list(detections.size),
        "frames": detections.frames, "rate": detections.rate, "cuts": detections.cuts, "how": detections.how,
    }  # fmt: skip
    head = json.dumps(record, indent=1)[:-2]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        # One line per sighting: easy to find, delete and compare.
        out.write(head + ',\n "tracks": [')
        for i, track in enumerate(detections.tracks):
            out.write(("," if i else "") + "\n" + _track_text(track))
        out.write("\n ]\n}\n")


def _track_text(track: Track) -> str:
    lines = [json.dumps(_record(frame, s, frame in track.doubtful)) for frame, s in sorted(track.sightings.items())]
    head = {"track": track.number, "person": track.person, "keep": track.keep, "sure": track.sure}
    return "  " + json.dumps(head)[:-1] + ', "sightings": [\n   ' + ",\n   ".join(lines) + "\n  ]}"


def _record(frame: int, sighting: Sighting, doubtful: bool) -> dict[str, Any]:
    points = None if sighting.landmarks is None else np.round(np.asarray(sighting.landmarks, float), 2).tolist()
    record = {
        "frame": int(frame), "box": np.round(np.asarray(sighting.box, float), 2).tolist(), "landmarks": points,
        "score": round(float(sighting.score), 4), "source": sighting.source,
    }  # fmt: skip
    return record | {"doubtful": True} if doubtful else record


def load(path: str | Path, size: tuple[int, int] | None = None, frames: int | None = None) -> Detections:
    """Reads a file of `save`, edited or written by hand.

    size, frames: of the video it is to be used on. Raises UserError, naming the entry: not such a file, of another
    size or length than the video, a number where none can be, two sightings of a track in one frame.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); a comma too many or too few after editing?") from error
    if not isinstance(data, dict) or not isinstance(data.get("tracks"), list):
        raise UserError(f'{path}: no detections: expected an object with "tracks"; write one with a3gan detect')
    if data.get("version", VERSION) != VERSION:
        raise UserError(f"{path}: version {data['version']!r} is unknown to this program (it reads {VERSION})")
    made = Detections(
        [], str(data.get("file") or ""), _pair(path, data.get("size")), data.get("frames"), data.get("rate"),
        list(data.get("cuts") or []), dict(data.get("how") or {}),
    )  # fmt: skip
    if size is not None and made.size is not None and tuple(size) != made.size:
        raise UserError(f"{path}: made for pictures of {made.size[0]}x{made.size[1]}, this one is {size[0]}x{size[1]}")
    if frames is not None and made.frames is not None and frames != made.frames:
        raise UserError(f"{path}: made for {made.frames} frames, this video has {frames}; another file or another cut?")
    end = frames or made.frames
    made.tracks = [_track(f"{path}: tracks[{i}]", i, track, end) for i, track in enumerate(data["tracks"])]
    numbers = [track.number for track in made.tracks]
    for number in numbers:
        if numbers.count(number) > 1:
            raise UserError(f"{path}: two tracks have the number {number}; numbers must differ")
    return made


def _track(where: str, index: int, data: Any, end: int | None) -> Track:
    if not isinstance(data, dict) or not isinstance(data.get("sightings"), list) or not data["sightings"]:
        raise UserError(f'{where}: expected an object with "sightings", at least one')
    number, person = data.get("track", index), data.get("person", -1)
    for key, value in (("track", number), ("person", person)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{where}.{key}: {value!r} is no whole number")
    for key in ("keep", "sure"):
        if not isinstance(data.get(key, False), bool):
            raise UserError(f"{where}.{key}: {data[key]!r} must be true or false")
    track = Track(number, {}, person, data.get("keep", False), sure=data.get("sure", True))
    for i, entry in enumerate(data["sightings"]):
        frame, sighting = _sighting(f"{where}.sightings[{i}]", entry, end)
        if frame in track.sightings:
            raise UserError(f"{where}.sightings[{i}].frame: the track already has a face in frame {frame}")
        track.sightings[frame] = sighting
        if entry.get("doubtful"):
            track.doubtful.add(frame)
    track.sightings = dict(sorted(track.sightings.items()))
    return track


def _sighting(where: str, data: Any, end: int | None) -> tuple[int, Sighting]:
    if not isinstance(data, dict) or "frame" not in data or "box" not in data:
        raise UserError(f'{where}: needs "frame" and "box"')
    frame = data["frame"]
    if isinstance(frame, bool) or not isinstance(frame, int) or frame < 0 or (end is not None and frame >= end):
        last = "" if end is None else f" from 0 to {end - 1}"
        raise UserError(f"{where}.frame: {frame!r} is no frame number{last}")
    box = _numbers(where + ".box", data["box"], (4,), "four numbers: left, top, right, bottom")
    if not (box[2] > box[0] and box[3] > box[1]):
        raise UserError(f"{where}.box: {data['box']} has no area; the order is left, top, right, bottom")
    points = data.get("landmarks")
    if points is not None:
        points = _numbers(where + ".landmarks", points, (5, 2), "five points [x, y], or null")
    source = data.get("source", "given")
    if source not in SOURCES:
        raise UserError(f"{where}.source: {source!r} is unknown; one of {', '.join(SOURCES)}")
    score = _numbers(where + ".score", data.get("score", 1.0), (), "a number")
    return frame, Sighting(box, points, float(score), source)


def _numbers(where: str, value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape != shape or not np.isfinite(array).all():
        raise UserError(f"{where}: {json.dumps(value)[:80]} is not {what}")
    return array


def _pair(path: Path, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)):
        raise UserError(f"{path}: size: {value!r} is not [width, height]")
    return value[0], value[1]


def find_landmarks(image: np.ndarray, box: np.ndarray, detector: Any) -> np.ndarray | None:
    """Five points [5, 2] of the face that best fills a box drawn by hand; None where the detector sees none in it."""
    side = float(np.sqrt(np.prod(box[2:] - box[:2])))
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(box[:2] - side / 2), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:] + side / 2), (width, height)).astype(int)
    if x1 - x0 < 12 or y1 - y0 < 12:
        return None
    faces = detector.detect([np.ascontiguousarray(image[y0:y1, x0:x1])])[0]
    inside = [
        i for i, points in enumerate(faces.landmarks + np.array([x0, y0], np.float32))
        if ((points.mean(0) > box[:2]) & (points.mean(0) < box[2:])).all()
    ]  # fmt: skip
    if not inside:
        return None
    best = max(inside, key=lambda i: faces.probability[i])
    return (faces.landmarks[best] + np.array([x0, y0], np.float32)).astype(np.float64)
