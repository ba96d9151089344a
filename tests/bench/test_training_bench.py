"""The benchmark runs and reports ratios; nothing here asserts a speed."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from a3gan.bench import layers, timing, training
from a3gan.config import load_config


def test_train_reports_every_phase_and_where_time_goes():
    tiny = ["stage=stylegan2", "train.batch_size=2", "train.augment=none"]
    tiny += [f"model.{net}.channels_{k}={v}" for net in ("generator", "discriminator") for k, v in
             (("base", 128), ("max", 8))]
    lines = training.bench_train(load_config(None, tiny), repeats=1)
    assert "in a matrix product" in lines[0]
    assert "images/s" in lines[1] and "% of the matrix rate" in lines[1]
    assert lines[2] == "where the time goes:" and len(lines) > 4


def test_layers_are_compared_with_the_librarys():
    lines = layers.bench_layers(repeats=1)
    assert len(lines) == 11 and all("times as fast" in line for line in lines[1:])


def test_phases_start_inside_and_off_the_lazy_penalty():
    cfg = load_config(None, ["stage=a3gan", "train.batch_size=4", "loss.r1_every=16"])
    stage = SimpleNamespace(judged_from=10, suppress_from=1000, join_from=2000)
    for name, seen in training.phases(stage, cfg).items():
        start = {"reconstruct": 10, "suppress": 1000, "joint": 2000}[name]
        assert seen >= start and (seen // 4) % 16 != 0


def test_matrix_rate_is_positive():
    assert timing.matrix_rate(torch.device("cpu"), torch.float32, side=64) > 0
