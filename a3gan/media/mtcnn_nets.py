"""MTCNN's three networks (Zhang et al. 2016) with the weights inside the facenet-pytorch wheel.

The package itself is not imported: it brings torchvision's operators and torch's compiler with it, which takes longer
than the search of a short clip. Layers are named as in those weights.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def weights(name: str) -> dict[str, Tensor]:
    """State of `pnet`, `rnet` or `onet`. ImportError where facenet-pytorch is not installed."""
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or spec.origin is None:
        raise ImportError("facenet-pytorch is not installed")
    return torch.load(Path(spec.origin).with_name("data") / f"{name}.pt", map_location="cpu", weights_only=True)


def convolutions(state: Mapping[str, Tensor], pools: Mapping[int, nn.Module | None]) -> list[nn.Module]:
    """Convolution, PReLU and pooling in turn, sized as the weights are; `pools`: number of the layer -> its pool."""
    layers: list[nn.Module] = []
    for number, pool in pools.items():
        out, inputs, side, _ = state[f"conv{number}.weight"].shape
        layers += [_conv(state, f"conv{number}", nn.Conv2d(inputs, out, side)), _prelu(state, f"prelu{number}")]
        layers += [pool] if pool is not None else []
    return layers


def _conv(state: Mapping[str, Tensor], name: str, layer: nn.Module) -> nn.Module:
    layer.load_state_dict({"weight": state[f"{name}.weight"], "bias": state[f"{name}.bias"]})
    return layer


def _linear(state: Mapping[str, Tensor], name: str) -> nn.Module:
    out, inputs = state[f"{name}.weight"].shape
    return _conv(state, name, nn.Linear(inputs, out))


def _prelu(state: Mapping[str, Tensor], name: str) -> nn.PReLU:
    layer = nn.PReLU(len(state[f"{name}.weight"]))
    layer.load_state_dict({"weight": state[f"{name}.weight"]})
    return layer


class CropNet(nn.Module):
    """The second or third network: crops [n, 3, S, S], normalised -> each head's output [n, k], score [n] last.

    heads: names of the linear heads in the order of the output; the head of the score, two logits, is named last.
    """

    def __init__(self, state: Mapping[str, Tensor], pools: Mapping[int, nn.Module | None], dense: int, heads: tuple):
        super().__init__()
        self.body = nn.Sequential(*convolutions(state, pools))
        self.dense, self.slope = _linear(state, f"dense{dense}"), _prelu(state, f"prelu{dense}")
        self.heads = nn.ModuleList(_linear(state, f"dense{dense + 1}_{head}") for head in heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # The weights come from a framework that counts columns first.
        flat = self.body(x).permute(0, 3, 2, 1).flatten(1)
        hidden = self.slope(self.dense(flat))
        *others, logits = (head(hidden) for head in self.heads)
        return *others, logits.softmax(1)


def second_net() -> CropNet:
    """Crops of 24 px -> moves [n, 4], probabilities [n, 2]."""
    return CropNet(weights("rnet"), {1: _pool(3), 2: _pool(3), 3: None}, 4, (2, 1))


def third_net() -> CropNet:
    """Crops of 48 px -> moves [n, 4], points [n, 10], probabilities [n, 2]."""
    return CropNet(weights("onet"), {1: _pool(3), 2: _pool(3), 3: _pool(2), 4: None}, 5, (2, 3, 1))


def _pool(side: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(side, 2, ceil_mode=True)


@functools.cache
def nms_operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    """torchvision's compiled `nms(boxes, scores, limit)`, without importing torchvision where that can be done.

    Importing it brings torch's compiler with it, a second of start-up for a function that lies in one library file.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is not None and spec.origin is not None:
        for file in sorted(Path(spec.origin).parent.glob("_C*")):
            with contextlib.suppress(OSError, RuntimeError):
                torch.ops.load_library(file)
        with contextlib.suppress(AttributeError, RuntimeError):
            return torch.ops.torchvision.nms.default
    from torchvision.ops import nms

    return nms
