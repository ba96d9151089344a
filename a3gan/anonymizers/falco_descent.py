"""FALCO's optimisation: Adam on a few rows of W+, each face of the batch a problem of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults, which the published code uses
DROPS, DROP = (0.75, 0.9), 0.8  # the rate is multiplied by DROP at these shares of the steps
NEAR = 0.02  # |cos - m| below which the identity counts as reached
FLAT, WINDOW = 0.01, 5  # relative change of L_att over this many steps below which it counts as settled


def learning_rate(step: int, steps: int, rate: float) -> float:
    """Of step 0, 1, ...: `rate`, times 0.8 from 75 % of the steps on and again from 90 %."""
    return rate * DROP ** sum(step >= int(share * steps) for share in DROPS)


@dataclass
class Trace:
    """One face's way: cos(R(x̂), R(x)) and L_att before each step; stopped early or not."""

    cosine: list[float] = field(default_factory=list)
    attribute: list[float] = field(default_factory=list)
    stopped: bool = False

    def settled(self, margin: float) -> bool:
        """|cos - m| is small and L_att has stopped to move."""
        if len(self.attribute) <= WINDOW or abs(self.cosine[-1] - margin) >= NEAR:
            return False
        before = self.attribute[-1 - WINDOW]
        return abs(self.attribute[-1] - before) <= FLAT * before


@dataclass
class Problem:
    """A batch of faces under way; the first extent of every tensor is the faces not yet stopped."""

    index: Tensor  # int64 [n], places in the batch as it came
    free: Tensor  # [n, rows, w_dim], what is optimised
    constants: list[Tensor]  # whatever the objective needs, row by row
    moment: Tensor
    square: Tensor

    @classmethod
    def start(cls, free: Tensor, constants: list[Tensor]) -> Problem:
        index = torch.arange(len(free), device=free.device)
        return cls(index, free.clone(), constants, torch.zeros_like(free), torch.zeros_like(free))

    def keep(self, rows: Tensor) -> None:
        """Only these faces go on: those that have stopped cost nothing and are touched by nothing."""
        self.index, self.free, self.moment, self.square = (
            t[rows] for t in (self.index, self.free, self.moment, self.square)
        )
        self.constants = [t[rows] for t in self.constants]

    def note(
        self, traces: list[Trace], cosine: list[float], attribute: list[float], margin: float, result: Tensor
    ) -> list[bool]:
        """Adds a step to the traces and the rows of those that have now settled to `result`; who goes on, [n]."""
        going = []
        for place, row in enumerate(self.index.tolist()):
            trace = traces[row]
            if not trace.stopped:
                trace.cosine.append(cosine[place])
                trace.attribute.append(attribute[place])
                trace.stopped = trace.settled(margin)
                if trace.stopped:
                    result[row] = self.free[place]
            going.append(not trace.stopped)
        return going

    def adam(self, gradient: Tensor, step: int, rate: float) -> None:
        """Kingma and Ba (2015), element by element and so face by face; `step` from 0."""
        self.moment.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        moment = self.moment / (1 - BETAS[0] ** (step + 1))
        root = (self.square / (1 - BETAS[1] ** (step + 1))).sqrt_()
        self.free = self.free - rate * moment / root.add_(EPS)


Loss = Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor, Tensor]]
"""(free [n, rows, w_dim], constants) -> loss, cosine, L_att, each [n]."""


def descend(
    objective: Loss, free: Tensor, constants: list[Tensor], *, steps: int, rate: float, margin: float,
    least: int = 1, ticks: Callable[[], object] = lambda: None,
) -> tuple[Tensor, list[Trace]]:  # fmt: skip
    """`steps` steps of Adam from `free` [N, rows, w_dim]; the rows where each face ended, and how it went.

    A face that has settled (`Trace.settled`) keeps its rows; the others go on without it. least: faces below which none
    is left out, where results depend on so small a batch; who has settled is then carried along unused. ticks: called
    after each step.
    """
    traces = [Trace() for _ in range(len(free))]
    result, problem = free.detach().clone(), Problem.start(free.detach(), constants)
    for step in range(steps):
        with torch.enable_grad():
            variable = problem.free.requires_grad_(True)
            loss, cosine, attribute = objective(variable, problem.constants)
            (gradient,) = torch.autograd.grad(loss.sum(), variable)
        problem.free = problem.free.detach()
        going = problem.note(traces, cosine.tolist(), attribute.tolist(), margin, result)
        if not any(going):
            return result, traces
        if not all(going) and sum(going) >= least:
            rows = torch.tensor(going, device=free.device)
            problem.keep(rows)
            gradient = gradient[rows]
        problem.adam(gradient, step, learning_rate(step, steps, rate))
        ticks()
    rows = torch.tensor([not traces[row].stopped for row in problem.index.tolist()], device=free.device)
    result[problem.index[rows]] = problem.free[rows]
    return result, traces
