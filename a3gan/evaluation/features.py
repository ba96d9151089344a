"""Pictures to features, computed once: what every scorer says of every method and degradation, cached by content.

The name of a cached file is a hash of all that its content follows from: data, method with weights and settings,
degradation, scorer, and the first pictures themselves, so that a change of code that changes pictures is noticed too.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.data.ranges import to_uint8
from a3gan.evaluation.pictures import Originals, View, batches, degraded
from a3gan.files import replacing

if TYPE_CHECKING:
    from a3gan.media.detect import Faces
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.identity import Recogniser

VERSION = 1  # raise it when the features of the same pictures change
PROBE = 4  # pictures hashed into the name
JUDGE_SIDE = (
    160  # px of the frame `ffhq`, which holds every recogniser's crop whole; eyes 40 px apart there, 35 in the crops
)
CROP_SIDE = 128  # px of the frame `face`

Features = dict[str, np.ndarray]
Source = Callable[[list[int]], tuple[View, np.ndarray]]  # rows -> pictures, and which were mosaicked


class Embedding:
    """A recogniser on the face cut out by the original's five points: `embedding` float32 [B, E], unit length."""

    def __init__(self, recogniser: Recogniser, device: torch.device):
        self.recogniser, self.device = recogniser.to(device), device
        self.identity = recogniser.fingerprint

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> Features:
        faces = view.aligned("ffhq", JUDGE_SIDE).to(self.device)
        return {"embedding": self.recogniser(faces, "ffhq").float().cpu().numpy()}


class Attributes:
    """An attribute network on the same cut in frame `face`: each head's output, float32 [B, ...]."""

    def __init__(self, network: AttributeNetwork, device: torch.device):
        self.network, self.device = network.to(device), device
        self.identity = network.fingerprint

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> Features:
        outputs = self.network(view.aligned("face", CROP_SIDE).to(self.device))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}


class Detection:
    """Every face that a detector finds, in the whole picture or in the aligned crop: boxes of all pictures one after
    another.

    `boxes` float32 [M, 4], `probability` [M], `number` int64 [B], how many of them belong to each picture.
    """

    def __init__(self, detectors: dict[str, Any], crop: bool, degradations: tuple[str, ...] | None = None):
        self.detectors, self.crop = detectors, crop
        if degradations is not None:
            self.degradations = degradations
        some = detectors["none"]
        self.identity = f"{some.name}:{some.min_face}:{'crop' if crop else 'picture'}"

    def __call__(self, view: View, degradation: str) -> Features:
        if self.crop:
            pictures = list(to_uint8(view.aligned("face", CROP_SIDE)).permute(0, 2, 3, 1).numpy())
            found = self.detectors["none"].detect(pictures)
        else:
            found = self.detectors[degradation if degradation in self.detectors else "none"].detect(view.pictures)
        return {
            "boxes": np.concatenate([f.boxes for f in found]).astype(np.float32),
            "probability": np.concatenate([f.probability for f in found]).astype(np.float32),
            "number": np.array([len(f) for f in found], np.int64),
        }


def detector_scorers(load: Callable[[int], Any], min_face: int, second: bool = False) -> dict[str, Detection]:
    """The two detection scorers; at half size the smallest face is half as large too, but at least 12 px (MTCNN's).

    second: `load` gives the second detector, which looks at the whole picture only, and not after JPEG: it is slow.
    """
    detectors = {"none": load(min_face), "half": load(max(12, min_face // 2))}
    if second:
        return {"second": Detection(detectors, crop=False, degradations=("none", "half"))}
    return {"detector": Detection(detectors, crop=False), "detector_crop": Detection(detectors, crop=True)}


def as_faces(features: Features) -> list[Faces]:
    """The cached boxes as one `Faces` per picture (without landmarks)."""
    from a3gan.media.detect import Faces

    ends = features["number"].cumsum()
    cut = [slice(end - n, end) for end, n in zip(ends, features["number"], strict=True)]
    return [
        Faces(features["boxes"][s], features["probability"][s], np.zeros((s.stop - s.start, 5, 2), np.float32))
        for s in cut
    ]


Scorer = Any  # (View, degradation) -> Features; `identity`: what they follow from; `degradations`: if not all of them


def collect(
    source: Source,
    count: int,
    scorers: dict[str, Scorer],
    degradations: Sequence[str],
    key: dict[str, Any],
    cache: Path,
    batch: int = 32,
    title: str = "",
) -> dict[tuple[str, str], Features]:
    """Features by (degradation, scorer) of the `count` pictures of a source, from the cache where they are there.

    `key` holds what the pictures follow from (data, method, settings). Each array has a row per picture, but `boxes`
    and `probability`. The entry ("none", "mosaicked") has `mosaicked`, bool [count].
    """
    from tqdm import tqdm

    names = _file_names(source, min(count, PROBE), scorers, degradations, key, cache)
    done = {what: read_cached(path) for what, path in names.items()}
    missing = [what for what, features in done.items() if features is None]
    if missing:
        parts: dict[tuple[str, str], list[Features]] = {what: [] for what in missing}
        with tqdm(total=count, desc=title, unit="picture", dynamic_ncols=True) as bar:
            for rows in batches(count, batch):
                view, mosaicked = source(rows)
                for degradation in dict.fromkeys(d for d, _ in missing):
                    seen = degraded(view, degradation)
                    for scorer in [s for d, s in missing if d == degradation]:
                        made = {"mosaicked": mosaicked} if scorer == "mosaicked" else scorers[scorer](seen, degradation)
                        parts[degradation, scorer].append(made)
                bar.update(len(rows))
        for what, pieces in parts.items():
            done[what] = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
            write_cached(names[what], done[what])
    return done


def _file_names(
    source: Source,
    probe: int,
    scorers: dict[str, Scorer],
    degradations: Sequence[str],
    key: dict[str, Any],
    cache: Path,
) -> dict[tuple[str, str], Path]:
    view, _ = source(list(range(probe)))
    wanted = [("none", "mosaicked", "")]
    for d in degradations:
        for name, scorer in scorers.items():
            if d in getattr(scorer, "degradations", degradations):
                wanted.append((d, name, scorer.identity))
    names = {}
    for degradation, name, identity in wanted:
        digest = hashlib.sha256(json.dumps([VERSION, key, degradation, identity], sort_keys=True).encode())
        for picture in degraded(view, degradation).pictures:
            digest.update(f"{picture.shape}".encode() + picture.tobytes())
        names[degradation, name] = cache / f"{name}-{degradation}-{digest.hexdigest()[:24]}.npz"
    return names


def read_cached(path: Path) -> Features | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):  # a cut file is made again
        return None


def write_cached(path: Path, features: Features) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **features)


def original_source(originals: Originals) -> Source:
    """The untouched pictures as a source."""

    def read(rows: list[int]) -> tuple[View, np.ndarray]:
        return originals.view(rows), np.zeros(len(rows), bool)

    return read
