"""The classic redactions, floor and ceiling of every comparison: blur, pixelate, solid, identity.

Their strength is counted in cells per face, not in pixels, so it is the same at every size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from a3gan.anonymizers.base import CELLS, FaceAnonymizer, Redaction, pick_device
from a3gan.data.align import FRAMES
from a3gan.data.attributes import Policy
from a3gan.errors import UserError


class _Classic(FaceAnonymizer):
    """No weights, no policy, no randomness, no dial; any frame and size."""

    def __init__(self, size: int = 128, frame: str = "face", device: str | torch.device | None = None):
        if frame not in FRAMES:
            raise UserError(f"{self.name}: frame {frame!r} is unknown; use {' or '.join(FRAMES)}")
        if size < 16:
            raise UserError(f"{self.name}: size {size}: must be at least 16 pixels")
        self.size, self.frame, self.device = size, frame, pick_device(device)

    @property
    def face_share(self) -> float:
        """Share of the frame's side that a face is wide: 2.25 eye distances, 0.75 in `face`."""
        left, right = FRAMES[self.frame][:2]
        return 2.25 * (right[0] - left[0])


class Pixelate(_Classic):
    """Mosaic: the mean of each cell, cells aligned to the frame's middle."""

    name = "pixelate"

    def __init__(
        self, size: int = 128, frame: str = "face", device: str | torch.device | None = None, cells: int = CELLS
    ):
        super().__init__(size, frame, device)
        if not 1 <= cells <= size * self.face_share:
            raise UserError(f"pixelate: cells {cells}: must be from 1 to the pixels across a face")
        self.cells = cells
        self.redaction = Redaction(self.name, cells=cells)

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        return mosaic(faces, max(1, round(self.cells / self.face_share)))


class Blur(_Classic):
    """Gaussian blur whose standard deviation is a face's width over `cells`."""

    name = "blur"

    def __init__(
        self, size: int = 128, frame: str = "face", device: str | torch.device | None = None, cells: float = CELLS
    ):
        super().__init__(size, frame, device)
        if not 0 < cells < size:
            raise UserError(f"blur: cells {cells}: must be above 0 and below the side, {size}")
        self.cells = cells
        self.redaction = Redaction(self.name, cells=cells)

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        return gaussian_blur(faces, self.size * self.face_share / self.cells)


class Solid(_Classic):
    """One grey for every face: nothing of the face is left."""

    name = "solid"

    def __init__(
        self, size: int = 128, frame: str = "face", device: str | torch.device | None = None, colour: float = 0.0
    ):
        super().__init__(size, frame, device)
        if not -1 <= colour <= 1:
            raise UserError(f"solid: colour {colour}: must be in [-1, 1] (black to white)")
        self.colour = colour
        self.redaction = Redaction(self.name, colour=colour)

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        return torch.full_like(faces, self.colour)


class Identity(_Classic):
    """Hides nothing: the ceiling of every utility measure."""

    name = "identity"
    redaction = Redaction("none")

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        return faces.clone()


def mosaic(images: Tensor, cells: int) -> Tensor:
    """Float [N, C, H, W] -> the same shape, each of cells x cells boxes (as equal as pixels allow) at its mean."""
    height, width = images.shape[-2:]
    coarse = F.adaptive_avg_pool2d(images, (min(cells, height), min(cells, width)))
    return F.interpolate(coarse, size=(height, width), mode="nearest-exact")


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Float [N, C, H, W] through a Gaussian of `sigma` pixels, truncated at 3 sigma; edges are replicated."""
    radius = max(1, int(3 * sigma + 0.5))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    across = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    out = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="replicate"), across, groups=channels)
    return F.conv2d(F.pad(out, (0, 0, radius, radius), mode="replicate"), across.transpose(2, 3), groups=channels)
