"""`carry.safetensors`: written at snapshots, small, and enough for another run to go on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.errors import UserError
from a3gan.models.build import build_discriminator, build_generator
from a3gan.training.trainer import train

TINY = [
    "stage=stylegan2", "run.device=cpu", "run.tensorboard=false", "run.log_every=8", "run.sheet_every=0",
    "run.carry=true", "run.keep_last=0", "data.synthetic_count=8", "model.generator.channels_base=256",
    "model.generator.channels_max=8", "model.generator.w_dim=16", "model.generator.z_dim=16",
    "model.generator.mapping_layers=2", "model.discriminator.channels_base=256", "model.discriminator.channels_max=8",
    "train.batch_size=4", "train.augment=ada", "train.ada_images=64", "train.ada_target=-0.99",
    "loss.path_length=2", "loss.path_length_every=1",
]  # fmt: skip
MIB = 2**20


def config(folder: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, f"run.dir='{folder.as_posix()}'", *overrides])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(tmp_path_factory.mktemp("first"), "train.total_images=8"))


def test_holds_both_weights_in_half_precision_and_nothing_of_the_machine(first: Path) -> None:
    tensors, meta = checkpoint.load(first / "carry.safetensors")
    state, whole = checkpoint.load(first / "state.safetensors")
    assert set(tensors) == {name for name in state if name.startswith(("net/", "ema/"))}
    for name, value in tensors.items():
        assert value.dtype == torch.float16
        torch.testing.assert_close(value.float(), state[name], rtol=1e-3, atol=1e-4)
    assert (meta["kind"], meta["images_seen"], meta["plain"]) == ("carry", 8, whole["plain"])
    assert meta["plain"]["augment_p"] > 0 and meta["plain"]["path_length"] > 0
    assert str(first.parent) not in str(meta)


def test_a_new_run_goes_on_from_it(first: Path, tmp_path: Path) -> None:
    begin = f"run.begin='{(first / 'carry.safetensors').as_posix()}'"
    carried, _ = checkpoint.load(first / "carry.safetensors")
    at_once = train(config(tmp_path / "a", begin, "train.total_images=8"))  # has seen them all: only writes
    again, meta = checkpoint.load(at_once / "carry.safetensors")
    assert meta["images_seen"] == 8 and meta["plain"]["augment_p"] > 0
    assert meta["config"]["run"]["begin"] == "carry.safetensors"  # no folder of this machine
    assert all(torch.equal(again[name], value) for name, value in carried.items())
    further = train(config(tmp_path / "b", begin, "train.total_images=12", "train.lr_generator=1e-5"))
    moved, meta = checkpoint.load(further / "carry.safetensors")
    assert meta["images_seen"] == 12 and meta["plain"]["augment_p"] > probability(first)
    name = "net/generator.constant"
    assert not torch.equal(moved[name], carried[name])
    torch.testing.assert_close(moved[name], carried[name], rtol=0, atol=0.01)


def probability(folder: Path) -> float:
    return checkpoint.load_meta(folder / "carry.safetensors")["plain"]["augment_p"]


def test_a_run_that_has_begun_goes_on_from_its_own_state(first: Path, tmp_path: Path) -> None:
    begin = f"run.begin='{(first / 'carry.safetensors').as_posix()}'"
    parts = train(config(tmp_path / "parts", begin, "train.total_images=12"))
    train(config(tmp_path / "parts", "train.total_images=16"))  # run.* may change; the carry is not read again
    whole = train(config(tmp_path / "whole", begin, "train.total_images=16"))
    one, other = (checkpoint.load(folder / "state.safetensors")[0] for folder in (parts, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("file", "override", "words"),
    [
        ("carry", "model.generator.w_dim=8", "model.generator.w_dim=16 (is 8)"),
        ("carry", "data.frame=ffhq", "data.frame=face (is ffhq)"),
        ("checkpoint", "train.seed=1", "holds no carry but inference"),
        ("nothing", "train.seed=1", "neither a file nor the name of shipped weights"),
    ],
)
def test_refuses_what_does_not_fit(first: Path, tmp_path: Path, file: str, override: str, words: str) -> None:
    begin = f"run.begin='{(first / f'{file}.safetensors').as_posix()}'"
    with pytest.raises(UserError) as error:
        train(config(tmp_path, begin, override, "train.total_images=16"))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_128_px_recipe_fits_where_files_may_have_16_mib() -> None:
    cfg = load_config("stylegan2/faces_128")
    generator, discriminator = build_generator(cfg), build_discriminator(cfg)
    sizes = [sum(v.numel() for v in net.state_dict().values()) for net in (generator, discriminator)]
    assert max(sizes) <= 4e6 and (2 * sizes[0] + sizes[1]) * 2 < 15.5 * MIB
    assert cfg.run.carry and cfg.data.storage == "device" and cfg.run.precision == "bfloat16"
