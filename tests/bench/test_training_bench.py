"""The benchmark runs and reports ratios; nothing here asserts a speed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from a3gan.bench import layers, parts, peer, timing, training
from a3gan.config import Config, load_config
from a3gan.models.build import build_discriminator, build_generator


def tiny(*overrides: str) -> Config:
    base = ["stage=stylegan2", "train.batch_size=2", "train.augment=none", "run.device=cpu", "loss.path_length=2"]
    base += [f"model.{net}.channels_{k}={v}" for net in ("generator", "discriminator") for k, v in
             (("base", 128), ("max", 8))]  # fmt: skip
    return load_config(None, [*base, "model.generator.w_dim=16", "model.generator.z_dim=8", *overrides])


def test_train_reports_every_phase_and_where_time_goes() -> None:
    lines = training.bench_train(tiny(), repeats=1)
    assert "in a matrix product" in lines[0]
    assert "images/s" in lines[1] and "% of the matrix rate" in lines[1]
    assert "R1" in lines[2] and "every 16 steps" in lines[2] and "path length" in lines[3]
    words = [line.split()[0] for line in lines[4:]]
    assert {"part", "operation", "generator", "discriminator", "optimiser", "averages", "data"} <= set(words)


def test_time_is_counted_for_the_part_that_asked_for_it() -> None:
    """A costly and a cheap part, forward and backward; the wrapping leaves nothing behind."""
    costly, cheap = nn.Linear(600, 600), nn.Linear(2, 2)

    def step() -> None:
        (costly(torch.ones(600, 600)).sum() + cheap(torch.ones(1, 2)).sum()).backward()

    step()
    wanted = [(costly, "forward", "costly"), (cheap, "forward", "cheap")]
    with parts.named(wanted):
        shares, operations = parts.where(step)
    assert sum(map(sum, shares.values())) == pytest.approx(1) and sum(operations.values()) == pytest.approx(1)
    assert all(c > d for c, d in zip(shares["costly"], shares["cheap"], strict=True))
    assert min(shares["costly"]) > 0.1 and "aten::addmm" in operations
    assert "forward" not in vars(costly) and len(parts.table(shares, operations, 3)) <= 3 + 2 + len(shares)


def test_penalties_are_met_alone() -> None:
    both = ("loss.r1_every=4", "loss.path_length_every=6")
    for keys in ((), ("loss.path_length_every=16",), ("loss.path_length=0",), both):
        cfg = tiny(*keys)
        seen = training.phases(None, cfg)["step"]
        number = seen // 2
        found = {what: (at // 2, every) for what, (at, every) in training.lazy(cfg, seen).items()}
        assert set(found) == ({"R1"} if keys == ("loss.path_length=0",) else {"R1", "path length"})
        assert number % cfg.loss.r1_every and number % cfg.loss.path_length_every
        assert found["R1"][0] % cfg.loss.r1_every == 0


def test_the_peer_is_the_same_generator_and_discriminator() -> None:
    """With our weights it paints our picture and gives our logit: what is compared is the same work."""
    cfg = tiny()
    torch.manual_seed(0)
    ours, judge = build_generator(cfg), build_discriminator(cfg)
    other = peer.Peer(cfg, torch.device("cpu"))
    with torch.no_grad():
        for p in (*ours.parameters(), *judge.parameters()):
            if p.ndim == 1:
                p.normal_(1.0, 0.1)
        other.generator.constant.copy_(ours.constant)
        for theirs, mine in zip(other.generator.mapping, ours.mapping.layers, strict=True):
            theirs.load_state_dict(mine.state_dict())
        for kind, biases in (("convs", "biases"), ("rgbs", "rgb_biases")):
            layers = ours.convs if kind == "convs" else ours.to_rgb
            pairs = zip(getattr(other.generator, kind), getattr(other.generator, biases), layers, strict=True)
            for theirs, bias, mine in pairs:
                theirs.weight.copy_(mine.weight[None])
                theirs.style.load_state_dict(mine.style.state_dict())
                bias.copy_(mine.bias)
        for theirs, mine in zip(other.discriminator.parameters(), judge.parameters(), strict=True):
            theirs.copy_(mine)
        z = torch.randn(4, 8)
        image = ours(z)
        torch.testing.assert_close(other.generator(z), image, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other.discriminator(image)[:, 0], judge(image), rtol=1e-3, atol=1e-4)


def test_the_peer_is_compared_in_turns() -> None:
    (line,) = peer.bench_peer(tiny(), repeats=1)
    assert line.startswith("float32: ") and "times as fast" in line
    counts = line.rsplit(";", 1)[1].split()
    assert counts[0] == counts[2]  # equal width


def test_layers_are_compared_with_the_librarys():
    lines = layers.bench_layers(repeats=1)
    figures = [line for line in lines if "times as fast" in line]
    assert len(figures) == 10 + 3 and len(lines) == len(figures) + 2  # once and twice differentiated, a title each


def test_phases_start_inside_and_off_the_lazy_penalty():
    cfg = load_config(None, ["stage=a3gan", "train.batch_size=4", "loss.r1_every=16"])
    stage = SimpleNamespace(judged_from=10, suppress_from=1000, join_from=2000)
    for name, seen in training.phases(stage, cfg).items():
        start = {"reconstruct": 10, "suppress": 1000, "joint": 2000}[name]
        assert seen >= start and (seen // 4) % 16 != 0


def test_matrix_rate_is_positive():
    assert timing.matrix_rate(torch.device("cpu"), torch.float32, side=64) > 0
