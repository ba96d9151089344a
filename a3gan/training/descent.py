"""One step down: micro-batches and processes add their gradients before each optimiser moves, in lock-step.

A GAN's step has several turns (discriminator, then generator), each of which sees what the one before it changed. With
the batch cut into pieces, every piece must reach the end of a turn before its optimiser moves. So a stage writes its
step as a generator that yields a `Turn`, and here all pieces are led from turn to turn. What a piece moves besides
gradients (running means, batch statistics, ADA's probability) is kept apart for each piece and averaged at the end, so
that two pieces in one process and one in each of two give the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan.training.distributed import Group

if TYPE_CHECKING:
    from a3gan.training.stage import Batch, Stage, Turn


@dataclass
class Outcome:
    """scalars: means over this process's micro-batches, on the device. broken: names of what was not finite, the same
    in all processes; where there are any, the step changed nothing from that turn on. batches: those to look at, where
    this is process `holder`."""

    scalars: dict[str, Tensor]
    broken: list[str] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    holder: int = 0


def descend(stage: Stage, makers: Sequence[Callable[[], Batch]], images_seen: int, group: Group) -> Outcome:
    """All turns of a step. `makers`: one function a micro-batch, which seeds its randomness and makes it."""
    start = Moved.now(stage)
    pieces = [_Piece(stage, make, images_seen, alone=len(makers) == 1) for make in makers]
    for optimizer in stage.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    while True:
        turns = [piece.advance(start) for piece in pieces]
        if turns[0] is None:
            break
        broken = _step(stage, turns[0].optimizer, torch.stack([t.loss.detach().float() for t in turns]), group)
        if broken:
            start.put(stage)
            for optimizer in stage.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            return _broken(pieces, broken, group)
    if len(pieces) > 1 or group.world > 1:
        start.average([piece.moved or Moved.now(stage) for piece in pieces], group).put(stage)
    return Outcome(_mean([piece.scalars for piece in pieces]))


class _Piece:
    """One micro-batch on its way through a step, with its own random numbers and moving values."""

    def __init__(self, stage: Stage, make: Callable[[], Batch], images_seen: int, alone: bool) -> None:
        self.stage, self.make, self.images_seen, self.alone = stage, make, images_seen, alone
        self.turns = self.batch = self.rng = self.moved = None
        self.scalars: dict[str, Tensor] = {}

    def advance(self, start: Moved) -> Turn | None:
        """To the end of the next turn, gradients added; None after the last."""
        if not self.alone:
            (self.moved or start).put(self.stage)
        if self.turns is None:
            self.batch = self.make()
            self.turns = self.stage.turns(self.batch, self.images_seen)
        elif not self.alone:
            _set_rng(self.rng)
        turn = next(self.turns, None)
        if turn is not None:
            turn.loss.backward()
            self.scalars |= {name: torch.as_tensor(value).detach() for name, value in turn.scalars.items()}
        if not self.alone:
            self.rng, self.moved = _get_rng(self.stage.device), Moved.now(self.stage)
        return turn


@dataclass
class Moved:
    """What a step moves without an optimiser: floating and counting buffers of the networks, and the plain state."""

    buffers: list[Tensor]
    plain: dict[str, Any]

    @classmethod
    @torch.no_grad()
    def now(cls, stage: Stage) -> Moved:
        buffers = [torch.empty_like(buffer) for buffer in stage.moving]
        if buffers:
            torch._foreach_copy_(buffers, stage.moving)
        return cls(buffers, dict(stage.plain_state()))

    @torch.no_grad()
    def put(self, stage: Stage) -> None:
        if self.buffers:
            # .data: autograd must not take it for a change of what a later backward pass needs.
            torch._foreach_copy_([buffer.data for buffer in stage.moving], self.buffers)
        stage.load_plain_state(dict(self.plain))

    def average(self, ends: list[Moved], group: Group) -> Moved:
        """From here (the start of the step) on by the mean of all movements, over micro-batches and processes.

        As movements, so that what did not move keeps its bits.
        """
        share = 1.0 / (len(ends) * group.world)
        numbers = [k for k, v in self.plain.items() if isinstance(v, int | float) and not isinstance(v, bool)]
        floats = [i for i, b in enumerate(self.buffers) if b.is_floating_point()]
        parts = [sum(end.buffers[i] - self.buffers[i] for end in ends).double().flatten() for i in floats]
        steps = [sum(end.plain[k] - self.plain[k] for end in ends) for k in numbers]
        parts.append(torch.tensor(steps, dtype=torch.float64, device=group.device))
        flat = group.sum_(torch.cat(parts)) * share
        pieces = flat.split([len(part) for part in parts])
        buffers, plain = list(ends[0].buffers), dict(ends[0].plain)
        for i, piece in zip(floats, pieces, strict=False):
            buffers[i] = self.buffers[i] + piece.view_as(self.buffers[i]).to(self.buffers[i].dtype)
        for k, value in zip(numbers, pieces[-1].tolist(), strict=True):
            plain[k] = type(self.plain[k])(self.plain[k] + (round(value) if isinstance(self.plain[k], int) else value))
        return Moved(buffers, plain)


def _step(stage: Stage, name: str, losses: Tensor, group: Group) -> list[str]:
    """Average the gradients, clip, and move one optimiser; the names of what is not finite instead, if anything is."""
    optimizer = stage.optimizers[name]
    parameters = [p for part in optimizer.param_groups for p in part["params"]]
    # The one wait for the device in a turn: nothing that is not finite may move a weight.
    finite = reduce_gradients(parameters, losses, group) if group.world > 1 else scale_gradients(parameters, losses)
    if not finite:
        return _where(stage, name) or [f"loss of {name}"]
    if stage.cfg.train.grad_clip > 0:
        for network in stage.clipped:
            own = {id(p) for p in parameters}.intersection(id(p) for p in stage.networks[network].parameters())
            if own:
                nn.utils.clip_grad_norm_(stage.networks[network].parameters(), stage.cfg.train.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return []


@torch.no_grad()
def scale_gradients(parameters: list[nn.Parameter], losses: Tensor) -> bool:
    """Gradients of a sum become those of the mean over micro-batches; whether all of them and the losses are finite."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if len(losses) > 1 and gradients:
        torch._foreach_mul_(gradients, 1.0 / len(losses))
    norm = nn.utils.get_total_norm(gradients) if gradients else losses.new_zeros(())
    return bool(torch.isfinite(norm + losses.sum()))


@torch.no_grad()
def reduce_gradients(parameters: list[nn.Parameter], losses: Tensor, group: Group) -> bool:
    """Every gradient becomes its mean over micro-batches and processes, by one flat all-reduce; whether all are finite.

    A parameter without gradient in some processes counts as 0 there; one without in all of them stays without, so that
    its optimiser leaves it alone as in a run of one process.
    """
    trained = [p for p in parameters if p.requires_grad]
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in trained]
    here = torch.tensor([p.grad is not None for p in trained], dtype=torch.float32)
    flat = group.sum_(torch.cat([*pieces, here.to(losses.device), losses.sum()[None]]))
    *present, finite = torch.cat([flat[-1 - len(here) : -1], torch.isfinite(flat).all()[None]]).tolist()
    flat *= 1.0 / (len(losses) * group.world)
    reduced = flat[: -1 - len(here)].split([len(piece) for piece in pieces])
    for parameter, there, piece in zip(trained, present, reduced, strict=True):
        if there and parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        if there:
            parameter.grad.copy_(piece.view_as(parameter))
    return bool(finite)


def _where(stage: Stage, name: str) -> list[str]:
    """The first parameter of an optimiser whose gradient is not finite, in words."""
    own = {id(p) for part in stage.optimizers[name].param_groups for p in part["params"]}
    for network, net in stage.networks.items():
        for key, p in net.named_parameters():
            if id(p) in own and p.grad is not None and not bool(torch.isfinite(p.grad).all()):
                return [f"gradient of {network}.{key}"]
    return []


def _broken(pieces: list[_Piece], gradient: list[str], group: Group) -> Outcome:
    """Names the terms that are not finite, of all processes; without any, the gradient."""
    names: dict[str, None] = {}
    batches = []
    for piece in pieces:
        found = [name for name, value in piece.scalars.items() if not bool(torch.isfinite(value).all())]
        batches += [piece.batch] if found else []
        names |= dict.fromkeys(found)
    found = group.gather(list(names))
    holder = next((rank for rank, part in enumerate(found) if part), 0)
    everyone = list(dict.fromkeys(name for part in found for name in part))
    mine = batches or [piece.batch for piece in pieces]
    return Outcome({}, everyone or gradient, mine if holder == group.rank else [], holder)


def _mean(scalars: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(scalars) == 1:
        return scalars[0]
    return {name: torch.stack([part[name].float() for part in scalars]).mean() for name in scalars[0]}


def _get_rng(device: torch.device) -> tuple:
    import numpy as np

    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate(), device


def _set_rng(state: tuple) -> None:
    import numpy as np

    cpu, cuda, numpy_state, python_state, device = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda, device)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
