"""The frozen networks that the losses of stage `a3gan` look through: attributes, recognisers, perceptual features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.data.augment import random_transform
from a3gan.errors import UserError
from a3gan.scorers.attributes import AttributeNetwork, load_attributes
from a3gan.scorers.guard import fingerprint
from a3gan.scorers.identity import load_recogniser, wanted_files
from a3gan.scorers.measured import attribute_logits
from a3gan.scorers.perceptual import feature_distance, load_lpips

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

CHUNK = 64


@dataclass
class View:
    """What the attribute network says of images: flat logits [N, D], landmarks [N, 5, 2], feature maps."""

    logits: Tensor
    landmarks: Tensor
    features: list[Tensor]


class LossScorers(nn.Module):
    """Frozen scorers. None of them may judge later; their fingerprints travel with the checkpoint."""

    def __init__(self, attributes: AttributeNetwork, recognisers: list[nn.Module], lpips: nn.Module | None, frame: str):
        super().__init__()
        self.attributes, self.lpips, self.frame = attributes, lpips, frame
        self.recognisers = nn.ModuleList(recognisers)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, cfg: Config) -> LossScorers:
        """As ``cfg.scorers`` says; UserError names what is missing."""
        wanted = cfg.scorers
        return cls(
            load_attributes(wanted.attributes),
            [load_recogniser(r.path, r.kind) for r in wanted.recognisers],
            load_lpips(wanted.lpips_backbone) if wanted.perceptual == "lpips" else None,
            cfg.data.frame,
        )

    def fingerprints(self) -> list[str]:
        """Of every scorer that a loss used, for ``refuse_training_judges``."""
        lpips = [] if self.lpips is None else [fingerprint(self.lpips.family, self.lpips.state_dict())]
        return [self.attributes.fingerprint, *(r.fingerprint for r in self.recognisers), *lpips]

    def view(self, x: Tensor) -> View:
        """Images [N, 3, S, S] -> what the attribute network sees; differentiable in x."""
        outputs, features = self.attributes.outputs_and_features(x, self.frame)
        return View(attribute_logits(outputs, x, self.frame), outputs["landmarks"], features)

    def distance(self, x: Tensor, y: Tensor, seen_x: View, seen_y: View, mask: Tensor | None = None) -> Tensor:
        """Perceptual distance [N] of images whose views are at hand; mask: weight of each place."""
        if self.lpips is not None:
            return self.lpips(x, y, mask)
        return feature_distance(seen_x.features, seen_y.features, mask)

    def embed(self, x: Tensor, disturb: bool = False) -> list[Tensor]:
        """R_j(x) [N, E_j] of every recogniser, of the picture alone where it would also see the mirror image.

        disturb: through T, random JPEG, blur and resize, against invisible noise that fools one recogniser alone.
        """
        if disturb:
            x = random_transform(x)
        return [recogniser(x, self.frame, mirror=False) for recogniser in self.recognisers]

    @torch.no_grad()
    def embed_all(self, faces: FaceSet, device: torch.device) -> list[Tensor]:
        """R_j of a whole data set, mirror image included, [count, E_j] on the device: the originals never change, so
        once is enough."""
        parts = []
        for rows in torch.arange(len(faces)).split(CHUNK):
            x = faces.fetch(rows).to(device)
            parts.append([recogniser(x, self.frame) for recogniser in self.recognisers])
        return [torch.cat(of_one).float() for of_one in zip(*parts, strict=True)]

    @staticmethod
    def missing(cfg: Config) -> list[str]:
        """Weights that the config names and that are not there, one line each."""
        named = {"scorers.attributes": cfg.scorers.attributes, "scorers.lpips_backbone": cfg.scorers.lpips_backbone}
        if cfg.scorers.watcher is not None:
            named["scorers.watcher.path"] = next(iter(wanted_files([cfg.scorers.watcher]).values()))
        return checkpoint.missing(named | wanted_files(cfg.scorers.recognisers))


def load_watcher(cfg: Config, used: list[str], device: torch.device) -> nn.Module | None:
    """scorers.watcher, frozen; None where there is none. UserError where a loss uses it (`used`: their fingerprints):
    then its figures would say nothing that the training's do not."""
    wanted = cfg.scorers.watcher
    if wanted is None:
        return None
    watcher = load_recogniser(wanted.path, wanted.kind).to(device)
    if watcher.fingerprint in used:
        raise UserError(f"scorers.watcher: {wanted.path} is also in scorers.recognisers; name another, or null")
    return watcher.eval().requires_grad_(False)
