"""Detectors that need no networks."""

from __future__ import annotations

import numpy as np

from a3gan.data.align import template
from a3gan.media.detect import Faces


class BrightDetector:
    """One face, 64 px frame at (40, 20), in pictures that are bright in their first pixel; none in others."""

    def detect(self, images):
        face = Faces(
            np.array([[50.0, 26.0, 94.0, 80.0]], np.float32), np.ones(1, np.float32),
            (template("face", 64).numpy() + (40.0, 20.0))[None].astype(np.float32),
        )  # fmt: skip
        return [face if image[0, 0].mean() > 128 else Faces.none() for image in images]
