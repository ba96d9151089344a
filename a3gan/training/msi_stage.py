"""Stage `msi`: MSI alone, against a finished U-Net: the start from which it is then fitted to single faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from a3gan import checkpoint
from a3gan.errors import UserError
from a3gan.models.diffusion import PixelDiffusion, build_diffusion
from a3gan.models.msi import FaceLevels, build_msi
from a3gan.scorers.attributes import load_attributes
from a3gan.training.diffusion_stage import DiffusionStage
from a3gan.training.stage import Stage

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

NEEDED = "model.weights: stage msi needs the checkpoint of a run of stage diffusion"


class MsiStage(DiffusionStage):
    """As stage diffusion, with the U-Net of `model.weights` frozen and every face under its own condition."""

    name = "msi"
    ema_names = ("msi",)
    clipped = ("msi",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        Stage.__init__(self, cfg, data, val, device)
        if cfg.model.weights is None:
            raise UserError(NEEDED)
        path = checkpoint.resolve(cfg.model.weights)
        tensors, meta = checkpoint.load(path)
        self.tower = FaceLevels(load_attributes(cfg.scorers.attributes)).to(device)
        if meta.get("stage") not in ("diffusion", "msi") or meta.get("kind") == "state":
            raise UserError(f"model.weights: {path} is of stage {meta.get('stage')!r}; give one of stage diffusion")
        if meta.get("tower") != self.tower.attributes.fingerprint:
            raise UserError(f"scorers.attributes: {path} was trained with another attribute network; give that one")
        self.parent = checkpoint.sha256(path)
        self.frozen = checkpoint.load_into(build_diffusion(cfg), tensors, "unet", path)
        self.frozen.to(device).eval().requires_grad_(False)
        self.networks = {
            "msi": checkpoint.load_into(build_msi(cfg, self.tower.widths), tensors, "msi", path).to(device)
        }
        self.optimizers = {self.name: self._optimizer(cfg)}

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"msi": super().build_networks(cfg)["msi"]}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        missing = super().missing_weights(cfg)
        return missing + (checkpoint.missing({"model.weights": cfg.model.weights}) if cfg.model.weights else [NEEDED])

    @property
    def unet(self) -> PixelDiffusion:
        """The frozen one."""
        return self.frozen

    @property
    def drop(self) -> float:
        """Nothing is left to learn about the null condition."""
        return 0.0

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict, dict]:
        tensors, meta = super().inference_state(nets)
        return tensors, meta | {"parent": self.parent}
