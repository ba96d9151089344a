"""Privacy figures on embeddings whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from a3gan.errors import UserError
from a3gan.evaluation.verification import cosine, identification, pair_masks, reference, retrieval, verification


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """40 people, 3 pictures each: embeddings of originals, identities, embeddings that know nothing of them."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(40), 3)
    people = rng.normal(size=(40, 64))
    originals = _unit(people[identity] + 0.3 * rng.normal(size=(120, 64)))
    return originals, identity, _unit(rng.normal(size=(120, 64)))


def test_pair_masks_leave_the_picture_itself_and_the_unknown_out() -> None:
    genuine, impostor = pair_masks(np.array([0, 0, 1, -1]))
    assert genuine.sum() == 2 and genuine[0, 1] and genuine[1, 0]
    assert impostor.sum() == 4 and not impostor[3].any() and not impostor[:, 3].any()


def test_originals_are_recognised_and_noise_is_not(crowd) -> None:
    originals, identity, noise = crowd
    ref = reference(originals, identity, 1e-2)
    _, impostor = pair_masks(identity)
    assert (cosine(originals, originals)[impostor] > ref.threshold).mean() <= 1e-2
    before, after = verification(ref, originals, replicates=50), verification(ref, noise, replicates=50)
    assert before["tar"].value == 1.0 and before["auc"].value == 1.0 and before["eer"].value == 0.0
    assert before["psr"].value == 0.0 and before["same_picture"].value == 1.0
    assert after["tar"].value < 0.05 and after["psr"].value > 0.95
    assert after["auc"].value == pytest.approx(0.5, abs=0.08) and after["eer"].value == pytest.approx(0.5, abs=0.08)
    assert before["tar"].count == 240 and before["tar"].people == 40
    # Shuffled labels: about as many true matches as pairs match at all.
    matched = cosine(originals, originals)[~np.eye(120, dtype=bool)] > ref.threshold
    assert before["tar_floor"] == pytest.approx(matched.mean(), abs=0.02)


def test_a_mirrored_identity_is_caught_by_the_absolute_value(crowd) -> None:
    originals, identity, _ = crowd
    ref = reference(originals, identity, 1e-2)
    figures, ranks = verification(ref, -originals, replicates=20), identification(ref, -originals, replicates=20)
    assert figures["tar"].value == 0.0 and figures["tar_abs"].value > 0.9
    assert ranks["rank1"].value == 0.0 and ranks["rank1_abs"].value == 1.0 and ranks["rank1_opposite"].value == 1.0


def test_weak_traces_are_caught_by_a_new_threshold(crowd) -> None:
    originals, identity, _ = crowd
    wide = np.pad(originals, ((0, 0), (0, 1)))
    weak = wide * 0.15
    weak[:, -1] = np.sqrt(1 - 0.15**2)  # every cosine shrinks to 15 %, their order stays
    figures = verification(reference(wide, identity, 1e-2), weak, replicates=20)
    assert figures["tar"].value == 0.0
    assert figures["tar_own"].value == 1.0 and figures["auc"].value == 1.0


def test_faces_not_found_count_as_hidden(crowd) -> None:
    originals, identity, _ = crowd
    found = np.arange(120) % 3 != 0  # a third of every person's probes is lost
    figures = verification(reference(originals, identity, 1e-2), originals, found, 20)
    assert figures["tar"].value == 1.0 and figures["tar_found"].value == pytest.approx(2 / 3)


def test_rank_one_with_and_without_the_same_picture() -> None:
    # Each picture's nearest is itself, then one of the other person: right only with the same picture.
    angle = np.deg2rad([0, 90, 1, 91])
    embeddings = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    ref = reference(embeddings, np.array([0, 0, 1, 1]), 0.5)
    ranks = identification(ref, embeddings, 20)
    assert ranks["rank1"].value == 0.0 and ranks["rank1_included"].value == 1.0
    assert ranks["rank1_chance"] == pytest.approx(1 / 3) and ranks["rank1_included_chance"] == pytest.approx(0.5)


def test_people_with_one_picture_are_no_probes_but_stay_in_the_gallery(crowd) -> None:
    originals, identity, _ = crowd
    alone = identity.copy()
    alone[-1], alone[0] = 99, -1
    ranks = identification(reference(originals, alone, 1e-2), originals, 20)
    assert ranks["rank1"].count == 118 and ranks["rank1_included"].count == 119


def test_rank_one_floor_is_near_chance(crowd) -> None:
    originals, identity, _ = crowd
    ranks = identification(reference(originals, identity, 1e-2), originals, 20)
    assert ranks["rank1"].value == 1.0
    assert ranks["rank1_floor"] == pytest.approx(ranks["rank1_chance"], abs=0.02)


def test_too_few_pairs_for_the_rate(crowd) -> None:
    originals, identity, _ = crowd
    with pytest.raises(UserError, match="far=1e-06"):
        reference(originals, identity, 1e-6)


def test_retrieval_by_hand() -> None:
    # Gallery down, probes across; persons 0 0 0 1.
    scores = np.array([[9, 0.1, 0.2, 0.9], [0.8, 9, 0.4, 0.3], [0.5, 0.6, 9, 0.2], [0.7, 0.5, 0.3, 9]], float)
    identity = np.array([0, 0, 0, 1])
    best, precision = retrieval(scores, identity)
    # Probe 0: .8 right, .7 wrong, .5 right -> (1/1 + 2/3) / 2. Probe 1: .6 right, .5 wrong, .1 right. Probe 3 has none.
    assert best.tolist() == [0, 0, 0, 4]
    assert precision == pytest.approx([(1 + 2 / 3) / 2, (1 + 2 / 3) / 2, (1 + 2 / 3) / 2, 0])
    best, precision = retrieval(scores, identity, include=True)
    assert best.tolist() == [0, 0, 0, 0] and precision[3] == 1.0 and precision[0] == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_average_precision_agrees_with_scikit_learn_where_it_is() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    identity, scores = rng.integers(0, 9, 60), rng.normal(size=(60, 60))
    _, precision = retrieval(scores, identity, include=True)
    for j in range(0, 60, 7):
        expected = metrics.average_precision_score(identity == identity[j], scores[:, j])
        assert precision[j] == pytest.approx(expected)


def test_ranks_rise_with_the_list(crowd) -> None:
    originals, identity, noise = crowd
    ref = reference(originals, identity, 1e-2)
    clear, hidden = identification(ref, originals, 20), identification(ref, noise, 20)
    assert clear["rank5"].value == clear["map"].value == clear["rank10_included"].value == 1.0
    assert hidden["rank1"].value <= hidden["rank5"].value <= hidden["rank10"].value < 0.4
    assert hidden["map"].value < 0.15 and hidden["rank5"].count == 120
