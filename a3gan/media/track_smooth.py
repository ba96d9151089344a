"""Smoothing of tracks without lag, and the measure of jitter."""

from __future__ import annotations

import numpy as np


def smooth(
    frames: np.ndarray, boxes: np.ndarray, points: np.ndarray, cover: dict[int, np.ndarray], window: int, curved: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [T, 4] and landmarks [T, 5, 2] for every frame from the first detection to the last.

    Args:
        frames: int [n], rising; boxes [n, 4] and points [n, 5, 2] of the detections.
        cover: frame -> box that the result of that frame must hold.
        window: frames of the smoother. curved: longest gap bridged by a curve; longer ones by a straight line.

    A Savitzky-Golay filter (1964) of order 2: symmetric, so nothing lags behind, and turning points are kept. Boxes
    are then widened by a smooth envelope until each holds its detection.
    """
    every = np.arange(frames[0], frames[-1] + 1)
    values = np.concatenate((boxes, points.reshape(len(frames), 10)), 1)
    values = savgol(interpolate(frames, values, every, curved), window)
    boxes, points = values[:, :4].copy(), values[:, 4:].reshape(-1, 5, 2)
    slack = np.zeros((len(every), 4))
    for frame, need in cover.items():
        i = frame - every[0]
        slack[i] = np.maximum(np.concatenate((boxes[i, :2] - need[:2], need[2:] - boxes[i, 2:])), 0)
    slack = envelope(slack, window)
    return np.concatenate((boxes[:, :2] - slack[:, :2], boxes[:, 2:] + slack[:, 2:]), 1), points


def interpolate(frames: np.ndarray, values: np.ndarray, every: np.ndarray, curved: int) -> np.ndarray:
    """Values [T, k] at `every` frame from those [n, k] at `frames`: monotone cubic, straight over long gaps."""
    if len(frames) == 1:
        return np.repeat(values, len(every), 0)
    straight = np.stack([np.interp(every, frames, column) for column in values.T], 1)
    if len(frames) < 3:
        return straight
    from scipy.interpolate import PchipInterpolator

    bent = PchipInterpolator(frames, values)(every)
    after = np.minimum(np.searchsorted(frames, every), len(frames) - 1)
    gap = frames[after] - frames[np.maximum(after - 1, 0)]
    return np.where((gap <= curved)[:, None], bent, straight)


def savgol(values: np.ndarray, window: int) -> np.ndarray:
    """Savitzky-Golay of order 2 along the first axis; short runs get a shorter window, below 3 values none."""
    window = min(window, len(values)) if min(window, len(values)) % 2 else min(window, len(values)) - 1
    if window < 3:
        return values
    from scipy.signal import savgol_filter

    return savgol_filter(values, window, min(2, window - 2), axis=0, mode="interp")


def envelope(slack: np.ndarray, window: int) -> np.ndarray:
    """A smooth curve nowhere below `slack` [T, k] (>= 0): the running mean of its running maximum."""
    if window < 3 or not slack.any():
        return slack
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    window -= 1 - window % 2
    mean = uniform_filter1d(maximum_filter1d(slack, window, axis=0, mode="nearest"), window, axis=0, mode="nearest")
    return np.maximum(mean, slack)  # equal but for rounding


def jitter(points: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Trembling of landmarks [T, 5, 2] over successive frames, in eye distances; NaN for fewer than 3 frames.

    The root mean square of the second difference over time, divided by sqrt(6): for white noise on a smooth motion
    that is the noise's standard deviation per coordinate. With a reference [T, 5, 2] (the original face) the
    difference of the two is measured, so that motion they share counts for nothing.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        return float("nan")
    scale = points if reference is None else np.asarray(reference, np.float64)
    eyes = np.median(np.linalg.norm(scale[:, 1] - scale[:, 0], axis=-1))
    moved = points if reference is None else points - scale
    return float(np.sqrt(np.mean(np.diff(moved, 2, axis=0) ** 2) / 6) / max(eyes, 1e-9))
