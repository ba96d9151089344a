"""P9, side channels: who is recognised by what lies around the face, or by the face alone?

The oval that a method replaces is painted grey in originals and results alike, or everything else is. What the
surroundings give away, no method that changes faces only can hide.
"""

from __future__ import annotations

from typing import Any

from a3gan.evaluation.attackers import adaptive, measures
from a3gan.evaluation.attackers.material import Material
from a3gan.evaluation.attackers.originals import judged_originals
from a3gan.evaluation.figures import plain


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation: rank1, tar ... by the surroundings after learning from other people's,
    rank1_off_the_shelf without; same_picture: rank 1 where the own original is in the gallery too, which unchanged
    surroundings make certain; `face`: off the shelf, by the oval alone."""
    f, result = material.field, {}
    attacker = adaptive.learn(material, "_background")
    gallery = judged_originals(f)
    around = gallery["embedding_background"]
    for degradation in material.degradations:
        table = material.results(degradation)
        vectors = attacker.features(table)
        figures = plain(measures.recognition(around, vectors, f.person, f.cfg.far, *f.draw, same_picture=True))
        figures["same_picture"] = figures.pop("rank1_included")
        shelf = table["embedding_background"]
        figures["rank1_off_the_shelf"] = plain(measures.rank1(shelf @ around.T, f.person, *f.draw))["rank1"]
        face = measures.recognition(gallery["embedding_face"], table["embedding_face"], f.person, f.cfg.far, *f.draw)
        result[degradation] = {**figures, "face": plain(face), "stage": attacker.chosen}
    return result
