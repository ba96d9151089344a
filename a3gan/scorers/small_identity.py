"""Our own small recogniser: 64 px aligned faces to 128-d unit embeddings, about 40 M multiply-adds. It is weak.

It ties tracks in video, gives the residual similarity of an account, and is the identity loss where no other
recogniser is at hand. It judges nothing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.scorers.blocks import Unit

SIZE = 64  # px


class _Block(nn.Module):
    """Inverted residual with a 3x3 depthwise convolution, as in MobileFaceNet, with PReLU."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = Unit(cin, wide, 1, activation="prelu")
        self.depthwise = Unit(wide, wide, 3, stride, groups=wide, activation="prelu")
        self.project = Unit(wide, cout, 1)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class SmallIdentity(nn.Module):
    """Aligned faces [N,3,64,64] in [-1,1], frame `face` -> unit embeddings [N,dim].

    width: channels of the first layer, the others follow (32 = the shipped size, 0.6 M parameters); dim: width of the
    embedding.
    """

    def __init__(self, width: int = 32, dim: int = 128) -> None:
        super().__init__()
        self.width, self.dim = width, dim
        w = width
        self.layers = nn.Sequential(
            Unit(3, w, 3, 2, activation="prelu"),
            Unit(w, 2 * w, 3, 2, activation="prelu"),
            _Block(2 * w, 2 * w, 1, 2), _Block(2 * w, 2 * w, 1, 2),
            _Block(2 * w, 4 * w, 2, 3),
            _Block(4 * w, 4 * w, 1, 2), _Block(4 * w, 4 * w, 1, 2), _Block(4 * w, 4 * w, 1, 2),
            _Block(4 * w, 5 * w, 2, 3),
            _Block(5 * w, 5 * w, 1, 2),
            Unit(5 * w, 8 * w, 1, activation="prelu"),
            Unit(8 * w, 8 * w, 4, groups=8 * w, padding=0),  # learned global pooling of the 4x4 map
        )  # fmt: skip
        self.embed = nn.Linear(8 * w, dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.embed(self.layers(x).flatten(1)).float())
