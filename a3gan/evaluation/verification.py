"""Who is still recognised: embeddings to privacy figures (P0 to P4 of the protocol).

Terms: the gallery holds the embeddings of the originals, the probe those of the same pictures after a method (and a
degradation). Row i and row j of different pictures are compared; a picture is never its own partner unless the figure
says "same picture".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from a3gan.errors import UserError
from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval

PERMUTATIONS = 20  # shuffles of the labels behind each floor
RANKS = (5, 10)  # beside rank 1


@dataclass(frozen=True)
class Reference:
    """What the originals fix for one judge, before any result is seen.

    gallery: float32 [N, E], unit length. identity: int64 [N], -1 = unknown (never a partner). thresholds: at `far` on
    pairs of originals of two people, for the cosine and for its absolute value.
    """

    gallery: np.ndarray
    identity: np.ndarray
    far: float
    threshold: float
    threshold_abs: float
    impostor_pairs: int
    impostor: np.ndarray = field(repr=False)  # float32 [M], original against original


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, E], [M, E] of unit length -> [N, M]."""
    return np.asarray(a, dtype=np.float32) @ np.asarray(b, dtype=np.float32).T


def pair_masks(identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs of different pictures, bool [N, N] each: of one person, of two people."""
    known = identity >= 0
    same = identity[:, None] == identity[None]
    both = known[:, None] & known[None]
    genuine = same & both
    np.fill_diagonal(genuine, False)
    return genuine, ~same & both


def reference(gallery: np.ndarray, identity: np.ndarray, far: float) -> Reference:
    """Thresholds from the originals. UserError where too few pairs of two people exist to tell `far` from zero."""
    identity = np.asarray(identity)
    _, impostor = pair_masks(identity)
    scores = cosine(gallery, gallery)[np.triu(impostor)]
    if len(scores) * far < 1:
        raise UserError(
            f"far={far:g}: {len(scores)} pairs of two people are too few for this false match rate; use more pictures"
        )
    plain, absolute = (statistics.threshold_at(s, far) for s in (scores, np.abs(scores)))
    return Reference(np.asarray(gallery), identity, far, plain, absolute, len(scores), scores)


def verification(
    ref: Reference, probe: np.ndarray, found: np.ndarray | None = None, replicates: int = 1000, seed: int = 0
) -> dict[str, Interval | float]:
    """Threshold figures, originals against `probe` [N, E], all ordered pairs: either side is the anonymised one once.

    tar: true match rate above the threshold of the originals (P1); tar_found: the same, a pair whose probe face no
    detector found (`found` [N]) counting as hidden; tar_abs: by |cos| (P3); tar_own: with the threshold at the same
    rate set on these very impostors, for an attacker who knows what was done; fmr: false match rate at the threshold
    of the originals; eer, auc: against these impostors; psr: share of genuine pairs matched among originals and no
    longer matched; same_picture: share of pictures matched with their own original; tar_floor: tar with shuffled
    labels. Lower is better for privacy but for eer and psr.
    """
    genuine, impostor = pair_masks(ref.identity)
    scores = cosine(ref.gallery, probe)
    positive, negative = scores[genuine], np.sort(scores[impostor])
    rows, columns = np.nonzero(genuine)
    person = ref.identity[rows]

    def share(values: np.ndarray, who: np.ndarray = person) -> Interval:
        return statistics.share(values, who, replicates, seed)

    matched = positive > ref.threshold
    result: dict[str, Interval | float] = {"tar": share(matched)}
    if found is not None:
        result["tar_found"] = share(matched & np.asarray(found)[columns])
    result["tar_abs"] = share(np.abs(positive) > ref.threshold_abs)
    result["tar_own"] = share(positive > statistics.threshold_at(negative, ref.far))
    result["fmr"] = statistics.share_above(negative, ref.threshold)
    result["eer"] = statistics.eer_interval(positive, person, negative, replicates, seed)
    result["auc"] = share(statistics.placements(positive, negative))
    before = cosine(ref.gallery, ref.gallery)[genuine] > ref.threshold
    result["psr"] = share(~matched[before], person[before])
    own = np.diagonal(scores)
    result["same_picture"] = share(
        own > ref.threshold, np.where(ref.identity >= 0, ref.identity, -1 - np.arange(len(own)))
    )
    result["cosine_same_picture"] = float(own.mean())
    result["cosine_genuine"] = float(positive.mean())
    result["cosine_impostor"] = float(negative.mean())
    result["tar_floor"] = _tar_floor(scores > ref.threshold, ref.identity, seed)
    return result


def _tar_floor(matched: np.ndarray, identity: np.ndarray, seed: int) -> float:
    """Mean true match rate when the labels are shuffled over the known pictures: what no identity at all would give."""
    rng, known = np.random.default_rng(seed), np.flatnonzero(identity >= 0)
    shares = []
    for _ in range(PERMUTATIONS):
        shuffled = identity.copy()
        shuffled[known] = identity[rng.permutation(known)]
        shares.append(matched[pair_masks(shuffled)[0]].mean())
    return float(np.mean(shares))


def identification(
    ref: Reference, probe: np.ndarray, replicates: int = 1000, seed: int = 0
) -> dict[str, Interval | float]:
    """Closed-set figures: is the nearest gallery picture of the probe's person?

    rank1: the probe's own original left out of the gallery, probes of people with at least two pictures (P2);
    rank1_included: every original in the gallery, every known probe (P2); rank5, rank10: a picture of the person is
    among the nearest five or ten; map: mean average precision over the gallery; each also `_included`. rank1_abs,
    rank1_opposite: ranked by |cos| and by -cos (P3); rank1_reverse: an original looks for its person among the probes
    (P4); chance of each kind and rank1_floor: the same with shuffled labels. Lower is better for privacy.
    """
    identity = ref.identity
    known = np.flatnonzero(identity >= 0)
    identity, scores = identity[known], cosine(ref.gallery, probe)[np.ix_(known, known)]
    _, index, counts = np.unique(identity, return_inverse=True, return_counts=True)
    mates = counts[index] - 1
    able = mates > 0

    def rank1(table: np.ndarray, include: bool = False) -> tuple[Interval, np.ndarray]:
        """Probes are the columns of `table`."""
        if not include:
            table = table.copy()
            np.fill_diagonal(table, -np.inf)
        nearest = table.argmax(0)
        right = identity[nearest] == identity
        keep = np.ones(len(identity), bool) if include else able
        return statistics.share(right[keep], identity[keep], replicates, seed), nearest

    result: dict[str, Interval | float] = {}
    result["rank1"], nearest = rank1(scores)
    result["rank1_included"], _ = rank1(scores, include=True)
    result["rank1_abs"], _ = rank1(np.abs(scores))
    result["rank1_opposite"], _ = rank1(-scores)
    result["rank1_reverse"], _ = rank1(scores.T)
    for ending, include in (("", False), ("_included", True)):
        keep = np.ones(len(identity), bool) if include else able
        best, precision = retrieval(scores, identity, include)
        for k in RANKS:
            result[f"rank{k}{ending}"] = statistics.share(best[keep] < k, identity[keep], replicates, seed)
        result[f"map{ending}"] = statistics.share(precision[keep], identity[keep], replicates, seed)
    n = len(identity)
    result["rank1_chance"] = float((mates[able] / (n - 1)).mean()) if able.any() else float("nan")
    result["rank1_included_chance"] = float(((mates + 1) / n).mean())
    result["rank1_floor"] = _rank1_floor(nearest, identity, able, seed)
    return result


def retrieval(scores: np.ndarray, identity: np.ndarray, include: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Place [N] of the best picture of the probe's person (0 = nearest; N where there is none) and average precision
    [N] (0 there), for probes in the columns of `scores` [N, N]; a picture never finds itself unless `include`.

    Average precision: mean over the pictures of the person of the share of theirs among all that are as near or
    nearer. Ties count as nearer: against the attacker, so that constant scores rank nobody.
    """
    n = len(identity)
    best, precision = np.full(n, n), np.zeros(n)
    for j in range(n):
        column = scores[:, j]
        mates = identity == identity[j]
        if not include:
            column, mates = np.delete(column, j), np.delete(mates, j)
        if not mates.any():
            continue
        right, wrong = np.sort(column[mates])[::-1], np.sort(column[~mates])
        nearer = len(wrong) - np.searchsorted(wrong, right, "left")  # wrong ones at least as near
        found = np.arange(1, len(right) + 1)
        best[j], precision[j] = nearer[0], (found / (found + nearer)).mean()
    return best, precision


def _rank1_floor(nearest: np.ndarray, identity: np.ndarray, able: np.ndarray, seed: int) -> float:
    # The labels of all pictures are shuffled together; the probes that count stay those that had a mate.
    rng = np.random.default_rng(seed)
    if not able.any():
        return float("nan")
    shares = []
    for _ in range(PERMUTATIONS):
        shuffled = identity[rng.permutation(len(identity))]
        counts = np.bincount(np.unique(shuffled, return_inverse=True)[1])[np.unique(shuffled, return_inverse=True)[1]]
        keep = counts > 1
        shares.append((shuffled[nearest] == shuffled)[keep].mean())
    return float(np.mean(shares))
