"""FaceMAE's reconstruction module: a masked autoencoder of faces (Wang et al., arXiv 2205.11090; He et al., CVPR 2022).

A face is cut into patches, most of them are left out at random, and the rest is all that the network sees. Its output
is its own drawing of *every* patch: a pasted one would publish the pixels of the original. The blocks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.schema import FaceMae

COLOURS = 3
WAVELENGTH = 10_000.0  # the longest of the positions' waves, in patches over 2 pi (Vaswani et al. 2017)


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches, light decoder on all places.

    Args:
        size, patch: sides in pixels of the face and of a patch; L = (size / patch) squared patches.
        width, depth, heads: of the encoder. decoder_width, decoder_depth, decoder_heads: of the decoder. Widths are
            multiples of four, for sine and cosine of two coordinates.

    Raises:
        UserError: timm is not installed.
    """

    def __init__(
        self, size: int = 64, patch: int = 8, width: int = 128, depth: int = 6, heads: int = 4,
        decoder_width: int = 96, decoder_depth: int = 2, decoder_heads: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.patch, self.tokens = size, patch, (size // patch) ** 2
        pixels = COLOURS * patch * patch
        self.embed = nn.Linear(pixels, width)
        self.encoder = _blocks(width, depth, heads)
        self.bridge = nn.Linear(width, decoder_width)
        self.hidden = nn.Parameter(torch.zeros(decoder_width))  # stands for a patch that was left out
        self.decoder = _blocks(decoder_width, decoder_depth, decoder_heads)
        self.paint = nn.Linear(decoder_width, pixels)
        self.register_buffer("places", positions(size // patch, width), persistent=False)
        self.register_buffer("decoder_places", positions(size // patch, decoder_width), persistent=False)
        self.apply(_initialise)
        nn.init.normal_(self.hidden, std=0.02)

    def forward(self, x: Tensor, noise: Tensor, ratio: float = 0.75) -> Tensor:
        """Faces [N, 3, S, S] in [-1, 1], noise [N, L] (`mask_noise`), share left out -> drawn faces [N, 3, S, S]."""
        keep = visible(noise, ratio)[..., None]  # [N, K, 1]
        tokens = self.embed(patches(x, self.patch)) + self.places
        seen = self.encoder(tokens.gather(1, keep.expand(-1, -1, tokens.shape[2])))
        seen = self.bridge(seen)
        full = self.hidden.to(seen.dtype).expand(len(x), self.tokens, -1)
        full = full.scatter(1, keep.expand(-1, -1, seen.shape[2]), seen)
        return picture(self.paint(self.decoder(full + self.decoder_places)), self.patch)


def build_facemae(model: FaceMae, size: int) -> MaskedAutoencoder:
    """From the config's section `model.facemae`. UserError: sizes that do not divide, or timm is missing."""
    if size % model.patch:
        raise UserError(f"model.facemae.patch={model.patch}: must divide data.size={size}")
    for name in ("width", "decoder_width"):
        heads = model.heads if name == "width" else model.decoder_heads
        value = getattr(model, name)
        if value % 4 or value % heads:
            raise UserError(f"model.facemae.{name}={value}: must be a multiple of 4 and of its {heads} heads")
    sizes = ("patch", "width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads")
    return MaskedAutoencoder(size, **{name: getattr(model, name) for name in sizes})


# --- masks ----------------------------------------------------------------------------------------------------------
def mask_noise(seeds: Sequence[int], tokens: int) -> Tensor:
    """Noise of the mask of each seed: float32 [N, L] in [0, 1), drawn on the CPU: a seed is one mask everywhere."""
    rows = [torch.rand(tokens, generator=torch.Generator().manual_seed(int(s) % 2**63)) for s in seeds]
    return torch.stack(rows) if rows else torch.zeros(0, tokens)


def visible(noise: Tensor, ratio: float) -> Tensor:
    """Numbers of the patches that are seen, int64 [N, K]: those of the K = floor(L (1 - ratio)) smallest noises, at
    least one (per-sample masking by sorting, as He et al.)."""
    count = max(1, int(noise.shape[1] * (1 - ratio) + 1e-6))  # 1 - 0.9 is a little less than a tenth
    return noise.argsort(dim=1, stable=True)[:, :count]


def masked(x: Tensor, noise: Tensor, ratio: float, patch: int, fill: float = 0.0) -> Tensor:
    """x [N, 3, S, S] with the patches that are left out set to `fill`: what the network sees, to look at."""
    keep = torch.zeros_like(noise, dtype=torch.bool).scatter(1, visible(noise, ratio), True)
    return picture(torch.where(keep[..., None], patches(x, patch), fill), patch)


# --- patches --------------------------------------------------------------------------------------------------------
def patches(x: Tensor, patch: int) -> Tensor:
    """[N, 3, S, S] -> [N, L, 3 p²], rows of patches from the top left; `picture` is its inverse."""
    n, channels, side, _ = x.shape
    grid = x.reshape(n, channels, side // patch, patch, side // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, (side // patch) ** 2, channels * patch * patch)


def picture(tokens: Tensor, patch: int) -> Tensor:
    """[N, L, 3 p²] -> [N, 3, S, S]."""
    n, count, _ = tokens.shape
    side = round(count**0.5)
    grid = tokens.reshape(n, side, side, COLOURS, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(n, COLOURS, side * patch, side * patch)


def positions(side: int, width: int) -> Tensor:
    """Fixed places [side², width]: a quarter each of sin and cos of y and of x, over waves from 2 pi patches up."""
    rates = WAVELENGTH ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates  # [side, width / 4]
    y, x = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 2).reshape(side * side, width).float()


# --- blocks ---------------------------------------------------------------------------------------------------------
def _blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    """Transformer blocks [N, K, width] -> the same, normalised at the end."""
    try:
        from timm.models.vision_transformer import Block
    except ImportError as error:
        raise UserError("method facemae: needs timm; pip install a3gan[methods]") from error
    blocks = [Block(width, heads, qkv_bias=True) for _ in range(depth)]
    for block in blocks:
        # Of 64 tokens: torch's fused attention in bfloat16 takes more than half of a training step on a CPU.
        block.attn.fused_attn = False
    return nn.Sequential(*blocks, nn.LayerNorm(width))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)  # as He et al.
        if module.bias is not None:
            nn.init.zeros_(module.bias)
