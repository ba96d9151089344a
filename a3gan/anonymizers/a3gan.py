"""A3GAN as an anonymizer: an inference checkpoint with the attribute network that reads what the face shows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.anonymizers.base import FaceAnonymizer, pick_device
from a3gan.data.align import FRAMES
from a3gan.data.attributes import Policy
from a3gan.errors import UserError
from a3gan.models.injection import seed_codes

DEFAULT_WEIGHTS = "a3gan_64"
BATCH = {"cpu": 16, "cuda": 256}  # faces a pass; results do not depend on it
LARGEST_SHIFT = 0.35
"""Mean shift of the five points, in eye distances, above which a result is no face in the old place."""


class A3ganAnonymizer(FaceAnonymizer):
    """x, policy, seed, alpha -> model(x, A(x), c, z, alpha).

    Args:
        weights: path of an inference checkpoint of stage a3gan, or the name of a shipped one.
        device: None or 'auto' = cuda where there is one.

    Raises:
        UserError: the file is missing, cut, foreign, of another stage, or does not fit its own config.
    """

    name = "a3gan"
    supports = frozenset({"policy", "seed", "alpha"})
    synthesises = True

    def __init__(self, weights: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None):
        from a3gan.config import check
        from a3gan.models.build import build_a3gan
        from a3gan.scorers.attributes import AttributeNetwork
        from a3gan.scorers.blocks import fold

        self.device = pick_device(device)
        self.path = checkpoint.resolve(weights)
        tensors, self.meta = checkpoint.load(self.path)
        if self.meta.get("stage") != "a3gan":
            stage = self.meta.get("stage")
            raise UserError(f"{self.path}: weights of stage {stage!r}; anonymising needs those of stage 'a3gan'")
        if self.meta.get("kind") == "state":
            raise UserError(f"{self.path}: the state of a run, for resuming it; use the checkpoint beside it")
        if "config" not in self.meta or "attributes" not in self.meta:
            raise UserError(f"{self.path}: lacks its config or attribute network; export it again from its run")
        cfg = check(self.meta["config"], source=str(self.path))
        self.frame, self.size = self.meta.get("frame", cfg.data.frame), self.meta.get("size", cfg.data.size)
        if self.frame not in FRAMES or self.size != cfg.data.size:
            raise UserError(f"{self.path}: frame {self.frame!r} and size {self.size} do not fit its config")
        self.z_dim = cfg.model.ainet.z_dim
        self.model = self._load(build_a3gan(cfg), tensors, "model")
        built = self.meta["attributes"]
        reader = AttributeNetwork(built["backbone"], built["width"]).eval()
        # Training freezes it with its batch norms folded, and so it is stored; one stored as trained is read as well.
        if not any(".norm." in key for key in checkpoint.subset(tensors, "attributes")):
            fold(reader)
        self.attributes = fold(self._load(reader, tensors, "attributes"))
        self.temperatures = {k: float(built[k]) for k in ("eye_temperature", "mouth_temperature") if k in built}

    def _load(self, network: torch.nn.Module, tensors: dict[str, Tensor], prefix: str) -> torch.nn.Module:
        checkpoint.load_into(network, tensors, prefix, self.path)
        return network.float().eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        c = (policy or Policy()).vector().to(faces)
        z = seed_codes(seeds, self.z_dim).to(faces)
        step = BATCH.get(self.device.type, 16)
        parts = []
        for start in range(0, len(faces), step):
            x = faces[start : start + step]
            n = len(x)
            out = self.model(x, self.logits(x), c.expand(n, -1), z[start : start + n], x.new_full((n,), alpha))
            parts.append(out.image)
        return torch.cat(parts)

    def logits(self, faces: Tensor) -> Tensor:
        """a = A(x): the flat attribute code [N, D] of faces [N, 3, S, S] in [-1, 1] of this method's frame."""
        from a3gan.scorers.measured import attribute_logits

        # As the losses read it in training, frame included: the model knows no other code.
        outputs = self.attributes(faces, frame=self.frame)
        return attribute_logits(outputs, faces, self.frame, **self.temperatures)

    @torch.inference_mode()
    def acceptable(self, before: Tensor, after: Tensor) -> Tensor:
        """Finite, and the five points are where they were: mean shift at most `LARGEST_SHIFT` eye distances."""
        from a3gan.scorers.landmarks import eye_distance

        fine = super().acceptable(before, after)
        points = []
        for faces in (before, after.nan_to_num()):
            parts = faces.to(self.device, torch.float32).split(BATCH.get(self.device.type, 16))
            points.append(torch.cat([self.attributes(part, frame=self.frame)["landmarks"].float() for part in parts]))
        shift = (points[0] - points[1]).norm(dim=2).mean(1) / eye_distance(points[0])
        return fine & (shift <= LARGEST_SHIFT).to(fine.device)
