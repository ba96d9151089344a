"""Diff-Privacy as an anonymizer (He, Zhu, Chen, Wang, Gao; arXiv 2309.05330). Its other half, hiding: `hiding`.

A face is noised to 0.6 T and denoised again: under conditions of its own (`models.msi`) while there is much noise,
under none below, pushed off its identity all the way. Published is this on Stable Diffusion v1.4 at 512 px; by default
it runs here on a small model of pixels that we trained, and on Stable Diffusion where a folder of it is given.

Defects of the released code that are not repeated: faces in [-1, 1] cast to uint8 before CLIP sees them, so that it
sees black (ours sees the face); a loop over an int, which ends with a TypeError; a guidance of 10 between two equal
conditions, which cancels (there is none here).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from a3gan.anonymizers import diff_privacy_sampling as sampling
from a3gan.anonymizers.base import FaceAnonymizer, pick_device
from a3gan.anonymizers.diff_privacy_backbone import load_backbone
from a3gan.anonymizers.diff_privacy_fit import fitted
from a3gan.data.attributes import Policy
from a3gan.data.mask import face_mask
from a3gan.errors import UserError
from a3gan.scorers.attributes import resize
from a3gan.scorers.identity import load_recogniser

DEFAULT_WEIGHTS = "diff_privacy_64"


class DiffusionMethod(FaceAnonymizer):
    """What anonymising and hiding share: the diffusion model, the recogniser of the energy, MSI's fitting."""

    supports = frozenset({"seed"})
    synthesises = True

    def __init__(
        self, weights: str | Path, device: str | torch.device | None, recogniser: str,
        recogniser_weights: str | Path, msi_steps: int, tower: str | Path | None,
    ):  # fmt: skip
        if msi_steps < 0:
            raise UserError(f"{self.name}: msi_steps {msi_steps}: must be 0 or more; 0 = no fitting")
        self.device, self.msi_steps = pick_device(device), int(msi_steps)
        self.backbone = load_backbone(weights, self.device, tower)
        self.frame, self.size, self.path = self.backbone.frame, self.backbone.size, self.backbone.path
        if self.msi_steps == 0 and not self.backbone.meta.get("msi_trained", True):
            raise UserError(f"{self.name}: {weights} brings no trained MSI; set msi_steps to 200 or more")
        self.recogniser = load_recogniser(recogniser_weights, recogniser).to(self.device)
        used = {self.recogniser.fingerprint, *self.backbone.meta.get("scorers", [])}
        self.meta = self.backbone.meta | {"scorers": sorted(used)}

    def networks(self) -> list[torch.nn.Module]:
        """Those of the diffusion model, and the recogniser of the energy."""
        return [*(part for part in vars(self.backbone).values() if isinstance(part, torch.nn.Module)), self.recogniser]

    def embed(self, faces: Tensor) -> Tensor:
        """R: unit embeddings [N, E]; without the mirror image that some recognisers add, for speed."""
        return self.recogniser(faces, self.frame, mirror=False)


class DiffPrivacy(DiffusionMethod):
    """x, seed -> another face in its place.

    `samples` faces are made at once, of one noise each, and kept apart from one another as from the original. Seeds k K
    to k K + K - 1 (K = samples) are the K faces of one such run: the seed's remainder chooses the one that is returned.

    Args:
        weights: a checkpoint of stage msi (or diffusion), path or shipped name; or a local folder of Stable Diffusion
            as diffusers stores it.
        device: None or 'auto' = cuda where there is one.
        steps: of DDIM over all of T. strength: share of it to which the face is noised; less keeps more of it.
        scale: s of the energy's gradient; 0 = none. samples: K.
        msi_steps: how long MSI is fitted to each face; 0 = it says what it learned in stage msi, which is quick. (The
            authors fit up to 6,100 steps.) Stable Diffusion comes without MSI, so 0 is refused there.
        recogniser, recogniser_weights: R, as `scorers.identity.load_recogniser` takes kind and file. It may not judge.
        tower: for Stable Diffusion, a local folder of CLIP's image tower where the model's own has none.

    Raises:
        UserError: missing, cut or foreign weights; an option out of its range; diffusers is not installed.
    """

    name = "diff_privacy"

    def __init__(
        self, weights: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None, *, steps: int = 50,
        strength: float = 0.6, scale: float = 1.0, samples: int = 4, msi_steps: int = 0, recogniser: str = "small",
        recogniser_weights: str | Path = "", tower: str | Path | None = None,
    ):  # fmt: skip
        if samples < 1:
            raise UserError(f"{self.name}: samples {samples}: must be at least 1")
        self.plan = sampling.Plan(int(steps), float(strength), 0.4, (float(scale), float(scale)), background=0.3)
        self.samples = int(samples)
        super().__init__(weights, device, recogniser, recogniser_weights, msi_steps, tower)
        sampling.ddim(self.plan.steps, self.backbone.schedule)  # refuses impossible steps before any face

    @property
    def rounds(self) -> int:
        """Steps of fitting, and of denoising `samples` faces at once."""
        return self.msi_steps + int(self.plan.steps * self.plan.strength)

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        from tqdm import tqdm

        # One face after the other: a batch of samples computes as fast, and rounding then depends on nothing else.
        with tqdm(total=len(faces) * self.rounds, desc=self.name, disable=None, leave=False) as bar:
            pairs = zip(faces, seeds, strict=True)
            made = [self.variants(face[None], seed // self.samples, bar.update) for face, seed in pairs]
        return torch.stack([some[seed % self.samples] for some, seed in zip(made, seeds, strict=True)])

    @torch.no_grad()
    def variants(self, face: Tensor, seed: int, tick: Callable[[], object] = lambda: None) -> Tensor:
        """The K faces [K, 3, S, S] of one run over a face [1, 3, S, S]."""
        conditions = fitted(self.backbone, face, self.msi_steps, seed, tick)
        z, original = self.backbone.encode(face), self.embed(face)
        noise = sampling.drawn_noise([seed], (self.samples, *z.shape[1:]), self.device)[0]
        clean = z.expand(self.samples, -1, -1, -1)
        mask = face_mask(self.size, self.frame, self.device)

        def energy(images: Tensor) -> Tensor:
            return sampling.privacy_energy(self.embed(images)[None], original).sum()

        made = sampling.guided(
            self.backbone, sampling.noised(self.backbone, clean, noise, self.plan),
            conditions.expand(self.samples, -1, -1, -1), self.plan, energy,
            keep=(clean, resize(mask, z.shape[-1])), tick=tick,
        )  # fmt: skip
        return mask * self.backbone.decode(made) + (1 - mask) * face
