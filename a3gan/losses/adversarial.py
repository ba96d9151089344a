"""The game with a discriminator, and the penalty on its gradient.

logistic: every logit is judged by itself (Goodfellow et al. 2014, non-saturating). relativistic: by pairs, a real image
should look more real than the generated one of its row (relativistic pairing, Jolicoeur-Martineau 2019; with R1 and R2
the loss of R3GAN, Huang et al., NeurIPS 2024). R1: Mescheder et al. 2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan.models.convolution import maps_only


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


def relativistic(logits_better: Tensor, logits_worse: Tensor) -> Tensor:
    """softplus(worse - better), for the side that wants the first of each pair to look more real: [N], [N] -> [N], > 0.

    (real, generated) for the discriminator, (generated, real) for the generator; log 2 where the two look alike. Rows
    are pairs, so that no logit can win by drifting: only differences count.
    """
    return _per_image(F.softplus(logits_worse - logits_better))


def r1(logits_real: Tensor, images_real: Tensor, gamma: float = 10.0) -> Tensor:
    """R1 = γ/2 ‖∇_x D(x)‖² at real images: logits [N], images [N, ...] (require grad) -> [N], >= 0, lower is better.

    The same at generated images is R2.

    Differentiable for the discriminator's step (second order). Applied lazily, every n-th step, multiply it by n. A
    logit counts as its own image's alone (the discriminator's minibatch standard deviation breaks that a little).
    """
    with maps_only():
        (gradient,) = torch.autograd.grad(logits_real.sum(), images_real, create_graph=True)
    if gradient.dtype != torch.float64:
        gradient = gradient.float()
    return gamma / 2 * gradient.square().flatten(1).sum(dim=1)


def _per_image(loss: Tensor) -> Tensor:
    return loss.flatten(1).mean(dim=1) if loss.ndim > 1 else loss
