"""Stage `stylegan2`: the generator alone, from noise to faces (Karras et al., CVPR 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan.losses import adversarial
from a3gan.models.build import build_discriminator, build_generator
from a3gan.training.adversary import Adversary
from a3gan.training.stage import Batch, Stage

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

MIXING = 0.9  # share of images whose fine rows come from a second code
SHEET = (6, 8)  # rows and columns of generated faces
TRUNCATION = 0.7  # of the first half of the sheet; the rest is untruncated


class StyleGan2Stage(Stage):
    """Non-saturating logistic loss, lazy R1, style mixing, augmentation of the discriminator."""

    name = "stylegan2"
    ema_names = ("generator",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = self.build_networks(cfg)
        self.generator = self.networks["generator"]
        betas, train = tuple(cfg.train.betas), cfg.train
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=train.lr_generator, betas=betas),
            "discriminator": torch.optim.Adam(
                self.networks["discriminator"].parameters(), lr=train.lr_discriminator, betas=betas
            ),
        }
        self.adversary = Adversary(cfg, self.networks["discriminator"], self.optimizers["discriminator"], self.autocast)
        drawn = torch.Generator().manual_seed(cfg.train.seed)
        self.fixed = torch.randn(SHEET[0] * SHEET[1], self.generator.z_dim, generator=drawn)

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"generator": build_generator(cfg), "discriminator": build_discriminator(cfg)}

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        image = torch.zeros(batch, 3, cfg.data.size, cfg.data.size)
        return {"generator": (torch.zeros(batch, cfg.model.generator.z_dim),), "discriminator": (image,)}

    def step(self, batch: Batch, images_seen: int) -> dict[str, Tensor]:
        """Generate once; the discriminator learns from it, then judges it for the generator."""
        n, device = len(batch.images), batch.images.device
        w_plus = self._codes(n, device)
        with self.autocast():
            fake = self.generator.synthesis(w_plus, random_noise=self.cfg.model.generator.noise)
        scalars = self.adversary.learn(batch.images, fake, images_seen // n)
        loss = adversarial.g_nonsaturating(self.adversary.against(fake)).mean()
        self.optimizers["generator"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["generator"].step()
        return scalars | {"generator/loss": loss.detach()}

    def _codes(self, n: int, device: torch.device) -> Tensor:
        """W+ [n, L, w_dim] of fresh noise, rows from a random one on taken from a second code (style mixing)."""
        rows = self.generator.rows
        with self.autocast():
            w = self.generator.mapping(torch.randn(2 * n, self.generator.z_dim, device=device)).float()
        self.generator.track_w_mean(w.detach())
        cut = torch.randint(1, rows, (n,), device=device).masked_fill(torch.rand(n, device=device) >= MIXING, rows)
        first = torch.arange(rows, device=device)[None] < cut[:, None]
        return torch.where(first[:, :, None], w[:n, None], w[n:, None])

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor:
        generator = nets["generator"]
        half = len(self.fixed) // 2
        with torch.no_grad():
            faces = torch.cat([
                generator(part.to(self.device), truncation).cpu()
                for part, truncation in ((self.fixed[:half], TRUNCATION), (self.fixed[half:], 1.0))
            ])
        grid = faces.reshape(*SHEET, *faces.shape[1:])
        return grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).clamp(-1, 1)

    def plain_state(self) -> dict[str, Any]:
        return {"augment_p": self.adversary.p}

    def load_plain_state(self, state: dict[str, Any]) -> None:
        self.adversary.p = state["augment_p"]
