"""Augmentation of what the discriminator sees."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from a3gan.training import augment_gan
from a3gan.training.augment_gan import SPEED, TARGET, _colour, _cutout, _translate, adapt, augment


def images(n: int = 6, size: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_probability() -> None:
    x = images(64)
    assert augment(x, 0.0) is x
    torch.manual_seed(0)
    always = augment(x, 1.0)
    assert always.shape == x.shape and ((always - x).flatten(1).norm(dim=1) > 0).all()
    rarely = augment(x, 0.1)
    untouched = ((rarely - x).flatten(1).norm(dim=1) == 0).float().mean().item()
    assert 0.55 < untouched < 0.9  # 0.9 cubed is 0.73


def test_colour_is_three_draws_an_image() -> None:
    torch.manual_seed(0)
    draw = torch.rand(3, 6, 1, 1, 1)
    x = images()
    torch.manual_seed(0)
    y = _colour(x)
    lit = x + draw[0] - 0.5
    grey = lit.mean(1, keepdim=True)
    tinted = grey + (lit - grey) * 2 * draw[1]
    mean = tinted.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(y, mean + (tinted - mean) * (0.5 + draw[2]))
    torch.testing.assert_close(y.mean((1, 2, 3)), lit.mean((1, 2, 3)))  # only brightness moves the mean


def test_translation_moves_by_whole_pixels_and_fills_with_zeros() -> None:
    torch.manual_seed(0)
    x = images(40) + 2  # nowhere 0
    y = _translate(x)
    shifts = set()
    for before, after in zip(x, y, strict=True):
        found = []
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                moved = torch.zeros_like(before)
                rows, columns = slice(max(0, -dy), 16 - max(0, dy)), slice(max(0, -dx), 16 - max(0, dx))
                taken = before[:, max(0, dy) : 16 + min(0, dy), max(0, dx) : 16 + min(0, dx)]
                moved[:, rows, columns] = taken
                if torch.equal(moved, after):
                    found.append((dy, dx))
        assert len(found) == 1  # an eighth of 16 px: at most 2
        shifts.update(found)
    assert len(shifts) > 12


def test_cutout_is_one_square_of_half_the_side() -> None:
    torch.manual_seed(0)
    y = _cutout(torch.ones(40, 3, 16, 16))
    assert set(y.unique().tolist()) == {0.0, 1.0} and torch.equal(y[:, 0], y[:, 2])
    areas = []
    for hole in 1 - y[:, 0]:
        rows, columns = hole.amax(1), hole.amax(0)
        assert torch.equal(hole, rows[:, None] * columns[None]) and max(rows.sum(), columns.sum()) <= 8
        areas.append(int(hole.sum()))
    assert max(areas) == 64 and min(areas) < 64


@pytest.mark.parametrize("transform", [_colour, _translate, _cutout])
def test_gradients(transform) -> None:
    def seeded(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return transform(x)

    assert gradcheck(seeded, images(2, 4, torch.float64).requires_grad_())


def test_seeded() -> None:
    x = images()
    torch.manual_seed(1)
    first = augment(x)
    torch.manual_seed(1)
    assert torch.equal(augment(x), first) and not torch.equal(augment(x), first)


def test_controller() -> None:
    over, under = torch.ones(8), torch.tensor([1.0, 1, 1, 1, 1, 1, -1, -1])  # sign means 1 and 0.5
    assert TARGET == 0.6
    assert adapt(0.5, over, 100) == pytest.approx(0.5 + 100 / SPEED)
    assert adapt(0.5, under, 100) == pytest.approx(0.5 - 100 / SPEED)
    assert adapt(0.0, under, 100) == 0 and adapt(1.0, over, 100) == 1
    p = 0.0
    for _ in range(10):
        p = adapt(p, over, augment_gan.SPEED // 10)
    assert p == pytest.approx(1)
