"""Stage `attributes`: its augmentation keeps points on the face, masked losses, and a few steps that learn."""

from __future__ import annotations

import math

import pytest
import torch

from a3gan.config import Config
from a3gan.data.align import FRAMES
from a3gan.data.archive import FaceSet
from a3gan.training import attributes_stage as stage_module
from a3gan.training.attributes_stage import (
    AttributesStage,
    attribute_losses,
    augment,
    cosine_lr,
    move_points,
    random_matrices,
    sample_weights,
    warp,
)
from a3gan.training.batches import all_targets, training_batch
from a3gan.training.stage import Batch

NAN = float("nan")


def dots(points: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures [N,3,S,S], -1 but for a soft dot at the first point of each row."""
    axis = (torch.arange(size) + 0.5) / size
    squared = (axis[None, None] - points[:, 0, :1, None]) ** 2 + (axis[None, :, None] - points[:, 0, 1:, None]) ** 2
    return torch.exp(-squared / (2 * 0.03**2))[:, None].expand(-1, 3, -1, -1) * 2 - 1


def centre_of(x: torch.Tensor) -> torch.Tensor:
    weight = (x[:, 0] + 1).clamp(min=0.05) - 0.05
    axis = (torch.arange(x.shape[-1]) + 0.5) / x.shape[-1]
    total = weight.sum((1, 2))
    return torch.stack(((weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total), 1)


def test_points_move_with_the_picture() -> None:
    torch.manual_seed(0)
    points = torch.rand(6, 5, 2) * 0.4 + 0.3
    matrices = random_matrices(6)
    moved = warp(dots(points, 128), matrices, 64)
    assert moved.shape[-1] == 64
    assert (centre_of(moved) - move_points(points, matrices)[:, 0]).abs().max() < 0.004


def test_augment_keeps_ranges_and_points() -> None:
    torch.manual_seed(0)
    points = torch.tensor(((1 / 3, 0.35), (2 / 3, 0.35), (0.5, 0.54), (0.362, 0.735), (0.638, 0.735))).expand(16, 5, 2)
    x, moved, eyes = augment(torch.rand(16, 3, 64, 64) * 2 - 1, points)
    assert x.shape == (16, 3, 64, 64) and x.abs().max() <= 1
    kept = ~moved[:, 0, 0].isnan()
    assert 2 < kept.sum() < 14  # points of mirrored faces are left out
    assert (moved[kept, 0, 0] < moved[kept, 1, 0]).all() and (moved[kept, 3, 0] < moved[kept, 4, 0]).all()
    assert (eyes - moved[:, :2])[kept].abs().max() < 0.08  # the frame's eyes are these points, but for the jitter


def test_losses_skip_missing_labels() -> None:
    outputs = {
        "expression": torch.zeros(3, 3), "gender": torch.tensor([9.0, -9.0, 0.0]), "yawning": torch.zeros(3),
        "eyes_closed": torch.zeros(3), "landmarks": torch.full((3, 5, 2), 0.1),
    }  # fmt: skip
    targets = {
        "expression": torch.tensor([0.0, 2.0, NAN]), "gender": torch.tensor([1.0, 0.0, NAN]),
        "yawning": torch.full((3,), NAN), "eyes_closed": torch.tensor([NAN, 1.0, NAN]),
    }  # fmt: skip
    points = torch.zeros(3, 5, 2)
    points[0] = NAN
    losses = attribute_losses(outputs, targets, points)
    assert losses["expression"].item() == pytest.approx(math.log(3))
    assert losses["gender"].item() == pytest.approx(0.025 * 9, abs=1e-3)  # sure and right: only the smoothing remains
    assert losses["yawning"] == 0
    assert losses["eyes_closed"].item() == pytest.approx(math.log(2))
    assert losses["landmarks"].item() == pytest.approx(0.3)


def test_rare_labels_are_drawn_more_often() -> None:
    targets = {name: torch.full((10,), NAN) for name in stage_module.HEADS}
    targets["yawning"] = torch.tensor([0.0] * 9 + [1.0])
    weights = sample_weights(targets)
    assert weights[9] == 1 and weights[0].item() == pytest.approx(1 / 3)


def test_learning_rate_rises_and_falls() -> None:
    assert cosine_lr(0, 1000, 100) < 0.02
    assert cosine_lr(100, 1000, 100) == pytest.approx(1.0)
    assert cosine_lr(1000, 1000, 100) == pytest.approx(0.01)
    assert cosine_lr(5000, 1000, 100) == pytest.approx(0.01)


def halves(count: int) -> FaceSet:
    """Faces of two halves: the darker one says yawn or not, gender and expression follow; landmarks are the frame's."""
    torch.manual_seed(0)
    images = torch.randint(150, 250, (count, 3, 64, 64), dtype=torch.uint8)
    for i in range(count):
        images[i, :, 32 * (i % 2) : 32 * (i % 2) + 32] //= 4
    label = [("yawn", "no_yawn")[i % 2] for i in range(count)]
    gender = [("male", "female")[i % 2] for i in range(count)]
    columns = {"label": label, "gender": gender, "expression": ["neutral"] * count}
    points, unknown = torch.tensor(FRAMES["face"]).expand(count, 5, 2), torch.full((count,), -1)
    names = [str(i) for i in range(count)]
    return FaceSet(images, names, points, unknown, [], ["train"] * count, columns, torch.zeros(count), "face", 64)


def build(faces: FaceSet, val: FaceSet | None, **train) -> AttributesStage:
    model = {"attributes": {"backbone": "plain", "width": 8}}
    train = {"betas": [0.9, 0.99], "batch_size": 8, **train}
    cfg = Config.model_validate({"stage": "attributes", "model": model, "train": train})
    torch.manual_seed(0)
    return AttributesStage(cfg, faces, val, torch.device("cpu"))


def drawn(stage: AttributesStage, seed: int) -> Batch:
    torch.manual_seed(seed)
    return training_batch(stage, torch.zeros(8, dtype=torch.long), all_targets(stage.data, "cpu"))


def test_a_few_steps_lower_the_loss() -> None:
    faces = halves(16)
    stage = build(faces, faces, lr=3e-3, total_images=320)
    losses = [float(stage.step(drawn(stage, i), 8 * i)["loss"]) for i in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    nets = {name: net.eval() for name, net in stage.networks.items()}
    metrics = stage.validate(nets)
    assert metrics["yawning"] > 0.8 and metrics["landmarks"] < 0.3
    tensors, meta = stage.inference_state(nets)
    assert meta["backbone"] == "plain" and all(k.startswith("attributes.") for k in tensors)


def test_a_step_depends_on_the_seed_alone() -> None:
    results = []
    for _ in range(2):
        stage = build(halves(8), None)
        results.append(stage.step(drawn(stage, 5), 0)["loss"])
    assert results[0] == results[1]


def test_the_stage_draws_its_rows_with_their_labels() -> None:
    faces = halves(16)
    stage = build(faces, None)
    stage.weights = torch.zeros(16).index_fill(0, torch.tensor([3, 10]), 1.0)
    batch = drawn(stage, 0)
    assert set(batch.index.tolist()) == {3, 10}
    assert torch.equal(batch.images, faces.fetch(batch.index))  # not mirrored: the augmentation does that
    assert torch.equal(batch.targets["yawning"], (batch.index == 10).float())
