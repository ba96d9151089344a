"""Seeds whose faces do not resemble the original: a result that does is drawn anew, with another seed. Ours.

One pass hides most people; what is left comes in single seeds that happen to look like somebody. The small recogniser
that ships with the product sees many of them. The first seed below the limit is taken, not the least alike of many: the
result is to be a stranger's (cosine about 0), and a search for the opposite could be seen through.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from a3gan.anonymizers.base import face_seed

LIMIT = 0.15
"""Mean cosine of a person's results to the originals, by `identity_small`, above which another seed is tried. Of pairs
of strangers among the originals of LFW `val` 32 % lie above it."""


def settled(
    draw: Callable[[list[int], list[int]], Tensor],
    embed: Callable[[Tensor], Tensor],
    faces: Tensor,
    seeds: Sequence[int],
    people: Sequence[Hashable],
    tries: int,
) -> list[int]:
    """A seed for each face: the person's own, or else the first of `again` whose results are unlike the originals.

    Where none is below `LIMIT`, the one that resembles them least.

    Args:
        draw: rows [m] of `faces` and as many seeds -> results as they will be pasted, [m, 3, S, S].
        embed: faces [m, 3, S, S] -> unit embeddings [m, E].
        faces: originals [N, 3, S, S]. seeds: one for each; of a person the first counts. people: who each is; faces of
            one person get one seed.
        tries: seeds tried after the first, for each person.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, person in enumerate(people):
        rows.setdefault(person, []).append(row)
    before, best, open_ = embed(faces), {}, list(rows)
    for attempt in range(tries + 1):
        looked = [row for person in open_ for row in rows[person]]
        tried = {person: again(seeds[rows[person][0]], attempt) for person in open_}
        after = embed(draw(looked, [tried[people[row]] for row in looked]))
        cosine = dict(zip(looked, (after * before[looked]).sum(1).tolist(), strict=True))
        for person in open_:
            mean = sum(cosine[row] for row in rows[person]) / len(rows[person])
            best[person] = min(best.get(person, (float("inf"), 0)), (mean, tried[person]), key=lambda pair: pair[0])
        open_ = [person for person in open_ if not best[person][0] <= LIMIT]
        if not open_:
            break
    return [best[person][1] for person in people]


def again(seed: int, attempt: int) -> int:
    """The seed itself, then (attempt 1, 2, ...) others that follow from it."""
    return int(seed) if attempt == 0 else face_seed(int(seed), f"again {attempt}")


def small_embed(frame: str) -> Callable[[Tensor], Tensor]:
    """`embed` by the shipped recogniser, for faces of that frame, in pieces of 64."""
    from a3gan.scorers.identity import small_recogniser

    recogniser = small_recogniser()
    return lambda faces: torch.cat([recogniser(part, frame, mirror=False).float() for part in faces.split(64)])
