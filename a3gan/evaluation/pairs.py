"""Lists of pairs to verify, such as LFW's pairs.txt: who is matched on exactly those pairs, in their folds."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from a3gan.errors import UserError
from a3gan.evaluation import statistics
from a3gan.evaluation.statistics import Interval
from a3gan.evaluation.verification import Reference


@dataclass(frozen=True)
class Pair:
    """Two pictures by the names of their files without ending, whether they show one person, and the fold."""

    a: str
    b: str
    same: bool
    fold: int


def read_pairs(path: str | Path) -> list[Pair]:
    """LFW's format, or a table.

    pairs.txt: a first line with the folds and the pairs of each kind in a fold; then lines NAME i j (one person) and
    NAME i OTHER j (two), of pictures NAME_0001 and so on. Table (.csv): columns a, b, same (1 or 0) and, if there is
    one, fold; a and b are paths or names of pictures. UserError names the line that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"data.pairs: {path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.pairs: {path}: not a text file") from error
    return _table(path, text) if path.suffix.lower() == ".csv" else _lfw(path, text)


def _table(path: Path, text: str) -> list[Pair]:
    reader = csv.DictReader(text.splitlines())
    if not {"a", "b", "same"} <= set(reader.fieldnames or ()):
        raise UserError(f"data.pairs: {path}: needs the columns a, b, same")
    pairs = []
    for line, row in enumerate(reader, 2):
        if row["same"] not in ("0", "1") or not row["a"] or not row["b"]:
            raise UserError(f"data.pairs: {path}, line {line}: a and b must be named and same be 0 or 1")
        fold = row.get("fold") or "0"
        if not fold.isdigit():
            raise UserError(f"data.pairs: {path}, line {line}: fold {fold!r} is no number")
        pairs.append(Pair(stem(row["a"]), stem(row["b"]), row["same"] == "1", int(fold)))
    return pairs


def _lfw(path: Path, text: str) -> list[Pair]:
    lines = [line.split() for line in text.splitlines()]
    lines = [(number, words) for number, words in enumerate(lines, 1) if words]
    if not lines or not all(word.isdigit() for word in lines[0][1]) or len(lines[0][1]) > 2:
        raise UserError(f"data.pairs: {path}: the first line must be the number of folds and of pairs in each")
    head = [int(word) for word in lines[0][1]]
    size = 2 * head[1] if len(head) == 2 else 2 * head[0]  # one number: a single fold, as in pairsDevTest.txt
    pairs = []
    for place, (number, words) in enumerate(lines[1:]):
        if len(words) not in (3, 4) or not (words[1].isdigit() and words[-1].isdigit()):
            raise UserError(f"data.pairs: {path}, line {number}: expected NAME i j or NAME i OTHER j")
        other = words[0] if len(words) == 3 else words[2]
        a, b = f"{words[0]}_{int(words[1]):04d}", f"{other}_{int(words[-1]):04d}"
        pairs.append(Pair(a, b, len(words) == 3, place // max(1, size)))
    return pairs


def stem(name: str) -> str:
    """A picture's name without folders and ending."""
    return PurePosixPath(name.replace("\\", "/")).stem


@dataclass(frozen=True)
class Listed:
    """Pairs of which both pictures are at hand: rows a, b [n], same [n] (bool), fold [n]; listed: all in the file."""

    a: np.ndarray
    b: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    listed: int


def at_hand(pairs: list[Pair], names: list[str]) -> Listed:
    """The pairs whose pictures are among `names` (paths of the sources, by row)."""
    row = {stem(name): i for i, name in enumerate(names)}
    some = [p for p in pairs if p.a in row and p.b in row]
    return Listed(
        np.array([row[p.a] for p in some], np.int64), np.array([row[p.b] for p in some], np.int64),
        np.array([p.same for p in some], bool), np.array([p.fold for p in some], np.int64), len(pairs),
    )  # fmt: skip


def figures(
    ref: Reference, probe: np.ndarray, listed: Listed, person: np.ndarray, draw: tuple[int, int]
) -> dict[str, Interval | float]:
    """The listed pairs, one side anonymised: first the one, then the other.

    pairs_tar, pairs_fmr: accepted pairs of one and of two people at the threshold of all originals; pairs_accuracy:
    mean over the folds of the share decided rightly with the threshold that is best on the other folds (LFW's
    protocol), set anew on these very scores: for an attacker who knows; pairs_auc; pairs_count, pairs_listed.
    """
    scores = np.concatenate([
        np.einsum("nd,nd->n", ref.gallery[listed.a], probe[listed.b], dtype=np.float64),
        np.einsum("nd,nd->n", ref.gallery[listed.b], probe[listed.a], dtype=np.float64),
    ])  # fmt: skip
    same, fold = np.tile(listed.same, 2), np.tile(listed.fold, 2)
    who = np.concatenate([person[listed.a], person[listed.b]])
    result: dict[str, Interval | float] = {}
    result["pairs_tar"] = statistics.share(scores[same] > ref.threshold, who[same], *draw)
    result["pairs_fmr"] = statistics.share(scores[~same] > ref.threshold, who[~same], *draw)
    result["pairs_accuracy"] = fold_accuracy(scores, same, fold)
    both = same.any() and not same.all()
    result["pairs_auc"] = statistics.auc(scores[same], scores[~same]) if both else float("nan")
    return result | {"pairs_count": len(listed.a), "pairs_listed": listed.listed}


def fold_accuracy(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> float:
    """Mean over the folds of the accuracy at the threshold that is best on the others; with one fold, on itself. NaN
    without pairs."""
    if not len(scores):
        return float("nan")
    folds, accuracies = np.unique(fold), []
    for k in folds:
        test = fold == k
        train = ~test if len(folds) > 1 else test
        threshold = best_threshold(scores[train], same[train])
        accuracies.append(float(((scores[test] > threshold) == same[test]).mean()))
    return float(np.mean(accuracies))


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The score above which "one person" is right most often; the middle of the gap it lies in."""
    order = np.argsort(scores, kind="stable")
    ranked, right = np.asarray(scores, np.float64)[order], np.asarray(same, bool)[order]
    # Cut i: the lowest i scores are rejected.
    hits = np.r_[0, np.cumsum(~right)] + right.sum() - np.r_[0, np.cumsum(right)]
    edges = np.r_[ranked[0] - 1, ranked, ranked[-1] + 1]
    hits[1:-1] = np.where(ranked[1:] > ranked[:-1], hits[1:-1], -1)  # no cut between equal scores
    cut = int(hits.argmax())
    return float((edges[cut] + edges[cut + 1]) / 2)
