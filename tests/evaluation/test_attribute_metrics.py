"""The numbers of the attribute networks' cards: known outputs give known metrics; the command prints them."""

from __future__ import annotations

import json

import pytest
import torch

from a3gan import checkpoint
from a3gan.data.align import FRAMES
from a3gan.data.archive import FaceSet
from a3gan.evaluation.attributes import attribute_metrics, main
from a3gan.scorers.attributes import AttributeNetwork


def faces() -> FaceSet:
    columns = {
        "expression": ["neutral", "happiness", "anger", ""],
        "gender": ["male", "female", "male", "male"],
        "label": ["yawn", "no_yawn", "closed", ""],
    }
    points = torch.tensor(FRAMES["face"]).expand(4, 5, 2).clone()
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names, unknown = [f"images/{i}.png" for i in range(4)], torch.full((4,), -1)
    return FaceSet(images, names, points, unknown, [], ["test"] * 4, columns, torch.zeros(4), "face", 64)


class Fixed(torch.nn.Module):
    """Says what it is told, whatever it sees."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        points = torch.tensor(FRAMES["face"]).expand(4, 5, 2).clone()
        points[..., 0] += 0.05 / 3  # 5 % of the eye distance
        return {
            # smiling: right, wrong (were 'other' allowed to win, both would be wrong); three classes: 1 of 3
            "expression": torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
            "gender": torch.tensor([1.0, 1.0, -1.0, 1.0]),
            "yawning": torch.tensor([1.0, -1.0, 9.0, 9.0]),
            "eyes_closed": torch.tensor([9.0, 9.0, -1.0, 9.0]),
            "landmarks": points,
        }


def test_known_outputs_give_known_metrics() -> None:
    metrics = attribute_metrics(Fixed(), faces())
    assert metrics["smiling"] == 0.5 and metrics["smiling_count"] == 2
    assert metrics["expression"] == pytest.approx(1 / 3) and metrics["expression_count"] == 3
    assert metrics["gender"] == 0.5 and metrics["gender_balanced"] == pytest.approx(1 / 3)
    assert metrics["yawning"] == 1.0 and metrics["yawning_count"] == 2
    assert metrics["eyes_closed"] == 0.0 and metrics["eyes_closed_count"] == 1
    assert metrics["landmarks"] == pytest.approx(0.05, abs=1e-4)


def test_the_command_prints_json_and_names_what_is_missing(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    path, archive = tmp_path / "net.safetensors", tmp_path / "faces.zip"
    tensors = checkpoint.prefixed({"attributes": AttributeNetwork("plain", 8)})
    checkpoint.save(path, tensors, {"backbone": "plain", "width": 8, "stage": "attributes"})
    faces().save(archive)
    assert main([str(path), str(archive)]) == 0
    assert json.loads(capsys.readouterr().out)["landmarks_count"] == 4
    assert main([str(path), str(tmp_path / "none.zip")]) == 2
    assert "none.zip" in capsys.readouterr().err
