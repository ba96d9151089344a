"""The average's half-life is counted in images, whatever the batch size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from a3gan.training.ema import Ema


def one(value: float) -> dict[str, nn.Module]:
    net = nn.Linear(1, 1, bias=False)
    net.register_buffer("count", torch.tensor(0))
    nn.init.constant_(net.weight, value)
    return {"net": net}


@pytest.mark.parametrize("batch", [1, 10, 50])
def test_half_life(batch: int) -> None:
    networks = one(0.0)
    ema = Ema(networks, ("net",), half_life=100)
    nn.init.constant_(networks["net"].weight, 1.0)
    networks["net"].count += 7
    for seen in range(batch, 101, batch):
        ema.update(networks, batch, 10**6 + seen)
    assert ema.nets["net"].weight.item() == pytest.approx(0.5, abs=1e-5)
    assert ema.nets["net"].count == 7 and not ema.nets["net"].weight.requires_grad and not ema.nets["net"].training


def test_the_start_is_forgotten_early_and_zero_means_a_copy() -> None:
    for half_life, expected in ((10**6, 1 - 0.5 ** (4 / 5)), (0, 1.0)):
        networks = one(0.0)
        ema = Ema(networks, ("net",), half_life)
        nn.init.constant_(networks["net"].weight, 1.0)
        ema.update(networks, 4, 100)  # warm-up: the half-life is 5 % of 100 images
        assert ema.nets["net"].weight.item() == pytest.approx(expected, abs=1e-6)
    other = nn.Linear(1, 1)
    assert ema.merged({**networks, "other": other}) == {"net": ema.nets["net"], "other": other}
