"""Steps that are not finite: skipped without a trace, then one way back, then an error that names the term."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.training import recovery, trainer
from a3gan.training.stage import Batch, Stage, Turn
from a3gan.training.trainer import train

NAN = float("nan")


class Fragile(Stage):
    """Two optimisers, batch normalisation and a number of its own; breaks where `trouble` says."""

    name = "identity"
    ema_names = clipped = ("first",)
    trouble: dict[int, str] = {}  # images seen -> what goes wrong

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        first = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        self.networks = {"first": first, "second": nn.Conv2d(3, 1, 1)}
        self.optimizers = {n: torch.optim.Adam(net.parameters(), lr=cfg.train.lr) for n, net in self.networks.items()}
        self.number = 0.0

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        trouble = self.trouble.get(images_seen, "")
        self.number += 1
        x = F.avg_pool2d(batch.images, 4)
        out = self.networks["first"](batch.images * (NAN if trouble == "forward" else 1))
        copy = F.mse_loss(out, x)
        weight = self.networks["first"][0].weight
        # sqrt at 0: the value is 0, its gradient 0 times infinity
        hidden = (weight * 0).square().sum().sqrt() if trouble == "gradient" else 0.0
        loss = copy * NAN if trouble == "loss" else copy + hidden
        odd = torch.tensor(float("inf")) if trouble == "only logged" else copy * 0
        yield Turn("first", loss, {"first/copy": loss, "first/odd": odd})
        level = self.networks["second"](out.detach()).square().mean()
        yield Turn("second", level / 0 if trouble == "second" else level, {"second/level": level})

    def plain_state(self) -> dict:
        return {"number": self.number}

    def load_plain_state(self, state: dict) -> None:
        self.number = state["number"]


@pytest.fixture(autouse=True)
def _fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = synthetic_faces(8, 64, 0)
    monkeypatch.setattr(trainer, "stage_class", lambda name: Fragile)
    monkeypatch.setattr(trainer, "build_data", lambda cfg, device: (faces, None))


def run(folder: Path, trouble: dict[int, str], total: int = 48, *overrides: str) -> dict[str, Tensor]:
    """Trains; returns the tensors of the last state."""
    Fragile.trouble = trouble
    base = [
        "stage=identity", f"run.dir='{folder.as_posix()}'", "run.device=cpu", "run.log_every=4", "run.sheet_every=0",
        "run.snapshot_every=16", "run.tensorboard=false", "run.validate_first=false", "train.batch_size=4",
        f"train.total_images={total}", "train.lr=1e-2", "train.ema_half_life=0",
    ]  # fmt: skip
    train(load_config(None, [*base, *overrides]))
    return checkpoint.load(folder / "state.safetensors")[0]


def logged(folder: Path, name: str) -> dict[int, float]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {line["images"]: line[name] for line in lines if name in line}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "trouble, term",
    [("loss", "first/copy"), ("forward", "first/copy"), ("gradient", "gradient of first.0.weight")],
)
def test_one_is_skipped_and_leaves_no_trace(tmp_path: Path, trouble: str, term: str, parts: int) -> None:
    extra = f"train.accumulate={parts}"
    broken = run(tmp_path / "broken", {24: trouble}, 28, extra)
    for name, value in run(tmp_path / "whole", {}, 24, extra).items():
        assert torch.equal(value, broken[name]), name  # weights, averages, moments, batch statistics
    plain = [checkpoint.load_meta(tmp_path / n / "state.safetensors")["plain"] for n in ("whole", "broken")]
    assert plain == [{"number": 6.0}, {"number": 6.0}]
    assert logged(tmp_path / "broken", f"skipped/{term}") == {28: 1.0}
    saved, meta = checkpoint.load(tmp_path / "broken/nonfinite_batch.safetensors")
    assert saved["images"].shape == (4, 3, 64, 64) and meta["images_seen"] == 24 and meta["terms"][0] == term


def test_the_run_goes_on_after_one(tmp_path: Path) -> None:
    state = run(tmp_path, {8: "loss"})
    assert (tmp_path / "metrics.json").is_file() and all(torch.isfinite(v).all() for v in state.values())
    values = logged(tmp_path, "first/copy")
    assert list(values) == [4, 8, 16, 20, 24, 28, 32, 36, 40, 44, 48]  # none from the step that was skipped
    assert values[48] < values[4]


def test_a_later_turn_alone_is_skipped(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", {24: "second"}, 28), run(tmp_path / "two", {}, 24)
    kept = [name for name in one if name.startswith("net/second") and torch.equal(one[name], two[name])]
    assert len(kept) == 2 and all(torch.isfinite(v).all() for v in one.values())
    assert logged(tmp_path / "one", "skipped/gradient of second.weight") == {28: 1.0}


def test_two_go_back_to_the_last_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        state = run(tmp_path / "broken", {20: "loss", 28: "loss"}, 32)
    assert "again not finite at 28 images: first/copy; back to the weights at 16 images" in caplog.text
    for name, value in run(tmp_path / "whole", {}, 16).items():
        assert torch.equal(value, state[name]), name


def test_far_apart_ones_are_only_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(recovery, "SOON", 2)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, {8: "loss", 20: "loss", 32: "loss", 44: "loss"})
    assert caplog.text.count("the step is skipped") == 4


def test_a_run_that_stays_broken_ends_and_names_the_term(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite at 32 images: first/copy; going back to the weights at 16 images"):
        run(tmp_path / "broken", dict.fromkeys(range(24, 48, 4), "loss"))
    for file in ("state", "checkpoint"):
        tensors, meta = checkpoint.load(tmp_path / f"broken/{file}.safetensors")
        assert meta["images_seen"] == 32 and all(torch.isfinite(v).all() for v in tensors.values())


def test_from_the_first_step_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite at 8 images: .*weights at 0 images did not help"):
        run(tmp_path, dict.fromkeys(range(0, 48, 4), "forward"))
    assert not (tmp_path / "state.safetensors").exists()


def test_a_number_of_the_log_alone_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, {8: "only logged"}, 16)
    assert "never finite since the last log line, and in no loss: first/odd" in caplog.text
    assert list(logged(tmp_path, "first/odd")) == [4, 8, 16] and not list(tmp_path.glob("nonfinite*"))


def test_a_resumed_run_counts_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One before the snapshot, one after it: also with a new process between them it is the second."""
    trouble = {12: "loss", 20: "loss"}
    whole = run(tmp_path / "whole", trouble, 32)
    run(tmp_path / "parts", trouble, 16)
    caplog.clear()
    for name, value in run(tmp_path / "parts", trouble, 32).items():
        assert torch.equal(value, whole[name]), name
    assert "again not finite at 20 images: first/copy; back to the weights at 16 images" in caplog.text
    with pytest.raises(UserError, match="not finite at 40 images: .*weights at 16 images did not help"):
        run(tmp_path / "parts", {40: "loss"}, 48)
