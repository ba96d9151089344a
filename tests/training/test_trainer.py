"""The loop with a toy stage: resume is bit exact, kills and limits save, other configs are refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.errors import UserError
from a3gan.training import trainer
from a3gan.training.stage import Batch, Stage, Turn
from a3gan.training.stages import STAGES
from a3gan.training.trainer import crossed, train

COUNT, SIZE = 23, 64  # 23: batches of 4 cross the border of an epoch


def toy_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Dropout2d(0.2), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))


class ToyStage(Stage):
    """Learns to copy noisy images through one convolution; dropout and noise make it depend on the seeding."""

    name = "toy"
    ema_names = ("net",)
    stop_at = -1

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = {"net": toy_network()}
        adam = torch.optim.Adam(self.networks["net"].parameters(), lr=cfg.train.lr, betas=tuple(cfg.train.betas))
        self.optimizers = {"net": adam}
        self.steps = 0

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        assert batch.images.is_contiguous(memory_format=torch.channels_last) and self.networks["net"].training
        self.steps += 1
        if images_seen == ToyStage.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        with self.autocast():
            out = self.networks["net"](batch.images + torch.randn_like(batch.images))
        loss = F.mse_loss(out.float(), batch.images)
        yield Turn("net", loss, {"loss": loss})

    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        assert not nets["net"].training
        x = self.val.fetch(torch.arange(4))
        return {"error": F.mse_loss(nets["net"](x), x).item()}

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor:
        return nets["net"](self.val.fetch([0]))[0]

    def plain_state(self) -> dict:
        return {"steps": self.steps}

    def load_plain_state(self, state: dict) -> None:
        self.steps = state["steps"]


def toy_faces(seed: int, count: int) -> FaceSet:
    generator = torch.Generator().manual_seed(seed)
    return FaceSet(
        images=torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8),
        files=[f"{i}.png" for i in range(count)],
        landmarks=torch.rand(count, 5, 2, generator=generator),
        identity=torch.arange(count) // 3,
        identity_names=[str(i) for i in range(count // 3 + 1)],
        split=["train"] * count,
        columns={},
        outside=torch.zeros(count),
        frame="face",
        size=SIZE,
    )


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "identity", (__name__, "ToyStage"))
    monkeypatch.setattr(trainer, "stage_class", lambda name: ToyStage)
    monkeypatch.setattr(trainer, "build_data", lambda cfg, device: (toy_faces(0, COUNT), toy_faces(1, 8)))
    monkeypatch.setattr(ToyStage, "stop_at", -1)


def config(folder: Path, *overrides: str) -> Config:
    base = [
        "stage=identity", f"run.dir='{folder.as_posix()}'", "run.device=cpu", "run.log_every=8",
        "run.sheet_every=0", "run.snapshot_every=16", "run.tensorboard=false",
        "train.batch_size=4", "train.total_images=48", "train.lr=1e-2",
    ]  # fmt: skip
    return load_config(None, [*base, *overrides])


def states(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / "state.safetensors")[0]


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    train(config(tmp_path / "whole"))
    train(config(tmp_path / "parts", "train.total_images=20"))
    train(config(tmp_path / "parts"))
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert whole.keys() == parts.keys() and {k.split("/")[0] for k in whole} == {"net", "ema", "optim"}
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    assert checkpoint.load_meta(tmp_path / "parts/state.safetensors")["plain"] == {"steps": 12}


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run"))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines if line["kind"] == "train"] == [8, 16, 24, 32, 40, 48]
    assert lines[0]["kind"] == "val" and lines[0]["images"] == 0
    assert lines[1]["loss"] > lines[-2]["loss"] > 0
    assert load_config(folder / "config.yaml") == config(folder)
    record = json.loads((folder / "metrics.json").read_text())
    assert record["metrics"]["error"] == pytest.approx(lines[-1]["error"], rel=1e-4)
    assert record["before"]["error"] == lines[0]["error"] > record["metrics"]["error"]
    assert Image.open(folder / "sheets/000000048.png").size == (SIZE, SIZE)
    tensors, meta = checkpoint.load(folder / "checkpoint.safetensors")
    assert (
        meta["images_seen"] == 48 and meta["frame"] == "face" and meta["size"] == SIZE and meta["stage"] == "identity"
    )
    assert set(tensors) == {"net." + k for k in toy_network().state_dict()}
    assert (folder / "state.1.safetensors").is_file() and not list(folder.glob(".*tmp"))


def test_the_last_validation_and_sheet_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(ToyStage, "sheet", lambda self, nets: drawn.append(self.steps) or torch.zeros(3, 4, 4))
    folder = train(config(tmp_path / "run", "run.validate_every=24", "run.sheet_every=12"))
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert [line["images"] for line in lines if line["kind"] == "val"] == [0, 24, 48]
    assert drawn == [3, 6, 9, 12]  # in steps


def test_time_limit_and_signal_save_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train(config(tmp_path / "run"), max_minutes=0)
    assert checkpoint.load_meta(folder / "state.safetensors")["images_seen"] == 0
    monkeypatch.setattr(ToyStage, "stop_at", 20)
    before = signal.getsignal(signal.SIGTERM)
    train(config(tmp_path / "run"))
    assert checkpoint.load_meta(folder / "state.safetensors")["images_seen"] == 24
    assert signal.getsignal(signal.SIGTERM) is before and not (folder / "metrics.json").exists()
    monkeypatch.setattr(ToyStage, "stop_at", -1)
    train(config(tmp_path / "run"))
    train(config(tmp_path / "whole"))
    assert all(torch.equal(value, states(tmp_path / "whole")[name]) for name, value in states(folder).items())


def test_a_kill_between_snapshots_repeats_the_same_steps(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run"))
    os.replace(folder / "state.1.safetensors", folder / "state.safetensors")  # as if killed before the last one
    with open(folder / "log.jsonl", "a") as file:
        file.write('{"images": 4')  # and within a line
    before = [line for line in (folder / "log.jsonl").read_text().splitlines()][:-1]
    train(config(tmp_path / "run"))
    after = (folder / "log.jsonl").read_text().splitlines()

    def losses(lines: list[str]) -> list[tuple]:
        return [(line["images"], line["loss"]) for line in map(json.loads, lines) if line["kind"] == "train"]

    assert losses(after) == losses(before)


def test_a_cut_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run"))
    whole = states(folder)
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    train(config(tmp_path / "run"))
    assert all(torch.equal(value, states(folder)[name]) for name, value in whole.items())
    for path in folder.glob("state*.safetensors"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="--fresh"):
        train(config(tmp_path / "run"))


def test_another_config_is_refused_and_fresh_moves_aside(tmp_path: Path) -> None:
    folder = train(config(tmp_path / "run", "train.total_images=4"))
    with pytest.raises(UserError, match=r"train\.lr \(was 0\.01, now 0\.02\)"):
        train(config(tmp_path / "run", "train.lr=0.02"))
    train(config(tmp_path / "run", "train.lr=0.02", "train.total_images=8"), fresh=True)
    assert checkpoint.load_meta(folder / "state.safetensors")["images_seen"] == 8
    assert checkpoint.load_meta(tmp_path / "run.old1" / "state.safetensors")["images_seen"] == 4


def test_identity_batches_and_bfloat16_run(tmp_path: Path) -> None:
    extra = ["run.precision=bfloat16", "train.identities_per_batch=2", "train.warmup_images=16"]
    folder = train(config(tmp_path / "run", *extra))
    groups = checkpoint.load_meta(folder / "state.safetensors")["optimizers"]["net"]["groups"]
    assert groups[0]["lr"] == groups[0]["initial_lr"] == 0.01


def test_accumulation_resumes_and_its_number_may_change(tmp_path: Path) -> None:
    train(config(tmp_path / "whole", "train.accumulate=2"))
    train(config(tmp_path / "parts", "train.accumulate=2", "train.total_images=20"))
    train(config(tmp_path / "parts", "train.accumulate=2"))
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert checkpoint.load_meta(tmp_path / "parts/state.safetensors")["plain"] == {"steps": 12}
    train(config(tmp_path / "parts", "train.accumulate=4", "train.total_images=52"))
    with pytest.raises(UserError, match=r"train\.batch_size: 4 .* 1 x 3; take a multiple of 3"):
        train(config(tmp_path / "parts", "train.accumulate=3", "train.total_images=60"))
    extra = ["train.identities_per_batch=2", "train.accumulate=4"]
    with pytest.raises(UserError, match=r"train\.identities_per_batch: 2 .* 1 x 4"):
        train(config(tmp_path / "people", *extra))


def test_crossed() -> None:
    assert [n for n in range(6, 31, 6) if crossed(n, 6, 10)] == [12, 24, 30]
    assert not crossed(6, 6, 0)


def test_a_finished_run_started_again_logs_its_last_validation_once(tmp_path: Path) -> None:
    from a3gan.training.log import RunLog

    for start in (0, 24, 24):
        log = RunLog(tmp_path, start, 24, tensorboard=False)
        log.scalars(24, {"x": 1.0}, kind="val")
        if start == 0:
            log.scalars(24, {"y": 2.0})
        log.close()
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split('"kind": ')[1][:7] for line in lines) == ['"train"', '"val", ']
