"""What a method costs: seconds a face of its pass over aligned faces, on this machine, its steps and its networks.

Times are kept out of `results.json`: they are never the same twice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.data.archive import FaceSet

BATCHES = (1, 16)
REPEATS, MOST_SECONDS = 7, 4.0  # passes behind a median; no more are begun after so long


def measure(methods: dict[str, FaceAnonymizer], device: torch.device, faces: FaceSet) -> dict[str, Any]:
    """{"device", "threads", "methods": {name: {batch: {"seconds_per_face", "faces_per_second", "passes", "size"}}}}.

    Median of passes of `anonymize` alone: neither detection nor pasting. All methods get the same faces, the first of
    `faces`, brought to their frame and size: what searches step by step may stop sooner on some faces than on others.
    """
    from a3gan.evaluation.pictures import Originals

    view = Originals(faces).view([i % len(faces) for i in range(max(BATCHES))])
    result: dict[str, Any] = {"device": describe(device), "threads": torch.get_num_threads(), "methods": {}}
    for name, method in methods.items():
        aligned = view.aligned(method.frame, method.size).to(device)
        method.anonymize(aligned[:1])  # the first pass also allocates
        result["methods"][name] = {str(batch): _one(method, aligned[:batch]) for batch in BATCHES}
    return result


def _one(method: FaceAnonymizer, faces: torch.Tensor) -> dict[str, float | int]:
    """A pass of seconds is timed once, without one before it to warm up."""
    began, passes = time.perf_counter(), []
    while not passes or (len(passes) <= REPEATS and time.perf_counter() - began < MOST_SECONDS):
        start = time.perf_counter()
        method.anonymize(faces)
        if faces.is_cuda:
            torch.cuda.synchronize(faces.device)
        passes.append(time.perf_counter() - start)
    timed = passes[1:] or passes
    seconds = float(np.median(timed)) / len(faces)
    return {
        "seconds_per_face": round(seconds, 7),
        "faces_per_second": round(1 / seconds, 2),
        "passes": len(timed),
        "size": method.size,
    }


def networks(method: FaceAnonymizer) -> dict[str, Any]:
    """{"steps", "parameters", "mib"}: passes through its networks a face, one after the other, at most; the parameters
    of all networks that it runs; and what these take in memory. A redaction has no step and no parameter."""
    found = method.networks()
    parameters = {id(p): p for network in found for p in network.parameters()}
    tensors = parameters | {id(b): b for network in found for b in network.buffers()}
    return {
        "steps": method.rounds,
        "parameters": sum(p.numel() for p in parameters.values()),
        "mib": round(sum(t.numel() * t.element_size() for t in tensors.values()) / 2**20, 2),
    }


def describe(device: torch.device) -> str:
    """What it runs on, in words."""
    import platform

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {torch.get_num_threads()} threads"


def keep(
    folder: Path, methods: dict[str, FaceAnonymizer], follows: dict[str, Any], device: torch.device, faces: FaceSet
) -> dict[str, Any]:
    """`measure`, kept in `speed.json`; what an earlier run measured there of the same methods (`follows`) on the same
    machine is given back, so that a repeated report has the same bytes."""
    try:
        record = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
        same = (record["follows"], record["device"]) == (follows, describe(device))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        record = measure(methods, device, faces) | {"follows": follows}
        write(folder, record)
    return record


def write(folder: Path, record: dict[str, Any]) -> None:
    """`speed.json`, whole or not at all."""
    from a3gan.files import replacing

    with replacing(folder / "speed.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
