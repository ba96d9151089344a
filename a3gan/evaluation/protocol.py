"""What an evaluation config says: who is judged by whom, on which pictures, under which policy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from a3gan import config
from a3gan.data.attributes import Policy
from a3gan.errors import UserError
from a3gan.schema import Count, Positive, Recogniser, Section, key, section

METHODS = ("a3gan", "blur", "pixelate", "solid", "identity")
DEGRADATIONS = ("none", "jpeg75", "half")


def _words(value: Any) -> Any:
    """`a3gan,blur` on a command line is a list."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Method = Literal["a3gan", "blur", "pixelate", "solid", "identity"]
Degradation = Literal["none", "jpeg75", "half"]


class EvalRun(Section):
    dir: str = key("runs/evaluation", "folder of the results; its cache makes a repeated run fast")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto = cuda where there is one")
    batch: Positive = key(32, "pictures a pass")
    threads: Count = key(0, "CPU threads; 0 = torch's own choice")


class EvalData(Section):
    path: str | None = key(None, "archive of `a3gan prepare`; null = rendered faces")
    photos: str | None = key(
        None,
        "folder or zip it was prepared from: faces are pasted into the photos and those are judged; null = the crops",
    )
    split: str = key("test", "split that is judged; people that no training saw")
    max_images: Count = key(0, "use whole people up to about this many pictures, for a quick look; 0 = all")
    synthetic_count: Positive = key(400, "rendered faces, when path is null")
    synthetic_people: Positive = key(100, "people among them")
    synthetic_size: Positive = key(64, "their side in pixels")


class Judge(Recogniser):
    name: str = key("", "what the tables call it: letters, digits, _ and -; empty = its kind", pattern=r"^[\w-]*$")


class EvalConfig(Section):
    method: Annotated[list[Method], BeforeValidator(_words)] = key(
        ["a3gan", "identity"], f"of {', '.join(METHODS)}", min_length=1
    )
    weights: str | None = key(None, "path or name of the A3GAN checkpoint; null = the shipped one")
    judges: list[Judge] = key(
        [], "recognisers that judge, each {name, kind, path}; none may have been used in training"
    )
    attributes_judge: str | None = key(
        None, "path or name of the attribute network that judges; null = no expression figures"
    )
    policy: str = key("", "what stays and what may change; empty = the preset expression")
    alpha: float = key(1.0, "suppression dial", ge=0, le=1)
    seed: Count = key(0, "of the new faces, the bootstrap and the shuffled labels")
    far: float = key(1e-3, "false match rate that fixes the threshold, on pairs of originals", gt=0, lt=1)
    degradations: Annotated[list[Degradation], BeforeValidator(_words)] = key(
        list(DEGRADATIONS), "what happens to a picture before it is judged", min_length=1
    )
    bootstrap: Positive = key(1000, "replicates behind each interval")
    min_face: Annotated[int, Field(ge=24)] = key(
        40, "smallest face the detector looks for, in pixels; half of it at half size"
    )
    data: EvalData = section(EvalData, "pictures")
    run: EvalRun = section(EvalRun, "the run: folder, machine")

    @property
    def run_dir(self) -> Path:
        """Relative ones start at the working folder."""
        return Path(self.run.dir)


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> EvalConfig:
    """Reads an evaluation YAML (`base:` and `key=value` overrides as in training configs).

    UserError names the file or override, the key, and for an unknown key the nearest valid one.
    """
    origins: dict[str, str] = {}
    values = config._read_chain(config.find_config(path), origins, ())
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise UserError(f"override {override!r}: write key=value, for example data.max_images=200")
        config._set(values, name.strip(), config._parse(text, f"override {override!r}"), override)
        origins[name.strip()] = f"override {override!r}"
    try:
        cfg = EvalConfig.model_validate(config._without_empty_sections(values, EvalConfig))
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0], origins, str(path))) from error
    Policy.parse(cfg.policy)  # a wrong one fails here, before anything is loaded
    # "none" comes first: it gives the boxes and decisions that the degraded pictures are compared with.
    order = [d for d in DEGRADATIONS if d == "none" or d in cfg.degradations]
    return cfg.model_copy(update={"degradations": order, "method": list(dict.fromkeys(cfg.method))})


def _explain(problem: dict[str, Any], origins: dict[str, str], source: str) -> str:
    dotted = ".".join(str(part) for part in problem["loc"])
    where = config._origin(dotted, origins, source)
    if problem["type"] == "extra_forbidden":
        leaf = dotted.rsplit(".", 1)[-1]
        keys = list(config.all_keys(EvalConfig))

        def likeness(name: str) -> float:
            return max(
                difflib.SequenceMatcher(None, a, b).ratio()
                for a, b in ((dotted, name), (leaf, name.rsplit(".", 1)[-1]))
            )

        return f"{where}: unknown key {dotted}; the nearest valid key is {max(keys, key=likeness)}"
    return f"{where}: {dotted}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r}"
