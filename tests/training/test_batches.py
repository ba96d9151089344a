"""Training data from a config, and the mirror that keeps labels true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan.config import load_config
from a3gan.data.archive import FaceSet
from a3gan.errors import UserError
from a3gan.training.batches import build_data, in_another_light, make_batch, mirror, training_batch
from a3gan.training.stage import Batch


def faces(count: int = 6, size: int = 64) -> FaceSet:
    generator = torch.Generator().manual_seed(0)
    return FaceSet(
        images=torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8),
        files=[f"{i}.png" for i in range(count)],
        landmarks=torch.rand(count, 5, 2, generator=generator),
        identity=torch.full((count,), -1),
        identity_names=[],
        split=["train"] * (count - 2) + ["val"] * 2,
        columns={"expression": ["neutral"] * count},
        outside=torch.tensor([0.5] + [0.0] * (count - 1)),
        frame="face",
        size=size,
    )


def test_mirror_moves_pixels_points_and_sided_targets() -> None:
    x, points = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2)
    targets = {"yaw": torch.tensor([0.2, 0.2]), "gender": torch.tensor([1.0, 1.0])}
    batch = Batch(x, torch.arange(2), points, torch.zeros(2).long(), targets)
    out = mirror(batch, torch.tensor([True, False]))
    assert torch.equal(out.images[0], x[0].flip(2)) and torch.equal(out.images[1], x[1])
    assert torch.allclose(out.landmarks[0, 0], torch.stack([1 - points[0, 1, 0], points[0, 1, 1]]))
    assert torch.equal(out.landmarks[1], points[1])
    assert torch.allclose(out.targets["yaw"], torch.tensor([-0.2, 0.2])) and out.targets["gender"].tolist() == [1, 1]
    again = mirror(out, torch.tensor([True, False]))
    assert torch.equal(again.images, x) and torch.allclose(again.landmarks, points)


def test_make_batch_takes_rows() -> None:
    data = faces()
    batch = make_batch(data, torch.tensor([3, 1]), {"gender": torch.arange(6.0)}, "cpu")
    assert torch.equal(batch.landmarks, data.landmarks[[3, 1]]) and batch.targets["gender"].tolist() == [3, 1]
    assert batch.images.shape == (2, 3, 64, 64) and batch.images.is_contiguous(memory_format=torch.channels_last)


def test_another_light_changes_colours_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        cfg, data, device = load_config(None, ["data.jitter=1", "data.flip=false"]), faces(), "cpu"

        def draw(self, count: int) -> None:
            return None

    rows = torch.tensor([1, 4])
    plain = make_batch(Plain.data, rows, {}, "cpu")
    torch.manual_seed(3)
    lit = training_batch(Plain(), rows, {})
    torch.manual_seed(3)
    same = training_batch(Plain(), rows, {})
    assert torch.equal(lit.images, same.images) and torch.equal(lit.landmarks, plain.landmarks)
    assert lit.images.is_contiguous(memory_format=torch.channels_last) and lit.images.dtype == plain.images.dtype
    assert not torch.allclose(lit.images, plain.images, atol=0.02) and lit.images.abs().max() <= 1
    monkeypatch.setattr("a3gan.data.augment._uniform", lambda images, low, high: torch.full((len(images),), 0.0))
    torch.testing.assert_close(in_another_light(plain.images, 1.0), plain.images, atol=1e-5, rtol=0)
    monkeypatch.setattr("a3gan.data.augment._uniform", lambda images, low, high: torch.full((len(images),), high))
    grey = torch.zeros(1, 3, 4, 4)
    assert torch.allclose(in_another_light(grey, 0.5), torch.full_like(grey, 0.1), atol=1e-5)  # half of 0.1 of [0, 1]


def test_archives_are_split_filtered_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "faces.zip"
    faces().save(path)
    train, val = build_data(load_config(None, [f"data.path='{path.as_posix()}'"]))
    assert (len(train), len(val)) == (3, 2)  # one of four lies outside its photo
    two = load_config(None, [f"data.path=['{path.as_posix()}', '{path.as_posix()}']", "data.max_outside=1"])
    assert len(build_data(two)[0]) == 8
    for override, words in (
        ("data.frame=ffhq", "aligned to 'face'"),
        ("data.size=128", "128"),
        ("data.split_train=none", "data.split_train"),
        ("data.split_train=7", "data.split_train"),
    ):
        with pytest.raises(UserError, match=words):
            build_data(load_config(None, [f"data.path='{path.as_posix()}'", override]))
    assert build_data(load_config(None, [f"data.path='{path.as_posix()}'", "data.split_val=none"]))[1] is None
