"""The attackers: their measures against known values, that they see no judged person, and whole runs on rendered faces
with a stub recogniser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.evaluation import features, protocol
from a3gan.evaluation.attackers import budget, inversion, measures, scorers, soft, training
from a3gan.evaluation.attackers.attack import attack
from a3gan.evaluation.attackers.material import turned
from a3gan.evaluation.pictures import Originals, View

CPU = torch.device("cpu")
CONFIG = """
method: [{methods}]
judges: [{{name: stub, kind: small, path: none}}]
far: 0.05
bootstrap: 20
degradations: [none]
data: {{synthetic_count: 24, synthetic_people: 8, synthetic_size: 64}}
attackers: [{attackers}]
attack:
  {{images: 36, per_person: 3, batch: 16, head_steps: 20, tune_steps: 4, pixel_steps: 2, inversion_steps: 2,
    inversion_batch: 4}}
run: {{dir: {folder}, device: cpu}}
"""


class Stub(torch.nn.Module):
    """Embeds a face as its own pixels, shrunk and centred."""

    fingerprint = "stub:0"

    def forward(self, x: torch.Tensor, frame: str = "face") -> torch.Tensor:
        small = F.adaptive_avg_pool2d(x, 12).flatten(1)
        return F.normalize(small - small.mean(1, keepdim=True) + 1e-6)


def _people(names: list[int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    person = np.array(names)
    centres = rng.normal(size=(person.max() + 1, 32))
    vectors = centres[person] + noise * rng.normal(size=(len(person), 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), person


# --- measures -------------------------------------------------------------------------------------------------------
def test_recognition_of_clear_and_of_random_vectors() -> None:
    names = [i for i in range(20) for _ in range(3)]
    clear, person = _people(names, 0.05)
    found = measures.recognition(clear, clear, person, 0.01, 50, 0)
    assert found["rank1"].value == found["tar"].value == 1.0 and found["auc"].value == pytest.approx(1.0)
    assert found["rank1_chance"] == pytest.approx(2 / 59)
    assert found["rank1_floor"] < 0.15 and found["tar_floor"] < 0.15
    noise, _ = _people(list(range(60)), 1.0, 1)
    found = measures.recognition(noise, noise, person, 0.01, 50, 0)
    assert found["rank1"].value < 0.2 and abs(found["auc"].value - 0.5) < 0.1


def test_d_sys_of_known_histograms() -> None:
    apart = np.linspace(0.8, 1, 200), np.linspace(0, 0.2, 200)
    assert measures.d_sys(*apart, bins=10) == pytest.approx(1.0)
    same = np.linspace(0, 1, 1000)
    assert measures.d_sys(same, same, bins=10) == pytest.approx(0.0)
    # p = (1/4, 3/4), q = (3/4, 1/4): D is 0 in the first bin and (3/4 - 1/4) / 1 in the second, so 3/4 * 1/2.
    mated, other = np.array([0.0, 1, 1, 1]), np.array([0.0, 0, 0, 1])
    assert measures.d_sys(mated, other, bins=2) == pytest.approx(0.375)


def test_linkability_has_a_floor_above_zero_and_below_linked() -> None:
    linked, person = _people([i for i in range(30) for _ in range(3)], 0.3)
    found = measures.linkability(linked, linked, person, 50, 0)
    assert found["d_sys"].value > 0.9 > 0.3 > found["d_sys_floor"] > 0
    assert found["d_sys"].low <= found["d_sys"].value <= found["d_sys"].high


def test_information_in_bits() -> None:
    before = np.array([0, 0, 1, 1])
    assert soft.information(before, before) == pytest.approx(1.0)
    assert soft.information(before, np.array([0, 1, 0, 1])) == pytest.approx(0.0)


def test_ssim_is_one_for_equal_and_small_for_inverted() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(inversion.ssim(x, x), torch.ones(2), atol=1e-5)
    assert (inversion.ssim(x, -x) < 0).all()
    grey = torch.zeros(1, 3, 32, 32)
    # Two constants a, b: (2ab + c1) / (a^2 + b^2 + c1), the second factor is 1.
    a, b, c1 = 0.5, 0.75, 1e-4
    assert inversion.ssim(grey, grey + 0.5).item() == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-4)


# --- whose pictures -------------------------------------------------------------------------------------------------
def test_whole_people_with_two_pictures_are_picked() -> None:
    faces = synthetic_faces(20, 16, 0, identities=5)
    few = budget.pick(faces, 7, 3, seed=0)
    assert len(few) == 6 and few.identity.unique(return_counts=True)[1].tolist() == [3, 3]
    assert budget.pick(faces, 7, 3, seed=0).files == few.files
    with pytest.raises(budget.TooFew, match="two or more"):
        budget.pick(synthetic_faces(4, 16, 0, identities=4), 0, 3, 0)


def test_a_judged_person_among_the_attack_people_is_refused() -> None:
    faces = synthetic_faces(12, 16, 0, identities=6)
    first, rest = faces.subset(list(range(6))), faces.subset(list(range(6, 12)))
    budget.assert_apart(first, rest)
    with pytest.raises(UserError, match="share no person"):
        budget.assert_apart(faces.subset(list(range(7))), faces.subset(list(range(6, 12))))


def test_the_judged_split_is_no_attack_split(tmp_path: Path) -> None:
    faces = synthetic_faces(60, 32, 3, identities=20)
    faces.save(tmp_path / "f_32.zip")
    text = _text(tmp_path, "blur", "parrot") + f"\n{'#'}"
    (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
    cfg = protocol.load(tmp_path / "e.yaml", [f"data.path={tmp_path / 'f_32.zip'}", "data.split=train"])
    with pytest.raises(UserError, match="is the judged split"):
        budget.attack_faces(cfg, faces)


def test_held_out_people_are_whole() -> None:
    person = np.repeat(np.arange(30), 3)
    held = budget.held_out(person, 0)
    assert not set(person[held]) & set(person[~held]) and held.sum() % 3 == 0 and 0 < held.sum() < 30


# --- learning -------------------------------------------------------------------------------------------------------
def test_a_head_learns_what_is_hidden_in_a_few_directions() -> None:
    names = [i for i in range(60) for _ in range(4)]
    signal, person = _people(names, 0.1)
    noise = np.random.default_rng(1).normal(size=(len(names), 64)).astype(np.float32)
    hidden = np.concatenate([0.4 * signal, noise / 8 + 1], 1)
    hidden = (hidden / np.linalg.norm(hidden, axis=1, keepdims=True)).astype(np.float32)
    train = person < 40
    table = {"embedding": hidden}
    held = ~train

    def score(vectors: np.ndarray) -> float:
        return measures.quick(vectors[held], vectors[held], person[held])

    def learn() -> training.Learned:
        return training.learn(
            Stub(), table, training.within_batch(person), score, person, train, CPU, head_steps=200, tune_steps=0,
            pixel_steps=0, batch=64, seed=0,
        )  # fmt: skip

    first, second = learn(), learn()
    assert first.chosen == "head" and first.scores["head"] > first.scores["off_the_shelf"] + 0.1
    assert np.array_equal(first.features(table), second.features(table))
    assert np.allclose(np.linalg.norm(first.features(table), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["small", "mobilefacenet_b"])
def test_a_tail_continues_its_trunk_and_learns(kind: str) -> None:
    from a3gan.scorers.blocks import fold
    from a3gan.scorers.frozen import freeze
    from a3gan.scorers.identity import Recogniser
    from a3gan.scorers.mobilefacenet import MobileFaceNet
    from a3gan.scorers.small_identity import SmallIdentity

    torch.manual_seed(0)
    network = SmallIdentity(8, 16) if kind == "small" else MobileFaceNet("b")
    recogniser = Recogniser(freeze(fold(network.eval().requires_grad_(False))), kind, f"{kind}:0")
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    seen = scorers.Seen(recogniser, CPU)
    embedding, maps = seen.both(faces)
    assert np.allclose(embedding, recogniser(faces, "ffhq").numpy(), atol=1e-5)
    tail = scorers.Tail(recogniser.network)
    assert np.allclose(tail(torch.from_numpy(maps).float()).detach().numpy(), embedding, atol=0.02)
    tail(torch.from_numpy(maps).float()).sum().backward()
    assert all(p.grad is not None for p in tail.parameters())
    assert not any(p.requires_grad for p in recogniser.parameters())


def test_masks_part_the_face_from_what_surrounds_it() -> None:
    class Mean(torch.nn.Module):
        fingerprint = "mean:0"

        def forward(self, x: torch.Tensor, frame: str) -> torch.Tensor:
            return torch.stack([x[:, 0, 80, 80], x[:, 0, 5, 5]], 1)

    seen = scorers.Seen(Mean(), CPU)
    size = 200
    picture = np.full((size, size, 3), 255, np.uint8)
    points = np.array([[[80, 90], [120, 90], [100, 113], [83, 136], [117, 136]]], float)
    made = seen(View([picture], points), "none")
    assert made["embedding"].tolist() == [[1, 1]] and made["embedding_background"].tolist() == [[0, 1]]
    assert made["embedding_face"].tolist() == [[1, 0]]


def test_training_pictures_are_degraded_in_turn() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(6)]
    view = turned(View(pictures, np.zeros((6, 5, 2))), list(range(3, 9)))
    assert [p.shape[0] for p in view.pictures] == [40, 40, 20] * 2
    assert np.array_equal(view.pictures[0], pictures[0]) and not np.array_equal(view.pictures[1], pictures[1])


# --- whole runs -----------------------------------------------------------------------------------------------------
def _text(folder: Path, methods: str, attackers: str) -> str:
    return CONFIG.format(methods=methods, attackers=attackers, folder=json.dumps(str(folder / "run")))


def _run(folder: Path, methods: str, attackers: str) -> tuple[dict, dict, list[str]]:
    from a3gan.anonymizers.methods import create

    (folder / "eval.yaml").write_text(_text(folder, methods, attackers), encoding="utf-8")
    cfg = protocol.load(folder / "eval.yaml")
    originals = Originals(synthetic_faces(24, 64, 1_000_003, identities=8))
    names = [name.strip() for name in methods.split(",")]
    made = {name: create(name, size=64, frame="face", device=CPU) for name in names}
    judges = {"stub": features.Embedding(Stub(), CPU)}
    return attack(cfg, originals, made, {name: {"method": name} for name in names}, judges, None, CPU)


def test_a_whole_attack_and_its_repetition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attackers = "parrot, adaptive, linkability, background, soft, keys, suppressed"
    first = _run(tmp_path, "solid, identity", attackers)
    figures, about, off = first
    assert set(figures) == {"parrot", "adaptive", "linkability", "background"}
    assert [line.split()[1] for line in off] == ["soft", "keys", "suppressed"]
    hidden, shown = (figures["adaptive"][name]["none"]["rank1"]["value"] for name in ("solid", "identity"))
    assert shown == pytest.approx(about["p0"]["rank1"]["value"], abs=0.15) and hidden < shown
    assert about["works"]["parrot"]["works"] is True and about["works"]["linkability"]["figure"].endswith("d_sys")
    assert about["budget"]["pictures"] == 36 and about["budget"]["starts_from"].startswith("stub")
    assert set(figures["linkability"]["solid"]["none"]) == {"own_keys"}  # no key, nothing to share

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("learned again")

    monkeypatch.setattr(training, "learn", fail)
    assert _run(tmp_path, "solid, identity", attackers) == first
    assert not list((tmp_path / "run" / "cache" / "attack" / "features").glob("seen-*"))


def test_inversion_runs_end_to_end(tmp_path: Path) -> None:
    figures, about, _ = _run(tmp_path, "blur", "inversion")
    found = figures["inversion"]["blur"]["none"]
    assert 0 < found["ssim"]["value"] < 1 and found["rank1"]["count"] == 24
    assert set(about["works"]["inversion"]) >= {"identity", "weak_blur", "needed", "works"}


def test_no_attackers_and_no_judge(tmp_path: Path) -> None:
    assert _run(tmp_path, "blur", "")[0] == {}
