"""Task `dial`: who is still matched as alpha goes from 0 to 1, whether that falls, and what stays usable on the way.

The same pictures, seeds and pairs at every step, so that two steps are compared pair by pair: the interval of a
difference is far narrower than the intervals of the two shares suggest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.evaluation import statistics
from a3gan.evaluation.attackers import budget
from a3gan.evaluation.expression import expression
from a3gan.evaluation.expression_heads import clear
from a3gan.evaluation.fatigue import correlation
from a3gan.evaluation.gather import ORIGINAL, Table
from a3gan.evaluation.pictures import Originals, Photos
from a3gan.evaluation.quality import landmark_errors
from a3gan.evaluation.statistics import Interval
from a3gan.evaluation.verification import cosine, pair_masks

if TYPE_CHECKING:
    from a3gan.evaluation.tasks import Bench
    from a3gan.evaluation.verification import Reference

NAME = "dial"
STEPS = tuple(round(step / 10, 1) for step in range(11))  # of alpha; 0 is the plain reconstruction
Figures = dict[str, Any]


def able(bench: Bench) -> list[str]:
    """The methods that have a dial."""
    return [name for name, method in bench.gather.methods.items() if "alpha" in method.supports]


def off(bench: Bench) -> str:
    """Why it cannot be measured here, or ''."""
    if not bench.references:
        return "no judge that verifies (judges, and verification among the tasks)"
    return lacking(bench, able(bench), "a dial (alpha)")


def lacking(bench: Bench, methods: list[str], what: str) -> str:
    """A reason where no method has what it takes, or no person has two pictures; else ''."""
    if not methods:
        return f"none of {', '.join(bench.gather.methods)} has {what}"
    try:
        some_people(bench)
    except budget.TooFew as error:
        return str(error)
    return ""


def some_people(bench: Bench) -> Originals:
    """The judged people with two or more pictures, within `control`: the same for the same data and seed.

    budget.TooFew: there are none.
    """
    own, cfg = bench.cfg.control, bench.cfg
    faces = budget.pick(bench.main.originals.faces, own.images, own.per_person, cfg.seed)
    return Originals(faces, Photos(cfg.data.photos, faces) if bench.main.originals.photos is not None else None)


def measure(bench: Bench) -> dict[str, dict[str, Figures]]:
    """By method under "none": `at_0` ... `at_100` (alpha in per cent) and `verdict` by judge; of the originals `at_0`'s
    figures of untouched pictures, without a step's name."""
    originals, gather = some_people(bench), bench.gather
    scorers = {f"judge-{name}": bench.judges[name] for name in bench.references}
    if bench.attributes is not None:
        scorers["attributes"] = bench.attributes
    before = gather.tables(originals, scorers, ["none"], [ORIGINAL], NAME)[ORIGINAL]
    read = Reader(bench, originals, before)
    result = {ORIGINAL: {"none": read.figures(before)}}
    for name in able(bench):
        tables = [
            gather.tables(originals, scorers, ["none"], [name], f"alpha {alpha:g}", alpha=alpha)[name]
            for alpha in STEPS
        ]  # fmt: skip
        cells: Figures = {key(alpha): read.figures(table) for alpha, table in zip(STEPS, tables, strict=True)}
        matched = {judge: np.stack([read.matched(judge, table) for table in tables]) for judge in bench.references}
        cells["verdict"] = {judge: verdict(rows, read.pair_person, bench.draw) for judge, rows in matched.items()}
        result[name] = {"none": cells}
    person = originals.faces.identity.numpy()
    bench.about[NAME] = {"pictures": len(person), "people": len(np.unique(person)), "pairs": len(read.pair_person) // 2}
    return result


def key(alpha: float) -> str:
    """The name of a step in the results: `at_30` of alpha 0.3."""
    return f"at_{round(100 * alpha)}"


class Reader:
    """Figures of one step's table against the originals' one."""

    def __init__(self, bench: Bench, originals: Originals, before: Table):
        from a3gan.data.attributes import targets

        self.references: dict[str, Reference] = bench.references
        self.before, self.draw = before, bench.draw
        self.person = originals.faces.identity.numpy()
        self.expression = targets(originals.faces)["expression"].numpy()
        self.genuine, _ = pair_masks(self.person)
        self.pair_person = self.person[np.nonzero(self.genuine)[0]]

    def matched(self, judge: str, table: Table) -> np.ndarray:
        """bool [pairs]: which pairs of one person, original against result, both ways, lie above the threshold."""
        return self._scores(judge, table)[self.genuine] > self.references[judge].threshold

    def _scores(self, judge: str, table: Table) -> np.ndarray:
        return cosine(*(t["none", f"judge-{judge}"]["embedding"] for t in (self.before, table)))

    def figures(self, table: Table) -> Figures:
        """verification by judge, expression and quality where they can be read, and the mosaicked faces."""
        cell: Figures = {"verification": {}}
        for judge, reference in self.references.items():
            own = np.diagonal(self._scores(judge, table))
            cell["verification"][judge] = {
                "tar": statistics.share(self.matched(judge, table), self.pair_person, *self.draw),
                "same_picture": statistics.share(own > reference.threshold, self.person, *self.draw),
                "cosine_same_picture": float(own.mean()),
            }
        if ("none", "attributes") in table:
            old, new = (t["none", "attributes"] for t in (self.before, table))
            if clear(self.expression).any():
                smile = expression(old, new, self.expression, self.person, None, *self.draw)
                cell["expression"] = {"agreement": smile["agreement"]}
            points = landmark_errors(old["landmarks"], new["landmarks"], self.person, self.draw)
            cell["quality"] = {"landmarks": points["landmarks"]}
        cell["mosaicked"] = int(table["none", "mosaicked"]["mosaicked"].sum())
        return cell


# --- does it fall? --------------------------------------------------------------------------------------------------
def verdict(matched: np.ndarray, person: np.ndarray, draw: tuple[int, int]) -> Figures:
    """Of matched pairs, bool [S, P] by step, with the person [P] of each pair.

    falls: the rule. No step matches more than any earlier one, where "more" is: the 95 % interval of the difference of
    the two shares, over the same pairs, people drawn, lies above 0; and the last step matches less than the first one,
    by the same measure. never_rises: the plain shares never rise from one step to the next. drop: first less last;
    largest_rise: the largest difference of a step and an earlier one, below 0 where every step falls. rises: the two
    alphas of each break of the rule. spearman: rank correlation of step and share, ties at their mean rank; -1 = every
    step falls, NaN where all shares are equal.
    """
    shares = matched.mean(1)
    gain, low, high = differences(matched, person, *draw)
    steps = [(i, j) for j in range(len(shares)) for i in range(j)]
    rises = [(i, j) for i, j in steps if low[i, j] > 0]
    i, j = max(steps, key=lambda pair: gain[pair])
    people = len(np.unique(person))

    def interval(a: int, b: int) -> Interval:
        return Interval(float(gain[a, b]), float(low[a, b]), float(high[a, b]), matched.shape[1], people)

    drop = interval(len(shares) - 1, 0)
    return {
        "falls": bool(not rises and drop.low > 0),
        "never_rises": bool((np.diff(shares) <= 0).all()),
        "spearman": spearman(np.arange(len(shares)), shares),
        "drop": drop,
        "largest_rise": interval(i, j),
        "rises": [[STEPS[i], STEPS[j]] for i, j in rises],
    }


def differences(
    matched: np.ndarray, person: np.ndarray, replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """share of step j less share of step i, float [S, S] at [i, j], and the ends of its interval over the same pairs.

    matched: bool [S, P]; person [P] is drawn, with all pairs. Of fewer than two people the ends are NaN.
    """
    matched = np.asarray(matched, np.float64)
    shares = matched.mean(1)
    gain = shares[None, :] - shares[:, None]
    names, index = np.unique(person, return_inverse=True)
    if len(names) < 2:
        return gain, np.full_like(gain, np.nan), np.full_like(gain, np.nan)
    sums = np.stack([np.bincount(index, row, len(names)) for row in matched])  # [S, people]
    weights = statistics.people_weights(len(names), replicates, seed).astype(np.float64)
    drawn = (weights @ sums.T) / (weights @ np.bincount(index))[:, None]  # [B, S]
    ends = [50 * (1 - statistics.LEVEL), 50 * (1 + statistics.LEVEL)]
    low, high = np.percentile(drawn[:, None, :] - drawn[:, :, None], ends, axis=0)
    return gain, low, high


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation (Spearman, 1904) of [n] and [n]; ties have their mean rank; NaN where one does not move."""
    from scipy.stats import rankdata

    return correlation(rankdata(a), rankdata(b))
