"""Stage `stylegan2`: the generator alone, from noise to faces (Karras et al., CVPR 2020)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan.losses.path_length import PathLength
from a3gan.models.build import build_discriminator, build_generator
from a3gan.training import warm_start
from a3gan.training.adversary import Adversary
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

SHEET = (6, 8)  # rows and columns of generated faces
TRUNCATION = 0.7  # of the first half of the sheet; the rest is untruncated


class StyleGan2Stage(Stage):
    """Logistic or relativistic loss, lazy R1, R2 and path length, style mixing, augmentation of the discriminator."""

    name = "stylegan2"
    ema_names = ("generator",)
    clipped = ("generator",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = self.build_networks(cfg)
        self.generator = self.networks["generator"]
        self.parent = warm_start.begin_generator(self.generator, cfg)
        betas, train = tuple(cfg.train.betas), cfg.train
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=train.lr_generator, betas=betas),
            "discriminator": torch.optim.Adam(
                self.networks["discriminator"].parameters(), lr=train.lr_discriminator, betas=betas
            ),
        }
        self.adversary = Adversary(cfg, self.networks["discriminator"], self.autocast)
        self.path_length = PathLength()
        drawn = torch.Generator().manual_seed(cfg.train.seed)
        self.fixed = torch.randn(SHEET[0] * SHEET[1], self.generator.z_dim, generator=drawn)

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"generator": build_generator(cfg), "discriminator": build_discriminator(cfg)}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        return warm_start.missing(cfg)

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        image = torch.zeros(batch, 3, cfg.data.size, cfg.data.size)
        return {"generator": (torch.zeros(batch, cfg.model.generator.z_dim),), "discriminator": (image,)}

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """Generate once; the discriminator learns from it, then judges it for the generator."""
        n, device, step = len(batch.images), batch.images.device, self.steps(images_seen)
        w_plus = self._codes(n, device)
        with self.autocast():
            fake = self.lean(self.generator.synthesis, w_plus, random_noise=self.cfg.model.generator.noise)
        yield self.adversary.turn(batch.images, fake, step)
        loss = self.adversary.fooled(fake, batch.images).mean()
        scalars, weights = {"generator/loss": loss.detach()}, self.cfg.loss
        if weights.path_length > 0 and step % weights.path_length_every == 0:
            penalty = self._path_length(n, device)
            loss = loss + penalty * (weights.path_length * weights.path_length_every)
            scalars["generator/path_length"] = penalty.detach()
        yield Turn("generator", loss, scalars)

    def _path_length(self, n: int, device: torch.device) -> Tensor:
        """The penalty of a rendering of its own, in float32 throughout, of half as many images (as Karras et al.)."""
        w_plus = self._codes(max(1, n // 2), device, contextlib.nullcontext())
        images = self.generator.synthesis(w_plus, random_noise=self.cfg.model.generator.noise)
        return self.path_length(images, w_plus).mean()

    def _codes(self, n: int, device: torch.device, precision: AbstractContextManager | None = None) -> Tensor:
        """W+ [n, L, w_dim] of fresh noise, rows from a random one on taken from a second code (style mixing)."""
        rows = self.generator.rows
        with precision or self.autocast():
            w = self.generator.mapping(torch.randn(2 * n, self.generator.z_dim, device=device)).float()
        self.generator.track_w_mean(w.detach())
        cut = torch.randint(1, rows, (n,), device=device)
        cut = cut.masked_fill(torch.rand(n, device=device) >= self.cfg.train.mixing, rows)
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

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, meta = super().inference_state(nets)
        return tensors, meta | {"parent": self.parent}

    def plain_state(self) -> dict[str, Any]:
        return {"augment_p": self.adversary.p, "path_length": self.path_length.mean}

    def load_plain_state(self, state: dict[str, Any]) -> None:
        self.adversary.p = state["augment_p"]
        self.path_length.mean = state.get("path_length", 0.0)  # states of before path length have none
