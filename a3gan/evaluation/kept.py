"""What had to stay and what may change, attribute by attribute, read by the attribute judge before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a3gan.data.attributes import SCHEMA, Attribute, Policy, Schema
from a3gan.evaluation import statistics
from a3gan.evaluation.fatigue import Temperatures, correlation, sigmoid
from a3gan.evaluation.quality import mean
from a3gan.evaluation.statistics import Interval

Reading = dict[str, np.ndarray]


def read(
    heads: Mapping[str, np.ndarray], tones: Mapping[str, np.ndarray], temperatures: Temperatures | None = None
) -> Reading:
    """Every attribute's value: class index (int [N]) or a value in (0, 1) (float [N]), as the flat code has them.

    heads: outputs of the attribute network; tones: `skin_tone`, `hair_tone`, lightness [N].
    """
    import torch

    from a3gan.scorers.landmarks import measure
    from a3gan.scorers.measured import span_logit

    temperatures = temperatures or Temperatures()
    shape = {k: v.numpy() for k, v in measure(torch.from_numpy(np.asarray(heads["landmarks"], np.float64))).items()}
    values: Reading = {}
    for attribute in SCHEMA:
        name, head = attribute.name, attribute.source.partition(":")[2]
        if name == "eye_opening":
            values[name] = 1 - sigmoid(heads["eyes_closed"] / temperatures.eyes_closed)
        elif name == "mouth_opening":
            values[name] = sigmoid(heads["yawning"] / temperatures.yawning)
        elif attribute.kind == "categorical":
            values[name] = heads[head].argmax(1)
        elif attribute.kind == "binary":
            values[name] = (heads[head] > 0).astype(np.int64)
        else:
            measured = shape[name] if attribute.source == "landmarks" else np.asarray(tones[name], np.float64)
            values[name] = sigmoid(span_logit(measured, attribute))
    return values


def figures(
    before: Reading, after: Reading, policy: Policy | None, person: np.ndarray, draw: tuple[int, int],
    schema: Schema = SCHEMA,
) -> dict[str, dict[str, Interval | float]]:  # fmt: skip
    """{"keep": figures, "change": figures} by the policy; without one (a redaction has none) all stand under `all`.

    Classes: NAME_same, share read as on the original. Values: NAME_shift, mean absolute difference in (0, 1), and
    NAME_correlation. Of each part: same and shift, the means over its classes and values.
    """
    bits = dict.fromkeys((a.name for a in schema), "all") if policy is None else policy.describe(schema)
    result: dict[str, dict[str, Interval | float]] = {}
    for attribute in schema:
        cell = result.setdefault(bits[attribute.name], {})
        cell |= _one(attribute, before[attribute.name], after[attribute.name], person, draw)
    for cell in result.values():
        for ending in ("same", "shift"):
            values = [f.value for name, f in cell.items() if name.endswith(f"_{ending}") and isinstance(f, Interval)]
            if values:
                cell[ending] = float(np.mean(values))
    return result


def _one(
    attribute: Attribute, before: np.ndarray, after: np.ndarray, person: np.ndarray, draw: tuple[int, int]
) -> dict[str, Interval | float]:
    name = attribute.name
    if attribute.kind != "continuous":
        return {f"{name}_same": statistics.share(before == after, person, *draw)}
    return {
        f"{name}_shift": mean(np.abs(before - after), person, *draw),
        f"{name}_correlation": correlation(before, after),
    }


def strangers(before: Reading, person: np.ndarray, seed: int) -> dict[str, float]:
    """The same figures of originals against originals of other people, drawn at random: what somebody else's face
    would give. NAME_same, NAME_shift."""
    rng, n = np.random.default_rng(seed), len(person)
    other = rng.permutation(n)
    for _ in range(20):
        again = np.flatnonzero(person[other] == person)
        if not len(again):
            break
        other[again] = rng.integers(0, n, len(again))
    fine = person[other] != person
    result = {}
    for attribute in SCHEMA:
        a, b = before[attribute.name][fine], before[attribute.name][other][fine]
        if not len(a):
            continue
        if attribute.kind == "continuous":
            result[f"{attribute.name}_shift"] = float(np.abs(a - b).mean())
        else:
            result[f"{attribute.name}_same"] = float((a == b).mean())
    return result
