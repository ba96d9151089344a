"""What must stay: protected attributes, the geometry of the face and, with the dial at 0, the image.

Ours, after the formulation in docs/METHOD.md. The perceptual term is scorers/perceptual.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from a3gan.data.attributes import SCHEMA, Schema
from a3gan.losses.distances import cosine, cross_entropy, masked_mean
from a3gan.scorers.landmarks import eye_distance


def keep(logits_out: Tensor, logits_in: Tensor, c: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """L_keep = Σ_k (1 - c_k) D(A_k(x̂), A_k(x)) / max(1, Σ (1 - c)): [N], >= 0, lower is better.

    logits [N, D], c [N, K]. D is the cross-entropy against the original's soft value for binary and categorical
    attributes (its least is that value's entropy), |difference of values| for continuous ones. 0 where c is all 1.
    """
    return masked_mean(cross_entropy(logits_out, logits_in, schema, continuous="l1"), 1 - c)


def geometry(
    landmarks_out: Tensor, landmarks_in: Tensor, openings_out: Tensor, openings_in: Tensor, hold: Tensor | None = None
) -> Tensor:
    """L_geo = mean |p̂ - p| / eye distance of p + mean |ô - o|: [N], >= 0, lower is better.

    landmarks: five points [N, 5, 2] in one unit, mean over their ten coordinates; openings: of eyes and mouth, values
    in (0, 1), [N, 2]. hold [N, 2]: weights of the openings, 0 where the policy lets one change; None = 1.
    """
    points = (landmarks_out - landmarks_in).abs().mean(dim=(1, 2)) / eye_distance(landmarks_in).detach()
    openings = (openings_out - openings_in).abs()
    return points + (openings if hold is None else openings * hold).mean(dim=1)


def reconstruction(
    image_out: Tensor,
    image_in: Tensor,
    perceptual: Tensor | None = None,
    embeddings_out: Tensor | None = None,
    embeddings_in: Tensor | None = None,
    pixel: float = 1.0,
) -> Tensor:
    """L_rec = pixel · mean (x̂ - x)² + 0.8 perceptual + 0.1 (1 - cos(R(x̂), R(x))): [N], >= 0, lower is better.

    Images [N, 3, S, S] in [-1, 1]; perceptual [N] and embeddings [N, E] are left out where None; pixel is 1 beside
    LPIPS. For alpha = 0 only:
    with the dial up, the image must not be the original's (losses/total.py sees to it).
    """
    loss = pixel * (image_out - image_in).square().mean(dim=(1, 2, 3))
    if perceptual is not None:
        loss = loss + 0.8 * perceptual
    if embeddings_out is not None and embeddings_in is not None:
        loss = loss + 0.1 * (1 - cosine(embeddings_out, embeddings_in))
    return loss


def tint(image_out: Tensor, image_in: Tensor, cells: int = 8) -> Tensor:
    """L_tint = mean |C(x̂) - C(x)| over cells x cells squares: [N], >= 0, lower is better. Ours.

    Images [N, 3, S, S] in [-1, 1]. C is what is not grey, R - Y and B - Y with Y = 0.299 R + 0.587 G + 0.114 B
    (BT.601), averaged over each square. The light's colour is no part of an identity; brightness, which draws the face,
    is free.
    """
    difference = F.adaptive_avg_pool2d((image_out - image_in).float(), cells)
    red, green, blue = difference.unbind(1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return ((red - grey).abs() + (blue - grey).abs()).mean(dim=(1, 2)) / 2
