"""MobileFaceNet (Chen et al. 2018, "MobileFaceNets", Table 1) for two published sets of weights.

One network of ours; two small tables translate the names that the published files use. They differ in activation
(PReLU or ReLU6), in the first depthwise stage (with or without a 1x1 convolution behind it), in the last kernel (7x6 or
7x7) and in a bias before the last norm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a3gan.scorers.blocks import Unit, fold
from a3gan.scorers.frozen import freeze

# Table 1 of the paper: (expansion, channels out, repeats, stride of the first).
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


@dataclass(frozen=True)
class Layout:
    """How one published file differs from the other; `keys` are (pattern, replacement) pairs from its names to ours."""

    activation: str
    stem_activation: str
    stem_pointwise: bool
    last_kernel: tuple[int, int]  # height, width of the last feature map
    embed_bias: bool
    keys: tuple[tuple[str, str], ...]


LAYOUTS: dict[str, Layout] = {
    # Xiaoccer/MobileFaceNet_Pytorch: PReLU, faces of 112x96.
    "a": Layout("prelu", "prelu", False, (7, 6), False, (
        (r"^blocks\.(\d+)\.conv\.([012])\.", r"blocks.\1.expand.@\2."),
        (r"^blocks\.(\d+)\.conv\.([345])\.", r"blocks.\1.depthwise.@\2."),
        (r"^blocks\.(\d+)\.conv\.([67])\.", r"blocks.\1.project.@\2."),
        (r"@[036]\.", "conv."), (r"@[147]\.", "norm."), (r"@[25]\.", "act."),
        (r"^conv1\.", "stem."), (r"^dw_conv1\.", "stem_depthwise."), (r"^conv2\.", "widen."),
        (r"^linear7\.", "pool."), (r"^linear1\.", "embed."), (r"\.bn\.", ".norm."), (r"\.prelu\.", ".act."),
    )),
    # darzhz/pixamatch: ReLU6 bottlenecks in torchvision's order, faces of 112x112.
    "b": Layout("relu6", "relu", True, (7, 7), True, (
        (r"^features\.(\d+)\.conv\.0\.([01])\.", r"blocks.\1.expand.@\2."),
        (r"^features\.(\d+)\.conv\.1\.([01])\.", r"blocks.\1.depthwise.@\2."),
        (r"^features\.(\d+)\.conv\.([23])\.", r"blocks.\1.project.@\2."),
        (r"^conv1\.", "stem.@"), (r"^conv2\.", "widen.@"),
        (r"@[02]\.", "conv."), (r"@[13]\.", "norm."),
        (r"^dw_conv\.depthwise", "stem_depthwise.conv"), (r"^dw_conv\.bn1", "stem_depthwise.norm"),
        (r"^dw_conv\.pointwise", "stem_pointwise.conv"), (r"^dw_conv\.bn2", "stem_pointwise.norm"),
        (r"^gdconv\.depthwise", "pool.conv"), (r"^gdconv\.bn", "pool.norm"),
        (r"^conv3\.", "embed.conv."), (r"^bn\.", "embed.norm."),
    )),
}  # fmt: skip


class Bottleneck(nn.Module):
    """Inverted residual: 1x1 widen, 3x3 depthwise, 1x1 narrow without activation."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int, activation: str) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = Unit(cin, wide, 1, activation=activation)
        self.depthwise = Unit(wide, wide, 3, stride, groups=wide, activation=activation)
        self.project = Unit(wide, cout, 1)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """Crop [N,3,112,96 or 112], normalised as the weights expect -> raw embedding [N,128] (not yet unit length)."""

    def __init__(self, layout: str = "a") -> None:
        super().__init__()
        spec = LAYOUTS[layout]
        self.stem = Unit(3, 64, 3, 2, activation=spec.activation)
        self.stem_depthwise = Unit(64, 64, 3, groups=64, activation=spec.stem_activation)
        pointwise = Unit(64, 64, 1, activation=spec.stem_activation) if spec.stem_pointwise else nn.Identity()
        self.stem_pointwise = pointwise
        blocks, channels = [], 64
        for expansion, cout, repeats, stride in BOTTLENECKS:
            for i in range(repeats):
                blocks.append(Bottleneck(channels, cout, stride if i == 0 else 1, expansion, spec.activation))
                channels = cout
        self.blocks = nn.Sequential(*blocks)
        self.widen = Unit(channels, 512, 1, activation=spec.activation)
        self.pool = Unit(512, 512, spec.last_kernel, groups=512, padding=0)  # learned global pooling
        self.embed = Unit(512, 128, 1, bias=spec.embed_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_pointwise(self.stem_depthwise(self.stem(x)))
        return self.embed(self.pool(self.widen(self.blocks(x)))).flatten(1)


def detect_layout(keys: list[str]) -> str | None:
    """'a', 'b', or None where the names belong to neither published file."""
    names = set(keys)
    if "linear7.conv.weight" in names:
        return "a"
    return "b" if "gdconv.depthwise.weight" in names else None


def from_published(state: dict[str, Tensor]) -> tuple[MobileFaceNet, str]:
    """The network of a published state dict and its layout; folded and frozen. Raises ValueError for other names."""
    layout = detect_layout(list(state))
    if layout is None:
        raise ValueError("these tensors are of neither known MobileFaceNet layout")
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in LAYOUTS[layout].keys:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    network = MobileFaceNet(layout)
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        raise ValueError(f"MobileFaceNet layout {layout}: {error}") from error
    freeze(fold(network.eval().requires_grad_(False)))
    return network.to(memory_format=torch.channels_last), layout
