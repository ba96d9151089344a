"""P10, soft biometrics: what a result still tells of its original: smile, gender label, tones, pose, proportions.

Each measurement of the original (by the attribute judge) is a class: of smile and gender the sign, of the others the
third it falls into. Wanted or not is the policy's matter: what may change should not carry over, what must stay should.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from a3gan.data.attributes import SCHEMA, Policy, position, slices, targets
from a3gan.evaluation import statistics
from a3gan.evaluation.attackers import training
from a3gan.evaluation.attackers.material import Field, Material
from a3gan.evaluation.attackers.originals import attack_originals, judged_originals
from a3gan.evaluation.figures import plain
from a3gan.evaluation.statistics import Interval
from a3gan.evaluation.verification import PERMUTATIONS

NAMES = ("expression", "gender", "skin_tone", "hair_tone", "yaw", "nose_length", "mouth_width", "eye_mouth_ratio")
STEPS = 300


def classes(code: np.ndarray, thirds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Class of each picture [N] by attribute, from flat codes [N, D]; thirds: the two cuts of each measured one."""
    where, result = slices(), {}
    for name in NAMES:
        part = code[:, where[name]]
        if name == "expression":
            result[name] = (part[:, 1] > part[:, 0]).astype(np.int64)  # happiness over neutral
        elif name == "gender":
            result[name] = (part[:, 0] > 0).astype(np.int64)
        else:
            result[name] = np.searchsorted(thirds[name], part[:, 0]).astype(np.int64)
    return result


def cuts(code: np.ndarray) -> dict[str, np.ndarray]:
    """Where the thirds of each measured attribute end, [2], over the attack people's originals."""
    where = slices()
    measured = [name for name in NAMES if name not in ("expression", "gender")]
    return {name: np.quantile(code[:, where[name]][:, 0], [1 / 3, 2 / 3]) for name in measured}


def information(before: np.ndarray, after: np.ndarray) -> float:
    """Mutual information of two lists of classes [N], in bits; the plug-in estimate, which chance alone makes > 0."""
    table = np.zeros((before.max() + 1, after.max() + 1))
    np.add.at(table, (before, after), 1.0)
    return _bits(table)


def _bits(table: np.ndarray) -> float:
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / outer[seen])).sum())


class Reader(nn.Module):
    """Linear, from standardised features to the classes of every attribute: [N, F] -> [N, A, 3] logits."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", features.std(0).clamp_min(1e-6))
        self.linear = nn.Linear(features.shape[1], len(NAMES) * 3)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear((features - self.mean) / self.scale).unflatten(1, (len(NAMES), 3))


def learn(material: Material) -> Reader:
    """Reads the original's classes from a result's embedding and code; trained on other people."""
    f, table, truth = material.field, material.training(), attack_originals(material.field)["code"]
    labels = torch.from_numpy(np.stack(list(classes(truth, cuts(truth)).values()), 1))
    features = _features(table)
    rows, held = torch.from_numpy(np.flatnonzero(f.train)), torch.from_numpy(np.flatnonzero(~f.train))
    reader = Reader(features[rows])

    def loss(picked: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(reader(features[picked]).flatten(0, 1), labels[picked].flatten())

    @torch.no_grad()
    def score() -> float:
        return float((reader(features[held]).argmax(2) == labels[held]).float().mean())

    def draw(generator: torch.Generator) -> torch.Tensor:
        return rows[torch.randint(len(rows), (256,), generator=generator)]

    training.fit(reader, loss, draw, STEPS, 3e-3, f.cfg.seed + 15, score, f"{material.name}: soft biometrics")
    return reader


def _features(table: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([table["embedding"] * 8, table["code"]], 1)).float()


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation, under `keep` (the policy wants it to stay) and `change` for each attribute: told (read as
    on the original, by the judge), told_learned (the original's class as an attacker tells it who learned on other
    people), told_chance (always the commonest class), bits (mutual information, the larger of both readings) with
    bits_floor (shuffled). `labels`: gender and smile against the labels of the data, where it has them."""
    f, result, reader = material.field, {}, learn(material)
    thirds = cuts(attack_originals(f)["code"])
    before = classes(judged_originals(f)["code"], thirds)
    free = Policy.parse(f.cfg.policy).vector().tolist()
    for degradation in material.degradations:
        table = material.results(degradation)
        after = classes(table["code"], thirds)
        with torch.no_grad():
            told = reader(_features(table)).argmax(2).numpy()
        figures: dict[str, Any] = {"keep": {}, "change": {}}
        for i, name in enumerate(NAMES):
            part = "change" if free[position(name, SCHEMA)] else "keep"
            figures[part][name] = plain(_one(before[name], after[name], told[:, i], f))
        figures["labels"] = plain(_labelled(f, after, told))
        result[degradation] = figures
    return result


def _one(before: np.ndarray, after: np.ndarray, told: np.ndarray, f: Field) -> dict[str, Interval | float]:
    readings = (after, told)
    best = max(readings, key=lambda reading: information(before, reading))
    rng = np.random.default_rng(f.cfg.seed)
    floor = [information(before[rng.permutation(len(before))], best) for _ in range(PERMUTATIONS)]
    return {
        "told": statistics.share(after == before, f.person, *f.draw),
        "told_learned": statistics.share(told == before, f.person, *f.draw),
        "told_chance": float(np.bincount(before).max() / len(before)),
        "bits": _bits_interval(before, best, f),
        "bits_floor": float(np.mean(floor)),
    }


def _bits_interval(before: np.ndarray, after: np.ndarray, f: Field) -> Interval:
    names, index = np.unique(f.person, return_inverse=True)
    value, shape = information(before, after), (before.max() + 1, after.max() + 1)
    tables = np.zeros((len(names), *shape))
    np.add.at(tables, (index, before, after), 1.0)
    drawn = statistics.people_weights(len(names), *f.draw).astype(np.float64) @ tables.reshape(len(names), -1)
    values = np.array([_bits(table.reshape(shape)) for table in drawn])
    low, high = np.percentile(values - values.mean() + value, [2.5, 97.5])  # resampling alone adds information
    return Interval(value, float(max(0.0, min(low, value))), float(max(high, value)), len(before), len(names))


def _labelled(f: Field, after: dict[str, np.ndarray], told: np.ndarray) -> dict[str, Interval]:
    """Against the labels that the data has: the judge's reading and the learned one."""
    labels, result = targets(f.judged.faces), {}
    for title, name in (("gender", "gender"), ("smile", "expression")):
        truth = labels[name].numpy()
        known = (truth == 0) | (truth == 1)
        if known.sum() >= 2:
            for suffix, read in (("accuracy", after[name]), ("accuracy_learned", told[:, NAMES.index(name)])):
                right = read[known] == truth[known]
                result[f"{title}_{suffix}"] = statistics.share(right, f.person[known], *f.draw)
    return result
