"""The layers of a rendered face above the skin: eyes, brows, mouth, hair, glasses (ours).

Conventions as in `synthetic_paint`.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from a3gan.data import synthetic_head as head
from a3gan.data.synthetic_head import bump, hill, step
from a3gan.data.synthetic_paint import colour, cover, darken, fixed, over, ripple


def paint_eyes(p: SimpleNamespace, image: Tensor, x: Tensor, y: Tensor, c: SimpleNamespace) -> Tensor:
    """Both eyes at once, mirrored: ball, iris, pupil, glint, lids, lashes. Opening 0 is shut, 1 is wide."""
    side = side_of(x)
    out = x.abs() - p.eye_x  # positive towards the temple
    tilt = p.eye_tilt
    lx, ly = out - tilt * y, y + tilt * out
    bow = (1 - (lx / p.eye_width) ** 2).clamp(min=-0.5)
    lower = 0.50 * p.eye_height * bow * (1 - 0.25 * p.smile)
    upper = lower - (0.50 + 1.35 * p.eye_opening) * p.eye_height * bow * p.eye_opening.clamp(max=0.25) * 4
    gap = torch.minimum(ly - upper, lower - ly)
    inside = cover(torch.minimum(gap, p.eye_width - lx.abs()), c.pixel, 0.012) * step(p.eye_opening, 0.0, 0.10)

    image = darken(image, bump(lx, ly + 0.03, p.eye_width * 1.15, 1.3 * p.eye_height), 0.35 * p.makeup, (0.9, 1.1, 0.9))
    crease = bump(lx, ly - upper + (0.045 + 0.03 * p.eye_opening), p.eye_width * 1.05, 0.020)
    image = darken(image, crease, 0.38 * p.lid_crease * p.eye_opening.clamp(0.25, 1), (0.8, 1, 1))
    image = darken(image, bump(lx, ly - lower - 0.055, p.eye_width, 0.025), 0.18, (0.8, 1, 1))

    white = (0.90 - 0.28 * (lx / p.eye_width) ** 2 - 0.30 * hill(((ly - upper) / 0.035) ** 2)).unsqueeze(1)
    image = over(image, white * fixed(image, 1.0, 0.96, 0.94) * colour(p.exposure_light), inside)
    ix = lx - side * p.gaze_x * 0.095
    iy = ly - p.gaze_y * 0.05 * p.eye_opening.clamp(0.3, 1) + 0.30 * p.eye_height
    r = (ix * ix + iy * iy).sqrt()
    iris = cover(0.098 - r, c.pixel, 0.006) * inside
    glow = (0.75 + 0.55 * bump(ix, iy - 0.05, 0.09, 0.06) - 0.5 * step(r, 0.075, 0.10)).unsqueeze(1)
    image = over(image, colour(p.iris) * glow, iris)
    image = over(image, fixed(image, 0.02, 0.02, 0.02), cover(0.044 - r, c.pixel, 0.004) * inside)
    glint = bump(side * ix - 0.035 * p.light_x.sign(), iy + 0.035, 0.020, 0.020)
    image = over(image, fixed(image, 1.0, 1.0, 1.0), 0.9 * glint * inside)

    thick = 0.012 + 0.022 * p.lashes
    ends = cover(p.eye_width * 1.04 - lx.abs(), c.pixel, 0.02)
    lash = cover(thick - (ly - upper + 0.3 * thick).abs(), c.pixel, 0.010) * ends
    image = over(image, fixed(image, 0.07, 0.05, 0.05), lash * (0.55 + 0.4 * p.lashes).clamp(max=0.95))
    rim = cover(0.010 - (ly - lower).abs(), c.pixel, 0.008) * ends
    return over(image, fixed(image, 0.30, 0.17, 0.14), 0.35 * rim)


def paint_brows(p: SimpleNamespace, image: Tensor, x: Tensor, y: Tensor, c: SimpleNamespace) -> Tensor:
    """Brows: an arched band of hairs, thinner towards the temple; surprise lifts them."""
    along = (x.abs() - p.eye_x + 0.02) / 0.27  # -1 inner end, 1 outer end
    middle = -p.brow_height - p.brow_raise - p.brow_arch * (0.7 - (along - 0.35) ** 2) - p.brow_tilt * along
    thick = (
        p.brow_thick
        * (1.05 - 0.45 * along.clamp(-1, 1))
        * step(along, -1.12, -0.75)
        * step(along, 1.15, 0.5).clamp(min=0)
    )
    hairs = ripple(x + 0.9 * side_of(x) * y, p.phase[:, 2:], c.pixel, (59.0, 87.0, 131.0))
    mask = cover(thick - (y - middle).abs() + 0.005 * hairs, c.pixel, 0.024) * (thick > 1e-4)
    dark = colour(p.hair) * (1.0 - 0.45 * p.brow_dark).unsqueeze(1) * 0.9
    return over(image, dark, mask * (0.60 + 0.30 * p.brow_dark) * (0.92 + 0.08 * hairs).clamp(0, 1))


def side_of(x: Tensor) -> Tensor:
    """-1 left of the middle, 1 right of it."""
    return torch.where(x < 0, -1.0, 1.0)


def paint_mouth(p: SimpleNamespace, image: Tensor, x: Tensor, y: Tensor, c: SimpleNamespace) -> Tensor:
    """Lips, and between them, where open: dark cavity, tongue, upper and a little of the lower teeth."""
    q = (x / p.mouth_x).clamp(-1.2, 1.2)
    bow = (1 - q * q).clamp(min=0)
    root = bow.sqrt()
    inner_top = p.corner_y + (p.lip_top - p.corner_y) * bow
    inner_low = p.corner_y + (p.lip_bottom - p.corner_y) * torch.lerp(bow, root, p.mouth_opening.clamp(0, 1))
    cupid = 1 - 0.22 * hill((x / 0.045) ** 2) - 0.25 * q * q
    stretch = 1 - 0.25 * p.smile - 0.2 * p.mouth_opening
    outer_top = inner_top - p.lip_upper * stretch * root * cupid
    outer_low = inner_low + p.lip_lower * stretch * root * (0.75 + 0.25 * bow)
    width = (1.02 - q.abs()) * p.mouth_x

    image = darken(image, bump(x.abs() - p.mouth_x - 0.02, y - p.corner_y, 0.045, 0.05), 0.28, (0.8, 1, 1))
    lips = cover(torch.minimum(torch.minimum(y - outer_top, outer_low - y), width), c.pixel, 0.014)
    upper_side = step(y, inner_top + 0.02, inner_top - 0.02)
    wrinkles = ripple(x, p.phase[:, 7:], c.pixel, (45.0, 71.0))
    gloss = bump(x - 0.12 * p.light_x, y - inner_low - 0.45 * p.lip_lower, 0.5 * p.mouth_x, 0.25 * p.lip_lower)
    tone = p.exposure_shade * (1.02 - 0.20 * upper_side + 0.03 * wrinkles) + (0.20 + 0.25 * p.makeup) * gloss
    image = over(image, colour(p.lips) * tone.unsqueeze(1), lips * 0.92)
    line = bump(width.clamp(max=0), y - inner_top, 0.05, 0.016) * (q.abs() < 1.1)
    image = darken(image, line, 0.62, (0.85, 1, 1))

    gap = inner_low - inner_top
    hollow = cover(torch.minimum(torch.minimum(y - inner_top, inner_low - y), width), c.pixel, 0.008) * step(
        gap, 0.004, 0.03
    )
    image = over(image, fixed(image, 0.13, 0.04, 0.045), hollow)
    tongue = bump(x, y - inner_low + 0.02, 0.55 * p.mouth_x, 0.10 + 0.22 * p.gap) * step(gap, 0.12, 0.30)
    image = over(image, fixed(image, 0.62, 0.25, 0.26), hollow * tongue * 0.9)
    depth = 0.095 + 0.03 * p.smile
    teeth = cover(depth * (1 - 0.35 * q * q) - (y - inner_top), c.pixel, 0.012) * step(q.abs(), 0.93, 0.70)
    between = 1 - 0.16 * hill((torch.sin(x * 33.0) / 0.25) ** 2) * torch.exp(-((8 * c.pixel) ** 2))
    white = (0.93 - 0.28 * q * q - 0.10 * bump(q * 0, y - inner_top, 1.0, 0.03)) * between
    image = over(image, white.unsqueeze(1) * fixed(image, 1.0, 0.97, 0.90), hollow * teeth * 0.97)
    low = cover(y - inner_low + 0.055, c.pixel, 0.012) * step(q.abs(), 0.75, 0.5) * step(gap, 0.22, 0.45)
    return over(image, fixed(image, 0.80, 0.76, 0.70), hollow * low * 0.8)


def paint_hair(p: SimpleNamespace, image: Tensor, c: SimpleNamespace) -> Tensor:
    """Hair on a shell a little larger than the skull, down to a hairline that falls beside the face for long hair."""
    volume = p.hair_volume
    line = head.ray(p, c.px, c.py)
    y = line[1]
    wide = p.head_width * (1.02 + 0.75 * volume + head.skull_at(y))
    height = torch.where(y < 0, p.crown + volume, torch.maximum(p.chin, 1.5 + 0.9 * p.hair_length) + volume)
    deep = p.depth * 1.04 + 0.3 * volume
    x, y, z, t, inside = head.hit_ellipsoid(line, wide, height, deep)
    front = z / (deep * (1 - (y / height) ** 2).clamp(min=0.04).sqrt())  # 1 straight ahead, 0 at the side
    strand = torch.atan2(x - 0.5 * p.parting, (z + 0.6).clamp(min=0.05))
    warp = 0.10 * p.wave * torch.sin(5.0 * y + 6.28 * p.phase[:, 1].view(-1, 1, 1) + 2 * strand)
    hairs = ripple(strand + warp, p.phase, c.pixel, (9.0, 23.0, 47.0, 79.0))

    brow_line = -p.hairline * (1 - 0.10 * front) + 0.42 * p.fringe
    part = (0.10 - 0.18 * p.fringe) * hill(((x - p.parting * 0.6) / 0.25) ** 2)
    temple = p.temple * bump(x.abs() - 0.55, y + 0.85, 0.25, 0.35)
    side_line = 0.22 + 1.9 * (p.hair_length - 0.22).clamp(min=0)
    face = step(front, 0.30 - 0.22 * p.hair_length, 0.66)
    edge = torch.lerp(side_line, brow_line - part - temple, face)
    ragged = 0.05 * hairs * (0.6 + p.fringe)
    mask = cover(edge - y + ragged, c.pixel, 0.07) * cover(0.5 * inside + 0.012 * hairs, c.pixel, 0.02)
    thin = 1 - 0.75 * p.bald * step(y, -0.75, -1.05)

    nx, ny, nz = x / wide**2, y / height**2, z / deep**2
    nx, ny, nz = head.turn(p, nx, ny, nz)
    norm = (nx * nx + ny * ny + nz * nz).clamp(min=1e-6).rsqrt()
    lx, ly, lz = c.light_head
    direct = ((nx * lx + ny * ly + nz * lz) * norm).clamp(min=0)
    ring = hill(((direct - 0.86) / 0.10) ** 2)
    tone = 0.50 + 0.38 * direct * (0.5 + p.light_hard) + 0.17 * hairs + 0.10 * ring * (1 + hairs)
    contact = bump(edge - y, face - 1, 0.10, 0.6)  # a soft shadow where the hair meets the forehead
    image = darken(image, step(edge - y, -0.16, 0.02) * step(inside, 0.0, 0.1) * 0.5 * face, 0.35, (0.8, 1, 1))
    tone = tone * (1 - 0.15 * contact)
    return over(
        image, (colour(p.hair) * tone.unsqueeze(1) + 0.05 * ring.unsqueeze(1)) * colour(p.light_colour), mask * thin
    )


def paint_back_hair(p: SimpleNamespace, image: Tensor, c: SimpleNamespace) -> Tensor:
    """Long hair behind neck and head, hanging down to its length."""
    end = 0.3 + 2.1 * p.hair_length
    middle = -0.30 * p.s_yaw
    half = p.head_width * (1.02 + 0.8 * p.hair_volume) + 0.10 * step(c.py, 0.3, 1.8)
    wavy = 0.05 * p.wave * torch.sin(6 * c.py + 6.28 * p.phase[:, 4].view(-1, 1, 1))
    hairs = ripple(c.px + wavy, p.phase[:, 2:], c.pixel, (11.0, 29.0, 53.0))
    mask = cover(half - (c.px - middle).abs() + wavy, c.pixel, 0.05) * cover(end - c.py + 0.1 * hairs, c.pixel, 0.12)
    mask = mask * cover(c.py + 0.1, c.pixel, 0.4) * (p.hair_length > 0.3)
    # The far side of the shell that `paint_hair` uses, seen past the face.
    volume = p.hair_volume
    line = head.ray(p, c.px, c.py)
    wide, height = p.head_width * (1.02 + 0.75 * volume + head.skull_at(line[1])), p.crown + volume
    _, y, _, _, inside = head.hit_ellipsoid(line, wide, height, 1.04 * p.depth + 0.3 * volume)
    mask = torch.maximum(mask, cover(0.5 * inside, c.pixel, 0.03) * cover(0.15 - y, c.pixel, 0.1) * (1 - p.bald))
    return over(image, colour(p.hair) * (0.52 + 0.16 * hairs).unsqueeze(1) * colour(p.light_colour), mask)


def paint_glasses(
    p: SimpleNamespace, image: Tensor, hx: Tensor, hy: Tensor, mask: Tensor, c: SimpleNamespace
) -> Tensor:
    """Rims and bridge on a plane before the eyes, arms on the skin (hx, hy) of the head (mask), pale reflections."""
    ox, oy, oz, dx, dy, dz = head.ray(p, c.px, c.py)
    plane = head.surface(p, p.eye_x, 0 * p.eye_x) + 0.16
    t = (plane - oz) / dz
    x, y = ox + t * dx, oy + t * dy
    ax = x.abs() - p.eye_x - 0.01
    rx, ry = 0.335 * p.glasses_size, 0.255 * p.glasses_size * (1.1 - 0.05 * p.glasses_round)
    r = ((ax / rx).abs() ** p.glasses_round + ((y - 0.03) / ry).abs() ** p.glasses_round + 1e-9) ** (
        1 / p.glasses_round
    )
    away = (1 - r) * ry
    rim = cover(p.glasses_rim - away.abs(), c.pixel)
    bridge = cover(p.glasses_rim - (y + 0.05 + 0.15 * x * x).abs(), c.pixel) * cover(
        p.eye_x + 0.01 - rx - x.abs() + 0.02, c.pixel
    )
    hinge = p.eye_x + 0.01 + rx
    nearer = 0.6 * side_of(hx) * p.s_yaw  # the skin behind the hinge, which parallax shifts as the head turns
    arm = cover(p.glasses_rim - (hy + 0.04).abs(), c.pixel) * cover(hx.abs() - hinge + 0.03 - nearer, c.pixel) * mask
    frame = torch.maximum(torch.maximum(rim, bridge), arm) * p.glasses
    lens = cover(away, c.pixel) * p.glasses
    streak = step(torch.sin(3.0 * x + 4.0 * y + 6.28 * p.glasses_tone), 0.55, 0.95)
    image = over(image, fixed(image, 1.0, 1.0, 1.0), lens * (0.04 + 0.14 * streak))
    image = darken(
        image, bump(away + 0.06, 0 * away, 0.05, 1.0) * (away < 0) * p.glasses * mask * (ax.abs() < 0.6), 0.15
    )
    metal = torch.lerp(fixed(image, 0.05, 0.05, 0.06), fixed(image, 0.55, 0.42, 0.28), (p.glasses_tone**3).unsqueeze(1))
    return over(image, metal, frame * 0.95)
