"""The layers of a rendered face (ours): skin, eyes, mouth, hair, glasses, clothes, background.

Every layer is a soft mask over a colour, laid over the picture so far. Masks come from signed distances in head units
divided by the size of a pixel, so that edges are antialiased at any size. Tensors: numbers per face [N, 1, 1], masks
[N, H, W], colours [N, 3, 1, 1] or [N, 3, H, W] in 0..1.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from a3gan.data import synthetic_head as head
from a3gan.data.synthetic_head import bump, hill, step


def cover(distance: Tensor, pixel: Tensor, soft: float = 0.0) -> Tensor:
    """Share of a pixel inside a shape: distance to its edge, positive inside; `soft` (head units) widens the edge."""
    return (0.5 + distance / (pixel + soft)).clamp(0, 1)


def over(image: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    """Lay a colour over the picture where the mask is 1."""
    return torch.lerp(image, colour, mask.unsqueeze(1).expand_as(image))


def darken(image: Tensor, mask: Tensor, amount: float | Tensor, tint: tuple[float, float, float] = (1, 1, 1)) -> Tensor:
    """Multiply by 1 - amount * mask; `tint` scales the amount per channel (skin shadows stay reddish)."""
    shade = torch.tensor(tint, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return image * (1 - (mask * amount).unsqueeze(1) * shade)


def colour(values: Tensor) -> Tensor:
    """[N, 3] -> [N, 3, 1, 1]."""
    return values.view(-1, 3, 1, 1)


def fixed(image: Tensor, red: float, green: float, blue: float) -> Tensor:
    """A constant colour [1, 3, 1, 1] on the picture's device."""
    return image.new_tensor([red, green, blue]).view(1, 3, 1, 1)


def ellipse(dx: Tensor, dy: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """Approximate signed distance to an ellipse's edge, positive inside (exact for circles)."""
    r = ((dx / rx) ** 2 + (dy / ry) ** 2).sqrt()
    small = torch.minimum(rx, ry) if isinstance(rx, Tensor) and isinstance(ry, Tensor) else min(rx, ry)
    return (1 - r) * small


def ripple(place: Tensor, phase: Tensor, pixel: Tensor, frequencies: tuple[float, ...]) -> Tensor:
    """Sum of sines over `place` [N, H, W], about -1..1; waves finer than two pixels fade out instead of aliasing."""
    total = torch.zeros_like(place)
    for k, frequency in enumerate(frequencies):
        wave = torch.sin(frequency * place + 6.2832 * phase[:, k].view(-1, 1, 1))
        total = total + wave * torch.exp(-((0.45 * frequency * pixel) ** 2))
    return total / len(frequencies) ** 0.5


def paint_background(p: SimpleNamespace, u: Tensor, v: Tensor) -> Tensor:
    """Two colours across the frame and four blurred spots; u, v [H, W] in frame units -> [N, 3, H, W]."""
    along = 0.5 + (u - 0.5) * p.background_angle.cos() + (v - 0.5) * p.background_angle.sin()
    first, second = colour(p.background[:, 0]), colour(p.background[:, 1])
    image = first + (second - first) * along.unsqueeze(1)
    for k in range(p.blob_size.shape[1]):
        place = p.blob_place[:, k].view(-1, 2, 1, 1)
        size = p.blob_size[:, k].view(-1, 1, 1)
        spot = cover(size - ((u - place[:, 0]) ** 2 + (v - place[:, 1]) ** 2).sqrt(), size, 0.05)
        image = over(image, colour(p.blob_colour[:, k]), 0.45 * spot)
    return image


def paint_body(p: SimpleNamespace, image: Tensor, c: SimpleNamespace) -> Tensor:
    """Neck and clothes behind the head; c holds camera coordinates x, y (upright) and px, py (rolled with the head)."""
    half = 0.60 + 0.12 * p.gender
    middle = -0.35 * p.s_yaw
    across = (c.px - middle) / half
    shade = (1 - 0.35 * across * across).clamp(min=0.3) * (0.72 + 0.12 * p.light_x * across)
    neck = cover(half + 0.10 * (c.py - 1.6).clamp(min=0) ** 2 - (c.px - middle).abs(), c.pixel) * cover(
        c.py - 0.6, c.pixel
    )
    image = over(image, colour(p.skin) * shade.unsqueeze(1) * colour(p.light_colour), neck)
    image = darken(image, neck * step(c.py, p.chin + 0.55, p.chin + 0.05), 0.30, (0.8, 1, 1))
    edge = 1.93 + 0.14 * c.x * c.x + 0.22 * hill(((c.x - middle) / 0.55) ** 2)
    folds = 0.88 + 0.12 * torch.sin(2.1 * c.x + 0.8 * c.y + 6.28 * p.phase[:, 0].view(-1, 1, 1))
    return over(image, colour(p.clothes) * folds.unsqueeze(1), cover(c.y - edge, c.pixel, 0.03))


def paint_ears(p: SimpleNamespace, image: Tensor, c: SimpleNamespace, front: bool) -> Tensor:
    """Both ears: behind the head, or (front) before it, as far as each faces the camera."""
    ear_y = 0.20 * torch.ones_like(p.eye_x)
    for side in (-1.0, 1.0):
        facing = -side * p.s_yaw
        at = side * head.width_at(p, ear_y) * (0.97 + p.ear_out)
        ex, ey, _ = head.turn(p, at, ear_y, -0.12 * p.depth)
        width = 0.55 * p.ear_size * (0.6 + 0.9 * facing.clamp(min=0)) + 0.3 * p.ear_out
        dx, dy = c.px - ex, c.py - ey
        lean = dx - side * 0.12 * dy
        mask = cover(ellipse(lean, dy, width, p.ear_size * 1.1), c.pixel)
        if front:
            mask = mask * step(facing, 0.12, 0.35)
        inner = cover(ellipse(lean, dy, 0.62 * width, 0.75 * p.ear_size), c.pixel, 0.08)
        tone = (0.86 + 0.18 * side * p.light_x * p.light_hard) * (1 - 0.33 * inner)
        image = over(image, colour(p.skin) * tone.unsqueeze(1) * fixed(image, 1.02, 0.93, 0.91), mask)
    return image


def relief(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Small hills and hollows of the face (head units along z) that only change the shading."""
    ax = (x * x + 0.006).sqrt()  # smooth in the middle, or the brow would show a crease
    lip = bump(x, y - p.lip_top + 0.5 * p.lip_upper, p.mouth_x, 0.6 * p.lip_upper)
    low = bump(x, y - p.lip_bottom - 0.5 * p.lip_lower, 0.8 * p.mouth_x, 0.6 * p.lip_lower)
    return (
        0.075 * bump(ax - 0.42, y + 0.30, 0.34, 0.13)  # brow ridge
        - 0.11 * bump(ax - p.eye_x + 0.08, y + 0.02, 0.24, 0.15)  # sockets
        + 0.055 * bump(ax - p.eye_x, y, p.eye_width, 0.12)  # eyeballs
        + (0.07 + 0.05 * p.smile) * bump(ax - 0.52, y - 0.42 + 0.05 * p.smile, 0.24, 0.22)  # cheeks
        + 0.045 * lip
        + 0.055 * low
        - 0.05 * bump(x, y - p.lip_bottom - p.lip_lower - 0.07, 0.25, 0.07)  # under the lower lip
        + p.chin_bump * bump(x, y - 0.86 * p.chin, 0.26, 0.17)
        - 0.015 * bump(x, y - p.nose_y - 0.25, 0.05, 0.12)  # philtrum
        - 0.02 * (0.1 + p.smile + 0.5 * p.wrinkle) * bump(_fold(p, ax, y), y - 0.78, 0.06, 0.22)
    )


def _fold(p: SimpleNamespace, ax: Tensor, y: Tensor) -> Tensor:
    """Signed distance across the fold from the wing of the nose to beside the mouth corner."""
    along = (y - p.nose_y) / (p.corner_y + 0.06 - p.nose_y)
    return ax - p.nose_width - 0.05 - (p.mouth_x + 0.09 - p.nose_width - 0.05) * along.clamp(0, 1.2)


def light_skin(p: SimpleNamespace, depth: Tensor, x: Tensor, y: Tensor, c: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """Diffuse shade [N, 3, H, W] and highlight [N, H, W] from the slopes of the depth map (head units)."""
    padded = torch.nn.functional.pad(depth.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    sx = ((padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2 * c.pixel)).clamp(-3, 3)
    sy = ((padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / (2 * c.pixel)).clamp(-3, 3)
    norm = (1 + sx * sx + sy * sy).rsqrt()
    lx, ly, lz = c.light
    direct = (lz - sx * lx - sy * ly) * norm
    wrapped = ((direct + 0.35) / 1.35).clamp(min=0)
    sky = 0.82 + 0.18 * (-sy * norm).clamp(-1, 1)  # a little more light from above
    shade = (1 - p.light_hard) * sky * (0.55 + 0.45 * norm) + p.light_hard * 1.30 * wrapped
    # Cast shadow of the nose: its blurred shape, pushed away from the light.
    nose = bump(x + 0.32 * p.light_x, y - p.nose_y + 0.10 + 0.22 * p.light_y, 0.10, 0.26)
    shade = shade * (1 - 0.30 * p.light_hard * nose * step(-x * p.light_x.sign(), -0.02, 0.12))
    red = fixed(depth, 0.92, 1.02, 1.06)  # light inside the skin: shadows lose less red
    half = (direct + norm) * 0.5 / ((lz + 1) * 0.5).sqrt()
    return 1 - (1 - shade.unsqueeze(1)) * red, half.clamp(0, 1) ** 16


def paint_skin(
    p: SimpleNamespace, image: Tensor, x: Tensor, y: Tensor, depth: Tensor, mask: Tensor, c: SimpleNamespace
) -> Tensor:
    """The head without eyes, mouth and hair: skin colour with its blotches, beard shadow, light and highlights."""
    ax = x.abs()
    blotch = ripple(x * 0.8 + y * 0.6 + 0.1 * torch.sin(5 * x), p.phase, c.pixel, (4.0, 7.3, 12.1))
    blotch = blotch * ripple(y * 0.8 - x * 0.6 + 0.1 * torch.sin(4 * y), p.phase[:, 3:], c.pixel, (5.1, 8.9, 13.7))
    wx, wy = x + 0.06 * torch.sin(9 * y + 4 * x), y + 0.06 * torch.sin(10 * x - 3 * y)  # bends the lattice of the waves
    pores = ripple(wx + 0.4 * y, p.phase[:, 6:], c.pixel, (37.0, 61.0)) * ripple(
        wy - 0.4 * x, p.phase[:, 8:], c.pixel, (41.0, 67.0)
    )
    skin = colour(p.skin) * (1 + 0.05 * blotch + 0.018 * pores).unsqueeze(1)
    rosy = bump(ax - 0.55, y - 0.42, 0.25, 0.20) * (0.3 + 0.7 * p.blush) + 0.5 * bump(x, y - p.nose_y, 0.15, 0.15)
    skin = darken(skin, rosy, 0.16, (0.1, 1.0, 0.8))
    dots = step(
        ripple(wx + 0.3 * y, p.phase[:, 10:], c.pixel, (43.0, 71.0))
        * ripple(wy, p.phase[:, 12:], c.pixel, (47.0, 66.0)),
        0.45,
        0.9,
    )
    skin = darken(skin, dots * p.freckles * bump(ax - 0.4, y - 0.35, 0.45, 0.3), 0.40, (0.6, 1, 1))
    skin = darken(skin, cover(0.035 - ((x - p.mole_x) ** 2 + (y - p.mole_y) ** 2).sqrt(), c.pixel, 0.01) * p.mole, 0.6)
    skin = darken(skin, _beard(p, x, y) * p.stubble, 0.28, (1.05, 1, 0.9))
    shade, shine = light_skin(p, depth, x, y, c)
    lit = skin * shade * colour(p.light_colour)
    lit = lit + (shine * (0.04 + 0.14 * p.light_hard)).unsqueeze(1) * colour(p.light_colour)
    lit = darken(lit, bump(ax - p.eye_x + 0.05, y - 0.02, 0.23, 0.15), 0.20 + 0.12 * p.wrinkle, (0.8, 1, 0.95))
    lit = darken(
        lit, bump(_fold(p, ax, y), y - 0.78, 0.035, 0.20), 0.03 + 0.20 * p.smile + 0.12 * p.wrinkle, (0.8, 1, 1)
    )
    lines = torch.cos((y + 0.62 + 0.05 * x * x) * 42) * bump(x, y + 0.62, 0.5, 0.17)
    lit = darken(lit, lines.clamp(min=0), 0.14 * p.wrinkle + 0.10 * p.surprise, (0.8, 1, 1))
    wing = bump(ax - p.nose_width - 0.012, y - p.nose_y - 0.04, 0.022, 0.085)
    lit = darken(lit, wing, 0.38, (0.75, 1, 1))
    hole = cover(
        ellipse(ax - 0.50 * p.nose_width, y - p.nose_y - 0.115, 0.34 * p.nose_width, 0.036 + 0.0 * p.nose_y),
        c.pixel,
        0.035,
    )
    lit = darken(lit, hole, 0.68, (0.9, 1, 1))
    lit = darken(lit, bump(x, y - p.nose_y - 0.13, 0.75 * p.nose_width, 0.05), 0.22, (0.8, 1, 1))
    lit = darken(lit, bump(x, y - p.lip_bottom - p.lip_lower - 0.045, 0.20, 0.04), 0.24, (0.8, 1, 1))
    return over(image, lit, mask)


def _beard(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Where a beard grows: jaw, chin and upper lip."""
    low = step(y - 0.45 * x.abs() ** 0.5, 0.44, 0.74)
    bare = bump(x, y - p.mouth_y - 0.5 * p.gap, 1.05 * p.mouth_x, 0.16 + 0.5 * p.gap)
    return (low - 0.35 * bare).clamp(0, 1) * step(x.abs() + 0.9 * (p.mouth_y - y).clamp(min=0), 0.15, 0.75).clamp(
        min=0.55
    )


def paint_beard(p: SimpleNamespace, image: Tensor, x: Tensor, y: Tensor, mask: Tensor, c: SimpleNamespace) -> Tensor:
    """Beard and moustache with hairs; laid before the lips."""
    hairs = ripple(x * (1 + 0.3 * y), p.phase[:, 5:], c.pixel, (31.0, 53.0, 83.0))
    jaw = step(y - 0.35 * x.abs(), 0.52, 0.80) * step(x.abs() + 1.3 * (y - p.mouth_y).clamp(min=0), 0.44, 0.62)
    moustache = cover(
        ellipse(x, y - p.lip_top + 0.14 - 0.25 * x * x, 1.12 * p.mouth_x, 0.085 + 0.0 * p.eye_x), c.pixel, 0.06
    )
    share = torch.maximum(jaw * p.beard, moustache * p.moustache) * (0.85 + 0.15 * hairs).clamp(0, 1) * mask
    tone = 0.62 + 0.18 * hairs - 0.12 * x * p.light_x
    return over(image, colour(p.hair) * tone.unsqueeze(1), share)
