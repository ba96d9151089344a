"""P6, adaptive cross recognition: learn from pairs of original and result where the original's person went.

Gallery of originals, probes anonymised (and the reverse). Trained on pairs of other people.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from a3gan.evaluation.attackers import measures, training
from a3gan.evaluation.attackers.material import Material
from a3gan.evaluation.attackers.originals import attack_originals, judged_originals
from a3gan.evaluation.figures import plain


def learn(material: Material, part: str = "") -> training.Learned:
    """A map from results to embeddings of originals; part: suffix of the features, "" or "_background"."""
    f, table = material.field, material.training()
    gallery = attack_originals(f)[f"embedding{part}"]
    person, held, limits = f.attack_person, ~f.train, f.cfg.attack

    def score(vectors: np.ndarray) -> float:
        return measures.quick(gallery[held], vectors[held], person[held])

    return training.learn(
        f.recogniser, table, training.against_gallery(gallery, person, f.train), score, person, f.train,
        f.device, seed=f.cfg.seed + 12, head_steps=limits.head_steps, tune_steps=limits.tune_steps,
        pixel_steps=limits.pixel_steps, batch=limits.batch, target=gallery,
        part=part, title=f"{material.name}: adaptive{part.replace('_', ' ')}",
    )  # fmt: skip


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation. rank1: a result looks for its person among originals; rank1_reverse: an original looks
    for its person among results; rank1_STAGE as in `parrot`."""
    f, result = material.field, {}
    attacker = learn(material)
    gallery = judged_originals(f)["embedding"]
    for degradation in material.degradations:
        table = material.results(degradation)
        vectors = attacker.features(table)
        figures = plain(measures.recognition(gallery, vectors, f.person, f.cfg.far, *f.draw, same_picture=True))
        figures["rank1_reverse"] = plain(measures.rank1(gallery @ vectors.T, f.person, *f.draw))["rank1"]
        for stage in attacker.stages:
            v = attacker.features(table, stage)
            figures[f"rank1_{stage}"] = plain(measures.rank1(v @ gallery.T, f.person, *f.draw))["rank1"]
        result[degradation] = {**figures, "stage": attacker.chosen}
    return result
