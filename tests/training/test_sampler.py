"""Stateless sampling: epochs are complete, any point can be reached without the steps before it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from a3gan.errors import UserError
from a3gan.training.sampler import IdentitySampler, Sampler, derive_seed, seed_everything


def test_epochs_are_permutations_and_batches_cross_their_border() -> None:
    sampler = Sampler(10, 4, seed=1)
    rows = torch.cat([sampler.batch(n) for n in range(0, 40, 4)])
    epochs = rows.reshape(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert torch.equal(Sampler(10, 4, seed=1).batch(36), rows[36:])
    assert not torch.equal(Sampler(10, 4, seed=2).batch(0), rows[:4])


def test_parts_of_a_batch_by_position() -> None:
    whole, sampler = Sampler(50, 8, seed=3).batch(16), Sampler(50, 4, seed=3)
    assert torch.equal(torch.cat([sampler.batch(16), sampler.batch(20)]), whole)
    identity = torch.arange(60) // 3
    people = identity[IdentitySampler(identity, 4, 2, seed=0).batch(16)]
    parts = IdentitySampler(identity, 2, 2, seed=0)
    assert torch.equal(identity[torch.cat([parts.batch(16), parts.batch(20)])], people)


def test_identity_batches_are_p_times_q() -> None:
    identity = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1, 3, 3, 3, 3])
    sampler = IdentitySampler(identity, identities=2, images=3, seed=0)
    for seen in range(0, 60, 6):
        rows = sampler.batch(seen)
        people = identity[rows].reshape(2, 3)
        assert (people == people[:, :1]).all() and people[0, 0] != people[1, 0]
        assert not {2, -1} & set(people.flatten().tolist())  # one picture, or nobody
        for person, row in zip(people[:, 0], rows.reshape(2, 3), strict=True):
            assert len(row.unique()) == min(3, int((identity == person).sum()))
    assert torch.equal(IdentitySampler(identity, 2, 3, 0).batch(24), sampler.batch(24))
    with pytest.raises(UserError, match="identities_per_batch: 4 asked for, but only 3"):
        IdentitySampler(identity, 4, 2, 0)


def test_no_images_is_an_error() -> None:
    with pytest.raises(UserError, match=r"data\.path"):
        Sampler(0, 4, 0)


def test_seeds_are_spread_and_repeatable() -> None:
    seeds = {derive_seed(a, "step", b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**63 for seed in seeds)
    draws = []
    for _ in range(2):
        seed_everything(5, "step", 100)
        draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert draws[0] == draws[1]
