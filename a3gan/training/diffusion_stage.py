"""Stage `diffusion`: the small U-Net of Diff-Privacy, with MSI's conditions beside it.

Noise-prediction MSE (Ho et al. 2020). The authors have Stable Diffusion to begin with, which knows what a condition is;
a U-Net from nothing does not. So U-Net and MSI learn together here, with a share of the faces under a learned null
condition, and stage `msi` then trains MSI alone against the finished U-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.models.diffusion import SCHEDULE, STEPS, PixelDiffusion, build_diffusion, ddim, ddpm
from a3gan.models.msi import FaceLevels, Msi, at, build_msi
from a3gan.scorers.attributes import AttributeNetwork, load_attributes
from a3gan.training.attributes_stage import cosine_lr
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

WEIGHT_DECAY = 0.01
VALIDATED = 256  # faces of the validation split that are looked at, each at one step of time
SHEET, SHEET_STEPS = 12, 25  # faces and denoising steps of the sheet


def spread_times(count: int) -> Tensor:
    """Random steps [count] of 0 .. T - 1, one in each equal part of them, so that the loss trembles less."""
    return ((torch.randperm(count) + torch.rand(count)) / count * STEPS).long().clamp(max=STEPS - 1)


def noise_error(
    unet: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, t: Tensor, context: Tensor, noise: Tensor
) -> Tensor:
    """Squared error [N] of the predicted noise, mean over pixels, at x_t = sqrt(ab_t) x + sqrt(1 - ab_t) noise."""
    predicted = unet(ddpm().add_noise(x, noise, t), t, context)
    return (predicted.float() - noise).square().flatten(1).mean(1)


@torch.no_grad()
def denoised(
    unet: PixelDiffusion, x: Tensor, context: Callable[[Tensor], Tensor], steps: int, begin: int = 0
) -> Tensor:
    """DDIM from the `begin`-th of `steps` on, faces in [-1, 1] at every step; context: of steps t [N] -> [N, L, D]."""
    scheduler = ddim(steps, {**SCHEDULE, "clip_sample": True})
    for t in scheduler.timesteps[begin:]:
        times = t.expand(len(x)).to(x.device)
        x = scheduler.step(unet(x, times, context(times)), t, x, use_clipped_model_output=True).prev_sample
    return x


class DiffusionStage(Stage):
    """Trains a PixelDiffusion and an Msi, by AdamW with warm-up and half a cosine."""

    name = "diffusion"
    ema_names = ("unet", "msi")
    clipped = ("unet", "msi")

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.tower = FaceLevels(load_attributes(cfg.scorers.attributes)).to(device)
        self.networks = {"unet": build_diffusion(cfg), "msi": build_msi(cfg, self.tower.widths)}
        if self.networks["unet"].prior is not None:
            self.networks["unet"].prior.fit(data.fetch(torch.arange(len(data))))
        for network in self.networks.values():
            network.to(device)
        self.optimizers = {self.name: self._optimizer(cfg)}

    def _optimizer(self, cfg: Config) -> torch.optim.Optimizer:
        parameters = [p for network in self.networks.values() for p in network.parameters() if p.requires_grad]
        groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY}]
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=cfg.train.lr, betas=tuple(cfg.train.betas))

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        tower = FaceLevels(AttributeNetwork(cfg.scorers.attributes_kind))
        return {"unet": build_diffusion(cfg), "msi": build_msi(cfg, tower.widths)}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        return checkpoint.missing({"scorers.attributes": cfg.scorers.attributes})

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        size, msi = cfg.data.size, networks["msi"]
        levels = [torch.zeros(batch, projector.layers[0].in_features) for projector in msi.projectors]
        inputs = {"msi": (levels,)}
        if "unet" in networks:
            context = networks["unet"].nothing(batch).detach()
            inputs["unet"] = (torch.zeros(batch, 3, size, size), torch.zeros(batch, dtype=torch.long), context)
        return inputs

    # --- a step -------------------------------------------------------------------------------------------------
    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """One AdamW step on the noise-prediction error."""
        train, x = self.cfg.train, batch.images
        for group in self.optimizers[self.name].param_groups:
            group["lr"] = train.lr * cosine_lr(images_seen, train.total_images, train.warmup_images)
        t = spread_times(len(x)).to(x.device)
        noise = torch.randn(x.shape).to(x)
        dropped = (torch.rand(len(x)) < self.drop).to(x.device)
        with self.autocast():
            context = self.conditions(self.networks["msi"], x, t)
            context = torch.where(dropped[:, None, None], self.unet.nothing(len(x)).to(context), context)
            errors = noise_error(self.unet, x, t, context, noise)
        loss = errors.mean()
        yield Turn(self.name, loss, {"loss": loss.detach()})

    @property
    def unet(self) -> PixelDiffusion:
        """The one that trains."""
        return self.networks["unet"]

    @property
    def drop(self) -> float:
        """Share of faces under the null condition."""
        return self.cfg.model.diffusion.drop

    def conditions(self, msi: Msi, x: Tensor, t: Tensor) -> Tensor:
        """c_b [N, L, D] of faces x at steps t."""
        with torch.no_grad():
            levels = self.tower(x, self.cfg.data.frame)
        return at(msi(levels), t, STEPS)

    # --- looking ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """error: of the noise with the face's condition; error_null: without one; error_others: with another face's.

        On the first `VALIDATED` faces of the split, noise and steps the same at every validation.
        """
        if self.val is None or not len(self.val):
            return {}
        count = min(VALIDATED, len(self.val))
        generator = torch.Generator().manual_seed(0)
        sums = {"error": 0.0, "error_null": 0.0, "error_others": 0.0}
        for rows in torch.arange(count).split(64):
            x = self.val.fetch(rows).to(self.device)
            noise = torch.randn(x.shape, generator=generator).to(x)
            t = (torch.rand(len(x), generator=generator) * STEPS).long().to(x.device)
            unet = nets.get("unet", self.unet)
            kinds = (
                self.conditions(nets["msi"], x, t), unet.nothing(len(x)), self.conditions(nets["msi"], x.roll(1, 0), t)
            )  # fmt: skip
            for name, context in zip(sums, kinds, strict=True):
                sums[name] += float(noise_error(unet, x, t, context, noise).sum())
        return {name: value / count for name, value in sums.items()}

    @torch.no_grad()
    def sheet(self, nets: dict[str, nn.Module]) -> Tensor:
        """Rows: faces; noised to 0.6 T and denoised under their conditions; from noise alone, under them; with none."""
        unet, faces = nets.get("unet", self.unet), self.val if self.val is not None else self.data
        x = faces.fetch(torch.linspace(0, len(faces) - 1, SHEET).long()).to(self.device)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        begin = SHEET_STEPS - int(0.6 * SHEET_STEPS)
        noised = ddpm().add_noise(x, noise, ddim(SHEET_STEPS).timesteps[begin].expand(len(x)))
        levels = self.tower(x, self.cfg.data.frame)

        def own(t: Tensor) -> Tensor:
            return at(nets["msi"](levels), t, STEPS)

        rows = [x, denoised(unet, noised, own, SHEET_STEPS, begin), denoised(unet, noise, own, SHEET_STEPS)]
        rows.append(denoised(unet, noise, lambda t: unet.nothing(len(t)), SHEET_STEPS))
        return torch.cat([torch.cat(list(row), 2) for row in rows], 1).clamp(-1, 1).cpu()

    # --- saving -------------------------------------------------------------------------------------------------
    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """U-Net and MSI in half precision, and which tower MSI reads."""
        both = {"unet": nets.get("unet", self.unet), "msi": nets["msi"]}
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in checkpoint.prefixed(both).items()}
        seen = self.tower.attributes.fingerprint
        return tensors, {"levels": self.tower.widths, "tower": seen, "scorers": [seen]}
