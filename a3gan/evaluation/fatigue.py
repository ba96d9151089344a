"""Yawns and closed eyes before and after: on stills by labels, on clips by what a drowsiness meter would count.

Pure functions of an attribute network's logits. The network tells open from closed and yawn from no yawn; its
probability, calibrated on validation pictures (Guo et al., 2017: one temperature), stands for the opening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval

HEADS = ("yawning", "eyes_closed")
CLOSED = 0.2  # opening below which an eye counts as closed: PERCLOS P80 (Wierwille et al., 1994)
OPEN_MOUTH = 0.5
YAWN, BRIDGE = 1.0, 0.4  # seconds: the shortest yawn, and the longest break within one
CLOSURE = 0.5  # seconds from which closed eyes are more than a blink


@dataclass(frozen=True)
class Temperatures:
    """What divides the logits of the heads; 1 = as the network says. count: validation pictures behind them."""

    eyes_closed: float = 1.0
    yawning: float = 1.0
    count: int = 0


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T in [0.1, 10] that minimises the mean cross-entropy of sigmoid(logits / T) [n] and labels [n] in {0, 1}; 1
    where a class is missing.

    The classes weigh the same: their shares in a collection are no property of drivers. The targets are Platt's (1999),
    (n + 1) / (n + 2) for n pictures of a class: few that are all told apart do not prove certainty, and T stays above
    0. Golden section over log T.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels) > 0.5
    if labels.all() or not labels.any():
        return 1.0

    def loss(log_t: float) -> float:
        signed = np.where(labels, logits, -logits) / np.exp(log_t)
        total = 0.0
        for rows in (labels, ~labels):
            sure = (rows.sum() + 1) / (rows.sum() + 2)
            total += sure * np.logaddexp(0, -signed[rows]).mean() + (1 - sure) * np.logaddexp(0, signed[rows]).mean()
        return float(total)

    low, high, ratio = np.log(0.1), np.log(10.0), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


# --- stills ---------------------------------------------------------------------------------------------------------
def stills(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    person: np.ndarray,
    found: np.ndarray,
    draw: tuple[int, int],
) -> dict[str, Interval | float]:
    """For each head with labels [N] (0, 1, NaN): NAME_agreement with its reading of the original, _agreement_found (a
    face not found counts as lost), _accuracy, _balanced (mean over the two classes), _recall (of yawns, of closed
    eyes)."""
    result: dict[str, Interval | float] = {}
    for name in HEADS:
        known = ~np.isnan(labels[name])
        if not known.any():
            continue
        was, now, truth = before[name][known] > 0, after[name][known] > 0, labels[name][known] > 0.5
        who = person[known]
        result[f"{name}_agreement"] = statistics.share(was == now, who, *draw)
        result[f"{name}_agreement_found"] = statistics.share((was == now) & found[known], who, *draw)
        result[f"{name}_accuracy"] = statistics.share(now == truth, who, *draw)
        result[f"{name}_recall"] = statistics.share(now[truth], who[truth], *draw)
        result[f"{name}_balanced"] = balanced(now == truth, truth, who, *draw)
    return result


def balanced(right: np.ndarray, label: np.ndarray, person: np.ndarray, replicates: int, seed: int) -> Interval:
    """Mean over the classes of the share that is right, people drawn; replicates that lack a class are left out.

    Where all is right (or wrong) in every class the open end is that of `statistics.share`.
    """
    right, classes = np.asarray(right, np.float64), np.unique(label)
    names, index = np.unique(person, return_inverse=True)
    value = float(np.mean([right[label == k].mean() for k in classes]))
    if len(names) < 2 or value in (0.0, 1.0):
        whole = statistics.share(right, person, replicates, seed)
        return Interval(value, whole.low, whole.high, len(right), len(names))
    weights = statistics.people_weights(len(names), replicates, seed).astype(np.float64)
    shares = []
    for k in classes:
        rows = label == k
        hits = weights @ np.bincount(index[rows], right[rows], len(names))
        total = weights @ np.bincount(index[rows], minlength=len(names))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares.append(hits / total)
    draws = np.mean(shares, 0)
    low, high = np.percentile(draws[np.isfinite(draws)], [2.5, 97.5])
    return Interval(value, float(low), float(high), len(right), len(names))


# --- clips ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reading:
    """One person's face through a clip, read at T successive frames: logits [T] of the heads, five points [T, 5, 2] in
    pixels; clip and track name it; rate: frames a second."""

    clip: str
    track: int
    rate: float
    eyes_closed: np.ndarray
    yawning: np.ndarray
    points: np.ndarray


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Of any size, without overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(x, np.float64) / 2))


def openings(reading: Reading, temperatures: Temperatures) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated opening of eyes and mouth, [T] each in [0, 1]."""
    eyes = 1 - sigmoid(reading.eyes_closed / temperatures.eyes_closed)
    return eyes, sigmoid(reading.yawning / temperatures.yawning)


def perclos(eyes: np.ndarray, closed: float = CLOSED) -> float:
    """Share of the time [T] in which the eyes are closed: opening below `closed`. NaN for no frames."""
    return float((np.asarray(eyes) < closed).mean()) if len(eyes) else float("nan")


def runs(flags: np.ndarray, shortest: int, bridge: int = 0) -> list[tuple[int, int]]:
    """Stretches [start, end) of true flags [T] of at least `shortest` frames, breaks up to `bridge` filled."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(flags, np.int8), 0]))
    joined: list[list[int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] <= bridge:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return [(start, end) for start, end in joined if end - start >= shortest]


def yawns(mouth: np.ndarray, rate: float) -> list[tuple[int, int]]:
    """Stretches of an open mouth of at least `YAWN` seconds, breaks of up to `BRIDGE` seconds within."""
    return runs(np.asarray(mouth) > OPEN_MOUTH, max(1, round(YAWN * rate)), round(BRIDGE * rate))


def clips(
    before: Sequence[Reading], after: Sequence[Reading], temperatures: Temperatures
) -> tuple[dict[str, float | int], list[dict[str, float | int | str]]]:
    """Figures over all clips, weighted by frames, and those of each track; the two lists pair off.

    eye_error, mouth_error: mean absolute difference of the calibrated openings; eye_, mouth_correlation over time;
    perclos, perclos_before, perclos_error; yawns, yawns_before, yawns_missed, yawns_added (a yawn is met where half of
    it is also a yawn in the other clip); closures the same (eyes closed for `CLOSURE` seconds); jitter, jitter_before:
    trembling of the five points by themselves, jitter_added: of their difference from the original's.
    """
    records = [_of_track(old, new, temperatures) for old, new in zip(before, after, strict=True)]
    if not records:
        return {}, []
    total = sum(r["frames"] for r in records)
    result: dict[str, float | int] = {"clips": len({r["clip"] for r in records}), "tracks": len(records)}
    result["frames"] = total
    for name in records[0]:
        if name in ("clip", "track", "frames"):
            continue
        if isinstance(records[0][name], int):
            result[name] = int(sum(r[name] for r in records))
        else:
            known = [r for r in records if not np.isnan(r[name])]
            weight = sum(r["frames"] for r in known)
            result[name] = sum(r[name] * r["frames"] for r in known) / weight if known else float("nan")
    return result, records


def _of_track(before: Reading, after: Reading, temperatures: Temperatures) -> dict[str, float | int | str]:
    from a3gan.media.track_smooth import jitter

    eyes, mouth = (
        np.stack(pair) for pair in zip(openings(before, temperatures), openings(after, temperatures), strict=True)
    )
    shut = [runs(opening < CLOSED, max(1, round(CLOSURE * before.rate))) for opening in eyes]
    gapes = [yawns(opening, before.rate) for opening in mouth]
    return {
        "clip": before.clip,
        "track": before.track,
        "frames": len(before.eyes_closed),
        "eye_error": float(np.abs(eyes[0] - eyes[1]).mean()),
        "eye_correlation": correlation(*eyes),
        "mouth_error": float(np.abs(mouth[0] - mouth[1]).mean()),
        "mouth_correlation": correlation(*mouth),
        "perclos_before": perclos(eyes[0]),
        "perclos": perclos(eyes[1]),
        "perclos_error": abs(perclos(eyes[0]) - perclos(eyes[1])),
        "yawns_before": len(gapes[0]),
        "yawns": len(gapes[1]),
        "yawns_missed": len(gapes[0]) - _met(gapes[0], gapes[1]),
        "yawns_added": len(gapes[1]) - _met(gapes[1], gapes[0]),
        "closures_before": len(shut[0]),
        "closures": len(shut[1]),
        "closures_missed": len(shut[0]) - _met(shut[0], shut[1]),
        "closures_added": len(shut[1]) - _met(shut[1], shut[0]),
        "jitter_before": jitter(before.points),
        "jitter": jitter(after.points),
        "jitter_added": jitter(after.points, before.points),
    }


def _met(events: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
    """How many events [start, end) have half of their length covered by the others."""

    def covered(start: int, end: int) -> int:
        return sum(max(0, min(end, e) - max(start, s)) for s, e in others)

    return sum(2 * covered(start, end) >= end - start for start, end in events)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; NaN where one does not move."""
    a, b = np.asarray(a, np.float64) - np.mean(a), np.asarray(b, np.float64) - np.mean(b)
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 1e-12 else float("nan")
