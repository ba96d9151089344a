"""The soft oval of a face in an aligned frame: what composing pastes, and what the losses call inside and outside."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from a3gan.data.align import template

# Units of the frame `face`; other frames follow by the similarity that carries the eyes over. Values from the outlines
# of LFW faces: chins end at about .95, jaws at .13 and .87, the brows at .25.
CENTRE = (0.5, 0.57)
INNER = (0.36, 0.38, 0.37)  # half width, height above the centre, depth below it: value 1 inside
OUTER = (0.47, 0.47, 0.41)  # value 0 from here on, short of the frame's border
BORDER, RIM = 0.015, 0.02  # how near a grown oval comes to the frame's border, and its least softness
POWER = (2.5, 2.2)  # superellipses above and below the centre: a forehead is squarer than a chin


def face_mask(
    size: int,
    frame: str = "face",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    grow: float = 1.0,
) -> Tensor:
    """Soft face oval [1, 1, S, S] in [0, 1] of an aligned frame: 1 from brows to chin, 0 before the border. Ours.

    Between the inner and the outer oval the value falls smoothly (no slope at either end); level sets are convex.
    grow: 1.3 = larger by 30 % of its width and height on each side, but never beyond the frame.
    Raises ValueError for an unknown frame.
    """
    unit = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return oval(unit[None, :], unit[:, None], frame, grow).to(device=device, dtype=dtype)[None, None]


def oval(x: Tensor, y: Tensor, frame: str = "face", grow: float = 1.0) -> Tensor:
    """The mask's value at points (x, y) in units of the frame's side; shapes broadcast. 0 outside the frame."""
    scale, (eye_x, eye_y), (base_x, base_y) = _placement(frame)
    inner, outer = half_axes(frame, grow)
    x = (x - eye_x) / scale + base_x - CENTRE[0]
    y = (y - eye_y) / scale + base_y - CENTRE[1]
    upper = y < 0

    def radius(half: tuple[float, float, float]) -> Tensor:
        across, above, below = (x / half[0]).abs(), (y / half[1]).abs(), (y / half[2]).abs()
        top = (across ** POWER[0] + above ** POWER[0]) ** (1 / POWER[0])
        return torch.where(upper, top, (across ** POWER[1] + below ** POWER[1]) ** (1 / POWER[1]))

    beyond, short = (radius(inner) - 1).clamp_min(0), (1 - radius(outer)).clamp_min(0)
    t = short / (short + beyond).clamp_min(1e-12)
    return t * t * (3 - 2 * t)


def bounds(frame: str = "face", grow: float = 1.0) -> tuple[float, float, float, float]:
    """Box (x0, y0, x1, y1) around the outer oval, in units of the frame's side."""
    scale, _, _ = _placement(frame)
    centre_x, centre_y = _centre(frame)
    half, above, below = (scale * v for v in half_axes(frame, grow)[1])
    return centre_x - half, centre_y - above, centre_x + half, centre_y + below


def half_axes(frame: str = "face", grow: float = 1.0) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """`INNER` and `OUTER`, grown (or, below 1, shrunk) on each side by `grow` - 1 of the width and height."""
    if grow == 1.0:
        return INNER, OUTER
    if not 0.5 < grow < 10:
        raise ValueError(f"an oval cannot grow by {grow}; from 0.6 to 3 makes sense")
    scale, _, _ = _placement(frame)
    x, y = _centre(frame)
    room = (min(x, 1 - x) / scale, y / scale, (1 - y) / scale)
    factor = 2 * grow - 1
    # Beyond the frame there is no new face to show; a rim of at least RIM stays soft.
    outer = tuple(min(half * factor, most - BORDER) for half, most in zip(OUTER, room, strict=True))
    inner = tuple(min(half * factor, out - RIM) for half, out in zip(INNER, outer, strict=True))
    return inner, outer


def _centre(frame: str) -> tuple[float, float]:
    scale, (eye_x, eye_y), (base_x, base_y) = _placement(frame)
    return eye_x + scale * (CENTRE[0] - base_x), eye_y + scale * (CENTRE[1] - base_y)


@lru_cache(maxsize=8)
def _placement(frame: str) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Scale of a frame against `face`, and the middle of the eyes in both."""
    points, base = template(frame), template("face")
    scale = float((points[1, 0] - points[0, 0]) / (base[1, 0] - base[0, 0]))
    return scale, tuple(points[:2].mean(0).tolist()), tuple(base[:2].mean(0).tolist())
