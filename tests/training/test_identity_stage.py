"""Stage `identity`: classes, the verification numbers, and a few steps that learn with and without a teacher."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from a3gan.config import Config
from a3gan.data.align import FRAMES
from a3gan.data.archive import FaceSet
from a3gan.errors import UserError
from a3gan.scorers import identity as identity_module
from a3gan.scorers.identity import load_recogniser
from a3gan.scorers.small_identity import SmallIdentity
from a3gan.training import identity_stage
from a3gan.training.batches import training_batch
from a3gan.training.identity_stage import CosFace, IdentityStage, classes_of, verification


def people(count: int, pictures: int) -> FaceSet:
    """Each person has a colour; `pictures` noisy pictures of each."""
    torch.manual_seed(0)
    colours = torch.rand(count, 3, 1, 1) * 200
    images = (colours.repeat_interleave(pictures, 0) + torch.rand(count * pictures, 3, 64, 64) * 40).byte()
    n = len(images)
    return FaceSet(
        images, [str(i) for i in range(n)], torch.tensor(FRAMES["face"]).expand(n, 5, 2),
        torch.arange(count).repeat_interleave(pictures), [str(i) for i in range(count)], ["train"] * n, {},
        torch.zeros(n), "face", 64,
    )  # fmt: skip


def config(**scorers) -> Config:
    train = {"lr": 3e-3, "betas": [0.9, 0.99], "batch_size": 12, "total_images": 240, "seed": 0}
    model = {"identity": {"width": 8, "dim": 16}}
    return Config.model_validate({"stage": "identity", "model": model, "train": train, "scorers": scorers})


def run(stage: IdentityStage, faces: FaceSet, steps: int) -> list[dict[str, float]]:
    logs = []
    for i in range(steps):
        torch.manual_seed(i)
        batch = training_batch(stage, torch.zeros(12, dtype=torch.long), {})
        assert len(batch.index.unique()) > 1  # drawn by the stage
        logs.append({name: float(value) for name, value in stage.step(batch, 12 * i).items()})
    return logs


def test_classes_are_people_with_two_pictures() -> None:
    assert classes_of(torch.tensor([5, -1, 3, 5, -1, 7, 7])).tolist() == [0, -1, -1, 0, -1, 1, 1]


def test_verification_knows_perfect_and_useless_embeddings() -> None:
    identity = torch.arange(4).repeat_interleave(3)
    perfect = verification(F.one_hot(identity).float(), identity)
    assert perfect == {"genuine": 1.0, "impostor": 0.0, "matches_at_1e-2": 1.0, "rank1": 1.0}
    same = verification(torch.ones(12, 4) / 2, identity)
    assert same["matches_at_1e-2"] == 0.0
    assert verification(torch.eye(4), torch.arange(4)) == {}  # no genuine pair
    assert verification(torch.eye(4), torch.full((4,), -1)) == {}


def test_cosface_handicaps_the_right_class() -> None:
    head = CosFace(4, 3)
    with torch.no_grad():
        head.centres.copy_(torch.eye(3, 4))
    loss = head(torch.eye(3, 4), torch.arange(3))
    expected = torch.tensor(2.0).mul(torch.exp(torch.tensor(-24 * 0.8))).log1p()
    torch.testing.assert_close(loss, expected.expand(3), atol=1e-6, rtol=1e-3)


def test_people_are_told_apart_without_a_teacher() -> None:
    faces = people(6, 4)
    torch.manual_seed(0)
    stage = IdentityStage(config(), faces, faces, torch.device("cpu"))
    logs = run(stage, faces, 20)
    assert sum(log["loss"] for log in logs[-4:]) < 0.8 * sum(log["loss"] for log in logs[:4])
    nets = {name: net.eval() for name, net in stage.networks.items()}
    metrics = stage.validate(nets)
    assert metrics["genuine"] > metrics["impostor"]


def test_a_teacher_is_copied_and_asked_once(monkeypatch, tmp_path) -> None:
    class Teacher(torch.nn.Module):
        family, fingerprint, calls = "teacher", "teacher:1", 0

        def forward(self, x, frame):  # the mean colour
            Teacher.calls += 1
            return F.normalize(F.pad(x.mean((2, 3)), (0, 13), value=0.1))

    monkeypatch.setattr(identity_stage, "load_recogniser", lambda path, kind: Teacher())
    faces = people(6, 2)
    torch.manual_seed(0)
    cfg = config(recognisers=[{"path": "x", "kind": "small"}])
    cfg.run.dir = str(tmp_path)
    stage = IdentityStage(cfg, faces, None, torch.device("cpu"))
    logs = run(stage, faces, 20)
    assert sum(log["distil"] for log in logs[-4:]) < 0.7 * sum(log["distil"] for log in logs[:4])
    again = IdentityStage(cfg, faces, None, torch.device("cpu"))
    run(again, faces, 1)
    assert Teacher.calls == 1  # the second sitting reads the run's folder
    torch.testing.assert_close(again.teacher_rows, stage.teacher_rows)
    Teacher.fingerprint = "teacher:2"
    run(IdentityStage(cfg, faces, None, torch.device("cpu")), faces, 1)
    assert Teacher.calls == 2


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(UserError, match="no recogniser to learn from"):
        IdentityStage(config(), people(6, 1), None, torch.device("cpu"))


def test_the_checkpoint_is_a_recogniser(tmp_path, monkeypatch) -> None:
    from a3gan import checkpoint

    faces = people(6, 2)
    torch.manual_seed(0)
    stage = IdentityStage(config(), faces, None, torch.device("cpu"))
    tensors, meta = stage.inference_state({name: net.eval() for name, net in stage.networks.items()})
    assert not any(name.startswith("classes") for name in tensors)
    path = tmp_path / "small.safetensors"
    checkpoint.save(path, tensors, {**meta, "stage": "identity"})
    recogniser = load_recogniser(path, "small")
    assert recogniser.fingerprint.startswith("small:")
    x = faces.fetch([0, 3])
    torch.testing.assert_close(recogniser(x), stage.networks["identity"](x), atol=2e-2, rtol=0)
    checkpoint.save(path, tensors, {**meta, "stage": "attributes"})
    with pytest.raises(UserError, match="not a recogniser"):
        load_recogniser(path, "small")
    assert identity_module.CROPS["small"].width == 64


def test_the_shipped_size_is_small() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = SmallIdentity().eval()
    assert sum(p.numel() for p in network.parameters()) < 1_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    assert counter.get_total_flops() / 2 < 60e6
