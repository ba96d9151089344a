"""The numbers of the recogniser's card, through its command."""

from __future__ import annotations

import json

import torch

from a3gan import checkpoint
from a3gan.data.align import FRAMES
from a3gan.data.archive import FaceSet
from a3gan.evaluation.recogniser import main
from a3gan.scorers.small_identity import SmallIdentity


def test_the_command_prints_json_and_names_what_is_missing(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    path, archive = tmp_path / "net.safetensors", tmp_path / "faces.zip"
    meta = {"width": 8, "dim": 8, "stage": "identity"}
    checkpoint.save(path, checkpoint.prefixed({"identity": SmallIdentity(8, 8)}), meta)
    # Two pictures of each of three people are equal: any network knows them.
    images = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8).repeat_interleave(2, 0)
    points, who = torch.tensor(FRAMES["face"]).expand(6, 5, 2), torch.arange(3).repeat_interleave(2)
    names = [f"images/{i}.png" for i in range(6)]
    FaceSet(images, names, points, who, list("abc"), ["test"] * 6, {}, torch.zeros(6), "face", 64).save(archive)
    assert main([str(path), str(archive)]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["rank1"] == 1.0 and metrics["matches_at_1e-2"] == 1.0
    assert main([str(path), str(tmp_path / "none.zip")]) == 2
    assert "none.zip" in capsys.readouterr().err
