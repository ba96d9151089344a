"""Several processes that train one model: who this process is, and the few things it asks of the others.

`torchrun` says who is who in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Without it there
is one process, and every method here is free.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from a3gan.errors import UserError

T = TypeVar("T")
# How long a process waits for the others before it gives up: longer than any validation or last snapshot of process 0,
# short enough that a run whose process hangs is over before the morning.
PATIENCE = timedelta(minutes=90)


class Elsewhere(SystemExit):
    """Another process failed and says why; this one ends in silence."""


@dataclass(frozen=True)
class Group:
    """This process among `world`; `rank` 0 is the one that logs, validates and saves."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum_(self, x: Tensor) -> Tensor:
        """The sum over all processes, in place and the same bits everywhere."""
        if self.world > 1:
            with self._exchange():
                dist.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so; all get the same answer."""
        if self.world == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=self.device)) > 0)

    def gather(self, value: Any) -> list[Any]:
        """Everyone's `value` (plain Python, small), by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with self._exchange():
            dist.all_gather_object(values, value)
        return values

    def copy_first(self, networks: dict[str, nn.Module]) -> None:
        """Parameters and buffers of process 0 for all."""
        if self.world > 1:
            for net in networks.values():
                for tensor in [*net.parameters(), *net.buffers()]:
                    tensor.detach().copy_(self.from_first(tensor.detach()))

    def from_first(self, x: Tensor) -> Tensor:
        """Process 0's values for all, in a tensor of this shape and type on the group's device."""
        if self.world == 1:
            return x
        value = x.to(self.device).contiguous()  # channels-last storage does not travel as it is
        with self._exchange():
            dist.broadcast(value, 0)
        return value

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            text = str(error).partition("\n")[0]
            raise UserError(
                f"process {self.rank} of {self.world}: another process has stopped, see its message; or the network "
                f"failed ({text})"
            ) from error

    def together(self, function: Callable[[], T]) -> T:
        """`function()` on every process; where it fails on one, all stop instead of waiting for that one.

        The first process that failed raises its error, the others Elsewhere: one message is enough. That error has
        `known_to_all` set, so that who catches it may go on to use the group, where the others catch Elsewhere.
        """
        if self.world == 1:
            return function()
        error, result = None, None
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001  (raised again below)
            error = caught
        failed = [rank for rank, bad in enumerate(self.gather(error is not None)) if bad]
        if not failed:
            return result  # type: ignore[return-value]
        if error is not None and failed[0] == self.rank:
            error.known_to_all = True
            raise error
        raise Elsewhere(1)

    def on_first(self, function: Callable[[], T]) -> T | None:
        """`function()` on process 0 while the others wait; None on those. An error of it ends all of them."""
        return self.together(function if self.first else lambda: None)


def is_first() -> bool:
    """Whether this process is the one that talks to the user; known before a group is formed and after it is gone."""
    return int(os.environ.get("RANK", 0)) == 0


def local_rank() -> int:
    """Which of its machine's devices this process takes."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def processes(device: torch.device) -> Iterator[Group]:
    """`with processes(device) as group`: NCCL between CUDA devices, gloo between CPUs, nothing without torchrun.

    UserError where the processes do not find each other.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Group(device=device)
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE, device_id=device if cuda else None)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"torchrun: the processes did not find each other ({error}); check its arguments") from error
    group = Group(dist.get_rank(), dist.get_world_size(), device)
    logger = logging.getLogger("a3gan")
    level = logger.level
    if not group.first:
        logger.setLevel(logging.ERROR)
    try:
        yield group
    finally:
        logger.setLevel(level)
        dist.destroy_process_group()


def share_state(group: Group, found: tuple[dict[str, Tensor], dict[str, Any]] | None) -> Any:
    """What process 0 found on disk (tensors, meta), or None, for all: only it needs to see the run's folder."""
    if group.world == 1:
        return found
    shapes = None if found is None else {k: (tuple(v.shape), v.dtype) for k, v in found[0].items()}
    shapes, meta = group.gather((shapes, None if found is None else found[1]))[0]
    if shapes is None:
        return None
    tensors = {}
    for name, (shape, dtype) in shapes.items():
        tensors[name] = group.from_first(found[0][name] if found else torch.empty(shape, dtype=dtype)).cpu()
    return tensors, meta
