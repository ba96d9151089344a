"""Smoothing of tracks without lag, and the measure of jitter.

Plain numpy: scipy's filters give the same, but their modules take as long to import as 60 frames to search.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


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
    bent = pchip(frames, values, every)
    after = np.minimum(np.searchsorted(frames, every), len(frames) - 1)
    gap = frames[after] - frames[np.maximum(after - 1, 0)]
    return np.where((gap <= curved)[:, None], bent, straight)


def savgol(values: np.ndarray, window: int) -> np.ndarray:
    """Savitzky-Golay of order 2 along the first axis; short runs get a shorter window, below 3 values none."""
    window = min(window, len(values)) if min(window, len(values)) % 2 else min(window, len(values)) - 1
    if window < 3:
        return values
    half = window // 2
    powers = np.arange(-half, half + 1.0)[:, None] ** np.arange(min(2, window - 2) + 1)
    fitted = powers @ np.linalg.pinv(powers)  # [window, window]: values to those of the parabola through them
    out = np.empty_like(values)
    out[half:-half] = sliding_window_view(values, window, 0) @ fitted[half]
    # At the ends the first and the last parabola go on.
    out[:half], out[-half:] = fitted[:half] @ values[:window], fitted[-half:] @ values[-window:]
    return out


def pchip(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Monotone cubic interpolation (Fritsch and Butland 1984): values [T, k] at `at`, within x, of y [n, k] at x.

    x [n] rises, n at least 3. As scipy's `PchipInterpolator`.
    """
    step = np.diff(x).astype(np.float64)[:, None]
    slope = np.diff(y, axis=0) / step
    near, far = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    bent = slope[:-1] * slope[1:] > 0
    first, second = (np.where(bent, part, 1.0) for part in (slope[:-1], slope[1:]))
    inner = np.where(bent, (near + far) / (near / first + far / second), 0.0)
    ends = [_end_slope(step[i], step[j], slope[i], slope[j])[None] for i, j in ((0, 1), (-1, -2))]
    rise = np.concatenate((ends[0], inner, ends[1]))
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = step[i]
    t = (np.asarray(at, np.float64) - x[i])[:, None] / h
    # Hermite's form: values and slopes at both ends of a step.
    value = (1 + 2 * t) * (1 - t) ** 2 * y[i] + t**2 * (3 - 2 * t) * y[i + 1]
    return value + h * (t * (1 - t) ** 2 * rise[i] - t**2 * (1 - t) * rise[i + 1])


def _end_slope(h0: np.ndarray, h1: np.ndarray, m0: np.ndarray, m1: np.ndarray) -> np.ndarray:
    """Slope [k] at an end from the two steps next to it: of a parabola, kept from overshooting."""
    rise = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
    rise = np.where(np.sign(rise) != np.sign(m0), 0.0, rise)
    return np.where((np.sign(m0) != np.sign(m1)) & (np.abs(rise) > 3 * np.abs(m0)), 3 * m0, rise)


def envelope(slack: np.ndarray, window: int) -> np.ndarray:
    """A smooth curve nowhere below `slack` [T, k] (>= 0): the running mean of its running maximum."""
    if window < 3 or not slack.any():
        return slack
    window -= 1 - window % 2
    highest = _around(slack, window).max(-1)
    return np.maximum(_around(highest, window).mean(-1), slack)  # equal but for rounding


def _around(values: np.ndarray, window: int) -> np.ndarray:
    """[T, k, window]: the values about each, those at the ends repeated beyond them."""
    half = window // 2
    return sliding_window_view(np.pad(values, ((half, half), (0, 0)), mode="edge"), window, 0)


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
