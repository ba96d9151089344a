"""Stage `stylegan2` with tiny networks: codes, one step, lazy R1, ADA, resume, what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.data.synthetic import synthetic_faces
from a3gan.models.build import build_generator
from a3gan.training import warm_start
from a3gan.training.gan_stage import StyleGan2Stage
from a3gan.training.stage import Batch
from a3gan.training.trainer import build_stage, train

TINY = [
    "stage=stylegan2", "run.device=cpu", "run.tensorboard=false", "run.log_every=8", "run.sheet_every=0",
    "data.synthetic_count=16", "model.generator.channels_base=256", "model.generator.channels_max=8",
    "model.generator.w_dim=16", "model.generator.z_dim=16", "model.generator.mapping_layers=2",
    "model.discriminator.channels_base=256", "model.discriminator.channels_max=8",
    "train.batch_size=4", "train.total_images=16", "train.lr_generator=2e-3", "train.lr_discriminator=2e-3",
]  # fmt: skip


def config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return synthetic_faces(8, 64, 0)


def stage(faces: FaceSet, *overrides: str) -> StyleGan2Stage:
    return build_stage(config(*overrides), faces, faces, torch.device("cpu"))[0]


def batch(faces: FaceSet, n: int = 4) -> Batch:
    index = torch.arange(n)
    return Batch(faces.fetch(index), index, faces.landmarks[:n], faces.identity[:n])


def state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def test_a_step_moves_both_networks(faces: FaceSet) -> None:
    gan = stage(faces)
    before = {name: state(net) for name, net in gan.networks.items()}
    torch.manual_seed(0)
    scalars = gan.step(batch(faces), 0)
    expected = {"generator/loss", "discriminator/loss", "discriminator/real", "discriminator/fake", "discriminator/r1"}
    assert set(scalars) == expected and all(torch.isfinite(v) and not v.requires_grad for v in scalars.values())
    for name, net in gan.networks.items():
        moved = [k for k, v in net.named_parameters() if not torch.equal(v, before[name][k])]
        assert len(moved) > 0.9 * len(list(net.parameters())), name
    assert not torch.equal(gan.generator.w_mean, before["generator"]["w_mean"])
    assert all(p.requires_grad for p in gan.networks["discriminator"].parameters())


def test_r1_is_lazy(faces: FaceSet) -> None:
    gan = stage(faces, "loss.r1_every=2")
    seen = ["discriminator/r1" in gan.step(batch(faces), 4 * i) for i in range(4)]
    assert seen == [True, False, True, False]
    assert "discriminator/r1" not in stage(faces, "loss.r1_gamma=0").step(batch(faces), 0)


def test_style_mixing(faces: FaceSet) -> None:
    gan = stage(faces)
    torch.manual_seed(0)
    w = gan._codes(64, torch.device("cpu"))
    assert w.shape == (64, 10, 16) and w.requires_grad
    change = (w[:, 1:] != w[:, :-1]).any(2).sum(1)
    assert set(change.tolist()) <= {0, 1}  # one border an image at most
    assert 0.75 < change.float().mean() < 1


@pytest.mark.parametrize("augment", ["none", "diffaugment", "ada"])
def test_augmentation_and_precision(faces: FaceSet, augment: str) -> None:
    gan = stage(faces, f"train.augment={augment}", "run.precision=bfloat16")
    assert gan.adversary.p == (1.0 if augment == "diffaugment" else 0.0)
    gan.adversary.p = 0.5 if augment == "ada" else gan.adversary.p
    scalars = gan.step(batch(faces), 0)
    assert all(torch.isfinite(v) for v in scalars.values())
    assert ("discriminator/ada_p" in scalars) == (augment == "ada")
    other = stage(faces, f"train.augment={augment}")
    other.load_plain_state(gan.plain_state())
    assert other.adversary.p == gan.adversary.p


def test_sheet_is_fixed_and_first_half_truncated(faces: FaceSet) -> None:
    gan = stage(faces)
    nets = {"generator": gan.generator}
    sheet = gan.sheet(nets)
    assert sheet.shape == (3, 6 * 64, 8 * 64) and torch.equal(sheet, gan.sheet(nets)) and sheet.abs().max() <= 1
    with torch.no_grad():
        first, last = gan.generator(gan.fixed[:1], 0.7)[0], gan.generator(gan.fixed[-1:])[0]
    torch.testing.assert_close(sheet[:, :64, :64], first.clamp(-1, 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sheet[:, -64:, -64:], last.clamp(-1, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("extra", [[], ["train.augment=ada", "run.precision=bfloat16", "model.generator.noise=true"]])
def test_resume_is_bit_exact(tmp_path: Path, extra: list[str]) -> None:
    def run(name: str, total: int) -> Path:
        return train(config(f"run.dir='{(tmp_path / name).as_posix()}'", f"train.total_images={total}", *extra))

    run("parts", 8)
    whole, parts = (checkpoint.load(run(name, 16) / "state.safetensors") for name in ("whole", "parts"))
    assert whole[0].keys() == parts[0].keys() and whole[1]["plain"] == parts[1]["plain"]
    for name, value in whole[0].items():
        assert torch.equal(value, parts[0][name]), name


def test_stage_a3gan_takes_its_generator(tmp_path: Path) -> None:
    from a3gan.models.build import build_a3gan

    path = tmp_path / "generator.safetensors"
    cfg = config(f"model.generator.weights='{path.as_posix()}'")
    torch.manual_seed(0)
    generator = build_generator(cfg)
    generator.w_mean.normal_()
    checkpoint.save(path, checkpoint.prefixed({"generator": generator}), {"stage": "stylegan2"})
    model = build_a3gan(cfg)
    warm_start.begin_model(model, cfg)
    assert all(torch.equal(v, generator.state_dict()[k]) for k, v in model.generator.state_dict().items())
    assert torch.equal(model.fusion.w_start, generator.w_mean.expand(10, -1))
