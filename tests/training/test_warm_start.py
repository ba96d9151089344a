"""Starting from weights: a whole A3GAN, a generator of ours, public StyleGAN2 weights; what does not fit is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from a3gan import checkpoint, cli
from a3gan.config import Config, load_config
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.models.build import build_a3gan, build_generator
from a3gan.models.public_weights import convert
from a3gan.training import warm_start
from a3gan.training.a3gan_stage import A3GanStage
from a3gan.training.carry import save_carry
from a3gan.training.ema import Ema
from a3gan.training.gan_stage import StyleGan2Stage
from a3gan.training.trainer import train

TINY = [
    "stage=a3gan", "run.device=cpu", "run.tensorboard=false", "run.sheet_every=0", "run.validate_first=false",
    "model.generator.channels_base=1024", "model.generator.channels_max=32", "model.generator.w_dim=12",
    "model.generator.z_dim=12", "model.generator.mapping_layers=3", "model.discriminator.channels_base=256",
    "model.discriminator.channels_max=8", "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8",
    "model.ainet.hidden=16", "model.ainet.code=16", "model.ainet.z_dim=8", "train.batch_size=4", "train.total_images=4",
    "train.phases.reconstruct=0", "train.phases.suppress=0", "data.synthetic_count=16",
]  # fmt: skip


def config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny public generator of 64 px in rosinality's layout, as its training script saves it."""
    spec = importlib.util.spec_from_file_location(
        "public_layouts", Path(__file__).parents[1] / "models" / "test_public_weights.py"
    )
    layouts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layouts)
    layouts.SIZES = {4: 32, 8: 32, 16: 32, 32: 32, 64: 16}
    path = tmp_path_factory.mktemp("public") / "ffhq.pt"
    torch.save({"g_ema": layouts.rosinality_state(), "latent_avg": torch.randn(12)}, path)
    return path


FITTING = ["data.frame=ffhq", "model.generator.noise=true"]


def test_public_weights_start_both_stages(public: Path) -> None:
    cfg = config(*FITTING, f"model.generator.weights='{public.as_posix()}'")
    model = build_a3gan(cfg)
    assert warm_start.begin_model(model, cfg) == checkpoint.sha256(public)
    wanted, shape = convert(torch.load(public, weights_only=True)["g_ema"], public)
    assert shape.size == 64
    for name, value in model.generator.state_dict().items():
        if name != "w_mean":
            assert torch.equal(value, wanted[name]), name
    assert torch.equal(model.generator.w_mean, torch.load(public, weights_only=True)["latent_avg"])
    assert torch.equal(model.fusion.w_start, model.generator.w_mean.expand_as(model.fusion.w_start))
    faces = synthetic_faces(4, 64, 0, frame="ffhq")
    alone = StyleGan2Stage(load_config(None, ["stage=stylegan2", *cfg_words(cfg)]), faces, None, torch.device("cpu"))
    assert torch.equal(alone.generator.constant, wanted["constant"]) and alone.parent == checkpoint.sha256(public)


def cfg_words(cfg: Config) -> list[str]:
    return [*TINY[1:], *FITTING, f"model.generator.weights='{cfg.model.generator.weights}'"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.frame=face"], "data.frame=ffhq"),
        (["model.generator.noise=false"], "model.generator.noise=true (is false)"),
        (["data.size=128"], "data.size=64 (is 128)"),
        (["model.generator.w_dim=16"], "model.generator.w_dim=12 (is 16)"),
        (["model.generator.mapping_layers=8"], "mapping_layers=3 (is 8)"),
        (["model.generator.channels_base=512"], "channels_base=1024 (is 512)"),
        (["model.generator.channels_max=16"], "channels_max=32 (is 16)"),
    ],
)
def test_a_public_generator_of_another_shape_is_named(public: Path, overrides: list[str], words: str) -> None:
    cfg = config(*FITTING, f"model.generator.weights='{public.as_posix()}'", *overrides)
    with pytest.raises(UserError) as caught:
        warm_start.begin_generator(build_generator(cfg), cfg)
    assert words in str(caught.value) and "ffhq.pt" in str(caught.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inference checkpoint of one step of stage a3gan."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return train(config(f"run.dir='{folder.as_posix()}'")) / "checkpoint.safetensors"


def test_a_whole_model_goes_on_from_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    named = f"model.weights='{trained.as_posix()}'"
    cfg = config(named, f"run.dir='{(tmp_path / 'next').as_posix()}'")
    faces = synthetic_faces(8, 64, 0)
    stage = A3GanStage(cfg, faces, None, torch.device("cpu"))
    tensors, meta = checkpoint.load(trained)
    assert meta["parent"] is None
    for name, value in stage.model.state_dict().items():
        assert torch.equal(value, tensors[f"model.{name}"]), name
    folder = train(cfg)  # the averages start there as well, and the parent is noted
    after, meta = checkpoint.load(folder / "checkpoint.safetensors")
    assert meta["parent"] == checkpoint.sha256(trained) and meta["config"]["model"]["weights"] == str(trained)
    key = next(k for k in after if k.startswith("model.encoder") and k.endswith("weight"))
    assert (after[key] - tensors[key]).abs().max() < 1e-3
    assert folder == train(cfg)  # and a finished run is taken up again


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.frame=ffhq"], "data.frame=face, and the config has data.frame=ffhq"),
        (["data.size=128"], "data.size=64, and the config has data.size=128"),
        (["model.encoder.lateral=12"], "model.encoder.lateral=8 (is 12)"),
        (["model.scu.reduction=2"], "model.scu.reduction=16 (is 2)"),
        (["model.ainet.code=8"], "model.ainet.code=16 (is 8)"),
        (["model.generator.weights=x.pt"], "leave model.generator.weights=null"),
        (["model.encoder.weights=x.safetensors"], "leave model.encoder.weights=null"),
    ],
)
def test_a_model_of_another_config_is_named(trained: Path, overrides: list[str], words: str) -> None:
    cfg = config(f"model.weights='{trained.as_posix()}'", *overrides)
    with pytest.raises(UserError) as caught:
        warm_start.begin_model(build_a3gan(cfg), cfg)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("model.scu.enabled=false", ("units.1.", "units.2.", "units.3.")),
        ("model.scu.levels=[3]", ("units.1.", "units.2.")),
        ("model.scu.filler=false", (".filler.",)),
        ("model.ainet.policy=false", ()),
    ],
)
def test_a_part_can_be_taken_out_of_a_trained_model(trained: Path, override: str, gone: tuple[str, ...]) -> None:
    cfg = config(f"model.weights='{trained.as_posix()}'", override)
    model = build_a3gan(cfg)
    warm_start.begin_model(model, cfg)
    tensors, own = checkpoint.load(trained)[0], model.state_dict()
    for name, value in own.items():
        assert torch.equal(value, tensors[f"model.{name}"]), name
    left = [n for n in checkpoint.subset(tensors, "model") if n not in own]
    assert bool(left) == bool(gone) and all(any(word in name for word in gone) for name in left)
    assert model.ainet.policy == ("ainet" not in override)


@pytest.mark.parametrize(
    ("key", "was", "now", "less"),
    [
        ("model.scu.levels", [1, 2, 3], [2], True),
        ("model.scu.levels", [2], [1, 2], False),
        ("model.scu.levels", [1, 2], [3], False),
        ("model.scu.filler", True, False, True),
        ("model.scu.filler", False, True, False),
        ("model.encoder.lateral", 8, 0, False),
    ],
)
def test_parts_are_taken_out_and_none_put_in(key: str, was: object, now: object, less: bool) -> None:
    assert warm_start._only_less(key, was, now) == less


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The carry of one step of stage stylegan2: a generator and the discriminator that learned beside it."""
    folder = tmp_path_factory.mktemp("carried") / "run"
    words = ["stage=stylegan2", *TINY[1:], f"run.dir='{folder.as_posix()}'", "run.carry=true", "train.augment=ada"]
    path = train(load_config(None, words)) / "carry.safetensors"
    tensors, meta = checkpoint.load(path)
    return checkpoint.save(path, tensors, meta | {"plain": {**meta["plain"], "augment_p": 0.25}})


def test_parts_start_from_files_of_their_own(trained: Path, carried: Path) -> None:
    """The encoder of one run, generator and discriminator of another: the parts are those of the files, and the
    fusion's heads, which point into the W+ of one generator, are new at its mean code."""
    parts = {"generator": carried, "encoder": trained, "discriminator": carried}
    words = [f"model.{part}.weights='{path.as_posix()}'" for part, path in parts.items()]
    stage = A3GanStage(config(*words, "train.augment=ada"), synthetic_faces(8, 64, 0), None, torch.device("cpu"))
    began, _ = checkpoint.load(carried)
    encoder, _ = checkpoint.load(trained)
    for net, tensors, prefix in (
        (stage.model.generator, began, "ema/generator"),
        (stage.model.encoder, encoder, "model.encoder"),
        (stage.networks["discriminator"], began, "net/discriminator"),
    ):
        for name, value in net.state_dict().items():
            assert torch.equal(value, tensors[f"{prefix}.{name}"].float()), name
    assert stage.adversary.p == 0.25
    assert torch.equal(stage.model.fusion.w_start[3], stage.model.generator.w_mean)
    assert not torch.equal(stage.model.fusion.heads[0].weight, encoder["model.fusion.heads.0.weight"])


@pytest.mark.parametrize("part", ["model", "model.encoder"])
def test_what_taught_the_parent_may_not_judge_the_child(trained: Path, tmp_path: Path, part: str) -> None:
    tensors, meta = checkpoint.load(trained)
    path = checkpoint.save(tmp_path / "parent.safetensors", tensors, meta | {"scorers": ["mobilefacenet_a:1"]})
    cfg = config(f"{part}.weights='{path.as_posix()}'")
    stage = A3GanStage(cfg, synthetic_faces(8, 64, 0), None, torch.device("cpu"))
    _, made = stage.inference_state(stage.networks)
    assert set(made["scorers"]) == {"mobilefacenet_a:1", *stage.scorers.fingerprints()}
    carry = save_carry(tmp_path, stage, Ema({}, (), 0.0), 0)  # and what goes on from a carry inherits it as well
    assert warm_start.inherited_scorers(config(f"run.begin='{carry.as_posix()}'")) == sorted(made["scorers"])


def test_parts_that_do_not_fit_are_named(trained: Path, carried: Path) -> None:
    for words, reason in (
        ([f"model.discriminator.weights='{trained.as_posix()}'"], "no carry that holds a discriminator"),
        ([f"model.encoder.weights='{carried.as_posix()}'"], "holds no encoder"),
        ([f"model.encoder.weights='{trained.as_posix()}'", "model.encoder.lateral=12"], "lateral=8 (is 12)"),
        (
            [f"model.discriminator.weights='{carried.as_posix()}'", "model.discriminator.channels_max=16"],
            "channels_max=8 (is 16)",
        ),
    ):
        with pytest.raises(UserError) as caught:
            A3GanStage(config(*words), synthetic_faces(8, 64, 0), None, torch.device("cpu"))
        assert reason in str(caught.value)


def test_a_generator_of_another_frame_or_width_is_named(trained: Path) -> None:
    for overrides, words in (
        (["data.frame=ffhq"], "data.frame=face, and"),
        (["model.generator.w_dim=16"], "model.generator.w_dim=12 (is 16)"),
    ):
        cfg = config(f"model.generator.weights='{trained.as_posix()}'", *overrides)
        with pytest.raises(UserError) as caught:
            warm_start.begin_generator(build_generator(cfg), cfg)
        assert words in str(caught.value)


def test_cut_missing_and_foreign_files(trained: Path, public: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(trained.read_bytes()[:5000])
    for key in ("model.weights", "model.generator.weights"):
        cfg = config(f"{key}='{cut.as_posix()}'")
        with pytest.raises(UserError, match="not a whole safetensors file"):
            warm_start.begin_model(build_a3gan(cfg), cfg)
        cfg = config(f"{key}=absent.safetensors")
        with pytest.raises(UserError, match="neither a file nor the name of shipped weights"):
            warm_start.begin_model(build_a3gan(cfg), cfg)
        assert [line.split(":")[0] for line in warm_start.missing(cfg)] == [key]
    cfg = config("model.weights=attributes_loss")
    with pytest.raises(UserError, match="stage 'attributes', not of a3gan"):
        warm_start.begin_model(build_a3gan(cfg), cfg)


def test_dry_run_at_paper_scale_checks_the_weights(
    public: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """The shipped paper config names what a file of another size would want, before anything is trained."""
    paper = ["train", "a3gan/paper_256", "data.path=null", "data.frame=ffhq", "--dry-run"]
    paper += [f"model.{net}.channels_max=8" for net in ("generator", "discriminator")]  # faster to build
    status = cli.main([*paper, f"model.generator.weights='{public.as_posix()}'"])
    err = capsys.readouterr().err
    assert status == 1 and "wants data.size=64 (is 256)" in err and "mapping_layers=3 (is 8)" in err
    assert err.count("\n") == 1
    status = cli.main([*paper, "model.generator.weights=550000.pt"])
    assert status == 0 and "model.generator.weights: 550000.pt: neither" in capsys.readouterr().out
