"""Augmentation of what the discriminator sees, of real and generated faces alike, so that it cannot memorise few.

DiffAugment (Zhao et al., NeurIPS 2020): colour, translation, cutout, always on. ADA (Karras et al., NeurIPS 2020): the
same operations, each with a probability p that a controller raises while the discriminator overfits. The transforms
are differentiable and run on the images' device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TARGET = 0.6  # r_t = E[sign D(real)] at which ADA keeps p (train.ada_target)
SPEED = 500_000  # images over which p may move by 1 (train.ada_images)


def augment(x: Tensor, p: float = 1.0) -> Tensor:
    """Each of colour, translation and cutout with probability p per image. x: [N, 3, S, S] in [-1, 1] -> same shape."""
    if p <= 0:
        return x
    for transform in (_colour, _translate, _cutout):
        if p >= 1:
            x = transform(x)
        else:
            chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < p
            x = torch.where(chosen, transform(x), x)
    return x


def adapt(p: float, real_logits: Tensor, images: int, target: float = TARGET, speed: int = SPEED) -> float:
    """ADA's controller: the next p in [0, 1] after a batch of ``images`` real ones with these logits.

    Up where the mean sign of the logits is above ``target`` (the discriminator knows its faces by heart), else down,
    by images / speed.
    """
    overfit = float(torch.sign(real_logits.detach()).mean())
    step = images / speed
    return min(1.0, max(0.0, p + (step if overfit > target else -step)))


def _colour(x: Tensor) -> Tensor:
    """Brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5."""
    draw = torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
    x = x + (draw[0] - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (draw[1] * 2) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (draw[2] + 0.5) + mean


def _translate(x: Tensor, ratio: float = 0.125) -> Tensor:
    """Shift by up to an eighth of the side, zeros moving in."""
    n, _, height, width = x.shape
    reach = int(width * ratio + 0.5)
    shift = torch.randint(-reach, reach + 1, (2, n, 1, 1), device=x.device)
    rows = (torch.arange(height, device=x.device)[None, :, None] + shift[0] + 1).clamp(0, height + 1)
    columns = (torch.arange(width, device=x.device)[None, None] + shift[1] + 1).clamp(0, width + 1)
    padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    picked = padded[torch.arange(n, device=x.device)[:, None, None], rows, columns]
    return picked.permute(0, 3, 1, 2)


def _cutout(x: Tensor, ratio: float = 0.5) -> Tensor:
    """Zero a square of half the side, anywhere, partly outside too."""
    n, _, height, width = x.shape
    size = int(width * ratio + 0.5)
    centre = torch.rand(2, n, 1, 1, device=x.device)
    top = (centre[0] * (height + 1 - size % 2)).floor() - size // 2
    left = (centre[1] * (width + 1 - size % 2)).floor() - size // 2
    rows = torch.arange(height, device=x.device)[None, :, None]
    columns = torch.arange(width, device=x.device)[None, None]
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return x * (~inside)[:, None].to(x.dtype)
