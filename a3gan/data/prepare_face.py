"""One picture of `prepare`: read, find the face, align, encode; or the reason why not."""

from __future__ import annotations

import hashlib
import io
import math
import threading

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from a3gan.data import align
from a3gan.data.archive_file import MATRIX_COLUMNS, landmark_cells
from a3gan.data.prepare_sources import Missing, Source
from a3gan.data.ranges import upright_rgb

MIN_SIDE = 16  # px; below this no face can be aligned
MIN_EYE_DISTANCE = 10.0  # px in the source; see prepare()
# A face is the picture's subject when it is this many times as high as the next; the rest are bystanders.
CLEARLY_LARGEST = 1.5
DETECT_SIDE = 1280  # px; larger pictures are searched at this size
REASONS = ("missing", "unreadable", "tiny", "faceless", "multi-face")


class Skip(Exception):
    """This picture is left out; the text is one of REASONS."""


class FaceWork:
    """Source -> (encoded picture, index row), or (b"", {"skip": reason, "why": text})."""

    def __init__(self, frame: str, size: int, min_eye_distance: float, detector: object | None):
        self.frame, self.size, self.min_eye_distance, self.detector = frame, size, min_eye_distance, detector
        self._lock = threading.Lock()

    def __call__(self, source: Source) -> tuple[bytes, dict[str, str]]:
        try:
            return self._align(source)
        except Skip as skip:
            return b"", {"skip": skip.args[0], "why": skip.args[1]}

    def _align(self, source: Source) -> tuple[bytes, dict[str, str]]:
        data, image = _open(source)
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise Skip("tiny", f"{width} x {height} px")
        if source.points is not None:
            points = np.array(source.points, dtype=np.float64).reshape(5, 2)
        else:
            points = self._detect(image)
        eyes = math.dist(points[0], points[1])
        # In profile the eyes fall together while the face is large, so the drop from eyes to mouth counts as well.
        reach = max(eyes, math.dist(points[:2].mean(0), points[3:].mean(0)))
        if not reach >= self.min_eye_distance:
            raise Skip("tiny", f"eyes {eyes:.1f} px apart, limit {self.min_eye_distance:g}")
        center = points.mean(0)
        if not (0 <= center[0] < width and 0 <= center[1] < height and reach <= max(height, width)):
            raise Skip("unreadable", f"its landmarks do not lie in its {width} x {height} px")
        matrix = align.similarity(points[None], self.frame, self.size)[0]
        if not torch.isfinite(matrix).all() or float(torch.linalg.det(matrix[:, :2])) < 1e-8:
            raise Skip("unreadable", "its five landmarks fit no face")
        aligned, outside = align.warp(image, matrix, self.size)
        row = {"split": source.split, "identity": source.identity, **source.labels, "source": source.name}
        row |= {"source_sha256": hashlib.sha256(data).hexdigest(), "eye_distance": f"{eyes:.1f}"}
        row |= {c: f"{v:.9g}" for c, v in zip(MATRIX_COLUMNS, matrix.reshape(-1).tolist(), strict=True)}
        row |= landmark_cells(align.transform_points(torch.from_numpy(points), matrix))
        row["outside"] = f"{outside:.4f}"
        buffer = io.BytesIO()
        # Measured on LFW at 128 px: 47.6 dB at 9 KB, and loads twice as fast as WebP 95 (43.3 dB, 4 KB, its chroma
        # always halved) or PNG (24 KB).
        Image.fromarray(aligned).save(buffer, "JPEG", quality=97, subsampling="4:4:4")
        return buffer.getvalue(), row

    def _detect(self, image: np.ndarray) -> np.ndarray:
        with self._lock:
            if self.detector is None:
                from a3gan.media.detect import load_detector

                self.detector = load_detector("mtcnn")
        # Faces that a picture is about are still found at this size, and large photos take seconds less.
        shrink = max(1.0, max(image.shape[:2]) / DETECT_SIDE)
        small = image
        if shrink > 1.0:
            side = [max(1, round(n / shrink)) for n in image.shape[1::-1]]
            small = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX))
        try:
            faces = self.detector.detect([small])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise Skip("unreadable", f"the detector failed ({error})") from error
        if not len(faces):
            raise Skip("faceless", "no face found")
        heights = faces.heights
        order = np.argsort(-heights, kind="stable")
        if len(order) > 1 and heights[order[0]] < CLEARLY_LARGEST * heights[order[1]]:
            high = " and ".join(f"{h:.0f}" for h in heights[order[:2]])
            raise Skip("multi-face", f"{len(order)} faces, the largest {high} px high")
        scale = np.array(image.shape[1::-1]) / np.array(small.shape[1::-1])
        return (faces.landmarks[order[0]].astype(np.float64) + 0.5) * scale - 0.5


def _open(source: Source) -> tuple[bytes, np.ndarray]:
    """The file's bytes and its picture, uint8 [H, W, 3] RGB, upright."""
    try:
        data = source.read()
        with Image.open(io.BytesIO(data)) as picture:
            return data, np.asarray(upright_rgb(picture))
    except Missing:
        raise Skip("missing", "named by the table, but not there") from None
    except UnidentifiedImageError:
        raise Skip("unreadable", "no picture, or of a kind this Pillow cannot read") from None
    except Exception as error:  # Pillow raises nearly anything on damaged files, and one must not stop the rest
        raise Skip("unreadable", f"{type(error).__name__}: {error}") from error
