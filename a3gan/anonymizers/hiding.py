"""Visual identity hiding, the other half of Diff-Privacy: a machine still verifies the face, a person does not know it.

This is NOT anonymization. The result keeps the identity that a recogniser reads, on purpose; whoever runs one finds the
person. What it takes away is what people see. With its keys the original comes back, and the keys alone are enough:
recovery does not read the protected picture. So a key is the face, and has to be kept like it (docs/PRIVACY.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3gan.anonymizers import diff_privacy_sampling as sampling
from a3gan.anonymizers.diff_privacy import DEFAULT_WEIGHTS, DiffusionMethod
from a3gan.anonymizers.diff_privacy_backbone import Backbone
from a3gan.anonymizers.diff_privacy_fit import fitted
from a3gan.data.attributes import Policy

ROUNDS = 3  # of a step of inversion, see `diff_privacy_sampling.inverted`


@dataclass(frozen=True)
class FaceKey:
    """The secret of one hidden face. noise: key-I, x_T [C, H, W]; conditions: key-E, C [10, L, D]; float32, CPU."""

    noise: Tensor
    conditions: Tensor


class Hiding(DiffusionMethod):
    """x, seed -> a face that looks otherwise and that the recogniser takes for the same.

    The keys gather in `keys`, by seed, until they are taken out. Not one of `methods.METHODS`, for it anonymises
    nothing.

    Args:
        weights, device, msi_steps, recogniser, recogniser_weights, tower: as of `DiffPrivacy`.
        steps: of DDIM over all of T, for hiding as for the keys. strength: share of T to which the face is noised.
        scales: s of the energy's gradient above and below 0.6 T.
    """

    name = "hiding"

    def __init__(
        self, weights: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None, *, steps: int = 100,
        strength: float = 0.8, scales: tuple[float, float] = (1.5, 2.5), msi_steps: int = 200,
        recogniser: str = "small", recogniser_weights: str | Path = "", tower: str | Path | None = None,
    ):  # fmt: skip
        self.plan = sampling.Plan(int(steps), float(strength), 0.6, (float(scales[0]), float(scales[1])))
        super().__init__(weights, device, recogniser, recogniser_weights, msi_steps, tower)
        sampling.ddim(self.plan.steps, self.backbone.schedule)
        self.keys: dict[int, FaceKey] = {}

    @property
    def steps(self) -> int:
        """Of DDIM; recovery must take as many."""
        return self.plan.steps

    @property
    def rounds(self) -> int:
        """Steps of fitting, of inversion and of denoising."""
        return self.msi_steps + self.steps * ROUNDS + self.plan.steps - self.plan.begin

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        from tqdm import tqdm

        with tqdm(total=len(faces) * self.rounds, desc=self.name, disable=None, leave=False) as bar:
            made = [self._hidden(face[None], seed, bar.update) for face, seed in zip(faces, seeds, strict=True)]
        return torch.cat(made)

    @torch.no_grad()
    def _hidden(self, face: Tensor, seed: int, tick: Any) -> Tensor:
        """The hidden face [1, 3, S, S]; its key goes into `keys`."""
        conditions = fitted(self.backbone, face, self.msi_steps, seed, tick)
        z, original = self.backbone.encode(face), self.embed(face)
        noise = sampling.inverted(self.backbone, z, conditions, self.steps, ROUNDS, tick)
        self.keys[seed] = FaceKey(noise[0].cpu(), conditions[0].cpu())

        def energy(images: Tensor) -> Tensor:
            return sampling.hiding_energy(self.embed(images)[:, None], original).sum()

        begun = sampling.noised(self.backbone, z, sampling.drawn_noise([seed], z.shape[1:], self.device), self.plan)
        return self.backbone.decode(sampling.guided(self.backbone, begun, conditions, self.plan, energy, tick=tick))


def recover(backbone: Backbone, keys: list[FaceKey], steps: int) -> Tensor:
    """The faces [N, 3, S, S] in [-1, 1] that keys hold, on the CPU; each by itself, as it was inverted."""
    faces = []
    for key in keys:
        noise, conditions = key.noise[None].to(backbone.device), key.conditions[None].to(backbone.device)
        with torch.no_grad():
            faces.append(backbone.decode(sampling.recovered(backbone, noise, conditions, steps)).clamp(-1, 1).cpu())
    return torch.cat(faces)
