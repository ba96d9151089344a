"""Which found faces can be replaced at all: rules on the five points alone, the same for photos and videos."""

from __future__ import annotations

import numpy as np

PROFILE = 0.45  # on a street, faces from the front gave up to .3, half profiles .35, profiles .45 to .9


def unfit(box: np.ndarray, landmarks: np.ndarray) -> str:
    """Why a face must be redacted instead, '' if it need not. box [4] and landmarks [5, 2] in the same pixels."""
    if not plausible(box, landmarks):
        return "its points do not fit its box"
    return "seen from the side" if sideways(landmarks) else ""


def plausible(box: np.ndarray, landmarks: np.ndarray) -> bool:
    """Whether five points can be those of the face in the box; if not, an oval put by them might miss the face."""
    if not np.isfinite(landmarks).all():
        return False
    size = np.maximum(np.asarray(box[2:]) - np.asarray(box[:2]), 1e-6)
    middle = (landmarks.mean(0) - box[:2]) / size
    spread = np.sqrt(((landmarks - landmarks.mean(0)) ** 2).sum(1).mean()) / np.sqrt(size.prod())
    return bool((middle > 0.15).all() and (middle < 0.85).all() and 0.12 < spread < 0.6)


def sideways(landmarks: np.ndarray) -> bool:
    """Whether five points [5, 2] show a profile: the nose lies `PROFILE` eye distances or more off the eyes' middle.

    New faces are made for an oval about both eyes; on a profile it misses the outline of forehead, nose and chin, which
    would stay, and the points themselves are half a guess.
    """
    across = landmarks[1] - landmarks[0]
    offset = (landmarks[2] - landmarks[:2].mean(0)) @ across
    return bool(abs(offset) >= PROFILE * max(float(across @ across), 1e-12))
