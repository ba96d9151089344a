"""Faces that still resemble their originals are drawn anew: which seeds are tried, which is kept, who shares one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from a3gan.anonymizers import redraw
from a3gan.anonymizers.a3gan import A3ganAnonymizer
from a3gan.anonymizers.anonymizer import Anonymizer, Crop
from a3gan.anonymizers.records import FaceRecord
from a3gan.anonymizers.redraw import LIMIT, again, settled
from a3gan.errors import UserError


def embed(faces):
    """[N, 1, 1, 1] angles -> points of a circle: the cosine of two faces is that of their difference."""
    angle = faces[:, 0, 0, 0]
    return torch.stack((angle.cos(), angle.sin()), 1)


def drawing(cosine):
    """`draw` whose result for (row, seed) has that cosine to the original, which is at angle 0; what it drew."""
    drawn = []

    def draw(rows, seeds):
        drawn.append(list(zip(rows, seeds, strict=True)))
        return torch.tensor([math.acos(cosine(row, seed)) for row, seed in drawn[-1]]).reshape(-1, 1, 1, 1)

    return draw, drawn


def originals(count):
    return torch.zeros(count, 1, 1, 1)


def test_the_first_seed_that_is_unlike_is_kept() -> None:
    by_seed = {5: 0.9, again(5, 1): LIMIT + 0.01, again(5, 2): LIMIT - 0.01, 6: LIMIT - 0.01, again(5, 3): -1.0}
    draw, drawn = drawing(lambda row, seed: by_seed[seed])
    assert settled(draw, embed, originals(2), [5, 6], [0, 1], 4) == [again(5, 2), 6]
    # Whoever is settled is not drawn again, and nothing is tried beyond what will do.
    assert drawn == [[(0, 5), (1, 6)], [(0, again(5, 1))], [(0, again(5, 2))]]


def test_where_none_is_unlike_the_least_alike_is_kept() -> None:
    by_seed = {5: 0.9, again(5, 1): 0.4, again(5, 2): 0.7}
    draw, drawn = drawing(lambda row, seed: by_seed[seed])
    assert settled(draw, embed, originals(1), [5], [0], 2) == [again(5, 1)] and len(drawn) == 3
    assert settled(draw, embed, originals(1), [5], [0], 0) == [5]


def test_faces_of_one_person_share_a_seed_by_their_mean() -> None:
    by_row = {(0, 5): 0.6, (2, 5): -0.6, (1, 7): 0.2, (1, again(7, 1)): 0.0}
    draw, _ = drawing(lambda row, seed: by_row[row, seed])
    assert settled(draw, embed, originals(3), [5, 7, 9], ["a", "b", "a"], 3) == [5, again(7, 1), 5]


def test_other_seeds_follow_from_the_first() -> None:
    assert again(5, 0) == 5 and len({again(5, i) for i in range(9)} | {again(6, i) for i in range(9)}) == 18
    assert again(5, 1) == 3268771048793555486 and all(0 <= again(5, i) < 2**63 for i in range(9))


def colour(faces):
    """Unit embeddings that tell a face by its mean colours."""
    return torch.nn.functional.normalize(faces.mean((2, 3)) + 0.01)


@pytest.fixture
def method(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> A3ganAnonymizer:
    monkeypatch.setattr(redraw, "small_embed", lambda frame: colour)
    return A3ganAnonymizer(tiny_weights, "cpu")


def test_a_face_settles_alike_in_any_batch(method: A3ganAnonymizer, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    faces = torch.rand(5, 3, method.size, method.size, generator=generator) * 2 - 1
    monkeypatch.setattr(redraw, "LIMIT", -2.0)  # every try is taken
    seeds = method.settle(faces, range(5))
    assert all(new in {again(old, i) for i in range(5)} for old, new in enumerate(seeds))
    assert seeds == method.settle(faces, range(5)) and seeds[3:] == method.settle(faces[3:], [3, 4])
    method.batch = 2
    assert seeds == method.settle(faces, range(5))
    monkeypatch.setattr(redraw, "LIMIT", 2.0)
    assert method.settle(faces, range(5)) == list(range(5))
    method.redraw = 0
    monkeypatch.setattr(redraw, "LIMIT", -2.0)
    assert method.settle(faces, range(5)) == list(range(5)) and method.settle(faces[:0], []) == []


def test_what_settled_is_what_is_drawn(method: A3ganAnonymizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least alike of the tries, by results that `anonymize` gives for these seeds, pasted by the oval."""
    from a3gan.data.mask import face_mask

    monkeypatch.setattr(redraw, "LIMIT", -2.0)
    faces = torch.rand(2, 3, method.size, method.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = face_mask(method.size, method.frame)
    for face, old, new in zip(faces, (7, 8), method.settle(faces, [7, 8]), strict=True):
        seeds = [again(old, i) for i in range(5)]
        made = method.anonymize(face.expand(5, -1, -1, -1), seeds=seeds)
        cosine = (colour(face + mask * (made - face)) * colour(face[None])).sum(1)
        assert cosine[seeds.index(new)] == pytest.approx(float(cosine.min()), abs=1e-5)


@pytest.mark.parametrize("times", [-1, 101])
def test_bad_numbers_of_tries(tiny_weights: Path, times: int) -> None:
    with pytest.raises(UserError, match=f"redraw={times}: must be from 0"):
        A3ganAnonymizer(tiny_weights, "cpu", redraw=times)


def test_pictures_settle_each_face_but_not_at_alpha_0(method: A3ganAnonymizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "settle", lambda faces, seeds, policy=None, people=None: [s + 100 for s in seeds])
    anonymizer = Anonymizer(method)
    for alpha, seeds in ((0.5, [101, 102]), (0.0, [1, 2])):
        records = [FaceRecord((0, 0, 9, 9), np.zeros((5, 2)), 1.0, seed) for seed in (1, 2)]
        face = torch.zeros(3, method.size, method.size, dtype=torch.uint8)
        anonymizer.settle([Crop(record, face, torch.eye(2, 3)) for record in records], alpha=alpha)
        assert [record.seed for record in records] == seeds


def test_aligned_faces_settle_too(method: A3ganAnonymizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "settle", lambda faces, seeds, policy=None, people=None: [s + 100 for s in seeds])
    faces = torch.rand(2, 3, method.size, method.size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    anonymizer = Anonymizer(method)
    assert torch.equal(anonymizer.aligned(faces, seeds=[1, 2]), method.anonymize(faces, seeds=[101, 102]))
    plain = method.anonymize(faces, seeds=[1, 2], alpha=0.0)
    assert torch.equal(anonymizer.aligned(faces, seeds=[1, 2], alpha=0.0), plain)


def test_results_with_and_without_redrawing_are_kept_apart(method: A3ganAnonymizer) -> None:
    """In the cache of an evaluation."""
    from types import SimpleNamespace

    from a3gan.evaluation.gather import Gather

    gather = Gather(SimpleNamespace(seed=0, options={}, alpha=1.0), {"a3gan": method}, torch.device("cpu"))
    keys = []
    for method.redraw in (4, 2, 0):
        keys.append(gather.key("a3gan", None))
    assert keys[0]["redraw"] == [4, LIMIT] and keys[1]["redraw"] == [2, LIMIT] and "redraw" not in keys[2]
