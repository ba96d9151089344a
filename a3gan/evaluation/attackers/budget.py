"""What an attacker may use: whose pictures, how many, how long; and the proof that none of the judged people is there.

The budget is the same for every method, and is printed with the results: an attacker with more pictures or steps may
do better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.errors import UserError
from a3gan.evaluation.pictures import Originals, Photos

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.evaluation.protocol import EvalConfig

ATTACKERS = ("parrot", "adaptive", "inversion", "linkability", "background", "soft", "keys", "suppressed")
RENDERED_SEED = 2_000_003  # of the rendered people that the attackers learn from; the judged ones have another
LEAST_PEOPLE = 8  # fewer with two pictures teach an attacker nothing
HELD_OUT = 0.15  # share of the attack people by which an attacker chooses its best stage


class TooFew(UserError):
    """The data has too few people for an attack: attackers are then turned off, nothing else."""


def pick(faces: FaceSet, at_most: int, per_person: int, seed: int) -> FaceSet:
    """Whole people with two or more pictures, at most `per_person` each, about `at_most` pictures in all (0 = all).

    People come in a shuffled order; which of their pictures is drawn as well. The result keeps the order of `faces`.
    """
    who, rng = faces.identity.numpy(), np.random.default_rng(seed)
    known, counts = np.unique(who[who >= 0], return_counts=True)
    chosen: list[np.ndarray] = []
    total = 0
    for person in rng.permutation(known[counts > 1]):
        rows = rng.permutation(np.flatnonzero(who == person))[:per_person]
        if at_most and total + len(rows) > at_most:
            break
        chosen.append(rows)
        total += len(rows)
    if not chosen:
        raise TooFew("no person with two or more pictures")
    return faces.subset(np.sort(np.concatenate(chosen)).tolist())


def assert_apart(attack: FaceSet, judged: FaceSet) -> None:
    """UserError where a person, or a file, is in both sets: an attacker must not have seen whom it is judged on."""

    def people(faces: FaceSet) -> set[str]:
        return {faces.identity_names[i] for i in faces.identity.tolist() if i >= 0}

    both = sorted(people(attack) & people(judged)) or sorted(set(attack.files) & set(judged.files))
    if both:
        raise UserError(
            f"attack.split: {both[0]} (and {len(both) - 1} more) is in the attackers' pictures and in the judged ones; "
            "the splits of an attack must share no person"
        )


def attack_faces(cfg: EvalConfig, judged: FaceSet) -> Originals:
    """The pictures of other people that all attackers learn from."""
    from a3gan.data.archive import FaceSet

    limits, data = cfg.attack, cfg.data
    if data.path is None:
        from a3gan.data.synthetic import synthetic_faces

        people = max(1, limits.images // limits.per_person)
        faces = synthetic_faces(limits.images, data.synthetic_size, RENDERED_SEED, identities=people)
    else:
        if limits.split == data.split:
            raise UserError(f"attack.split={limits.split}: is the judged split; attackers learn from other people")
        try:
            faces = FaceSet.load(data.path, split=limits.split, storage="disk")
        except UserError as error:
            raise TooFew(f"attack.split: {error}") from error
    faces = pick(faces, limits.images, limits.per_person, cfg.seed)
    if len(faces.identity.unique()) < LEAST_PEOPLE:
        raise TooFew(f"attack.split={limits.split}: fewer than {LEAST_PEOPLE} people with two or more pictures")
    assert_apart(faces, judged)
    return Originals(faces, Photos(data.photos, faces) if data.photos else None)


def judged_faces(cfg: EvalConfig, originals: Originals) -> Originals:
    """The judged people with two or more pictures, at most `judged_per_person` each."""
    faces = pick(originals.faces, cfg.attack.judged_images, cfg.attack.judged_per_person, cfg.seed)
    return Originals(faces, Photos(cfg.data.photos, faces) if originals.photos is not None else None)


def held_out(person: np.ndarray, seed: int) -> np.ndarray:
    """bool [n]: the pictures of the attack people that serve to choose, never to train; at least four people."""
    names = np.unique(person)
    count = min(len(names) - 4, max(4, round(HELD_OUT * len(names))))
    chosen = np.random.default_rng(seed + 1).permutation(names)[: max(count, 1)]
    return np.isin(person, chosen)


def describe(cfg: EvalConfig, attack: FaceSet, judged: FaceSet, start: str) -> dict[str, Any]:
    """The budget as it was spent, for the results."""
    limits = cfg.attack
    return {
        "pictures": len(attack),
        "people": len(attack.identity.unique()),
        "per_person": limits.per_person,
        "split": limits.split if cfg.data.path is not None else "rendered",
        "degradations": "none, jpeg75 and half in turn" if limits.mixed else "none",
        "judged_pictures": len(judged),
        "judged_people": len(judged.identity.unique()),
        "judged_per_person": limits.judged_per_person,
        "batch": limits.batch,
        "steps": {"head": limits.head_steps, "fine_tuning": limits.tune_steps, "pixels": limits.pixel_steps,
                  "inversion": limits.inversion_steps, "suppressed": limits.suppressed_steps},
        "starts_from": f"{start}; from the pixels: identity_small",
        "seeds": "a seed for each picture, other than those of the judged pictures",
    }  # fmt: skip
