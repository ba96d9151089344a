"""Means of a run's scalars between two log lines, kept on the device so that no step waits for them."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from a3gan.training.distributed import Group

logger = logging.getLogger(__name__)


class Tally:
    """`add` every step, `take` at a log line. All processes must add scalars of the same names."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.sums: dict[tuple[str, ...], Tensor] = {}  # a step's names -> float64 [2, names]: sum and count of finite

    @torch.no_grad()
    def add(self, scalars: dict[str, Tensor]) -> None:
        if not scalars:
            return
        names = tuple(scalars)
        values = torch.stack([value.detach().float().to(self.group.device) for value in scalars.values()])
        finite = torch.isfinite(values)
        row = torch.stack((values.where(finite, 0.0), finite.float())).double()
        self.sums[names] = self.sums[names] + row if names in self.sums else row

    def take(self) -> dict[str, float]:
        """Name -> mean over steps and processes since the last `take`.

        A scalar that no loss uses may be infinite without harm to the run: such values are left out of the mean.
        """
        totals: dict[str, Tensor] = {}
        for names, rows in self.sums.items():
            for name, value in zip(names, rows.unbind(1), strict=True):
                totals[name] = totals[name] + value if name in totals else value
        self.sums = {}
        if not totals:
            return {}
        sums, counts = self.group.sum_(torch.stack(list(totals.values()), 1)).tolist()
        lost = [name for name, count in zip(totals, counts, strict=True) if not count]
        if lost:
            logger.warning("never finite since the last log line, and in no loss: %s", ", ".join(lost))
        return {name: s / c for name, s, c in zip(totals, sums, counts, strict=True) if c}
