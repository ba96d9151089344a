"""The gate: limits on figures, checked at the end of an evaluation or on the `results.json` of an earlier one.

A limit holds for the worst of what it covers: every method but `identity` and every kind of picture, unless it names
some. It compares the bad end of the 95 % interval, so that few people or luck do not open the gate; `interval: false`
compares the value alone. A figure that was not measured breaks its limit.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a3gan.errors import UserError
from a3gan.evaluation.catalogue import FIGURES, meaning
from a3gan.evaluation.listing import Figure, figures
from a3gan.evaluation.protocol import EvalConfig, Limit


@dataclass(frozen=True)
class Checked:
    """One limit on one figure of one method, at its worst picture. text: a sentence with the number and the limit."""

    figure: str
    method: str
    degradation: str
    kept: bool
    text: str

    def as_dict(self) -> dict[str, Any]:
        """For `results.json`."""
        return {"figure": self.figure, "method": self.method, "picture": self.degradation, "kept": self.kept,
                "text": self.text}  # fmt: skip


def check(results: Mapping[str, Any], limits: Mapping[str, Limit]) -> list[Checked]:
    """Every limit against the figures of an evaluation, in the order of the limits.

    UserError: a limit names a figure or method that this evaluation does not know, with the nearest one.
    """
    listed = figures(dict(results))
    names = list(dict.fromkeys(figure.name for figure in listed))
    methods = list(results["config"]["method"])
    done: list[Checked] = []
    for name, limit in limits.items():
        if name not in names and not _turned_off(name, results):
            raise UserError(f"limits: {name}: no such figure; the nearest is {nearest(name, names)}")
        wanted = limit.method or [m for m in methods if m != "identity"]
        for method in wanted:
            if method not in methods:
                raise UserError(f"limits: {name}: method {method} was not evaluated, only {', '.join(methods)}")
            some = [f for f in listed if f.name == name and f.method == method]
            done.append(
                _worst(name, method, limit, [f for f in some if not limit.picture or f.degradation in limit.picture])
            )
    return done


def refuse_unknown(cfg: EvalConfig) -> None:
    """UserError for a limit on what this evaluation does not measure; said before an hour is spent on it."""
    judges = [judge.name or judge.kind for judge in cfg.judges]
    for name, limit in cfg.limits.items():
        first, *rest = name.split(".")
        if meaning(name) is None:
            raise UserError(f"limits: {name}: no such figure; the nearest is {nearest(name, FIGURES)}")
        if first in ("verification", "identification") and (not rest or rest[0] not in judges):
            raise UserError(f"limits: {name}: its second word must be a judge: {', '.join(judges) or 'none'}")
        if unknown := [method for method in limit.method if method not in cfg.method]:
            raise UserError(f"limits: {name}: method {unknown[0]} is not evaluated, only {', '.join(cfg.method)}")


def broken(checked: Iterable[Checked]) -> list[Checked]:
    """Those that were not kept."""
    return [one for one in checked if not one.kept]


def _worst(name: str, method: str, limit: Limit, some: list[Figure]) -> Checked:
    measured = [f for f in some if f.value is not None]
    if not measured:
        return Checked(name, method, "none", False, f"{method}: {name} was not measured")
    judged = [(_distance(f, limit), f) for f in measured]
    distance, figure = max(judged, key=lambda pair: pair[0])
    return Checked(name, method, figure.degradation, distance <= 0, _text(figure, limit, distance <= 0))


def _end(figure: Figure, upper: bool, limit: Limit) -> float:
    end = figure.high if upper else figure.low
    return figure.value if end is None or not limit.interval else end


def _distance(figure: Figure, limit: Limit) -> float:
    """How far the figure is beyond the limit; at most 0 where it keeps it."""
    beyond = []
    if limit.max is not None:
        beyond.append(_end(figure, True, limit) - limit.max)
    if limit.min is not None:
        beyond.append(limit.min - _end(figure, False, limit))
    return max(beyond)


def _text(figure: Figure, limit: Limit, kept: bool) -> str:
    """`a3gan: verification.b.tar is 0.0181 (0.0112 to 0.0274) after jpeg75; at most 0.02 is allowed`."""
    where = "" if figure.degradation == "none" else f" at {figure.degradation}"
    interval = f" ({figure.low:.4g} to {figure.high:.4g})" if figure.low is not None and figure.high is not None else ""
    allowed = " and ".join(
        f"{word} {end:g}" for word, end in (("at least", limit.min), ("at most", limit.max)) if end is not None
    )
    compared = "" if not interval else "; the interval counts" if limit.interval else "; the value counts"
    said = f"{figure.method}: {figure.name}{where} is {figure.value:.4g}{interval}"
    return f"{said}, {'' if kept else 'not '}{allowed}{compared}"


def _turned_off(name: str, results: Mapping[str, Any]) -> bool:
    """Whether the figure belongs to a task or attacker that this run left out: not measured rather than unknown."""
    parts = name.split(".")
    return (
        len(parts) > 2
        and parts[0] in ("tasks", "attackers")
        and parts[1] not in (results.get(parts[0]) or {})
        and (known_part(parts[0], parts[1]))
    )


def known_part(top: str, part: str) -> bool:
    """Whether there is such a task or attacker at all."""
    from typing import get_args

    from a3gan.evaluation import protocol

    return part in get_args({"tasks": protocol.Task, "attackers": protocol.Attacker}[top])


def nearest(name: str, names: Iterable[str]) -> str:
    """The figure most like `name`, as a whole and in its last word."""
    leaf = name.rsplit(".", 1)[-1]

    def likeness(other: str) -> float:
        whole = difflib.SequenceMatcher(None, name, other).ratio()
        return whole + difflib.SequenceMatcher(None, leaf, other.rsplit(".", 1)[-1]).ratio()

    return max(names, key=likeness, default="none at all")


def load_policy(path: str | Path) -> dict[str, Limit]:
    """The `limits:` of a YAML file, which may hold nothing else or be a whole evaluation config."""
    from a3gan.config import check as validate
    from a3gan.config import read
    from a3gan.evaluation.protocol import Policed

    values, origins = read(path)
    if not values.get("limits"):
        raise UserError(f"{path}: has no limits: section; write `limits: {{verification.b.tar: {{max: 0.02}}}}`")
    return validate({"limits": values["limits"]}, origins, str(path), Policed).limits


def as_override(path: str | Path | None) -> list[str]:
    """A policy file as the override `limits=...` of an evaluation; [] for None."""
    if path is None:
        return []
    return ["limits=" + json.dumps({name: one.model_dump(mode="json") for name, one in load_policy(path).items()})]


def check_file(path: str | Path, policy: str | Path | None) -> list[dict[str, Any]]:
    """The limits of a policy file (None: those of the run itself) on a `results.json`, as `Checked.as_dict`."""
    from a3gan.config import check as validate
    from a3gan.evaluation.protocol import Policed

    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        own = results["config"].get("limits") or {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as the results.json of an evaluation ({error})") from error
    limits = load_policy(policy) if policy is not None else validate({"limits": own}, None, str(path), Policed).limits
    if not limits:
        raise UserError(f"{path}: was made without limits; give a file with some (--gate FILE)")
    return [one.as_dict() for one in check(results, limits)]
