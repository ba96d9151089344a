"""The paper's figure: suppress identity at three levels, fuse to W+, inject attributes, render."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from a3gan.models.fusion import Fusion
from a3gan.models.injection import AINet, Injection
from a3gan.models.stylegan2 import Generator
from a3gan.models.suppression import Suppressed, SuppressiveEncoder


@dataclass
class A3GANOutput:
    """image [N, 3, S, S] about [-1, 1]; w_sup, w_plus (w') [N, L, w_dim]; what the units and AINet did."""

    image: Tensor
    w_sup: Tensor
    w_plus: Tensor
    suppressed: Suppressed
    injection: Injection | None


class A3GAN(nn.Module):
    """Encoder with SCUs -> fusion -> AINet -> StyleGAN2."""

    def __init__(self, encoder: SuppressiveEncoder, fusion: Fusion, ainet: AINet, generator: Generator):
        super().__init__()
        self.encoder, self.fusion, self.ainet, self.generator = encoder, fusion, ainet, generator

    def forward(self, x: Tensor, a: Tensor, c: Tensor, z: Tensor, alpha: Tensor, inject: bool = True) -> A3GANOutput:
        """Anonymise aligned faces.

        Args:
            x: [N, 3, S, S] in [-1, 1]. a: [N, D] attribute logits of x. c: [N, K] in {0, 1}, 1 = may change.
            z: [N, z_dim] ~ N(0, I), the new face's seed. alpha: [N] in [0, 1], the dial; 0 is the plain reconstruction
            exactly, since the units and the injection are multiplied by it. inject: False leaves AINet out (phase ii).
        """
        suppressed = self.encoder(x, alpha)
        w_sup = self.fusion(suppressed.features)
        injection = self.ainet(w_sup, a, c, z) if inject else None
        w_plus = w_sup + alpha[:, None, None] * injection.delta if injection else w_sup
        return A3GANOutput(self.generator.synthesis(w_plus), w_sup, w_plus, suppressed, injection)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x [N, 3, S, S] -> G(w^sup) without suppression or injection."""
        return self.generator.synthesis(self.fusion(self.encoder(x, x.new_zeros(len(x))).features))
