"""Timing, always in one run and one process: medians over repeats, the device waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds from some moment on. One CPU thread: the process's own time, which leaves out what else the machine does;
    otherwise wall time, the device waited for."""
    if device.type == "cpu":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def after() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return after


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of a call after one warm-up, by `clock`."""
    return by_turns([call], device, repeats)[0]


def by_turns(calls: list[Callable[[], object]], device: torch.device, repeats: int = 5) -> list[float]:
    """Median seconds of each call; they take turns, so that what else the machine does meets all of them."""
    now = clock(device)
    times: list[list[float]] = [[] for _ in calls]
    for i in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            began = now()
            call()
            if i:
                taken.append(now() - began)
    return [statistics.median(taken) for taken in times]


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 1536) -> float:
    """FLOP/s that this machine gives a network in this precision at most: the better of a square matrix product and a
    3x3 convolution over as much data, which on some CPUs is the faster of the two."""
    a = torch.randn(side, side, device=device).to(dtype)
    product = 2 * side**3 / seconds(lambda: a @ a, device)
    channels, edge = max(16, side // 8), 32
    x = torch.randn(8, channels, edge, edge, device=device).to(dtype).to(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=device).to(dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        spent = seconds(lambda: torch.nn.functional.conv2d(x, w, padding=1), device)
    return max(product, 2 * 9 * channels**2 * x.shape[0] * edge**2 / spent)
