"""What Diff-Privacy's schedules need of a diffusion model; here by our small one of pixels."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.errors import UserError
from a3gan.models.diffusion import SCHEDULE, build_diffusion
from a3gan.models.msi import BINS, FaceLevels, Msi, build_msi, time_bin
from a3gan.scorers.attributes import load_attributes

STAGES = ("diffusion", "msi")  # of checkpoints that hold a U-Net and an MSI


class Backbone(ABC):
    """A frozen diffusion model of faces with its condition.

    frame, size: of the faces. schedule: the config of its noise schedule, for `models.diffusion.ddim`. clips: estimates
    of the clean image are faces in [-1, 1], to be held there. path, meta: of its weights; meta["scorers"] names what
    trained it. digest: sha256 that tells these weights from others. msi: the module that fitting starts from.
    """

    frame: str
    size: int
    schedule: Mapping[str, Any]
    clips: bool
    path: Path
    meta: dict[str, Any]
    digest: str
    device: torch.device
    msi: Msi

    @abstractmethod
    def encode(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, S, S] in [-1, 1] -> z [N, C, H, W], what noise is added to."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """z [N, C, H, W] -> faces [N, 3, S, S]; differentiable."""

    @abstractmethod
    def noise(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise in z [N, C, H, W] at steps t [N] under context [N, L, D]; differentiable in the context."""

    @abstractmethod
    def levels(self, faces: Tensor) -> list[Tensor]:
        """The five levels [N, W_l] of faces that MSI reads."""

    @abstractmethod
    def nothing(self, count: int) -> Tensor:
        """The null condition [count, L, D]."""

    def context(self, words: Tensor) -> Tensor:
        """What the U-Net attends to, [N, L, D], of MSI's output for one bin each, [N, l, d]; here the same."""
        return words

    @property
    def steps(self) -> int:
        """T, of training."""
        return int(self.schedule["num_train_timesteps"])

    def fresh_msi(self) -> Msi:
        """A copy of `msi` to be fitted to one face."""
        return copy.deepcopy(self.msi).requires_grad_(True)

    def conditions(self, msi: Msi, levels: list[Tensor]) -> Tensor:
        """C [N, 10, L, D], all ten conditions of faces with these levels."""
        words = msi(levels)
        return torch.stack([self.context(words[:, b]) for b in range(BINS)], 1)

    def at(self, conditions: Tensor, t: Tensor) -> Tensor:
        """c_b [N, L, D] of C [N, 10, L, D] at steps t [N]."""
        return conditions[torch.arange(len(t), device=t.device), time_bin(t, self.steps)]


class PixelBackbone(Backbone):
    """Our U-Net and MSI from a checkpoint of stage diffusion or msi.

    Raises UserError: missing, cut or foreign file, one of another stage, or an attribute network that is not the one
    whose features the MSI learned to read.
    """

    clips = True
    schedule = SCHEDULE

    def __init__(self, weights: str | Path, device: torch.device) -> None:
        from a3gan.config import check

        self.device, self.path = device, checkpoint.resolve(weights)
        tensors, self.meta = checkpoint.load(self.path)
        if self.meta.get("stage") not in STAGES:
            stage = self.meta.get("stage")
            raise UserError(f"{self.path}: weights of stage {stage!r}; diff_privacy needs those of stage 'msi'")
        if self.meta.get("kind") == "state" or "config" not in self.meta:
            raise UserError(f"{self.path}: the state of a run, for resuming it; use the checkpoint beside it")
        cfg = check(self.meta["config"], source=str(self.path))
        self.frame, self.size, self.digest = cfg.data.frame, cfg.data.size, checkpoint.sha256(self.path)
        self.unet = self._own(checkpoint.load_into(build_diffusion(cfg), tensors, "unet", self.path))
        self.tower = self._tower(cfg.scorers.attributes)
        self.msi = self._own(checkpoint.load_into(build_msi(cfg, self.meta["levels"]), tensors, "msi", self.path))

    def _own(self, network: torch.nn.Module) -> Any:
        return network.float().eval().requires_grad_(False).to(self.device)

    def _tower(self, name: str) -> FaceLevels:
        beside = self.path.parent / name
        attributes = load_attributes(beside if beside.is_file() else name)
        if attributes.fingerprint != self.meta.get("tower"):
            raise UserError(f"{name}: not the attribute network that {self.path} was trained with; get that one")
        return FaceLevels(attributes).to(self.device)

    def encode(self, faces: Tensor) -> Tensor:
        return faces

    def decode(self, z: Tensor) -> Tensor:
        return z

    def noise(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(z, t, context)

    def levels(self, faces: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self.tower(faces, self.frame)

    def nothing(self, count: int) -> Tensor:
        return self.unet.nothing(count)


def load_backbone(weights: str | Path, device: torch.device, tower: str | Path | None = None) -> Backbone:
    """Our small model by path or shipped name, or Stable Diffusion from a local folder of diffusers.

    tower: for Stable Diffusion, the folder of CLIP's image tower; None = the one in the folder itself.
    """
    if Path(weights).is_dir():
        from a3gan.anonymizers.diff_privacy_stable import StableDiffusion

        return StableDiffusion(Path(weights), device, tower)
    if tower is not None:
        raise UserError(f"tower {tower}: only Stable Diffusion takes one; give its folder as weights, or leave it out")
    return PixelBackbone(weights, device)
