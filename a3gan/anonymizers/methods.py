"""All methods by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from a3gan.anonymizers.a3gan import DEFAULT_WEIGHTS, A3ganAnonymizer, FaceModel
from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.anonymizers.classic import Blur, Identity, Pixelate, Solid
from a3gan.errors import UserError


def a3gan(weights: str | Path = DEFAULT_WEIGHTS, **options: Any) -> FaceModel:
    """Method a3gan from a checkpoint or, by the name of the file, from its ONNX export; errors: theirs."""
    suffix = Path(weights).suffix.lower()
    if suffix == ".onnx":
        from a3gan.anonymizers.onnx import OnnxAnonymizer

        return OnnxAnonymizer(weights, **options)
    if suffix == ".pt2":
        # torch.export.load unpickles what it finds in the file, and pickles run code.
        raise UserError(f"{weights}: a torch.export program is for code of your own; give the checkpoint or .onnx")
    return A3ganAnonymizer(weights, **options)


# name -> constructor; all take `device`, the trained ones `weights`, the classic ones `size` and `frame`.
METHODS: dict[str, Callable[..., FaceAnonymizer]] = {
    "a3gan": a3gan,
    "blur": Blur,
    "pixelate": Pixelate,
    "solid": Solid,
    "identity": Identity,
}


def create(name: str, **options: Any) -> FaceAnonymizer:
    """A method by name, with its constructor's options; UserError for an unknown name or option."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(METHODS)}"
        raise UserError(f"method {name!r} is unknown; {hint}")
    try:
        return METHODS[name](**options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UserError(f"method {name!r}: {str(error).split(') ')[-1]}; see `a3gan.anonymizers`") from error
