"""Real runs of every stage, killed with SIGKILL at seeded random moments, end as one that nobody disturbed.

Each stage dies once in the writing of a file and once at any moment; A3GAN_TEST_KILLS=10 makes ten of each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from a3gan import checkpoint
from a3gan.config import load_config
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.small_identity import SmallIdentity

KILLS = int(os.environ.get("A3GAN_TEST_KILLS", 1))  # of each kind, for every stage
LIMIT = 120.0  # seconds; a run that takes longer hangs
COMMON = [
    "run.device=cpu", "run.tensorboard=false", "run.log_every=4", "run.sheet_every=16", "run.snapshot_every=4",
    "run.validate_every=16", "run.validate_first=false", "data.synthetic_count=12", "train.batch_size=2",
    "train.total_images=24", "train.ema_half_life=8", "train.warmup_images=8",
]  # fmt: skip
GAN = [
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.discriminator.channels_base=256",
    "model.discriminator.channels_max=8", "train.augment=ada", "train.ada_images=200",
]  # fmt: skip
STAGES = {
    "stylegan2": [*GAN, "loss.r1_every=3", "loss.path_length=2", "loss.path_length_every=2"],
    "a3gan": [
        *GAN, "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8", "model.ainet.hidden=16",
        "model.ainet.code=16", "model.ainet.z_dim=8", "train.phases.reconstruct=8", "train.phases.suppress=8",
        "run.best='reconstruction_l1 min'", "train.grad_clip=1.0",
    ],
    "attributes": ["model.attributes.width=8", "run.best='expression max'"],
    "identity": ["model.identity.width=8", "model.identity.dim=16", "data.synthetic_count=24", "run.keep_last=0"],
}  # fmt: skip


def run(overrides: list[str], held_write: int, at: object) -> None:
    """The training process. Its `held_write`-th file from now on stays half made until somebody kills it; -1 = none."""
    import torch

    from a3gan import checkpoint
    from a3gan.config import load_config
    from a3gan.training.trainer import train

    torch.set_num_threads(1)
    count, sync = 0, checkpoint.os.fsync

    def hold(number: int) -> None:
        nonlocal count
        count += 1
        if count - 1 == held_write:
            at.set()
            time.sleep(LIMIT)
        sync(number)

    checkpoint.os.fsync = hold
    train(load_config(None, overrides))


class Runs:
    """Starts training processes from a server that has the imports behind it (where the system has such servers)."""

    def __init__(self) -> None:
        methods = multiprocessing.get_all_start_methods()
        self.context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            stages = ["a3gan_stage", "gan_stage", "attributes_stage", "identity_stage", "trainer"]
            # The heavy ones that a run imports when it needs them; torch._dynamo comes with the first optimiser.
            heavy = ["torch._dynamo", "albumentations", "kornia", "safetensors.torch", "tqdm", "scipy.ndimage"]
            heavy += ["a3gan.training.a3gan_views", "a3gan.evaluation.attributes", "a3gan.data.synthetic"]
            self.context.set_forkserver_preload([*heavy, *(f"a3gan.training.{name}" for name in stages)])

    def go(self, overrides: list[str], kill_after: float | None = None, held_write: int = -1) -> bool:
        """One sitting; whether it was killed: after `kill_after` seconds, or while it writes a file."""
        at = self.context.Event()
        process = self.context.Process(target=run, args=(overrides, held_write, at))
        process.start()
        if held_write >= 0:
            began = time.monotonic()
            while process.is_alive() and not at.wait(0.05):
                assert time.monotonic() - began < LIMIT
            process.kill()
        elif kill_after is not None:
            process.join(kill_after)
            process.kill()
        process.join(LIMIT)
        assert process.exitcode is not None and (process.exitcode == 0 or kill_after is not None or held_write >= 0)
        return process.exitcode != 0


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    yield Runs()


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name untrained scorers, for stage a3gan."""
    folder = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    for name, net, meta in (
        ("attributes", AttributeNetwork("plain", 8), {"backbone": "plain", "width": 8}),
        ("identity", SmallIdentity(8, 16), {"width": 8, "dim": 16}),
    ):
        path = folder / f"{name}.safetensors"
        checkpoint.save(path, checkpoint.prefixed({name: net.eval()}), {"stage": name, **meta})
    where = folder.as_posix()
    return [
        f"scorers.attributes='{where}/attributes.safetensors'",
        f"scorers.recognisers=[{{path: '{where}/identity.safetensors', kind: small}}]",
    ]


def assert_nothing_is_half_written(folder: Path) -> None:
    """Every file under a final name is whole, whatever moment the process died at."""
    for path in folder.glob("*.safetensors"):
        checkpoint.load(path)
    for path in folder.glob("sheets/*.png"):
        with Image.open(path) as picture:
            picture.load()
    if (folder / "config.yaml").exists():
        load_config(folder / "config.yaml")
    if (folder / "metrics.json").exists():
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def assert_same_end(whole: Path, killed: Path) -> None:
    """Weights, averages, optimisers, plain state, best and pictures, bit for bit; and the same lines in the log."""
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in killed.iterdir())  # no temporary file is left either
    for name in (name for name in names if name.endswith(".safetensors")):
        (tensors, meta), (others, other) = checkpoint.load(whole / name), checkpoint.load(killed / name)
        assert tensors.keys() == others.keys()
        differ = [key for key, value in tensors.items() if not torch.equal(value, others[key])]
        assert not differ, f"{name}: {differ[:3]}"
        for key in ("images_seen", "optimizers", "plain", "metrics", "best"):
            assert meta.get(key) == other.get(key), f"{name}: {key}"
    for sheet in whole.glob("sheets/*.png"):
        assert sheet.read_bytes() == (killed / "sheets" / sheet.name).read_bytes()
    assert lines(whole) == lines(killed)


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in read]


@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_runs_end_as_undisturbed_ones(
    stage: str, runs: Runs, scorers: list[str], tmp_path: Path
) -> None:
    def overrides(name: str) -> list[str]:
        extra = scorers if stage == "a3gan" else []
        return [f"stage={stage}", f"run.dir='{(tmp_path / name).as_posix()}'", *COMMON, *STAGES[stage], *extra]

    began = time.monotonic()
    assert not runs.go(overrides("whole"))
    lasts = time.monotonic() - began
    drawn = random.Random(f"{stage} 0")
    folder = tmp_path / "killed"
    for _ in range(KILLS):
        # The first run writes some ten files. One that finds none left to write is over, and so is what can be killed.
        if runs.go(overrides("killed"), held_write=drawn.randrange(6)):
            assert list(folder.glob(".*.tmp"))
        assert_nothing_is_half_written(folder)
        if not runs.go(overrides("killed"), kill_after=drawn.uniform(0.1, 0.6) * lasts):
            break  # it was faster than its own first run
        assert_nothing_is_half_written(folder)
    runs.go(overrides("killed"))
    assert_nothing_is_half_written(folder)
    assert_same_end(tmp_path / "whole", folder)
