"""Multi-scale image inversion (MSI) of Diff-Privacy: ten conditions of one face, one for each tenth of the noise.

He et al. (arXiv 2309.05330): five levels of a frozen image tower; steps 0 to T are cut into ten bins, of which two each
read one level, low noise the shallow ones; per level a projector, per bin a learned embedding that modulates it, two
attention layers, and one condition c_b per bin. C = {c_0 .. c_9} is what Diff-Privacy calls the SDM-format embedding.

Deviations, ours: attention is among the ten bins of an image, for over the one token of one bin it would be a linear
map; and in the small model a bin has a few tokens of its own in place of 77 of a prompt around a pseudo-word. The tower
sees faces in [-1, 1] as it was trained on them: the authors' code casts such faces to uint8, so that nearly every pixel
becomes 0 and the module learns one image by heart without seeing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.scorers.attributes import AttributeNetwork, to_face_frame

if TYPE_CHECKING:
    from a3gan.config import Config

BINS = 10
LEVELS = 5  # bins (0, 1) read level 1, (2, 3) level 2 .. (8, 9) level 5


def time_bin(t: Tensor, steps: int) -> Tensor:
    """b = floor(10 t / T) of steps t, int64, in 0 .. 9."""
    return (t * BINS // steps).clamp(0, BINS - 1)


def level_of(b: int) -> int:
    """Which level, 0 (shallow) to 4 (deep), bin b reads."""
    return b * LEVELS // BINS


class FaceLevels(nn.Module):
    """Our image tower: the frozen attribute network of the losses, its four maps averaged, and its last hidden layer.

    It was taught expression, sex, yawning and eyes, never who somebody is. What identity its features have all the same
    goes into the conditions, as it is meant to in hiding; in anonymisation they act at high noise only.
    """

    def __init__(self, attributes: AttributeNetwork) -> None:
        super().__init__()
        self.attributes = attributes.eval().requires_grad_(False)
        with torch.no_grad():
            self.widths = [level.shape[1] for level in self(torch.zeros(1, 3, 64, 64))]

    def train(self, mode: bool = True) -> FaceLevels:
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, x: Tensor, frame: str = "face") -> list[Tensor]:
        """Five levels [N, W_l], shallow to deep, of faces [N, 3, S, S] in [-1, 1]."""
        maps = self.attributes.features(to_face_frame(x, frame)[0])
        hidden = self.attributes.hidden(self.attributes.squeeze(maps[-1]).flatten(1))
        return [*(level.mean((2, 3)) for level in maps), hidden]


class Projector(nn.Module):
    """A level [N, W] -> unit vectors [N, D]: two linear maps without bias."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, dim, bias=False), nn.Linear(dim, dim, bias=False))

    def forward(self, level: Tensor) -> Tensor:
        return F.normalize(self.layers(level), dim=-1)


class Attention(nn.Module):
    """Self-attention among the bins with a skip connection: [N, 10, D] -> [N, 10, D]."""

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Msi(nn.Module):
    """Five levels of a face -> its ten conditions.

    Args:
        widths: of the five levels. dim: D, of a condition's tokens; tokens: L, of them per bin.
        heads, head_dim, dropout: of the two attention layers.
    """

    def __init__(
        self, widths: Sequence[int], dim: int, tokens: int = 1, heads: int = 8, head_dim: int = 64,
        dropout: float = 0.05,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(widths) != LEVELS:
            raise ValueError(f"widths of {len(widths)} levels; there are {LEVELS}")
        self.dim, self.tokens = dim, tokens
        self.projectors = nn.ModuleList(Projector(width, dim) for width in widths)
        self.bins = nn.Parameter(torch.randn(BINS, dim) * dim**0.5)  # so that modulated unit vectors have deviation 1
        self.attention = nn.ModuleList(Attention(dim, heads, head_dim, dropout) for _ in range(2))
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, tokens * dim))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """C [N, 10, L, D] of five levels [N, W_l]."""
        projected = torch.stack([project(level) for project, level in zip(self.projectors, levels, strict=True)], 1)
        x = projected[:, [level_of(b) for b in range(BINS)]] * self.bins
        for layer in self.attention:
            x = layer(x)
        return self.out(x).unflatten(-1, (self.tokens, self.dim))


def at(conditions: Tensor, t: Tensor, steps: int) -> Tensor:
    """c_b [N, L, D] of conditions [N, 10, L, D] at steps t [N]."""
    return conditions[torch.arange(len(conditions), device=conditions.device), time_bin(t, steps)]


def build_msi(cfg: Config, widths: Sequence[int]) -> Msi:
    """The module of a config for levels of these widths, with fresh weights."""
    d, m = cfg.model.diffusion, cfg.model.msi
    return Msi(widths, d.context, d.tokens, m.heads, m.head_dim, m.dropout)
