"""The game with a discriminator: the logistic loss (Goodfellow et al. 2014), R1 (Mescheder et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def g_nonsaturating(logits_fake: Tensor) -> Tensor:
    """-log D = softplus(-logit), for the generator: [N] or [N, ...] (mean over the rest) -> [N], > 0.

    Lower is a better forgery; log 2 where the discriminator cannot tell.
    """
    return _per_image(F.softplus(-logits_fake))


def d_logistic(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """softplus(-real) + softplus(fake), for the discriminator: [N] or [N, ...], twice -> [N], > 0.

    Lower is a better discriminator; 2 log 2 where it cannot tell.
    """
    return _per_image(F.softplus(-logits_real)) + _per_image(F.softplus(logits_fake))


def r1(logits_real: Tensor, images_real: Tensor, gamma: float = 10.0) -> Tensor:
    """R1 = γ/2 ‖∇_x D(x)‖² at real images: logits [N], images [N, ...] (require grad) -> [N], >= 0, lower is better.

    Differentiable for the discriminator's step (second order). Applied lazily, every n-th step, multiply it by n. A
    logit counts as its own image's alone (the discriminator's minibatch standard deviation breaks that a little).
    """
    (gradient,) = torch.autograd.grad(logits_real.sum(), images_real, create_graph=True)
    if gradient.dtype != torch.float64:
        gradient = gradient.float()
    return gamma / 2 * gradient.square().flatten(1).sum(dim=1)


def _per_image(loss: Tensor) -> Tensor:
    return loss.flatten(1).mean(dim=1) if loss.ndim > 1 else loss
