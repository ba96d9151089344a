"""P11, keys: what the seed of a new face does, and what it is worth to know it.

A method of ours cannot be undone by its key; but who knows the key can treat suspects' photos with it and compare
results with results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.attackers import measures
from a3gan.evaluation.attackers.linkability import one_key
from a3gan.evaluation.attackers.material import Material, seeds_of
from a3gan.evaluation.attackers.originals import judged_originals
from a3gan.evaluation.figures import plain
from a3gan.evaluation.verification import PERMUTATIONS, cosine, pair_masks

REPEATED = 8  # pictures made twice with one key


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation (of the probe), under `right_key` and `wrong_key`: the attacker's gallery are originals
    treated with the probe's key, or with another; same_picture: rank 1 with the probe's own original among them.

    cosine_two_keys, two_keys_matched: two results of one original with two keys, the share that the recogniser takes
    for one person at the false match rate of originals (low = keys make different people). key_auc: how well two
    results of different people that share a key are told from two that do not (0.5 = a key is no face). repeat_same:
    share of pictures whose result is the same to the last bit when made again.
    """
    f, result = material.field, {}
    gallery = judged_originals(f)["embedding"]
    _, impostor = pair_masks(f.person)
    rate = max(f.cfg.far, min(0.5, measures.LEAST_EVENTS / max(1, int(impostor.sum()))))
    threshold = statistics.threshold_at(cosine(gallery, gallery)[impostor], rate)
    same = one_key(material)
    treated, repeat = same["none"]["embedding"], _repeats(material)
    for degradation in material.degradations:
        own, shared = material.results(degradation)["embedding"], same[degradation]["embedding"]
        figures: dict[str, Any] = {}
        for name, probe in (("right_key", shared), ("wrong_key", own)):
            scores = cosine(probe, treated)
            found = measures.rank1(scores, f.person, *f.draw)
            nearest = f.person[scores.argmax(1)]
            figures[name] = plain(found | {"same_picture": statistics.share(nearest == f.person, f.person, *f.draw)})
        pairs = (own * shared).sum(1)
        other: dict[str, statistics.Interval | float] = {}
        other["cosine_two_keys"] = float(pairs.mean())
        other["cosine_original"] = float((own * gallery).sum(1).mean())
        other["two_keys_matched"] = statistics.share(pairs > threshold, f.person, *f.draw)
        other["two_keys_matched_floor"] = _floor(own, shared, threshold, f.cfg.seed)
        other["key_auc"] = statistics.auc(cosine(shared, shared)[impostor], cosine(own, own)[impostor])
        other["repeat_same"] = repeat
        result[degradation] = figures | plain(other)
    return result


def _floor(own: np.ndarray, shared: np.ndarray, threshold: float, seed: int) -> float:
    """The share that would match if the second result were of any picture."""
    rng = np.random.default_rng(seed)
    shares = [((own * shared[rng.permutation(len(own))]).sum(1) > threshold).mean() for _ in range(PERMUTATIONS)]
    return float(np.mean(shares))


def _repeats(material: Material) -> float:
    f = material.field
    rows = list(range(min(REPEATED, len(f.person))))
    seeds = [seeds_of(f.judged, str(f.cfg.seed))[i] for i in rows]
    first, second = (material.applied(f.judged, rows, seeds)[0].pictures for _ in range(2))
    return float(np.mean([np.array_equal(a, b) for a, b in zip(first, second, strict=True)]))
