import pytest
import torch

from a3gan import checkpoint
from a3gan.anonymizers.falco import Falco
from a3gan.anonymizers.falco_pool import load_pool
from a3gan.config import load_config
from a3gan.errors import UserError
from a3gan.models.build import build_a3gan
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.blocks import fold
from a3gan.training.dryrun import dry_run
from a3gan.training.trainer import train

NARROW = [
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=8", "model.generator.mapping_layers=1", "model.encoder.widths=[8,8,8,8]",
    "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
]  # fmt: skip


def model(folder, from_noise=False):
    torch.manual_seed(0)
    cfg = load_config(None, NARROW)
    networks = {"model": build_a3gan(cfg), "attributes": fold(AttributeNetwork("plain", 8).eval())}
    if from_noise:
        networks["model"].generator.w_mean.normal_()
    meta = {"stage": "a3gan", "config": cfg.model_dump(), "frame": "face", "size": 64}
    meta["attributes"] = {"backbone": "plain", "width": 8}
    return checkpoint.save(folder / "model.safetensors", checkpoint.prefixed(networks), meta)


def config(folder, *more):
    keys = {
        "model.weights": folder / "model.safetensors", "run.dir": folder / "run", "run.tensorboard": "false",
        "run.validate_first": "false", "run.snapshot_every": 8, "data.synthetic_count": 24, "model.pool.rank": 6,
        "train.batch_size": 8, "train.total_images": 20,
    }  # fmt: skip
    return load_config("falco/pool_64", [*(f"{k}={v}" for k, v in keys.items()), *more])


def test_a_run_makes_a_pool_that_the_method_takes(tmp_path):
    model(tmp_path)
    folder = train(config(tmp_path))
    pool, meta, _ = load_pool(folder / "checkpoint.safetensors")
    assert len(pool) == 20 and pool.codes.shape == (20, 6) and pool.basis.shape == (6, 10, 16)
    assert meta["prior"] == "gaussian" and meta["model"]["name"] == "model"
    assert pool.codes.std() == pytest.approx(0.7, abs=0.15)  # truncation
    torch.testing.assert_close(pool.features.norm(dim=1), torch.ones(20), atol=1e-3, rtol=0)
    assert {"pool_mean", "pool_max", "others_mean"} <= set(meta["metrics"])
    method = Falco(folder / "checkpoint.safetensors", device="cpu", steps=1, model=tmp_path / "model.safetensors")
    assert method.anonymize(torch.zeros(1, 3, 64, 64)).isfinite().all()
    own = method.starts(pool.render(method.generator, torch.tensor([4, 11])), [0, 0])
    assert own.tolist() == [4, 11]  # the features in the file are those of the faces


def test_the_gaussian_is_that_of_the_encoders_codes(tmp_path):
    from a3gan.training.batches import build_data
    from a3gan.training.falco_stage import FalcoStage

    model(tmp_path)
    cfg = config(tmp_path, "model.pool.rank=500")  # all there are: 23 directions of 24 faces
    data, val = build_data(cfg)
    stage = FalcoStage(cfg, data, val, torch.device("cpu"))
    stage._fit()
    codes = stage._invert(data.fetch(torch.arange(24))).flatten(1).double()
    torch.testing.assert_close(stage.pool.mean.flatten().double(), codes.mean(0), atol=1e-4, rtol=1e-3)
    basis = stage.pool.basis.flatten(1).double()
    torch.testing.assert_close(basis.T @ basis, codes.T.cov(), atol=1e-4, rtol=1e-2)


def test_a_generator_trained_from_noise_is_drawn_from_noise(tmp_path):
    path = model(tmp_path, from_noise=True)
    folder = train(config(tmp_path))
    pool, meta, _ = load_pool(folder / "checkpoint.safetensors")
    assert meta["prior"] == "z"
    w = pool.w_plus(torch.arange(20), 10)
    assert torch.equal(w[:, 0], w[:, 9])  # one row of W serves all
    tensors, _ = checkpoint.load(path)
    torch.testing.assert_close(pool.mean[0], tensors["model.generator.w_mean"])
    loose = load_pool(train(config(tmp_path, "model.pool.truncation=1", f"run.dir={tmp_path / 'loose'}")) /
                      "checkpoint.safetensors")[0]  # fmt: skip
    torch.testing.assert_close(pool.codes, 0.7 * loose.codes, atol=1e-5, rtol=1e-5)


def test_a_stopped_run_goes_on_to_the_same_pool(tmp_path):
    model(tmp_path)
    whole = load_pool(train(config(tmp_path)) / "checkpoint.safetensors")[0]
    cfg = config(tmp_path, f"run.dir={tmp_path / 'stopped'}")
    train(cfg, max_minutes=0)
    with pytest.raises(UserError, match="no faces yet"):
        load_pool(cfg.run_dir / "checkpoint.safetensors")
    from a3gan.training import trainer

    steps = iter([False, False, True])  # one step, then stop
    stop = trainer.StopSignal
    try:
        trainer.StopSignal = type("Once", (stop,), {"asked": property(lambda s: next(steps, True), lambda s, v: None)})
        train(cfg)
    finally:
        trainer.StopSignal = stop
    part = load_pool(cfg.run_dir / "checkpoint.safetensors")[0]
    assert 0 < len(part) < 20
    again = load_pool(train(cfg) / "checkpoint.safetensors")[0]
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_refusals(tmp_path):
    model(tmp_path)
    with pytest.raises(UserError, match="accumulate"):
        train(config(tmp_path, "train.accumulate=2"))
    with pytest.raises(UserError, match="model.weights"):
        train(config(tmp_path, "model.weights=null"))
    with pytest.raises(UserError, match="data.frame=face"):
        train(config(tmp_path, "data.frame=ffhq"))


def test_dry_run(tmp_path):
    model(tmp_path)
    assert "pool" in dry_run(config(tmp_path))
    assert "nowhere" in dry_run(config(tmp_path, "model.weights=nowhere"))
