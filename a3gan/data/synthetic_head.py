"""The head behind the rendered faces (ours): a warped ellipsoid with a nose, seen by an orthographic camera.

Units and axes as in `synthetic_params`. Tensors of one number per face are [N, 1, 1] here, tensors per point [N, H, W].
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

PHOTO_WIDTH = 6.0  # width of an unaligned picture (frame 'photo') in head units


def hill(d: Tensor) -> Tensor:
    """(1 - d/4)^4 up to d = 4, then 0: nearly exp(-d), at a third of its cost (exp took a third of the time)."""
    t = (1 - 0.25 * d).clamp(min=0)
    t = t * t
    return t * t


def bump(dx: Tensor, dy: Tensor, rx: float | Tensor, ry: float | Tensor) -> Tensor:
    """Round hill of height 1 and radii rx, ry, same shape as dx; 0 beyond twice the radii."""
    return hill((dx / rx) ** 2 + (dy / ry) ** 2)


def step(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Cubic step from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def pose_face(identity: dict[str, Tensor], state: dict[str, Tensor]) -> SimpleNamespace:
    """Merge who and how into one namespace: numbers [N] become [N, 1, 1], the expression moves mouth, chin and brows.

    Adds `mouth_x`, `corner_y` (mouth corners), `lip_top`, `lip_bottom` (inner edges of the lips on the middle line),
    `gap`, `brow_raise`, a lower `chin`, and sines and cosines of the pose.
    """
    values = {k: v.view(-1, 1, 1) if v.ndim == 1 else v for k, v in {**identity, **state}.items()}
    p = SimpleNamespace(**values)
    p.gap = 0.56 * p.mouth_opening
    p.chin = p.chin + 0.75 * p.gap
    p.mouth_x = p.mouth_width * (1 + 0.20 * p.smile - 0.20 * p.mouth_opening - 0.05 * p.surprise)
    p.corner_y = p.mouth_y - 0.075 * p.smile + 0.42 * p.gap
    p.lip_top = p.mouth_y + 0.012 + 0.02 * p.smile - 0.10 * p.gap
    p.lip_bottom = p.lip_top + p.gap
    p.brow_raise = 0.12 * p.surprise + 0.01 * p.smile
    for name in ("yaw", "pitch", "roll"):
        angle = getattr(p, name) * (math.pi / 180)
        setattr(p, "s_" + name, angle.sin())
        setattr(p, "c_" + name, angle.cos())
    return p


def width_at(p: SimpleNamespace, y: Tensor) -> Tensor:
    """Half axis of the ellipsoid at height y: broad skull, cheekbones, jaw, narrow chin."""
    jaw = hill(((y - 0.68 * p.chin) / 0.42) ** 2)
    cheek = hill(((y - 0.30) / 0.35) ** 2)
    chin = hill(((y - p.chin) / 0.22) ** 2)
    return p.head_width * (1 + (p.jaw + 0.03) * jaw + p.cheek * cheek - 0.18 * chin + skull_at(y))


def skull_at(y: Tensor) -> Tensor:
    """What head and hair are wider than an ellipsoid above the forehead, which would look like an egg."""
    return 0.13 * hill(((y + 1.25) / 0.45) ** 2)


def nose_relief(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Height of the nose over the ellipsoid, along the head's z axis; it is what moves most when the head turns."""
    along = ((y + 0.12) / (p.nose_y + 0.12)).clamp(0, 1)
    rise = along * (0.30 + 0.70 * along) * step(y, -0.30, 0.15)
    end = step(y, p.nose_y + 0.20, p.nose_y + 0.01)  # falls steeply below the tip
    ridge = p.nose_bridge * (1 + 0.55 * along * along)
    body = p.nose_out * rise * end * hill((x / ridge) ** 2)
    wings = 0.13 * bump(x.abs() - 0.72 * p.nose_width, y - p.nose_y - 0.045, 0.085, 0.10)
    return body + wings


def surface(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Depth z of the bare head (no nose) at head coordinates x, y; 0 outside its outline."""
    height = torch.where(y < 0, p.crown, p.chin)
    return p.depth * (1 - (x / width_at(p, y)) ** 2 - (y / height) ** 2).clamp(min=0).sqrt()


def turn(p: SimpleNamespace, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Head coordinates to the camera's without roll: yaw about y, then pitch about x."""
    zy = z * p.c_yaw - x * p.s_yaw
    return x * p.c_yaw + z * p.s_yaw, y * p.c_pitch + zy * p.s_pitch, zy * p.c_pitch - y * p.s_pitch


def ray(p: SimpleNamespace, px: Tensor, py: Tensor) -> tuple[Tensor, ...]:
    """Line of sight through camera point (px, py), in head coordinates: origin (3 tensors), direction (3)."""
    zy = py * p.s_pitch
    origin = (px * p.c_yaw - zy * p.s_yaw, py * p.c_pitch, px * p.s_yaw + zy * p.c_yaw)
    return (*origin, -p.c_pitch * p.s_yaw, -p.s_pitch, p.c_pitch * p.c_yaw)


def hit_ellipsoid(
    line: tuple[Tensor, ...], a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """First point of an ellipsoid (half axes a, b, c) on the line: x, y, z, depth along the line, and 1 - r^2.

    r < 1 is inside the outline. Outside it, the point of the line nearest to the centre.
    """
    ox, oy, oz, dx, dy, dz = line
    ia, ib, ic = 1 / (a * a), 1 / (b * b), 1 / (c * c)
    aa = dx * dx * ia + dy * dy * ib + dz * dz * ic
    bb = ox * (dx * ia) + oy * (dy * ib) + oz * (dz * ic)
    cc = ox * ox * ia + oy * oy * ib + oz * oz * ic - 1
    inside = bb * bb / aa - cc
    t = (inside.clamp(min=0) / aa).sqrt() - bb / aa
    return ox + t * dx, oy + t * dy, oz + t * dz, t, inside


def hit_head(p: SimpleNamespace, px: Tensor, py: Tensor) -> tuple[Tensor, ...]:
    """First point of the head with its nose on the lines through camera points (px, py).

    Returns head coordinates x, y of the skin under each pixel, depth towards the camera, and 1 - r^2 of the outline.
    The nose is found by parallax: a point raised by h along the head's z axis appears h * e away, e the axis as seen.
    """
    ex, ey = p.s_yaw, p.c_yaw * p.s_pitch
    line = ray(p, px, py)
    _, y, _, _ = hit_bare(p, line, line[1])
    x, y, _, inside = hit_bare(p, line, y)
    relief = nose_relief(p, x, y)
    for _ in range(3):
        x, y, t, _ = hit_bare(p, ray(p, px - relief * ex, py - relief * ey), y)
        relief = 0.4 * relief + 0.6 * nose_relief(p, x, y)  # damped: the sides of the nose are steep
    return x, y, t + relief * (p.c_yaw * p.c_pitch), inside


def hit_bare(p: SimpleNamespace, line: tuple[Tensor, ...], y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `hit_head` without the nose: the ellipsoid as wide as the head is at y, an estimate of the point's height."""
    x, y, _, t, inside = hit_ellipsoid(line, width_at(p, y), torch.where(y < 0, p.crown, p.chin), p.depth)
    return x, y, t, inside


def roll_points(p: SimpleNamespace, x: Tensor, y: Tensor, back: bool = False) -> tuple[Tensor, Tensor]:
    """Turn camera points by the head's roll (clockwise in the picture), or `back`."""
    s = -p.s_roll if back else p.s_roll
    return x * p.c_roll - y * s, x * s + y * p.c_roll


def camera_landmarks(p: SimpleNamespace) -> Tensor:
    """The five points as seen by the camera, head units -> [N, 5, 2]."""
    zero = torch.zeros_like(p.eye_x)
    x = torch.cat([-p.eye_x, p.eye_x, zero, -p.mouth_x, p.mouth_x], dim=2)
    y = torch.cat([zero, zero, p.nose_y, p.corner_y, p.corner_y], dim=2)
    px, py, _ = turn(p, x, y, surface(p, x, y) + nose_relief(p, x, y))
    px, py = roll_points(p, px, py)
    return torch.stack([px, py], dim=-1).squeeze(1)
