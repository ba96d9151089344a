"""Snapshots and a disk that refuses them; the best so far; the log on a full disk. A toy stage, no real training."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from a3gan import checkpoint, files
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.errors import NotWritten, UserError
from a3gan.training import snapshots, trainer
from a3gan.training.log import RunLog
from a3gan.training.stage import Batch, Stage, Turn
from a3gan.training.trainer import train

SCORES = {0: 0.0, 8: 0.7, 16: 0.3, 24: 0.5, 32: 0.3}  # what each validation finds


class Toy(Stage):
    """One linear layer that learns to be 0; its validations find SCORES."""

    ema_names = ("net",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = {"net": nn.Linear(3, 2)}
        self.optimizers = {"net": torch.optim.Adam(self.networks["net"].parameters(), lr=0.01)}
        self.seen = 0

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        self.seen = images_seen + len(batch.images)
        loss = self.networks["net"](torch.randn(4, 3)).square().mean()
        yield Turn("net", loss, {"loss": loss.detach()})

    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        return {"score": SCORES[self.seen], "other": 1.0}

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor:
        return torch.zeros(3, 8, 8)

    def plain_state(self) -> dict:
        return {"seen": self.seen}

    def load_plain_state(self, state: dict) -> None:
        self.seen = state["seen"]


def faces(count: int) -> FaceSet:
    images = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    names, unknown = [f"{i}.png" for i in range(count)], torch.full((count,), -1)
    split = ["train"] * count
    return FaceSet(images, names, torch.rand(count, 5, 2), unknown, [], split, {}, torch.zeros(count), "face", 64)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "stage_class", lambda name: Toy)
    monkeypatch.setattr(trainer, "build_data", lambda cfg, device: (faces(9), faces(3)))
    monkeypatch.setattr(snapshots, "RETRY", 0.01)


def config(folder: Path, *overrides: str) -> Config:
    base = [
        "stage=identity", f"run.dir='{folder.as_posix()}'", "run.device=cpu", "run.log_every=4", "run.sheet_every=8",
        "run.snapshot_every=8", "run.validate_every=8", "run.tensorboard=false", "run.save_patience=0",
        "train.batch_size=4", "train.total_images=32",
    ]  # fmt: skip
    return load_config(None, [*base, *overrides])


class Disk:
    """Full for the writes that `full(path)` picks: the system's answer, by name of the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.refused: list[str] = []
        self.full = lambda name: False
        replace = os.replace

        def refusing(source: os.PathLike, target: os.PathLike) -> None:
            if self.full(Path(target).name):
                self.refused.append(Path(target).name)
                raise OSError(number, os.strerror(number))
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", refusing)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def seen(path: Path) -> int:
    return checkpoint.load_meta(path)["images_seen"]


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path, disk: Disk, caplog) -> None:
    caplog.set_level(logging.WARNING)
    disk.full = lambda name: name == "state.safetensors" and len(disk.refused) < 2
    folder = train(config(tmp_path / "run"))
    assert disk.refused == ["state.safetensors"] * 2  # at 8 images, at the next log line; written at 16
    assert seen(folder / "state.safetensors") == 32 and (folder / "metrics.json").is_file()
    words = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "state.safetensors: cannot be written (No space left on device)" in words[0] and "8 images" in words[0]
    assert "on disk again, at 16 images" in words[1] and len(words) == 2
    whole = train(config(tmp_path / "whole"))
    one, two = (checkpoint.load(f / "state.safetensors")[0] for f in (whole, folder))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_disk_that_stays_full_is_an_error_at_the_end(tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "run"
    train(config(folder, "train.total_images=8"))
    before = (folder / "state.safetensors").read_bytes()
    disk.full = lambda name: name.endswith((".safetensors", ".png"))
    words = r"checkpoint\.safetensors: cannot be written \(No space.*last snapshot is of 8"
    with pytest.raises(UserError, match=words):
        train(config(folder))
    assert (folder / "state.safetensors").read_bytes() == before and not list(folder.glob(".*tmp"))
    assert {"000000032.png", "checkpoint.1.safetensors"} <= set(disk.refused)  # not even the older name is given up
    disk.full = lambda name: False
    train(config(folder))
    assert seen(folder / "state.safetensors") == 32


def test_the_end_waits_for_room(tmp_path: Path, disk: Disk) -> None:
    disk.full = lambda name: name == "state.safetensors" and len(disk.refused) < 20
    folder = train(config(tmp_path / "run", "run.save_patience=1", "train.total_images=8"))
    assert len(disk.refused) == 20 and seen(folder / "state.safetensors") == 8


def test_a_read_only_folder_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, errno.EROFS)
    disk.full = lambda name: True
    with pytest.raises(NotWritten, match=r"config\.yaml: cannot be written \(Read-only file system\)"):
        train(config(tmp_path / "run"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotWritten, match=r"config\.yaml: cannot be written"):
        train(config(tmp_path / "file" / "run"))


def test_the_logs_lines_wait_for_room(tmp_path: Path, caplog) -> None:
    log = RunLog(tmp_path, 0, 10, tensorboard=False)
    write = log.file.write
    log.scalars(1, {"a": 1.0})

    class Full:
        closed = False

        def write(self, data: bytes) -> int:
            return write(data[:7])  # a disk that takes a piece of a line

        def __getattr__(self, name: str):
            return getattr(file, name)

    file, log.file = log.file, Full()
    log.scalars(2, {"a": 2.0})
    log.scalars(3, {"a": 3.0})
    assert [json.loads(line)["images"] for line in log.path.read_text().splitlines()] == [1]
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"{log.path}: cannot be written (No space left on device); make room or choose another folder; "
        "its lines are kept until there is room"
    ]
    log.file = file
    log.scalars(4, {"a": 4.0})
    assert [json.loads(line)["images"] for line in log.path.read_text().splitlines()] == [1, 2, 3, 4]
    log.events = Events()
    log.scalars(5, {"a": 5.0})
    assert log.events is None and any("events stop here" in record.message for record in caplog.records)
    log.close()


def test_tensorboards_thread_dies_without_a_traceback(tmp_path: Path, capsys, caplog) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    log = RunLog(tmp_path, 0, 10, tensorboard=True)
    before = log.hook

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (thread,) = (t for t in threading.enumerate() if isinstance(t, writer._AsyncWriterThread))
    thread._record_writer.write = thread._record_writer.flush = full
    log.scalars(1, {"a": 1.0})
    thread.join(10)
    log.scalars(2, {"a": 2.0})
    log.close()
    assert capsys.readouterr().err == "" and threading.excepthook is before
    assert log.events is None and any("events stop here" in record.message for record in caplog.records)


class Events:
    def add_scalar(self, *args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("goal", "value", "images"), [("score min", 0.3, 16), ("score max", 0.7, 8)])
def test_the_best_validation_is_kept(tmp_path: Path, goal: str, value: float, images: int) -> None:
    folder = tmp_path / "run"
    train(config(folder, f"run.best='{goal}'", "train.total_images=16"))
    train(config(folder, f"run.best='{goal}'"))  # the record survives; the first of two equal ones stays
    tensors, meta = checkpoint.load(folder / "best.safetensors")
    assert meta["best"] == {"metric": "score", "goal": goal.split()[1], "value": value}
    assert meta["images_seen"] == images and meta["metrics"]["score"] == value and meta["kind"] == "inference"
    assert set(tensors) == {"net.weight", "net.bias"}
    assert "best" not in checkpoint.load_meta(folder / "checkpoint.safetensors")


def test_another_goal_starts_anew_and_a_cut_best_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(config(folder, "run.best='score max'", "train.total_images=8"))
    train(config(folder, "run.best='score min'", "train.total_images=16"))
    assert seen(folder / "best.safetensors") == 16
    (folder / "best.safetensors").write_bytes(b"cut")
    train(config(folder, "run.best='score min'", "train.total_images=24"))
    assert seen(folder / "best.safetensors") == 24


def test_goals_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metric 'nothing' in this run's validation; it has score, other"):
        train(config(tmp_path / "run", "run.best='nothing min'"))
    for wrong in ("score", "score least", "min"):
        with pytest.raises(UserError, match=r"run.*min or max"):
            config(tmp_path, f"run.best='{wrong}'")
    with pytest.raises(UserError, match="validate_every"):
        config(tmp_path, "run.best='score min'", "run.validate_every=0")


def test_temporaries_of_killed_writers_go_at_the_next_start(tmp_path: Path) -> None:
    left = [tmp_path / ".state.safetensors.123.tmp", tmp_path / "sheets" / ".000000008.png.9.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    train(config(tmp_path, "train.total_images=8"))
    assert not any(path.exists() for path in left) and (tmp_path / "sheets" / "000000008.png").is_file()


def test_a_state_without_later_keys_goes_on(tmp_path: Path) -> None:
    """A state of an earlier version of the same format: keys that came later have their defaults."""
    folder = train(config(tmp_path / "run", "train.total_images=8"))
    path = folder / "state.safetensors"
    tensors, meta = checkpoint.load(path)
    for part, name in (("run", "best"), ("run", "save_patience"), ("loss", "path_length"), ("train", "mixing")):
        del meta["config"][part][name]
    checkpoint.save(path, tensors, meta)
    train(config(tmp_path / "run"))
    assert seen(path) == 32
