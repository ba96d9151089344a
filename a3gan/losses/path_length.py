"""Path length regularisation of a StyleGAN2 generator (Karras et al., CVPR 2020, section 3.2 and appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from a3gan.models.convolution import maps_only

DECAY = 0.01  # how fast the running mean of the lengths follows, as in the paper


def path_lengths(images: Tensor, w_plus: Tensor) -> Tensor:
    """||J_w^T y||_2 with y ~ N(0, I)/side: images [N, 3, S, S] made from w_plus [N, L, w_dim] -> [N] >= 0, float32.

    The Jacobian never exists: J_w^T y is the gradient of <images, y>. Over the L rows it is a root mean square, so that
    the length does not depend on L. Differentiable for the generator's step (second order).
    """
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    with maps_only():
        (gradient,) = torch.autograd.grad((images * noise).sum(), w_plus, create_graph=True)
    if gradient.dtype != torch.float64:
        gradient = gradient.float()
    return gradient.square().sum(2).mean(1).sqrt()


class PathLength:
    """E (||J_w^T y||_2 - a)^2, equation 4, with a the running mean of the lengths: a unit step in W then changes the
    image by as much everywhere. ``mean`` is a, a number to save with the run.
    """

    def __init__(self, decay: float = DECAY) -> None:
        self.decay, self.mean = decay, 0.0

    def __call__(self, images: Tensor, w_plus: Tensor) -> Tensor:
        """Moves ``mean`` towards this batch, then the penalty [N] >= 0; lower is more even.

        Render in float32: the gradient of a 16-bit pass is mostly rounding.
        """
        lengths = path_lengths(images, w_plus)
        self.mean += self.decay * (float(lengths.detach().mean()) - self.mean)
        return (lengths - self.mean).square()
