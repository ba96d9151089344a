"""Timing, always in one run and one process: medians over repeats, the device waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median wall seconds of a call after one warm-up, the device waited for."""
    times = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 1536) -> float:
    """FLOP/s of a square matrix product: the most that this machine gives a network in this precision."""
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / seconds(lambda: a @ a, device)
