"""Figures by group with the worst named; what stayed and what changed, attribute by attribute."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.data.attributes import SCHEMA, Policy
from a3gan.evaluation import groups as gr
from a3gan.evaluation import kept
from a3gan.evaluation.verification import reference

DRAW = (50, 0)


def _crowd() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(30), 3)
    people = rng.normal(size=(30, 64))
    embeddings = people[person] + 0.2 * rng.normal(size=(90, 64))
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), person


def test_groups_are_of_people() -> None:
    person = np.repeat(np.arange(30), 3)
    gender = np.where(person < 12, 0.0, 1.0)
    gender[:2] = np.nan  # the third picture of that person knows
    skin = person.astype(float) + np.tile([-5, 0, 5], 30)
    parts = gr.groups(gender, skin, person)
    assert list(parts) == [*gr.GENDERS, *gr.TERCILES]
    assert parts["gender female"].sum() == 36 and parts["gender male"].sum() == 54
    assert [parts[name].sum() for name in gr.TERCILES] == [30, 30, 30]
    assert parts["skin dark"][:30].all()
    assert list(gr.groups(np.full(90, np.nan), None, person)) == []
    assert "gender female" not in gr.groups(np.where(person < 3, 0.0, 1.0), None, person)  # too few people


def test_the_worst_group_is_named() -> None:
    embeddings, person = _crowd()
    ref = reference(embeddings, person, 1e-2)
    parts = gr.groups(np.where(person < 15, 0.0, 1.0), None, person)
    probe = np.random.default_rng(1).normal(size=embeddings.shape)
    probe = (probe / np.linalg.norm(probe, axis=1, keepdims=True)).astype(np.float32)
    women = parts["gender female"]
    probe[women] = embeddings[women]  # these are not hidden at all
    found = ~women  # and their faces are lost
    figures = gr.figures(parts, gr.Row(probe, found, None), ref, None, np.full(90, np.nan), person, DRAW)
    assert figures["gender female"]["tar"].value == 1 and figures["gender male"]["tar"].value < 0.1
    assert figures["gender female"]["rank1"].value == 1 and figures["gender male"]["rank1"].value < 0.2
    assert figures["worst"]["tar"] == figures["worst"]["rank1"] == figures["worst"]["found"] == "gender female"
    assert figures["gap"]["found"] == 1.0 and figures["gap"]["tar"] > 0.9
    assert figures["gender female"]["tar"].count == 15 * 6


def test_where_all_are_equal_none_is_worst() -> None:
    embeddings, person = _crowd()
    parts = gr.groups(np.where(person < 15, 0.0, 1.0), None, person)
    row = gr.Row(None, np.ones(90, bool), None)
    figures = gr.figures(parts, row, None, None, np.full(90, np.nan), person, DRAW)
    assert figures["worst"] == {} and figures["gap"] == {"found": 0.0}


def _heads(n: int = 8) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    points = np.array([[0.33, 0.35], [0.66, 0.35], [0.5, 0.54], [0.36, 0.73], [0.64, 0.73]])
    heads = {"expression": rng.normal(size=(n, 3)), "landmarks": points + rng.normal(0, 0.01, (n, 5, 2))}
    heads |= {name: rng.normal(size=n) for name in ("gender", "yawning", "eyes_closed")}
    return heads, {"skin_tone": rng.uniform(40, 80, n), "hair_tone": rng.uniform(20, 70, n)}


def test_every_attribute_is_read_as_the_code_has_it() -> None:
    import torch

    from a3gan.data.attributes import slices, to_values
    from a3gan.scorers.measured import attribute_logits

    heads, tones = _heads()
    values = kept.read(heads, tones)
    assert set(values) == {a.name for a in SCHEMA}
    outputs = {name: torch.tensor(value, dtype=torch.float32) for name, value in heads.items()}
    code = to_values(attribute_logits(outputs, torch.zeros(8, 3, 64, 64))).numpy()
    for name in ("yaw", "pitch", "mouth_width", "eye_opening", "mouth_opening"):
        # The code bends large logits a little.
        assert values[name] == pytest.approx(code[:, slices()[name]][:, 0], abs=0.02)
    assert (values["expression"] == heads["expression"].argmax(1)).all()


def test_kept_and_changed_by_the_policy() -> None:
    heads, tones = _heads()
    before = kept.read(heads, tones)
    after = kept.read({**heads, "gender": -heads["gender"]}, tones)
    figures = kept.figures(before, after, Policy.parse("expression"), np.arange(8), DRAW)
    assert set(figures) == {"keep", "change"}
    assert figures["change"]["gender_same"].value == 0.0 and figures["keep"]["expression_same"].value == 1.0
    assert figures["keep"]["yaw_shift"].value == 0.0 and figures["keep"]["yaw_correlation"] == pytest.approx(1)
    assert figures["keep"]["same"] == 1.0 and figures["change"]["same"] == 0.0 and figures["keep"]["shift"] == 0.0
    assert set(kept.figures(before, after, None, np.arange(8), DRAW)) == {"all"}


def test_strangers_are_other_people() -> None:
    heads, tones = _heads(40)
    person = np.repeat(np.arange(20), 2)
    before = kept.read(heads, tones)
    before["gender"] = (person % 2).astype(np.int64)
    floor = kept.strangers(before, person, 0)
    assert floor == kept.strangers(before, person, 0)
    assert 0.2 < floor["gender_same"] < 0.8 and floor["yaw_shift"] > 0
    alone = kept.strangers(before, np.zeros(40), 0)
    assert alone == {}
