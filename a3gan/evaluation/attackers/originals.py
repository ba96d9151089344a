"""Features of the untouched pictures of both sets: galleries, targets and references."""

from __future__ import annotations

from a3gan.evaluation.attackers.material import Field
from a3gan.evaluation.features import Features

ORIGINAL = "original"


def judged_originals(field: Field) -> Features:
    """Of the judged people."""
    return _features(field, training=False)


def attack_originals(field: Field) -> Features:
    """Of the attack people, as they are (never degraded)."""
    return _features(field, training=True)


def _features(field: Field, training: bool) -> Features:
    which = "attack people" if training else "judged people"
    if which not in field.untouched:
        originals = field.attack if training else field.judged
        made = field.collect(originals, None, [], {"method": ORIGINAL}, ["none"], training, f"{ORIGINAL}: {which}")
        field.untouched[which] = made["none"]
    return field.untouched[which]
