"""Strips of faces for the page: a few people, as they are and after each method, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from a3gan.data.ranges import to_uint8

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.evaluation.pictures import Originals, View
    from a3gan.evaluation.protocol import EvalConfig

SIDE = 96  # px of a face on the page
SEED = 4_000_037  # of the drawn people; the judged ones, the learning ones and training's have others


def strips(cfg: EvalConfig, originals: Originals, methods: Mapping[str, FaceAnonymizer]) -> dict[str, bytes]:
    """`original` and every method -> PNG of `report.people` faces side by side; {} where none are wanted.

    Drawn faces unless `report.faces` is own: the first picture of each of the first judged people. A method of another
    frame than the drawn ones gets its own drawings.
    """
    from a3gan.anonymizers.base import face_seed
    from a3gan.data.attributes import Policy
    from a3gan.evaluation.pictures import Method

    count = cfg.report.people
    if cfg.report.faces == "none" or not count:
        return {}
    found: dict[str, bytes] = {}
    for name, method in methods.items():
        shown, rows = (
            (originals, _people(originals, count)) if cfg.report.faces == "own" else _drawn(count, method.frame)
        )
        policy = Policy.parse(cfg.policy) if "policy" in method.supports else None
        alpha = cfg.alpha if "alpha" in method.supports else 1.0
        seeds = [face_seed(cfg.seed, file) for file in shown.faces.files]
        found.setdefault("original", _strip(shown.view(rows)))
        found[name] = _strip(Method(method, policy, alpha, seeds).apply(shown, rows)[0])
    return found


def _people(originals: Originals, count: int) -> list[int]:
    """The first picture of each of the first people."""
    _, first = np.unique(np.array(originals.faces.identity), return_index=True)
    return sorted(first.tolist())[:count]


def _drawn(count: int, frame: str) -> tuple[Originals, list[int]]:
    from a3gan.data.synthetic import synthetic_faces
    from a3gan.evaluation.pictures import Originals

    return Originals(synthetic_faces(count, SIDE, SEED, frame, identities=count)), list(range(count))


def _strip(view: View) -> bytes:
    from PIL import Image

    faces = to_uint8(view.aligned("face", SIDE)).permute(0, 2, 3, 1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(faces), axis=1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
