"""Which images come next, as a pure function of (seed, images seen): resuming needs no sampler or RNG state."""

from __future__ import annotations

import hashlib
import random

import torch
from torch import Tensor

from a3gan.errors import UserError


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and words; neighbouring inputs give unrelated seeds."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seeds torch (all devices), numpy and `random` from the parts, so that a step depends on nothing before it."""
    import numpy as np

    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class Sampler:
    """Endless epochs without replacement over `count` images.

    `batch(position)` returns int64 [batch_size] on the CPU, from that image of the run on. A batch may span two epochs;
    nothing is dropped. Micro-batches and processes ask for the positions that are theirs.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < 1:
            raise UserError("data.path: no training image is left; check data.split_train and data.max_outside")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._orders: dict[int, Tensor] = {}  # epoch -> permutation; a cache of at most a few epochs

    def batch(self, position: int) -> Tensor:
        return torch.stack([self._at(place) for place in range(position, position + self.batch_size)])

    def _at(self, position: int) -> Tensor:
        epoch, offset = divmod(position, self.count)
        return self._order(epoch)[offset]

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            self._orders[epoch] = torch.randperm(self.count, generator=generator)
        return self._orders[epoch]


class IdentitySampler:
    """Batches of P identities × Q images: int64 [P·Q], the Q images of one identity side by side.

    Identities come in epochs without replacement; people with fewer than two images are left out, people with
    fewer than Q have some of theirs repeated. `identity`: int64 [N], −1 = unknown (left out).
    """

    def __init__(self, identity: Tensor, identities: int, images: int, seed: int) -> None:
        groups: dict[int, list[int]] = {}
        for index, person in enumerate(identity.tolist()):
            if person >= 0:
                groups.setdefault(person, []).append(index)
        self.groups = [torch.tensor(group) for _, group in sorted(groups.items()) if len(group) > 1]
        if len(self.groups) < identities:
            raise UserError(
                f"train.identities_per_batch: {identities} asked for, but only {len(self.groups)} people of the "
                "training split have two or more images; lower it or prepare data with identities"
            )
        self.images, self.seed = images, seed
        self.people = Sampler(len(self.groups), identities, derive_seed(seed, "people"))

    def batch(self, position: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "images", position, 0))
        people = self.people.batch(position // self.images)
        return torch.cat([self._pick(self.groups[int(person)], generator) for person in people])

    def _pick(self, group: Tensor, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(group), generator=generator)
        return group[order.repeat(-(-self.images // len(group)))[: self.images]]
