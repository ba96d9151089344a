"""The flat attribute code of an image: heads of an attribute network, its five points, the tones of skin and hair."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from a3gan.data.align import FRAMES
from a3gan.data.attributes import SCHEMA, Attribute, Schema
from a3gan.scorers.landmarks import measure

BOUND = 6.0
"""No logit of the code is further from 0: sigmoid(6) = 0.9975, as in data/attributes.EPS.

Far-off logits bend towards it, so that the gradient stays (a logit of 1 loses 1 %, one of 3 loses 8 %)."""

# Boxes (x0, y0, x1, y1) from the middle of the eyes, unit = their distance, so that they serve every frame.
PATCHES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    # both cheeks, forehead
    "skin_tone": ((-0.70, 0.45, -0.40, 0.75), (0.40, 0.45, 0.70, 0.75), (-0.30, -0.66, 0.30, -0.40)),
    # top of the frame `face`, its upper corners
    "hair_tone": ((-0.60, -1.05, 0.60, -0.88), (-1.08, -1.05, -0.72, -0.63), (0.72, -1.05, 1.08, -0.63)),
}


def attribute_logits(
    outputs: Mapping[str, Tensor],
    x: Tensor,
    frame: str = "face",
    schema: Schema = SCHEMA,
    eye_temperature: float = 1.0,
    mouth_temperature: float = 1.0,
) -> Tensor:
    """The flat code [N, D] of images, float32, differentiable in `outputs` and `x`; every entry within ±`BOUND`.

    outputs            of the attribute network, by head: [N] logits, [N, n] class logits, 'landmarks' [N, 5, 2]
    x                  [N, 3, S, S] in [-1, 1], aligned to `frame` (read for skin and hair tone only)
    eye_temperature    eye_opening = 1 - sigmoid(eyes_closed / eye_temperature), calibrated on validation faces
    mouth_temperature  mouth_opening = sigmoid(yawning / mouth_temperature)

    Class logits are centred (softmax ignores their mean). A measurement m of an attribute with span (lo, hi) has the
    logit 2·(m - mid) / half, mid and half those of the span: 2 at hi, -2 at lo, and a gradient outside as well. All
    logits u are then bent by BOUND·tanh(u / BOUND). ValueError for a frame or a source that is not known.
    """
    geometry = measure(outputs["landmarks"].float())
    columns = []
    for attribute in schema:
        kind, _, head = attribute.source.partition(":")
        if attribute.name == "eye_opening":
            logits = -outputs[head].float() / eye_temperature
        elif attribute.name == "mouth_opening":
            logits = outputs[head].float() / mouth_temperature
        elif kind == "head":
            logits = outputs[head].float()
            if attribute.kind == "categorical":
                logits = logits - logits.mean(dim=1, keepdim=True)
        elif kind == "landmarks":
            logits = span_logit(geometry[attribute.name], attribute)
        elif kind == "colour":
            logits = span_logit(tone(x, attribute.name, frame), attribute)
        else:
            raise ValueError(f"attribute {attribute.name!r}: nothing here measures its source {attribute.source!r}")
        columns.append(logits.reshape(x.shape[0], attribute.width))
    code = torch.cat(columns, dim=1)
    return BOUND * torch.tanh(code / BOUND)


def span_logit(measured: Tensor, attribute: Attribute) -> Tensor:
    """Raw measurement [N] -> logit [N]: -2 and +2 at the ends of the attribute's span, linear."""
    low, high = attribute.span
    return (measured - (low + high) / 2) * (4 / (high - low))


def tone(x: Tensor, patches: str, frame: str = "face") -> Tensor:
    """Mean CIELAB lightness [N], 0 to 100, of named patches (`PATCHES`) of aligned images [N, 3, S, S] in [-1, 1].

    Boxes cover pixels in part, so the value does not jump with the size. Hair tone is what the top of the frame shows:
    of a bald or covered head, skin or cloth; of a narrow one, some background.
    """
    if frame not in FRAMES:
        raise ValueError(f"frame {frame!r} is unknown; known: {', '.join(FRAMES)}")
    (left_x, eye_y), (right_x, _) = FRAMES[frame][:2]
    unit, middle = right_x - left_x, (left_x + right_x) / 2
    light = lightness(x.float())
    means = []
    for x0, y0, x1, y1 in PATCHES[patches]:
        across = _coverage(middle + unit * x0, middle + unit * x1, light)
        down = _coverage(eye_y + unit * y0, eye_y + unit * y1, light)
        # a sum rather than a product of matrices, which autocast would run in bfloat16
        means.append((light * down[:, None] * across).sum(dim=(1, 2)))
    return torch.stack(means, dim=1).mean(dim=1)


def _coverage(start: float, end: float, like: Tensor) -> Tensor:
    """Share of each of the S pixels that lies in [start, end] (units of the side), normalised to sum 1: [S]."""
    side = like.shape[-1]
    edges = torch.arange(side, device=like.device, dtype=like.dtype)
    weight = (torch.clamp(edges + 1, max=end * side) - torch.clamp(edges, min=start * side)).clamp_min(0)
    return weight / weight.sum()


def lightness(x: Tensor) -> Tensor:
    """CIELAB L* of sRGB images (D65): [N, 3, H, W] in [-1, 1] -> [N, H, W], 0 black to 100 white.

    IEC 61966-2-1 and CIE 15. Finite and with finite gradients everywhere, also outside [-1, 1]: both curves are
    straight near and below black.
    """
    rgb = (x + 1) / 2
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    luminance = (linear * linear.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(dim=1)
    knee = (6 / 29) ** 3
    return torch.where(luminance <= knee, luminance * (29 / 3) ** 3, 116 * luminance.clamp_min(knee) ** (1 / 3) - 16)
