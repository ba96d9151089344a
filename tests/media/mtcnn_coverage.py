"""Checks pass 1 on clips: is every face that MTCNN finds at 0.9 on any original frame inside a sighting?

    python tests/media/mtcnn_coverage.py ../shared/data/video/*.avi [--cache DIR]

Slow: it searches every frame at full size. --cache keeps those results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from a3gan.media.detect import load_detector
from a3gan.media.scan import scan
from a3gan.media.track import TrackConfig, link
from a3gan.media.track_link import overlap
from a3gan.media.video import VideoReader


def truth(path: Path, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Frames [n] and boxes [n, 4] of all detections of at least 0.9."""
    kept = None if cache is None else cache / f"{path.name}.coverage.npz"
    if kept is not None and kept.is_file():
        with np.load(kept) as stored:
            return stored["frame"], stored["box"]
    detector, frames, boxes = load_detector(), [], []
    with VideoReader(path) as reader:
        for frame in reader:
            faces = detector.detect([frame.image])[0]
            sure = faces.boxes[faces.probability >= 0.9]
            frames += [frame.index] * len(sure)
            boxes += list(sure)
    result = np.array(frames, np.int64), np.array(boxes, np.float64).reshape(-1, 4)
    if kept is not None:
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, frame=result[0], box=result[1])
    return result


def check(path: Path, cache: Path | None, least: float = 0.6) -> int:
    """Number of faces not covered: neither overlap nor the share inside a sighting reaches `least`."""
    began = time.perf_counter()
    with VideoReader(path) as reader:
        result = scan(reader, load_detector())
    seconds = time.perf_counter() - began
    tracks = link(result.found, result.frames, result.cuts, TrackConfig(stride=result.stride), result.size)
    missed = 0
    frames, boxes = truth(path, cache)
    for frame, box in zip(frames.tolist(), boxes, strict=True):
        here = np.array([t.sightings[frame].box for t in tracks if frame in t.sightings]).reshape(-1, 4)
        low, high = np.maximum(here[:, :2], box[:2]), np.minimum(here[:, 2:], box[2:])
        share = np.prod(np.maximum(high - low, 0), 1) / np.prod(box[2:] - box[:2])
        if max(share.max(initial=0), overlap(box[None], here).max(initial=0)) < least:
            missed += 1
            print(f"  frame {frame}: {np.round(box).astype(int).tolist()} is not covered")
    print(
        f"{path.name}: {missed} of {len(frames)} faces not covered; {sum(t.sure for t in tracks)} sure tracks of "
        f"{len(tracks)}; {result.frames} frames at {result.frames / seconds:.1f} per second"
    )
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    raise SystemExit(min(1, sum(check(clip, arguments.cache) for clip in arguments.clips)))
