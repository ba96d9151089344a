"""P8, linkability: can two results be told to be of one person, without any original?

Measured with a key for each picture and with one key for all; by the recogniser off the shelf and by what the parrot
(P5) learned. D_sys after Gomez-Barrero et al., see `measures.d_sys`.
"""

from __future__ import annotations

from typing import Any

from a3gan.anonymizers.base import face_seed
from a3gan.evaluation.attackers import measures, parrot
from a3gan.evaluation.attackers.material import Material
from a3gan.evaluation.figures import plain


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation, under `own_keys` and (where there are keys) `same_key`, each `off_the_shelf` and by the
    `parrot`'s features: auc, d_sys, rank1 with their floors."""
    f, result = material.field, {}
    attacker = parrot.learned(material)
    same = one_key(material) if material.keyed else None
    for degradation in material.degradations:
        tables = {"own_keys": material.results(degradation)}
        if same is not None:
            tables["same_key"] = same[degradation]
        figures: dict[str, Any] = {}
        for keys, table in tables.items():
            readings = {"off_the_shelf": table["embedding"], "parrot": attacker.features(table)}
            figures[keys] = {
                name: plain(measures.linkability(vectors, vectors, f.person, *f.draw))
                for name, vectors in readings.items()
            }
        result[degradation] = figures
    return result


def one_key(material: Material) -> dict[str, Any]:
    """The results with one key for every picture."""
    f = material.field
    seeds = [face_seed(f.cfg.seed, "one key")] * len(f.person)
    return material.results_with("one key", seeds, material.degradations)
