"""Who is painted and how: random identities and states of the rendered faces (ours).

Lengths are in head units: half the width of an average head is 1 (about 70 mm), x points right in the picture, y down,
z towards the viewer; the origin is the middle of the head at the height of the eyes. Angles are degrees.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXPRESSIONS = ("neutral", "happiness", "surprise")

# Anchors (RGB, 0..1) between which a colour is interpolated by one number in 0..1.
SKIN = ((0.99, 0.82, 0.70), (0.94, 0.72, 0.56), (0.80, 0.58, 0.43), (0.60, 0.40, 0.28), (0.36, 0.23, 0.17))
HAIR = (
    (0.07, 0.06, 0.06),
    (0.20, 0.13, 0.09),
    (0.36, 0.23, 0.14),
    (0.52, 0.29, 0.16),
    (0.72, 0.55, 0.33),
    (0.86, 0.76, 0.56),
)
IRIS = (
    (0.16, 0.09, 0.05),
    (0.33, 0.19, 0.09),
    (0.42, 0.35, 0.16),
    (0.34, 0.44, 0.32),
    (0.32, 0.46, 0.62),
    (0.50, 0.57, 0.62),
)


def ramp(position: Tensor, stops: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Piecewise linear colour: position [N] in 0..1 over equally spaced `stops` -> [N, 3] in 0..1."""
    table = torch.tensor(stops, dtype=position.dtype, device=position.device)
    place = position.clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(max=len(stops) - 2).long()
    return torch.lerp(table[low], table[low + 1], (place - low).unsqueeze(-1))


class _Draw:
    """Random numbers of one call; every method returns [n] (or [n, k]) float32 on the CPU, so that devices agree."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.n, *shape, generator=self.generator)

    def normal(self, mean: float | Tensor, std: float, bound: float = 2.2) -> Tensor:
        """Gaussian, cut at `bound` standard deviations so that no face falls apart."""
        return mean + std * torch.randn(self.n, generator=self.generator).clamp(-bound, bound)

    def chance(self, probability: float | Tensor) -> Tensor:
        return (torch.rand(self.n, generator=self.generator) < probability).float()


def sample_identities(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw `n` people: what stays the same between two pictures of one person.

    Returns a dict of float32 tensors on the CPU, [n] each: `gender` (1 = male, a label of appearance that shape and
    hair lean towards but do not fix), `skin_tone` (0 light .. 1 dark), `hair_tone` (0 black .. 1 blond), lengths,
    colours `skin`, `hair`, `iris`, `lips` [n, 3] in 0..1, and `phase` [n, 16] in 0..1 for the textures.
    """
    draw = _Draw(n, generator)
    male = draw.chance(0.5)
    identity = {"gender": male, "phase": draw.uniform(0, 1, 16)}
    identity |= _head(draw, male) | _colours(draw, male) | _hair(draw, male) | _features(draw, male)
    return identity


def _head(draw: _Draw, male: Tensor) -> dict[str, Tensor]:
    return {
        "head_width": draw.normal(0.97 + 0.05 * male, 0.05),
        "chin": draw.normal(1.58 + 0.10 * male, 0.08),  # chin below the eyes
        "crown": draw.normal(1.62, 0.07),  # top of the skull above the eyes
        "depth": draw.normal(1.12, 0.05),
        "jaw": draw.normal(-0.05 + 0.08 * male, 0.06),  # width at the jaw: negative pointed, positive square
        "cheek": draw.normal(0.02, 0.03),
        "chin_bump": draw.uniform(0.05, 0.14),
        "ear_size": draw.normal(0.26, 0.03),
        "ear_out": draw.uniform(0.0, 0.07),
        "wrinkle": draw.uniform(0, 1) ** 2,
    }


def _colours(draw: _Draw, male: Tensor) -> dict[str, Tensor]:
    tone = draw.uniform(0, 1) ** 1.2
    skin = ramp(tone, SKIN)
    warm = draw.normal(0, 0.025).unsqueeze(-1)
    skin = (skin + warm * torch.tensor([0.3, -0.4, -1.0])).clamp(0.05, 1)
    hair_tone = draw.uniform(0, 1) * (1 - 0.75 * tone)
    grey = draw.chance(0.14).unsqueeze(-1) * draw.uniform(0.5, 1).unsqueeze(-1)
    hair = torch.lerp(ramp(hair_tone, HAIR), torch.tensor([0.68, 0.67, 0.66]), grey)
    iris = ramp((draw.uniform(0, 1) * (1.25 - 1.2 * tone)).clamp(0, 1), IRIS)
    makeup = (1 - male) * draw.chance(0.5) * draw.uniform(0.3, 1)
    red = torch.lerp(torch.tensor([0.80, 0.42, 0.40]), torch.tensor([0.72, 0.12, 0.18]), makeup.unsqueeze(-1))
    lips = torch.lerp(skin * torch.tensor([0.92, 0.68, 0.68]), red, (0.2 + 0.6 * makeup).unsqueeze(-1))
    return {
        "skin_tone": tone,
        "skin": skin,
        "hair_tone": hair_tone,
        "hair": hair,
        "iris": iris,
        "lips": lips,
        "makeup": makeup,
        "freckles": draw.chance(0.2) * (1 - tone),
        "blush": draw.uniform(0, 1),
    }


def _hair(draw: _Draw, male: Tensor) -> dict[str, Tensor]:
    swap = draw.chance(0.12)  # some long-haired men, some short-haired women
    long = (male - swap).abs() < 0.5
    length = torch.where(long, draw.uniform(0.45, 1.0), draw.uniform(0.0, 0.25))
    bald = male * draw.chance(0.15)
    beard = male * draw.chance(0.40) * draw.uniform(0.4, 1)
    return {
        "hair_length": length,
        "hair_volume": torch.where(long, draw.uniform(0.07, 0.26), draw.uniform(0.03, 0.20)) * (1 - 0.9 * bald),
        "hairline": draw.normal(0.90 + 0.06 * male, 0.06) + 0.40 * bald,
        "temple": draw.uniform(0.0, 0.25) + 0.3 * bald,
        "fringe": draw.chance(0.3 - 0.15 * male) * (1 - bald) * draw.uniform(0.5, 1),
        "parting": draw.uniform(-0.6, 0.6),
        "wave": draw.uniform(0.0, 1.0),
        "bald": bald,
        "beard": beard,
        "moustache": torch.where(beard > 0, beard, male * draw.chance(0.12)),
        "stubble": male * draw.uniform(0, 0.5),
    }


def _features(draw: _Draw, male: Tensor) -> dict[str, Tensor]:
    return {
        "eye_x": draw.normal(0.455, 0.016),
        "eye_width": draw.normal(0.205, 0.013),
        "eye_height": draw.normal(0.112, 0.014),
        "eye_tilt": draw.normal(0.05, 0.07),
        "lid_crease": draw.uniform(0.2, 1),
        "lashes": (0.25 + 0.5 * (1 - male)) + draw.uniform(-0.15, 0.25),
        "brow_height": draw.normal(0.315 - 0.03 * male, 0.03),
        "brow_thick": draw.normal(0.038 + 0.016 * male, 0.009),
        "brow_arch": draw.normal(0.07 - 0.03 * male, 0.03),
        "brow_tilt": draw.normal(-0.005, 0.03),
        "brow_dark": draw.uniform(0.55, 1),
        "nose_y": draw.normal(0.56, 0.045),
        "nose_width": draw.normal(0.205 + 0.015 * male, 0.028),
        "nose_out": draw.normal(0.32 + 0.02 * male, 0.04),
        "nose_bridge": draw.normal(0.125, 0.018),
        "mouth_y": draw.normal(1.03, 0.04),
        "mouth_width": draw.normal(0.385, 0.03),
        "lip_upper": draw.normal(0.100 - 0.02 * male, 0.02),
        "lip_lower": draw.normal(0.140 - 0.02 * male, 0.022),
        "mole": draw.chance(0.25),
        "mole_x": draw.uniform(-0.65, 0.65),
        "mole_y": draw.uniform(0.35, 1.25),
    }


def sample_states(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw `n` moments: all that may differ between two pictures of one person.

    Returns a dict of tensors on the CPU, [n] float32 unless said: `expression` (int64, index into EXPRESSIONS),
    `smile`, `surprise`, `eye_opening`, `mouth_opening` in 0..1, `gaze_x`, `gaze_y` in -1..1 (right and down in the
    picture), `yaw`, `pitch`, `roll` in degrees (positive: to the right, down, clockwise), `glasses` (0 or 1), their
    style, the light, exposure, background and clothes colours ([n, 3] or [n, k, 3] in 0..1) and the camera's framing.
    """
    draw = _Draw(n, generator)
    state = _expression(draw)
    state |= {
        "gaze_x": draw.normal(0, 0.4),
        "gaze_y": draw.normal(0, 0.3),
        "yaw": draw.normal(0, 14),
        "pitch": draw.normal(0, 6.5),
        "roll": draw.normal(0, 7),
        "glasses": draw.chance(0.22),
        "glasses_round": draw.uniform(2.0, 5.0),  # exponent of the superellipse: 2 round, 5 nearly square
        "glasses_size": draw.uniform(0.9, 1.15),
        "glasses_rim": draw.uniform(0.014, 0.032),
        "glasses_tone": draw.uniform(0, 1),
    }
    return state | _scene(draw)


def _expression(draw: _Draw) -> dict[str, Tensor]:
    pick = draw.uniform(0, 1)
    happy, surprised = ((pick > 0.42) & (pick < 0.82)).float(), (pick >= 0.82).float()
    yawn = draw.chance(0.22) * (1 - happy) * (1 - surprised)
    ajar = draw.chance(0.3) * (1 - happy) * (1 - surprised) * (1 - yawn)
    mouth = happy * draw.chance(0.8) * draw.uniform(0.08, 0.35) + surprised * draw.uniform(0.35, 0.75)
    mouth = mouth + yawn * draw.uniform(0.65, 1.0) + ajar * draw.uniform(0.05, 0.3)
    closed = draw.chance(0.25) * (1 - surprised)
    opening = draw.uniform(0.55, 0.85) - 0.1 * happy - 0.15 * yawn
    opening = torch.where(surprised > 0, draw.uniform(0.85, 1.0), opening)
    opening = torch.where(closed > 0, draw.uniform(0.0, 0.08), opening)
    return {
        "expression": (happy + 2 * surprised).long(),
        "smile": happy * draw.uniform(0.6, 1.0),
        "surprise": surprised * draw.uniform(0.6, 1.0),
        "eye_opening": opening,
        "mouth_opening": mouth,
    }


def _scene(draw: _Draw) -> dict[str, Tensor]:
    warm = draw.normal(0.02, 0.035).unsqueeze(-1)
    return {
        "light_x": draw.normal(0, 0.5),
        "light_y": draw.uniform(-0.9, -0.15),
        "light_hard": draw.uniform(0.3, 0.7),  # share of the directed light; the rest comes from all sides
        "light_colour": 1 + warm * torch.tensor([1.0, 0.1, -1.0]),
        "exposure": draw.uniform(0.86, 1.12),
        "contrast": draw.uniform(0.9, 1.1),
        "grain": draw.uniform(0.0, 0.02),
        "grain_shift": draw.uniform(0, 1, 2),
        "background": _muted(draw.uniform(0, 1, 2, 3)),
        "background_angle": draw.uniform(-3.1416, 3.1416),
        "blob_place": draw.uniform(-0.1, 1.1, 4, 2),
        "blob_size": draw.uniform(0.08, 0.35, 4),
        "blob_colour": _muted(draw.uniform(0, 1, 4, 3)),
        "clothes": draw.uniform(0, 1, 3) * 0.85,
        "photo_scale": draw.uniform(0.85, 1.2),
        "photo_shift": draw.uniform(-0.5, 0.5, 2),
    }


def _muted(colours: Tensor) -> Tensor:
    """Colours [..., 3] nearer to their grey, as rooms and streets are."""
    return torch.lerp(colours.mean(-1, keepdim=True), colours, 0.5)
