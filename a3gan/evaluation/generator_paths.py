"""From one generated face to another: does the face change evenly, or does it jump?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from a3gan.models.stylegan2 import Generator

KINDS = ("slerp_z", "lerp_w")
Distance = Callable[[Tensor, Tensor], Tensor]  # pictures [N, 3, S, S] twice -> [N]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of rows: a, b [D], t [T] in [0, 1] -> [T, D]; lengths go linearly, directions at a
    constant angle (Shoemake 1985)."""
    first, second = a / a.norm(), b / b.norm()
    angle = torch.arccos((first * second).sum().clamp(-1, 1))
    length = a.norm() + t * (b.norm() - a.norm())
    if float(torch.sin(angle)) < 1e-6:  # one direction
        return length[:, None] * first
    ways = torch.sin((1 - t) * angle)[:, None] * first + torch.sin(t * angle)[:, None] * second
    return length[:, None] * ways / torch.sin(angle)


@torch.no_grad()
def frames(generator: Generator, a: Tensor, b: Tensor, steps: int, kind: str, truncation: float = 1.0) -> Tensor:
    """The faces [steps + 1, 3, S, S] on the way between two z [z_dim]: `slerp_z` through Z, `lerp_w` straight in W."""
    t = torch.linspace(0, 1, steps + 1, device=a.device)
    if kind == "slerp_z":
        w = generator.mapping(slerp(a, b, t))
    else:
        ends = generator.mapping(torch.stack((a, b)))
        w = torch.lerp(ends[:1], ends[1:], t[:, None])
    w = generator.w_mean + truncation * (w - generator.w_mean)
    return generator.synthesis(w[:, None].expand(-1, generator.rows, -1))


def step_sizes(pictures: Tensor, distance: Distance) -> np.ndarray:
    """Distances [T] between neighbouring pictures [T + 1, 3, S, S]."""
    return distance(pictures[:-1], pictures[1:]).double().cpu().numpy()


def evenness(steps: np.ndarray) -> dict[str, float]:
    """Of the steps [N, T] of N paths: `jump`, largest step over mean step, averaged over the paths (1 = perfectly even,
    T = all at once); `jump_worst`, of the worst path; `step`, the mean step. A path that does not move has no jump."""
    mean, largest = steps.mean(1), steps.max(1)
    jump = np.divide(largest, mean, out=np.ones_like(mean), where=mean > 0)
    return {"jump": float(jump.mean()), "jump_worst": float(jump.max()), "step": float(mean.mean())}
