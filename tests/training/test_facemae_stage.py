"""Stage `facemae`: batches, losses, a run that learns, resumes and ends as a method."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from a3gan.config import Config
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.losses import relation
from a3gan.training import facemae_stage
from a3gan.training.batches import training_batch
from a3gan.training.facemae_stage import FaceMaeStage

pytest.importorskip("timm")
SMALL = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
TRAIN = {"lr": 3e-3, "betas": [0.9, 0.95], "batch_size": 8, "total_images": 400, "images_per_identity": 2, "seed": 1}


def config(loss=None, scorers=None, train=None, run=None, **facemae) -> Config:
    values = {"stage": "facemae", "model": {"facemae": SMALL | {"phi": "random"} | facemae}}
    values |= {"loss": loss or {}, "scorers": scorers or {}, "train": TRAIN | (train or {})}
    values["run"] = {"tensorboard": False, "device": "cpu"} | (run or {})
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def faces():
    return synthetic_faces(24, 64, 3, identities=8)


def make(cfg: Config, faces) -> FaceMaeStage:
    torch.manual_seed(0)
    return FaceMaeStage(cfg, faces, faces, torch.device("cpu"))


def test_groups_of_one_person_and_others(faces) -> None:
    torch.manual_seed(0)
    rows = make(config(related=0.5), faces).draw(8)
    assert len(rows) == 8
    person = faces.identity[rows]
    assert person[0] == person[1] and person[2] == person[3] and person[0] != person[2]
    assert make(config(related=0.0), faces).draw(8).shape == (8,)
    assert make(config(train={"identities_per_batch": 4}), faces).draw(8) is None  # the trainer's P x Q
    with pytest.raises(UserError, match="model.facemae.related=1: a batch of 40 people"):
        make(config(), faces).draw(80)


def test_the_loss_is_the_sum_of_its_terms(faces) -> None:
    weights = {"relation": 2.0, "relation_moments": 0.5, "relation_cross": 0.25, "relation_pixel": 3.0}
    stage = make(config(weights), faces)
    real, made = faces.fetch([0, 1, 2, 3]), faces.fetch([4, 5, 6, 7])
    losses = stage._losses(made, real)
    z, y = stage.phi[0](real), stage.phi[0](made)
    assert losses["relation_pixel"].item() == pytest.approx(F.mse_loss(made, real).item())
    assert losses["relation"].item() == pytest.approx(relation.instance_relation(y, z).mean().item(), rel=1e-5)
    total = sum(weights[name] * losses[name].item() for name in weights)
    assert losses["loss"].item() == pytest.approx(total, rel=1e-5)
    assert set(make(config({"relation": 0}), faces)._losses(made, real)) == {"relation_pixel", "loss"}


def test_it_learns(faces) -> None:
    stage = make(config({"relation_cross": 0.1}, ratios=[0.5, 0.75]), faces)
    logs = []
    for i in range(24):
        torch.manual_seed(i)
        batch = training_batch(stage, torch.zeros(8, dtype=torch.long), {})
        logs.append({name: float(value) for name, value in stage.step(batch, 8 * i).items()})
    for name in ("relation_pixel", "relation"):
        assert sum(log[name] for log in logs[-4:]) < 0.7 * sum(log[name] for log in logs[:4])


def test_validation_and_sheet(faces) -> None:
    stage = make(config(), faces)
    nets = {name: net.eval() for name, net in stage.networks.items()}
    found = stage.validate(nets)
    assert found["leak_chance"] == 1 / 24 and 0 < found["same_rank1_originals"] <= 1
    assert 0 <= found["leak_rank1"] <= 1 and found["pixel_mse"] > 0 and found["relation"] > 0
    sheet = stage.sheet(nets)
    assert sheet.shape == (3, 3 * 64, facemae_stage.SHEET * 64) and sheet.abs().max() <= 1
    assert stage.validate(nets) == found


def test_phi_is_a_recogniser_or_nobody(faces) -> None:
    with pytest.raises(UserError, match="scorers.recognisers"):
        make(config(phi="recogniser"), faces)
    cfg = config(phi="recogniser", scorers={"recognisers": [{"path": "", "kind": "small"}]})
    _, meta = make(cfg, faces).inference_state(make(cfg, faces).networks)
    assert meta["scorers"][0].startswith("small:")
    _, meta = make(config(), faces).inference_state(make(config(), faces).networks)
    assert meta["scorers"] == []
    assert FaceMaeStage.missing_weights(config()) == []
    cfg.scorers.recognisers[0].path = "nowhere"
    assert "nowhere" in FaceMaeStage.missing_weights(cfg)[0]


def test_a_killed_run_goes_on_and_is_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from a3gan.anonymizers.facemae import FaceMae
    from a3gan.training.trainer import train

    def run(name: str) -> Path:
        run = {"dir": str(tmp_path / name), "snapshot_every": 8, "sheet_every": 0, "log_every": 8}
        cfg = config(run=run, train={"total_images": 32, "identities_per_batch": 4, "ema_half_life": 16})
        cfg.data.synthetic_count = 64
        return train(cfg) / "checkpoint.safetensors"

    turns = FaceMaeStage.turns

    def killed(stage: FaceMaeStage, batch, images_seen: int):
        if images_seen == 16:
            raise RuntimeError("killed")
        return turns(stage, batch, images_seen)

    with monkeypatch.context() as patch:
        patch.setattr(FaceMaeStage, "turns", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run("run")
    method, whole = FaceMae(run("run"), "cpu"), FaceMae(run("whole"), "cpu")
    assert method.meta["images_seen"] == 32 and method.meta["scorers"] == []
    faces = synthetic_faces(2, 64, 9).fetch([0, 1])
    out = method.anonymize(faces, seeds=[1, 2])
    assert out.isfinite().all() and torch.equal(out, whole.anonymize(faces, seeds=[1, 2]))
