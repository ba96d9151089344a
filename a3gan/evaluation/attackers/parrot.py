"""P5, parrot recognition (Newton, Sweeney, Malin 2005): learn people from results, meet results.

Enrolled on anonymised pictures, asked with anonymised pictures. Trained on labelled results of other people.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from a3gan.evaluation.attackers import measures, training
from a3gan.evaluation.attackers.material import Material
from a3gan.evaluation.figures import plain


def learned(material: Material) -> training.Learned:
    """The trained parrot of a method, shared with P8."""
    f, table = material.field, material.training()
    person, held, limits = f.attack_person, ~f.train, f.cfg.attack

    def score(vectors: np.ndarray) -> float:
        return measures.quick(vectors[held], vectors[held], person[held])

    return material.learned(
        "parrot",
        lambda: training.learn(
            f.recogniser, table, training.within_batch(person), score, person, f.train, f.device,
            seed=f.cfg.seed + 11,
            head_steps=limits.head_steps, tune_steps=limits.tune_steps, pixel_steps=limits.pixel_steps,
            batch=limits.batch,
            title=f"{material.name}: parrot",
        ),
    )  # fmt: skip


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation; `rank1_STAGE` is the same attack with each of its stages."""
    f, result = material.field, {}
    attacker = learned(material)
    for degradation in material.degradations:
        table = material.results(degradation)
        vectors = attacker.features(table)
        figures = plain(measures.recognition(vectors, vectors, f.person, f.cfg.far, *f.draw))
        for stage in attacker.stages:
            v = attacker.features(table, stage)
            figures[f"rank1_{stage}"] = plain(measures.rank1(v @ v.T, f.person, *f.draw))["rank1"]
        result[degradation] = {**figures, "stage": attacker.chosen}
    return result
