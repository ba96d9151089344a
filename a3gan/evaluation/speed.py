"""Faces a second of each method's pass over aligned faces, on this machine. Kept out of `results.json`: it is never the
same twice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer

BATCHES = (1, 16)
REPEATS, MOST_SECONDS = 7, 4.0  # passes behind a median; no more are begun after so long


def measure(methods: dict[str, FaceAnonymizer], device: torch.device, seed: int = 0) -> dict[str, Any]:
    """{"device", "threads", "methods": {name: {batch: {"faces_per_second", "seconds", "passes", "size"}}}}.

    seconds: median of one pass, `anonymize` alone: neither detection nor pasting. The faces are noise; no method's time
    depends on them.
    """
    result: dict[str, Any] = {"device": describe(device), "threads": torch.get_num_threads(), "methods": {}}
    for name, method in methods.items():
        result["methods"][name] = {}
        for batch in BATCHES:
            rng = torch.Generator().manual_seed(seed)
            faces = (torch.rand(batch, 3, method.size, method.size, generator=rng) * 2 - 1).to(device)
            result["methods"][name][str(batch)] = _one(method, faces)
    return result


def _one(method: FaceAnonymizer, faces: torch.Tensor) -> dict[str, float | int]:
    method.anonymize(faces)  # the first pass also allocates
    began, passes = time.perf_counter(), []
    while len(passes) < REPEATS and (time.perf_counter() - began < MOST_SECONDS or not passes):
        start = time.perf_counter()
        method.anonymize(faces)
        if faces.is_cuda:
            torch.cuda.synchronize(faces.device)
        passes.append(time.perf_counter() - start)
    seconds = float(np.median(passes))
    return {
        "faces_per_second": round(len(faces) / seconds, 2),
        "seconds": round(seconds, 6),
        "passes": len(passes),
        "size": method.size,
    }


def describe(device: torch.device) -> str:
    """What it runs on, in words."""
    import platform

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {torch.get_num_threads()} threads"


def keep(
    folder: Path, methods: dict[str, FaceAnonymizer], follows: dict[str, Any], device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """`measure`, kept in `speed.json`; what an earlier run measured there of the same methods (`follows`) on the same
    machine is given back, so that a repeated report has the same bytes."""
    try:
        record = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
        same = (record["follows"], record["device"]) == (follows, describe(device))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        record = measure(methods, device, seed) | {"follows": follows}
        write(folder, record)
    return record


def write(folder: Path, record: dict[str, Any]) -> None:
    """`speed.json`, whole or not at all."""
    from a3gan.files import replacing

    with replacing(folder / "speed.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
