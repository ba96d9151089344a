"""Gradients of a step: clipping that clips, parts that add up, what is recomputed counts once."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from a3gan.config import load_config
from a3gan.training.descent import descend, reduce_gradients
from a3gan.training.distributed import Group
from a3gan.training.stage import Batch, Stage, Turn


class Linear(Stage):
    """loss = steepness * mean(x) . weight in two networks of one optimiser, of which only `clipped` are clipped."""

    clipped = ("one",)

    def __init__(self, *overrides: str) -> None:
        super().__init__(load_config(None, ["train.lr=1", *overrides]), None, None, torch.device("cpu"))
        self.networks = {"one": nn.Linear(3, 1, bias=False), "two": nn.Linear(3, 1, bias=False)}
        parameters = [p for net in self.networks.values() for p in net.parameters()]
        self.optimizers = {"both": torch.optim.SGD(parameters, lr=1.0)}

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        loss = sum(net(batch.images).mean() for net in self.networks.values())
        yield Turn("both", loss, {"loss": loss})


def batches(*values: float) -> list:
    return [lambda v=v: Batch(torch.full((2, 3), float(v)), *[torch.zeros(2)] * 3) for v in values]


def moved(stage: Linear, makers: list, group: Group) -> dict[str, torch.Tensor]:
    before = {name: net.weight.detach().clone() for name, net in stage.networks.items()}
    assert not descend(stage, makers, 0, group).broken
    return {name: before[name] - net.weight.detach() for name, net in stage.networks.items()}


@pytest.mark.parametrize("values, gradient", [((4.0,), 4.0), ((2.0, 6.0), 4.0)])
def test_clipping_limits_the_norm_of_the_named_networks_after_averaging(values: tuple, gradient: float) -> None:
    steps = moved(Linear("train.grad_clip=0.5"), batches(*values), Group())
    assert steps["one"].norm() == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(steps["two"], torch.full((1, 3), gradient))
    steps = moved(Linear("train.grad_clip=100"), batches(*values), Group())
    torch.testing.assert_close(steps["one"], torch.full((1, 3), gradient))


class Pair(Group):
    """Two processes of which the other has the same tensors, times -0.5: after the reduction half the sum is left."""

    def sum_(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(0.5)

    def gather(self, value: object) -> list:
        return [value, value]


def test_clipping_comes_after_the_reduction() -> None:
    group = Pair(0, 2)
    # Each alone has a gradient of 4 and a norm of 6.9; their mean is 1, of norm 1.7. Clipped before, 0.4 would be left.
    steps = moved(Linear("train.grad_clip=1.6"), batches(4.0), group)
    assert steps["one"].norm() == pytest.approx(1.6, rel=1e-4)
    torch.testing.assert_close(steps["two"], torch.full((1, 3), 1.0))


def test_a_parameter_without_gradient_in_every_process_stays_without() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    used.grad = torch.full((2, 2), 4.0)
    assert reduce_gradients([used, unused], torch.tensor([1.0]), Pair(0, 2))
    assert unused.grad is None and torch.equal(used.grad, torch.ones(2, 2))
    used.grad = torch.full((2, 2), float("inf"))
    assert not reduce_gradients([used, unused], torch.tensor([1.0]), Pair(0, 2))
    used.grad = torch.ones(2, 2)
    assert not reduce_gradients([used, unused], torch.tensor([float("nan")]), Pair(0, 2))


class Normed(Stage):
    """Batch normalisation behind `lean`, with a draw inside."""

    def __init__(self, accumulate: int) -> None:
        super().__init__(load_config(None, [f"train.accumulate={accumulate}"]), None, None, torch.device("cpu"))
        torch.manual_seed(0)
        self.networks = {"net": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))}
        self.optimizers = {"net": torch.optim.SGD(self.networks["net"].parameters(), lr=0.1)}
        self.number = 1.0

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        self.number += float(batch.images[0, 0])
        loss = self.lean(self.networks["net"], batch.images).square().sum()
        yield Turn("net", loss, {"drawn": torch.rand(())})

    def plain_state(self) -> dict:
        return {"number": self.number, "word": "kept", "count": 3}

    def load_plain_state(self, state: dict) -> None:
        self.number = state["number"]


def test_what_is_made_again_is_the_same_and_counts_once() -> None:
    results = []
    for accumulate in (1, 2):
        stage = Normed(accumulate)
        torch.manual_seed(1)
        x = torch.randn(4, 3)
        outcome = descend(stage, [lambda x=x: Batch(x, *[torch.zeros(4)] * 3)], 0, Group())
        results.append(stage.networks["net"].state_dict() | outcome.scalars)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
    assert results[1]["1.num_batches_tracked"] == 1


def test_moving_numbers_move_by_the_mean_and_constants_keep_their_bits() -> None:
    stage = Normed(3)
    stage.networks["net"].register_buffer("constant", torch.tensor([0.1, 1 / 3]))
    torch.manual_seed(0)
    x = [torch.randn(4, 3) for _ in range(3)]
    first = copy.deepcopy(stage.networks["net"][0])
    assert not descend(stage, [lambda v=v: Batch(v, *[torch.zeros(4)] * 3) for v in x], 0, Group()).broken
    assert stage.number == pytest.approx(1.0 + sum(float(v[0, 0]) for v in x) / 3)
    assert torch.equal(stage.networks["net"].constant, torch.tensor([0.1, 1 / 3]))
    assert stage.networks["net"][1].num_batches_tracked == 1
    with torch.no_grad():
        means = [first(v).mean(0) for v in x]
    torch.testing.assert_close(stage.networks["net"][1].running_mean, 0.1 * torch.stack(means).mean(0))


def test_parts_draw_from_their_own_stream() -> None:
    """What a part draws after the others have had their turn is what it would draw alone."""
    drawn: list[float] = []

    class Drawing(Linear):
        def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
            torch.manual_seed(int(batch.images[0, 0]))
            for _ in range(2):
                yield Turn("both", self.networks["one"](batch.images).mean(), {})
                drawn.append(float(torch.rand(())))

    descend(Drawing(), batches(5, 6), 0, Group())
    parts = drawn.copy()
    drawn.clear()
    for value in (5, 6):
        descend(Drawing(), batches(value), 0, Group())
    assert parts == [drawn[0], drawn[2], drawn[1], drawn[3]]
