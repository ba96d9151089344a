"""Lists of pairs: both formats, their errors, accuracies worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.evaluation import pairs
from a3gan.evaluation.verification import reference

LFW = "2\t1\nAda 1 2\nAda 1 Bob 3\nBob 1 3\nBob 2 Cy 1\n"


def _file(folder: Path, text: str, name: str = "pairs.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_lfw_format(tmp_path: Path) -> None:
    found = pairs.read_pairs(_file(tmp_path, LFW))
    assert found[0] == pairs.Pair("Ada_0001", "Ada_0002", True, 0)
    assert found[1] == pairs.Pair("Ada_0001", "Bob_0003", False, 0)
    assert [p.fold for p in found] == [0, 0, 1, 1] and [p.same for p in found] == [True, False, True, False]


def test_a_table(tmp_path: Path) -> None:
    found = pairs.read_pairs(_file(tmp_path, "a,b,same,fold\nx/1.png,y/2.jpg,0,3\nx/1.png,x/3.png,1,4\n", "p.csv"))
    assert found == [pairs.Pair("1", "2", False, 3), pairs.Pair("1", "3", True, 4)]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("Ada 1 2\n", "p.txt", "first line"),
        ("1 1\nAda 1\n", "p.txt", "line 2"),
        ("1 1\nAda one 2\n", "p.txt", "line 2"),
        ("a,b\n1,2\n", "p.csv", "columns a, b, same"),
        ("a,b,same\n1,2,yes\n", "p.csv", "line 2"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pairs.read_pairs(_file(tmp_path, text, name))


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        pairs.read_pairs(tmp_path / "none.txt")


def test_only_pairs_at_hand_count(tmp_path: Path) -> None:
    listed = pairs.at_hand(pairs.read_pairs(_file(tmp_path, LFW)), ["lfw/Ada_0001.jpg", "b/Bob_0003.jpg", "Bob_0001.x"])
    assert listed.a.tolist() == [0, 2] and listed.b.tolist() == [1, 1] and listed.listed == 4


def test_the_best_threshold_lies_between_the_two() -> None:
    scores, same = np.array([0.1, 0.2, 0.3, 0.8, 0.9]), np.array([0, 0, 1, 1, 1], bool)
    assert pairs.best_threshold(scores, same) == pytest.approx(0.25)
    assert pairs.best_threshold(np.array([0.5, 0.5]), np.array([True, True])) < 0.5
    assert pairs.best_threshold(np.array([0.5, 0.5]), np.array([False, False])) > 0.5


def test_accuracy_uses_the_other_folds() -> None:
    fold, same = np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0], bool)
    assert pairs.fold_accuracy(np.array([0.9, 0.1, 0.8, 0.2]), same, fold) == 1.0
    # Fold 1 lies higher: the threshold of each is wrong for one pair of the other.
    assert pairs.fold_accuracy(np.array([0.3, 0.1, 0.9, 0.6]), same, fold) == 0.5


def test_figures_of_pairs() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(30, 32))
    who = np.repeat(np.arange(30), 2)
    embeddings = people[who] + 0.2 * rng.normal(size=(60, 32))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    ref = reference(embeddings, who, 1e-2)
    a = np.arange(0, 60, 2)
    listed = pairs.Listed(
        np.r_[a, a], np.r_[a + 1, (a + 2) % 60], np.arange(60) < 30, np.tile(np.arange(30) % 3, 2), 99
    )
    before = pairs.figures(ref, embeddings, listed, who, (50, 0))
    assert before["pairs_tar"].value == 1 and before["pairs_accuracy"] == 1 and before["pairs_auc"] == 1
    assert before["pairs_tar"].count == 60 and before["pairs_count"] == 60 and before["pairs_listed"] == 99
    noise = rng.normal(size=(60, 32))
    noise = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
    after = pairs.figures(ref, noise, listed, who, (50, 0))
    assert after["pairs_tar"].value < 0.1 and after["pairs_auc"] == pytest.approx(0.5, abs=0.15)
