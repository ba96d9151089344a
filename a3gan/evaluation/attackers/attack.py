"""All attackers on all methods, and whether each attacker works at all: on the untouched pictures (`identity`) and
behind a weak blur it must recognise."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.evaluation.attackers import (
    adaptive,
    background,
    budget,
    inversion,
    keys,
    linkability,
    measures,
    parrot,
    soft,
    suppressed,
)
from a3gan.evaluation.attackers.material import Applied, Field, Material
from a3gan.evaluation.attackers.originals import judged_originals
from a3gan.evaluation.figures import plain
from a3gan.evaluation.pictures import Method, Originals, View

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.evaluation import features as feat
    from a3gan.evaluation.protocol import EvalConfig

log = logging.getLogger(__name__)

RUN: dict[str, Callable[[Material], dict[str, Any]]] = {
    "parrot": parrot.attack,
    "adaptive": adaptive.attack,
    "inversion": inversion.attack,
    "linkability": linkability.attack,
    "background": background.attack,
    "soft": soft.attack,
    "keys": keys.attack,
}  # and `suppressed`, which needs the method itself
WEAK_BLUR_CELLS = 40  # a face's width over the standard deviation: MobileFaceNet b still ranks 94 of 100 first (val)
SANITY = ("identity", "weak_blur")
SHARE = 0.8  # of what the recogniser reaches on originals (P0): so much an attacker must reach on the sanity rows
# What must be that large on a sanity row, by attacker; None: of no use there.
MUST: dict[str, tuple[str, tuple[str, ...]]] = {
    "parrot": ("rank1", SANITY),
    "adaptive": ("rank1", SANITY),
    "linkability": ("own_keys.off_the_shelf.d_sys", ("identity",)),
    # Not the person but the picture: its surroundings are the same before and after.
    "background": ("same_picture", ("identity",)),
    "inversion": ("rank1", SANITY),
    "soft": ("change.gender.told_learned|keep.gender.told_learned", ("identity",)),
    "suppressed": ("alpha0_rank1", ("a3gan",)),
    # A method without a key has nothing to attack; with one, the right key must tell the same picture.
    "keys": ("right_key.same_picture", ("a3gan",)),
}


def attack(
    cfg: EvalConfig,
    originals: Originals,
    methods: dict[str, FaceAnonymizer],
    follows: dict[str, dict[str, Any]],
    judges: dict[str, feat.Embedding],
    attributes: feat.Attributes | None,
    device: torch.device,
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Figures {attacker: {method: {degradation: figures}}}, what the attackers had and whether they work, and a line
    for each that was turned off.

    methods and follows: as the evaluation uses them, and what each one's pictures follow from. Every attacker starts
    from the first judge, the strongest recogniser at hand: nothing keeps an attacker from taking the same.
    """
    if not cfg.attackers:
        return {}, {}, []
    if not judges:
        return {}, {}, ["attackers off: no judge to start from (judges)"]
    name, judge = next(iter(judges.items()))
    try:
        judged, others = budget.judged_faces(cfg, originals), budget.attack_faces(cfg, originals.faces)
    except budget.TooFew as error:
        return {}, {}, [f"attackers off: {error}"]
    network = attributes.network if attributes is not None else None
    field = Field(cfg, judged, others, judge.recogniser, name, network, device)
    off = [line for line in map(lambda a: _reason(a, field, methods), cfg.attackers) if line]
    wanted = [a for a in cfg.attackers if not _reason(a, field, methods)]
    figures: dict[str, Any] = {attacker: {} for attacker in wanted}
    sanity: dict[str, Any] = {attacker: {} for attacker in wanted}
    for material in _materials(field, methods, follows):
        for attacker in wanted:
            row = _one(attacker, material, methods)
            if row is None:
                continue
            if material.name in methods:
                figures[attacker][material.name] = row
            if material.name in MUST[attacker][1]:
                sanity[attacker][material.name] = row["none"]
        _remove_large(field)
    about = {"budget": budget.describe(cfg, others.faces, judged.faces, f"{name} ({judge.identity.partition(':')[0]})")}
    originals_row = Material(field, "originals", None, {"method": "original"}, False)
    p0 = originals_row.cached("p0", {}, lambda: _p0(field))
    _remove_large(field)
    about |= {"p0": p0, "works": _verdicts(p0, sanity)}
    for attacker, verdict in about["works"].items():
        if verdict["works"] is False:
            log.warning("attacker %s does not recognise on its sanity rows: its figures prove nothing", attacker)
    return figures, about, off


def _reason(attacker: str, field: Field, methods: dict[str, FaceAnonymizer]) -> str:
    """Why an attacker cannot run here, or ''."""
    if attacker == "soft" and field.attributes is None:
        return "attacker soft off: no attribute judge (attributes_judge)"
    if attacker == "keys" and not any("seed" in method.supports for method in methods.values()):
        return "attacker keys off: no method with a seed"
    if attacker == "suppressed" and not any(suppressed.reaches(method) for method in methods.values()):
        return "attacker suppressed off: no method with suppressed features"
    return ""


def _one(attacker: str, material: Material, methods: dict[str, FaceAnonymizer]) -> dict[str, Any] | None:
    """One attacker on one method, from the cache where it is there; None where there is nothing to attack."""
    name, method = material.name, methods.get(material.name)
    if method is None and name not in MUST[attacker][1]:
        return None
    if attacker == "keys" and not material.keyed:
        return None
    uses: dict[str, Any] = {}
    if attacker in ("soft", "inversion") and material.field.attributes is not None:
        uses = {"attributes": material.field.attributes.fingerprint, "policy": material.field.cfg.policy}
    if attacker == "suppressed":
        if method is None or not suppressed.reaches(method):
            return None
        alpha = material.field.cfg.alpha
        return material.cached(attacker, {"alpha": alpha}, lambda: suppressed.attack(material, method, alpha))
    return material.cached(attacker, uses, lambda: RUN[attacker](material))


def _materials(field: Field, methods: dict[str, FaceAnonymizer], follows: dict[str, dict[str, Any]]) -> list[Material]:
    """The methods, and the sanity rows that are not among them."""
    from a3gan.anonymizers.methods import create

    cfg, faces = field.cfg, field.judged.faces
    degradations = tuple(cfg.degradations)
    result = []
    for name, anonymizer in methods.items():
        # The seed is part of every picture's own key; the policy and the weights are in the method's.
        key, keyed = {k: v for k, v in follows[name].items() if k != "seed"}, "seed" in anonymizer.supports
        result.append(Material(field, name, _applied(anonymizer, cfg), key, keyed, degradations=degradations))
    if "identity" not in methods:
        result.append(Material(field, "identity", _untouched, {"method": "identity"}, False, degradations=("none",)))
    weak = create("blur", size=faces.size, frame=faces.frame, device=field.device, cells=WEAK_BLUR_CELLS)
    key = {"method": "weak_blur", "cells": WEAK_BLUR_CELLS}
    result.append(Material(field, "weak_blur", _applied(weak, cfg), key, False, degradations=("none",)))
    return result


def _untouched(originals: Originals, rows: list[int], seeds: list[int]) -> tuple[View, np.ndarray]:
    return originals.view(rows), np.zeros(len(rows), bool)


def _applied(anonymizer: FaceAnonymizer, cfg: EvalConfig) -> Applied:
    from a3gan.data.attributes import Policy

    policy = Policy.parse(cfg.policy) if "policy" in anonymizer.supports else None
    alpha = cfg.alpha if "alpha" in anonymizer.supports else 1.0

    def apply(originals: Originals, rows: list[int], seeds: list[int]) -> tuple[View, np.ndarray]:
        return Method(anonymizer, policy, alpha, dict(zip(rows, seeds, strict=True))).apply(originals, rows)

    return apply


def _p0(field: Field) -> dict[str, Any]:
    """What the recogniser reaches on the untouched pictures, off the shelf."""
    gallery = judged_originals(field)["embedding"]
    return plain(measures.recognition(gallery, gallery, field.person, field.cfg.far, *field.draw))


def _verdicts(p0: dict[str, Any], sanity: dict[str, Any]) -> dict[str, Any]:
    """For each attacker its sanity figures with what was needed."""
    works: dict[str, Any] = {}
    for attacker, rows in sanity.items():
        figure, where = MUST[attacker]
        needed = SHARE * (p0["rank1"]["value"] if figure.endswith("rank1") else 1.0)
        values = {name: _value(rows[name], figure) for name in where if name in rows}
        fine = all(value >= needed for value in values.values()) if values else None
        works[attacker] = {"figure": figure.partition("|")[0], "needed": round(needed, 6), **values, "works": fine}
    return works


def _value(figures: dict[str, Any], name: str) -> float:
    """A figure by its dotted name; of several names, the first that there is."""
    for one in name.split("|"):
        found: Any = figures
        for word in one.split("."):
            found = found.get(word) if isinstance(found, dict) else None
        if found is not None:
            return found["value"] if isinstance(found, dict) else found
    raise KeyError(name)


def _remove_large(field: Field) -> None:
    """Removes the maps and pixels of a method that is done; the figures made from them are kept."""
    folder = field.folder / "features"
    for path in folder.glob("*.npz") if folder.is_dir() else ():
        if re.match(r"(seen|pixels|levels)-", path.name):
            path.unlink(missing_ok=True)
