"""FaceMAE as an anonymizer: most of a face is left out, and the whole of it is drawn anew from the rest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.anonymizers.base import FaceAnonymizer, pick_device
from a3gan.data.attributes import Policy
from a3gan.errors import UserError

DEFAULT_WEIGHTS = "facemae_64"
BATCH = {"cpu": 64, "cuda": 1024}  # faces a pass; results do not depend on it


class FaceMae(FaceAnonymizer):
    """x, seed -> the face that a masked autoencoder draws of the patches which the seed's mask leaves.

    It makes *sets of faces to train on*: who resembles whom is kept on purpose, so that a recogniser which learned from
    the set recognises real people. Whoever knows named results recognises the people in others (a parrot attacker),
    and what the seed's mask leaves visible is drawn much as it was. It is not for a picture whose person must not be
    recognised.

    One seed is one mask. Publish one result of a picture, under one seed: results under many seeds, averaged, show
    every patch.

    Args:
        weights: path of an inference checkpoint of stage facemae, or the name of a shipped one.
        device: None or 'auto' = cuda where there is one.
        ratio: share of the patches that is left out, in [0.5, 1); of the shipped weights 0.5, 0.75 and 0.9 were
            trained. Less shows more of the original.

    Raises:
        UserError: the file is missing, cut, foreign, of another stage, or does not fit its own config; a ratio out of
            range; timm is not installed.
    """

    name = "facemae"
    supports = frozenset({"seed"})
    synthesises = True

    def __init__(
        self, weights: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None, ratio: float = 0.75
    ):
        from a3gan.config import check
        from a3gan.models.facemae import build_facemae

        if not 0.5 <= ratio < 1:
            raise UserError(f"facemae: ratio {ratio}: must be in [0.5, 1); 0.75 leaves three patches of four out")
        self.ratio, self.device = float(ratio), pick_device(device)
        self.batch = BATCH.get(self.device.type, 64)
        self.path = checkpoint.resolve(weights)
        tensors, self.meta = checkpoint.load(self.path)
        if self.meta.get("stage") != "facemae":
            stage = self.meta.get("stage")
            raise UserError(f"{self.path}: weights of stage {stage!r}; method facemae needs those of stage 'facemae'")
        if self.meta.get("kind") == "state":
            raise UserError(f"{self.path}: the state of a run, for resuming it; use the checkpoint beside it")
        if "config" not in self.meta:
            raise UserError(f"{self.path}: lacks its config; export it again from its run")
        cfg = check(self.meta["config"], source=str(self.path))
        self.frame, self.size = cfg.data.frame, cfg.data.size
        model = build_facemae(cfg.model.facemae, self.size)
        checkpoint.load_into(model, tensors, "facemae", self.path)
        self.model = model.float().eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        from a3gan.models.facemae import mask_noise

        noise = mask_noise(seeds, self.model.tokens).to(faces.device)
        parts = zip(faces.split(self.batch), noise.split(self.batch), strict=True)
        return torch.cat([self.model(x, z, self.ratio) for x, z in parts])
