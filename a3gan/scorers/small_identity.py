"""Our own small recogniser: 64 px aligned faces to 128-d unit embeddings, about 50 M multiply-adds. It is weak.

It ties tracks in video, gives the residual similarity of an account, and is the identity loss where no other
recogniser is at hand. It judges nothing. Dense convolutions and ReLU only: on a CPU their backward pass is many times
faster than that of depthwise ones and PReLU, and this network is both trained there and differentiated in losses.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.scorers.blocks import ResidualBlock, Unit

SIZE = 64  # px


class SmallIdentity(nn.Module):
    """Aligned faces [N,3,64,64] in [-1,1], frame `face` -> unit embeddings [N,dim].

    width: channels of the first layer, the others follow (24 = the shipped size, 0.9 M parameters); dim: width of the
    embedding.
    """

    def __init__(self, width: int = 24, dim: int = 128) -> None:
        super().__init__()
        self.width, self.dim = width, dim
        c = [max(8, round(w * width / 24 / 8) * 8) for w in (24, 48, 88, 128, 48)]

        def down(i: int, o: int) -> Unit:
            return Unit(i, o, 3, 2, activation="relu")

        self.layers = nn.Sequential(
            down(3, c[0]),
            down(c[0], c[1]), ResidualBlock(c[1], c[1]), ResidualBlock(c[1], c[1]),
            down(c[1], c[2]), ResidualBlock(c[2], c[2]), ResidualBlock(c[2], c[2]),
            down(c[2], c[3]), ResidualBlock(c[3], c[3]),
            Unit(c[3], c[4], 1, activation="relu"),
        )  # fmt: skip
        # The face is aligned, so the place on the 4x4 map carries meaning: flatten rather than pool.
        self.embed = nn.Linear(c[4] * 16, dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.embed(self.layers(x).flatten(1)).float())
