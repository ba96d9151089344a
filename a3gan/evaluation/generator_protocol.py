"""What an evaluation of a generator says: whose samples, beside which faces, judged by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from a3gan import checkpoint
from a3gan.config import load_as, read
from a3gan.evaluation.protocol import EvalRun, Judge
from a3gan.schema import Count, Positive, Section, Weight, key, section


class Faces(Section):
    path: str | list[str] = key(..., "archive(s) of `a3gan prepare`; shrunk to the generator's size")
    split: str = key("test", "split that the samples are compared with")
    split_train: str = key("train", "split that the generator has seen, in which memorised faces are looked for")
    max_images: Count = key(0, "at most so many faces of each split, for a quick look; 0 = all")


class Paths(Section):
    count: Positive = key(64, "pairs of codes")
    steps: Annotated[int, Field(ge=2)] = key(32, "steps from one to the other")


class Inversion(Section):
    images: Count = key(64, "faces of the split that are inverted, spread over it; 0 = none")
    steps: Positive = key(500, "steps of Adam on W+")
    rate: float = key(0.05, "its learning rate at the start; it falls to 0 by a cosine", gt=0)
    perceptual: Weight = key(1.0, "weight of the perceptual distance beside the mean square")
    attributes: str = key("attributes_loss", "path or name of the attribute network of that distance; not a judge")


class GeneratorConfig(Section):
    generator: str = key(..., "path or name of a checkpoint or carry that holds a generator")
    judge: Judge = key(..., "the recogniser that judges: {name, kind, path}; no loss may have used it")
    attributes_judge: str = key(
        "attributes_judge", "path or name of the attribute network whose features judge; no loss may have used it"
    )
    data: Faces = key(..., "faces to compare with")
    samples: Annotated[int, Field(ge=8)] = key(4000, "generated faces")
    truncation: float = key(1.0, "of the codes in W: 1 = none, 0 = the mean face", ge=0, le=1)
    seed: Count = key(0, "of the samples, the paths and the bootstrap")
    far: float = key(1e-3, "false match rate that fixes the threshold, on pairs of real faces", gt=0, lt=1)
    neighbours: Positive = key(3, "k of precision and recall")
    min_face: Annotated[int, Field(ge=12)] = key(40, "smallest face the detector looks for, in crops of 128 px")
    paths: Paths = section(Paths, "interpolation")
    inversion: Inversion = section(Inversion, "faces given back from W+")
    run: EvalRun = section(EvalRun, "the run: folder, machine")

    @property
    def archives(self) -> list[str]:
        return [self.data.path] if isinstance(self.data.path, str) else self.data.path


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = (), limit: int | None = None) -> GeneratorConfig:
    """Reads the YAML of a generator's evaluation; UserError as `config.load_config`.

    limit: a quick look with about so many samples and faces, and fewer paths and inversions.
    """
    cfg = load_as(GeneratorConfig, path, overrides)
    if limit is None:
        return cfg
    few = max(1, limit // 16)
    data = cfg.data.model_copy(update={"max_images": limit})
    paths = cfg.paths.model_copy(update={"count": min(cfg.paths.count, few)})
    inversion = cfg.inversion.model_copy(update={"images": min(cfg.inversion.images, few)})
    samples = max(8, min(cfg.samples, limit))
    return cfg.model_copy(update={"samples": samples, "data": data, "paths": paths, "inversion": inversion})


def is_generator(path: str | Path) -> bool:
    """Whether a YAML is a generator's evaluation: it names a generator at its top."""
    values, _ = read(path)
    return "generator" in values and "stage" not in values


def missing(cfg: GeneratorConfig) -> list[str]:
    """One line for each file that is not there: the key, the file, how to get it."""
    wanted = {"generator": cfg.generator, "attributes_judge": cfg.attributes_judge}
    wanted |= {"inversion.attributes": cfg.inversion.attributes} if cfg.inversion.images else {}
    wanted |= {"judge.path": cfg.judge.path} if cfg.judge.path else {}
    lines = checkpoint.missing(wanted)
    text = "no such archive; make one with `a3gan prepare`"
    return lines + [f"data.path: {path}: {text}" for path in cfg.archives if not Path(path).is_file()]


def dry_run(cfg: GeneratorConfig) -> str:
    """What would be measured, in lines, and what is missing."""
    lacking = missing(cfg)
    lines = [
        f"generator {cfg.generator}: {cfg.samples} samples, truncation {cfg.truncation:g}",
        f"beside    {', '.join(cfg.archives)}: split {cfg.data.split}; memorised faces of {cfg.data.split_train}",
        f"judges    {cfg.judge.name or cfg.judge.kind}; of attributes: {cfg.attributes_judge}",
        f"paths     {cfg.paths.count} of {cfg.paths.steps} steps, in Z and in W",
        f"inversion {cfg.inversion.images} faces, {cfg.inversion.steps} steps",
        f"results   {cfg.run.dir}",
        "missing" if lacking else "missing   nothing",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in lacking)])
