"""What the aligned faces look like: features of two extractors that no loss saw, tones, and distances to the original.

`Looks` reads every picture by itself, `Against` compares it with its original; both are scorers of `features.collect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.data.ranges import to_uint8
from a3gan.errors import UserError
from a3gan.evaluation.pictures import View

if TYPE_CHECKING:
    from a3gan.scorers.attributes import AttributeNetwork

SIDE = 128  # px of the frame `face`
CELLS = 8  # of the gradient histograms, across and down
BINS = 9  # directions of gradients, signs ignored


class Looks:
    """`gradients` float32 [B, 576]: histograms of gradients (no network: trained on nothing); `skin_tone`, `hair_tone`
    [B]: lightness in CIELAB; with an attribute network also `hidden` [B, 96], the layer before its classes."""

    def __init__(self, network: AttributeNetwork | None, device: torch.device):
        self.network, self.device = network, device
        self.identity = f"looks-1:{network.fingerprint if network is not None else ''}"

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> dict[str, np.ndarray]:
        from a3gan.scorers.measured import tone

        faces = view.aligned("face", SIDE)
        result = {name: tone(faces, name).numpy() for name in ("skin_tone", "hair_tone")}
        result["gradients"] = gradients(faces)
        if self.network is not None:
            maps = self.network.features(faces.to(self.device))
            hidden = self.network.hidden(self.network.squeeze(maps[-1]).flatten(1))
            result["hidden"] = hidden.float().cpu().numpy()
        return result


def gradients(faces: torch.Tensor) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) of faces [N, 3, S, S] in [-1, 1], at 64 px: float32
    [N, 576].

    8 x 8 cells of 8 px, 9 directions; each cell is divided by the root of its energy and that of its three neighbours
    to the right and below, then square-rooted.
    """
    import torch.nn.functional as F

    grey = (faces.float() * faces.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    grey = F.interpolate(grey, (64, 64), mode="area")
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx, dy = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    size, angle = (dx.square() + dy.square()).sqrt(), torch.atan2(dy, dx) % torch.pi
    place = angle / torch.pi * BINS - 0.5
    low = place.floor()
    upper = place - low
    bins = torch.zeros(len(grey), BINS, 64, 64)
    bins.scatter_add_(1, (low % BINS).long(), size * (1 - upper))
    bins.scatter_add_(1, ((low + 1) % BINS).long(), size * upper)
    cells = F.avg_pool2d(bins, 64 // CELLS)
    blocks = F.pad(cells, (0, 1, 0, 1), mode="replicate").square().sum(1, keepdim=True)
    energy = F.avg_pool2d(blocks, 2, 1) * 4
    return (cells / (energy + 1e-4).sqrt()).clamp(0, 1).sqrt().flatten(1).numpy().astype(np.float32)


class Against:
    """Distances of each result from its original, undegraded, in and out of the face's oval (frame `face`, 128 px).

    `perceptual_face`, `perceptual_around`: LPIPS where its weights are named, else the same kind of distance over the
    judge's features; `colour_face`, `colour_around`: mean CIE76 difference in CIELAB; each [B].
    """

    degradations = ("none",)

    def __init__(self, network: AttributeNetwork | None, lpips: Any, device: torch.device, identity: str = ""):
        from a3gan.data.mask import face_mask

        self.network, self.lpips, self.device = network, lpips, device
        self.mask = face_mask(SIDE)
        self.identity = f"against-2:{identity or (network.fingerprint if network is not None else '')}"

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> dict[str, np.ndarray]:
        from a3gan.scorers.perceptual import feature_distance

        original = view.before if view.before is not None else view
        old, new = original.aligned("face", SIDE), view.aligned("face", SIDE)
        result = colour_distances(old, new, self.mask)
        if self.lpips is None and self.network is None:
            return result
        old, new = old.to(self.device), new.to(self.device)
        maps = [self.network.features(x) for x in (old, new)] if self.lpips is None else None
        for name, mask in (("face", self.mask), ("around", 1 - self.mask)):
            weight = mask.to(self.device)
            distance = self.lpips(old, new, weight) if maps is None else feature_distance(*maps, weight)
            result[f"perceptual_{name}"] = distance.float().cpu().numpy() / float(mask.mean())
        return result


def colour_distances(old: torch.Tensor, new: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """Mean CIE76 difference [N] of pictures [N, 3, S, S] in [-1, 1], weighted by the mask [1, 1, S, S] (`colour_face`)
    and by what it leaves (`colour_around`)."""
    import cv2

    def lab(x: torch.Tensor) -> np.ndarray:
        pictures = to_uint8(x).permute(0, 2, 3, 1).numpy().astype(np.float32) / 255
        return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) for picture in pictures])

    difference = np.linalg.norm(lab(old) - lab(new), axis=-1)
    inside = mask[0, 0].numpy()
    return {
        f"colour_{name}": ((difference * weight).sum((1, 2)) / weight.sum()).astype(np.float32)
        for name, weight in (("face", inside), ("around", 1 - inside))
    }


def load_lpips(path: str | None) -> tuple[Any, str]:
    """LPIPS and its name for the cache, or (None, '') where no weights are named; UserError for a bad file."""
    from a3gan.scorers.perceptual import load_lpips as load

    if path is None:
        return None, ""
    import hashlib
    from pathlib import Path

    if not Path(path).is_file():
        raise UserError(f"lpips: {path}: no such file; name torchvision's AlexNet weights, or null")
    return load(path), f"lpips:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
