"""What an evaluation would do, and what it lacks, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from a3gan import checkpoint
from a3gan.anonymizers import methods
from a3gan.data.attributes import Policy
from a3gan.data.prepare_sources import list_sources
from a3gan.errors import UserError
from a3gan.evaluation import sets, sources
from a3gan.evaluation.protocol import NAMED_TASKS, EvalConfig


def dry_run(cfg: EvalConfig) -> str:
    """Methods, tasks, attackers, judges and data in lines, tasks that will be off with the reason, and what is missing.

    UserError for an archive that exists and cannot be read.
    """
    labels, lines_of_data, missing = _data(cfg)
    missing += checkpoint.missing(_weights(cfg)) + _packages(cfg)
    missing += [f"data.clips: {path}: no such file or folder" for path in cfg.data.clips if not Path(path).exists()]
    if cfg.data.pairs is not None and not Path(cfg.data.pairs).is_file():
        missing.append(f"data.pairs: {cfg.data.pairs}: no such file")
    off = [f"task {task} off: {why}" for task, why in _off(cfg, labels) if task in cfg.tasks]
    if cfg.attackers and not cfg.judges:
        off.append("attackers off: no judge to start from (judges)")
    lines = [
        f"methods   {', '.join(cfg.method)}",
        *(f"options   {name}: {_words(own)}" for name, own in cfg.options.items() if name in cfg.method),
        f"policy    {Policy.parse(cfg.policy)}, alpha {cfg.alpha:g}",
        f"tasks     {', '.join(cfg.tasks) or 'none'}",
        f"attackers {', '.join(cfg.attackers) or 'none'}"
        + (f": {_words(cfg.attack.model_dump())}" if cfg.attackers else ""),
        *([f"control   {_words(cfg.control.model_dump())}"] if {"dial", "controllability"} & set(cfg.tasks) else []),
        f"pictures  {', '.join(cfg.degradations)}",
        *(f"data      {line}" for line in lines_of_data),
        f"judges    {', '.join(judge.name or judge.kind for judge in cfg.judges) or 'none'}; "
        f"of attributes: {cfg.attributes_judge or 'none'}",
        f"limits    {', '.join(cfg.limits) or 'none'}",
        f"results   {cfg.run_dir}",
        *off,
        "missing" if missing else "missing   nothing",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in missing)])


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _weights(cfg: EvalConfig) -> dict[str, str | None]:
    """Key -> path or name of everything that must be loaded."""
    wanted = {f"judges.{i}.path": judge.path for i, judge in enumerate(cfg.judges) if judge.path}
    wanted |= {"attributes_judge": cfg.attributes_judge}
    for name in cfg.method:
        key = "weights" if name == "a3gan" and not isinstance(cfg.weights, dict) else f"weights.{name}"
        wanted[key] = cfg.weights_of(name) or methods.entry_of(name).weights
    return wanted


def _packages(cfg: EvalConfig) -> list[str]:
    """A line for each method that this installation lacks a package for."""
    lacking = {name: methods.missing(name) for name in cfg.method}
    return [
        f"method {name}: needs {', '.join(packages)}; pip install 'a3gan[methods]'"
        for name, packages in lacking.items() if packages
    ]  # fmt: skip


def _data(cfg: EvalConfig) -> tuple[set[str] | None, list[str], list[str]]:
    """Names of the labels that the judged pictures carry (None: unknown), a line a source, and what is missing."""
    data = cfg.data
    if data.path is None:
        line = f"rendered faces: {data.synthetic_count} of {data.synthetic_people} people"
        return {"identity", "expression", "gender", "yawning", "eyes_closed"}, [line], []
    labels: set[str] = set()
    lines, missing = [], []
    for archive in data.archives:
        if archive.photos is not None and not Path(archive.photos).exists():
            missing.append(f"data.photos: {archive.photos}: no such folder or zip; null judges the aligned crops")
        if Path(archive.path).exists():
            lines.append(sources.describe(archive, data.split))
            labels |= _labels(archive.path, data.split)
        else:
            missing.append(f"data.path: {archive.path}: no such archive or folder; make one with `a3gan prepare`")
    if data.only is not None:
        lines.append(f"only the {len(sets.read_list(data.only))} pictures of {data.only}")
    lines += [f"clip {path}" for path in data.clips]
    return (labels if lines else None), lines, missing


def _labels(path: str, split: str) -> set[str]:
    """identity (a person with two pictures) and the schema's attributes that some judged picture is labelled with."""
    from a3gan.data.archive import FaceSet
    from a3gan.data.attributes import SCHEMA, targets

    if sources.is_raw(path):
        listed = list_sources(Path(path), layout="auto")
        cells = {(name, value) for source in listed for name, value in source.labels.items() if value}
        found = {a.name for a in SCHEMA if a.column for value, _ in a.values if (a.column, value) in cells}
        people = [source.identity for source in listed if source.identity]
        return found | ({"identity"} if len(set(people)) < len(people) else set())
    faces = FaceSet.load(path, split=split, storage="disk")
    found = {name for name, values in targets(faces).items() if not values.isnan().all()}
    people = [i for i in faces.identity.tolist() if i >= 0]
    return found | ({"identity"} if len(set(people)) < len(people) else set())


def _off(cfg: EvalConfig, labels: set[str] | None) -> list[tuple[str, str]]:
    """Tasks that cannot be measured, and why."""
    if labels is None:
        return []
    found = []
    if not cfg.judges:
        found.append(("verification", "no judges"))
    elif "identity" not in labels:
        found.append(("verification", "no person with two pictures (labels of identity)"))
    if "identity" not in labels:
        found += [(task, "no person with two pictures (labels of identity)") for task in NAMED_TASKS]
    if not cfg.judges or "verification" not in cfg.tasks:
        found.append(("dial", "no judge that verifies (judges, and verification among the tasks)"))
    if "expression" not in labels:
        found.append(("expression", "no labels of expression (neutral and happiness)"))
    if cfg.attributes_judge is None:
        found += [(task, "no attributes_judge") for task in ("expression", "fatigue", "attributes", "controllability")]
    elif not {"yawning", "eyes_closed"} & labels and not cfg.data.clips:
        found.append(("fatigue", "no labels of yawns or closed eyes, and no clips (data.clips)"))
    return list(dict(reversed(found)).items())[::-1]


def check(cfg: EvalConfig) -> None:
    """UserError for the first thing that `dry_run` would call missing."""
    *_, missing = _data(cfg)
    missing += checkpoint.missing(_weights(cfg)) + _packages(cfg)
    if missing:
        raise UserError(missing[0])
