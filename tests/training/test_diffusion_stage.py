"""Stages `diffusion` and `msi`: a few steps learn, the checkpoints fit together, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.training.batches import make_batch
from a3gan.training.dryrun import dry_run
from a3gan.training.stages import stage_class

pytest.importorskip("diffusers")

from a3gan.training.diffusion_stage import DiffusionStage, noise_error, spread_times  # noqa: E402
from a3gan.training.msi_stage import MsiStage  # noqa: E402

CPU = torch.device("cpu")
SIZES = [
    "model.diffusion.widths=[8,16]", "model.diffusion.context=16", "model.diffusion.tokens=2", "model.diffusion.rank=4",
    "model.msi.heads=2", "train.lr=0.003", "train.betas=[0.9,0.99]", "train.batch_size=8", "train.total_images=1000000",
]  # fmt: skip


def config(stage: str, *more: str) -> Config:
    return load_config(None, [f"stage={stage}", *SIZES, *more])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return synthetic_faces(16, 64, 0)


def learn(stage: DiffusionStage, faces: FaceSet, steps: int) -> list[float]:
    losses = []
    for i in range(steps):
        torch.manual_seed(i)
        losses.append(float(stage.step(make_batch(faces, torch.arange(8), {}, CPU), 8 * i)["loss"]))
    return losses


def test_times_are_spread_evenly() -> None:
    torch.manual_seed(0)
    t = spread_times(10)
    assert sorted((t // 100).tolist()) == list(range(10))
    assert spread_times(1000).min() >= 0 and spread_times(1000).max() <= 999


def test_the_error_of_known_noise() -> None:
    x, noise, t = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8), torch.tensor([0, 999])
    perfect = noise_error(lambda noisy, t, context: noise, x, t, x, noise)
    nothing = noise_error(lambda noisy, t, context: 0 * noisy, x, t, x, noise)
    assert perfect.tolist() == [0, 0] and nothing.tolist() == [1, 1]


def test_both_stages_learn_and_their_checkpoints_fit(faces: FaceSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = DiffusionStage(config("diffusion"), faces, faces, CPU)
    assert stage.networks["unet"].prior.variance.min() > 0
    before = stage.validate(stage.networks)
    losses = learn(stage, faces, 16)
    after = stage.validate({name: net.eval() for name, net in stage.networks.items()})
    assert sum(losses[-4:]) < sum(losses[:4]) and after["error"] < before["error"]
    assert after["error_null"] != after["error"] != after["error_others"]  # conditions have an effect by now
    sheet = stage.sheet(stage.networks)
    assert sheet.shape == (3, 4 * 64, 12 * 64) and sheet.abs().max() <= 1
    tensors, meta = stage.inference_state(stage.networks)
    path = checkpoint.save(tmp_path / "d.safetensors", tensors, meta | {"stage": "diffusion", "config": {}})

    msi = MsiStage(config("msi", f"model.weights={path}"), faces, faces, CPU)
    frozen = {name: value.clone() for name, value in msi.unet.state_dict().items()}
    first = msi.networks["msi"].bins.detach().clone()
    learn(msi, faces, 2)
    assert all(torch.equal(value, frozen[name]) for name, value in msi.unet.state_dict().items())
    assert not torch.equal(msi.networks["msi"].bins, first) and msi.drop == 0
    again, known = msi.inference_state(msi.networks)
    assert again.keys() == tensors.keys() and known["parent"] == checkpoint.sha256(path)
    assert all(torch.equal(again[k], tensors[k]) for k in tensors if k.startswith("unet."))
    assert known["scorers"] == [known["tower"]] and known["tower"].startswith("attributes_plain:")


def test_all_conditions_dropped_teach_msi_nothing(faces: FaceSet) -> None:
    torch.manual_seed(0)
    stage = DiffusionStage(config("diffusion", "model.diffusion.drop=1.0"), faces, None, CPU)
    torch.nn.init.normal_(stage.unet.unet.conv_out.weight, std=0.02)
    turn = next(stage.turns(make_batch(faces, torch.arange(8), {}, CPU), 0))
    turn.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in stage.networks["msi"].parameters())
    assert stage.unet.null.grad.abs().sum() > 0


def test_stage_msi_says_what_is_wrong(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the checkpoint of a run of stage diffusion"):
        MsiStage(config("msi"), faces, None, CPU)
    with pytest.raises(UserError, match="is of stage 'attributes'"):
        MsiStage(config("msi", "model.weights=attributes_loss"), faces, None, CPU)
    torch.manual_seed(0)
    tensors, meta = (stage := DiffusionStage(config("diffusion"), faces, None, CPU)).inference_state(stage.networks)
    meta |= {"stage": "diffusion", "tower": "attributes_plain:0"}
    path = checkpoint.save(tmp_path / "d.safetensors", tensors, meta)
    with pytest.raises(UserError, match="another attribute network"):
        MsiStage(config("msi", f"model.weights={path}"), faces, None, CPU)


@pytest.mark.parametrize("stage", ["diffusion", "msi"])
def test_dry_runs(stage: str) -> None:
    assert stage_class(stage).name == stage
    text = dry_run(config(stage))
    assert ("model.weights: stage msi needs" in text) == (stage == "msi") and "msi " in text
