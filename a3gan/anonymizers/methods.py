"""All methods by name, and their options. Importing this loads no method: each is imported when it is made."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer


@dataclass(frozen=True)
class Entry:
    """One method. module, kind: where its class stands. about: what it does, in half a line.

    weights: name of its shipped weights; None for a method that has none. stages: of checkpoints whose first use it is.
    needs: packages beyond the required ones, all in the extra `methods`. notes: what whoever runs it must know first.
    """

    module: str
    kind: str
    about: str
    weights: str | None = None
    stages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


METHODS: dict[str, Entry] = {
    "a3gan": Entry(
        "a3gan.anonymizers.a3gan", "A3ganAnonymizer", "suppresses identity in features, injects other attributes",
        weights="a3gan_64", stages=("a3gan",),
    ),
    "falco": Entry(
        "a3gan.anonymizers.falco", "Falco", "searches a generator's code for another identity, same looks",
        weights="falco_64", stages=("falco",),
        notes=("it optimises each face in steps: slow", "in clips the person changes from frame to frame, but with "
               "--option neighbour=seed"),
    ),
    "facemae": Entry(
        "a3gan.anonymizers.facemae", "FaceMae", "masks most of a face and draws the rest anew",
        weights="facemae_64", stages=("facemae",), needs=("timm",),
        notes=("it makes sets to train on and keeps who resembles whom: not for hiding who is on a picture",),
    ),
    "diff_privacy": Entry(
        "a3gan.anonymizers.diff_privacy", "DiffPrivacy", "noises a face and denoises it to somebody else",
        weights="diff_privacy_64", stages=("diffusion", "msi"), needs=("diffusers",),
        notes=("it denoises each face in steps: slow",),
    ),
    "k_same": Entry(
        "a3gan.anonymizers.k_same", "KSame", "the mean of the k generated faces most alike, the classic",
        weights="falco_64",
    ),
    "blur": Entry("a3gan.anonymizers.classic", "Blur", "Gaussian blur"),
    "pixelate": Entry("a3gan.anonymizers.classic", "Pixelate", "mosaic of the face"),
    "solid": Entry("a3gan.anonymizers.classic", "Solid", "one grey in place of the face"),
    "identity": Entry("a3gan.anonymizers.classic", "Identity", "changes nothing: the ceiling of every comparison"),
}  # fmt: skip
SHARED = ("self", "weights", "device", "size", "frame")  # arguments of constructors that are no options of a method


def create(name: str, weights: str | Path | None = None, **arguments: Any) -> FaceAnonymizer:
    """A method by name, on `device`, with its own options.

    weights: None = those that are shipped for it. arguments: `device`, for the classic ones `size` and `frame`, and the
    options of `options_of`. UserError: an unknown name or option, weights for a method that has none, a package that is
    not installed, and whatever the method refuses.
    """
    entry = entry_of(name)
    if weights is not None and entry.weights is None:
        raise UserError(f"weights {weights}: method {name} has none; leave them out")
    kind = _class(name, weights)
    own = {key for key in arguments if key not in SHARED}
    accepted = inspect.signature(kind.__init__).parameters
    if wrong := sorted(own - set(options_of(name, weights))):
        raise _unknown_option(name, wrong[0], weights)
    arguments = {key: value for key, value in arguments.items() if key in own or key in accepted}
    if entry.weights is not None:
        arguments["weights"] = entry.weights if weights is None else weights
    made = kind(**arguments)
    made.options = {key: value for key, value in arguments.items() if key in own}
    return made


def entry_of(name: str) -> Entry:
    """The method's entry; UserError with the nearest name for one that there is not."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(METHODS)}"
        raise UserError(f"method {name!r} is unknown; {hint}")
    return METHODS[name]


def method_of_stage(stage: str | None) -> str | None:
    """The method that takes checkpoints of a stage; None for other stages."""
    return next((name for name, entry in METHODS.items() if stage in entry.stages), None)


def method_of_weights(weights: str | Path) -> str:
    """The method that a checkpoint or ONNX export is of, by its stage; of none: a3gan, which says what is wrong."""
    from a3gan import checkpoint

    if Path(weights).suffix.lower() in (".onnx", ".pt2"):
        return "a3gan"
    return method_of_stage(checkpoint.load_meta(checkpoint.resolve(weights)).get("stage")) or "a3gan"


def missing(name: str) -> list[str]:
    """Packages that the method needs and this installation lacks."""
    return [package for package in entry_of(name).needs if importlib.util.find_spec(package) is None]


def _class(name: str, weights: str | Path | None = None) -> type[FaceAnonymizer]:
    entry = entry_of(name)
    suffix = Path(weights).suffix.lower() if weights is not None else ""
    if name == "a3gan" and suffix == ".onnx":
        from a3gan.anonymizers.onnx import OnnxAnonymizer

        return OnnxAnonymizer
    if name == "a3gan" and suffix == ".pt2":
        # torch.export.load unpickles what it finds in the file, and pickles run code.
        raise UserError(f"{weights}: a torch.export program is for code of your own; give the checkpoint or .onnx")
    if lacking := missing(name):
        raise UserError(f"method {name}: needs {', '.join(lacking)}; pip install 'a3gan[methods]'")
    return getattr(importlib.import_module(entry.module), entry.kind)


# --- options --------------------------------------------------------------------------------------------------------
def options_of(name: str, weights: str | Path | None = None) -> dict[str, inspect.Parameter]:
    """The constructor's own options: name -> parameter, its annotation evaluated."""
    constructor = _class(name, weights).__init__
    hints = typing.get_type_hints(constructor)
    known = inspect.signature(constructor).parameters
    named = {key: p for key, p in known.items() if key not in SHARED and p.kind is not p.VAR_KEYWORD}
    return {key: p.replace(annotation=hints.get(key, Any)) for key, p in named.items()}


def parse_options(name: str, texts: Sequence[str], weights: str | Path | None = None) -> dict[str, Any]:
    """`["margin=0.5", "steps=25"]` as the constructor takes them; UserError: see `checked_options`."""
    from a3gan.config import parse_yaml

    values = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise UserError(f"option {text!r}: write KEY=VALUE; method {name} knows {_known(name, weights)}")
        values[key] = parse_yaml(value, f"option {text!r}")
    return checked_options(name, values, weights)


def checked_options(name: str, values: Mapping[str, Any], weights: str | Path | None = None) -> dict[str, Any]:
    """Options brought to the types of the constructor's signature, as JSON holds them (a tuple is a list).

    UserError: one that the method does not have, with the nearest that it has; a value of another type.
    """
    if not values:
        return {}
    from pydantic import TypeAdapter, ValidationError

    known, checked = options_of(name, weights), {}
    for key, value in values.items():
        if key not in known:
            raise _unknown_option(name, key, weights)
        kind = TypeAdapter(known[key].annotation)
        for candidate in (value, str(value)):  # 12 may be meant as a word
            try:
                checked[key] = kind.dump_python(kind.validate_python(candidate), mode="json")
                break
            except ValidationError as error:
                text = error.errors()[0]["msg"].lower()
        else:
            raise UserError(f"method {name}: option {key}={value!r}: {text}")
    return checked


def describe(name: str) -> list[str]:
    """What it is, its notes, and an option a line with its default; for people."""
    entry, lacking = entry_of(name), missing(name)
    lines = [f"{name}: {entry.about}", *(f"  {note}" for note in entry.notes)]
    lines += [f"  weights: {entry.weights}"] * (entry.weights is not None)
    if lacking:
        return [*lines, f"  needs {', '.join(lacking)}: pip install 'a3gan[methods]'"]
    for key, option in options_of(name).items():
        kind = inspect.formatannotation(option.annotation).replace("pathlib.Path", "Path").replace("typing.", "")
        default = list(option.default) if isinstance(option.default, tuple) else option.default
        lines.append(f"  --option {key}={'null' if default is None else default}  ({kind})")
    return lines


def _unknown_option(name: str, key: str, weights: str | Path | None) -> UserError:
    known = options_of(name, weights)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"the nearest is {close[0]}" if close else f"it knows {_known(name, weights)}"
    return UserError(f"method {name}: has no option {key}; {hint}")


def _known(name: str, weights: str | Path | None) -> str:
    return ", ".join(options_of(name, weights)) or "none"
