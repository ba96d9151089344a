"""Perceptual distances: over the features of a network of ours, or LPIPS (Zhang et al. 2018) with its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.errors import UserError

FeaturesFn = Callable[[Tensor], Sequence[Tensor]]


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """LPIPS' distance with all weights 1: mean over layers and places of |a/|a| - b/|b||^2, [N], 0..4, lower = closer.

    a, b: feature maps [N,C,H,W] of several layers; mask [N,1,S,S] or [1,1,S,S]: weight of every place (1 = as without),
    shrunk by area.
    """
    total = a[0].new_zeros(a[0].shape[0], dtype=torch.float32)
    for one, other in zip(a, b, strict=True):
        distance = (_unit(one) - _unit(other)).square().sum(1, keepdim=True)
        if mask is not None:
            distance = distance * F.interpolate(mask.float(), distance.shape[-2:], mode="area")
        total = total + distance.mean((1, 2, 3))
    return total / len(a)


def _unit(x: Tensor) -> Tensor:
    x = x.float()
    # The small constant stands inside the root: a map of zeros keeps a finite gradient.
    return x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()


def perceptual(x: Tensor, y: Tensor, features_fn: FeaturesFn, mask: Tensor | None = None) -> Tensor:
    """`feature_distance` [N] of x and y [N,3,S,S] in [-1,1]; `features_fn` gives maps, as AttributeNetwork.features."""
    return feature_distance(features_fn(x), features_fn(y), mask)


class Lpips(nn.Module):
    """LPIPS on AlexNet: (x, y, mask=None) -> [N], lower is closer; x, y [N,3,S,S] in [-1,1], mask [N,1,S,S] weights."""

    family = "lpips_alex"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        places = self.network(x, y)  # [N,1,S,S]: built with spatial=True
        return (places if mask is None else places * mask).mean((1, 2, 3))


def load_lpips(backbone: str | Path | None = None) -> Lpips:
    """LPIPS with AlexNet's ImageNet weights.

    backbone: a local file (torchvision's state dict, .pth or .safetensors); None = torchvision downloads it.
    Raises UserError where lpips is not installed, the file is foreign, or nothing can be downloaded.
    """
    try:
        import lpips
    except ImportError as error:
        text = "scorers.perceptual: lpips is not installed; pip install lpips, or set it to 'attributes'"
        raise UserError(text) from error
    if backbone is None:
        try:
            return Lpips(lpips.LPIPS(net="alex", spatial=True, verbose=False))
        except OSError as error:  # URLError is one
            raise UserError(
                f"scorers.lpips_backbone: AlexNet's weights could not be downloaded ({error}); "
                "name a local file there, or set scorers.perceptual to 'attributes'"
            ) from error
    network = lpips.LPIPS(net="alex", spatial=True, verbose=False, pnet_rand=True)
    _load_alexnet(network.net, Path(backbone))
    return Lpips(network)


def _load_alexnet(slices: nn.Module, path: Path) -> None:
    """Copy `features.<i>.*` into lpips' slices, which keep torchvision's numbers as names."""
    if not path.is_file():
        raise UserError(f"scorers.lpips_backbone: {path} does not exist; give torchvision's AlexNet weights")
    state = _read_tensors(path)
    for name, layer in slices.named_modules():
        if isinstance(layer, nn.Conv2d):
            number = name.rsplit(".", 1)[-1]
            try:
                layer.load_state_dict({key: state[f"features.{number}.{key}"] for key in ("weight", "bias")})
            except (KeyError, RuntimeError) as error:
                text = f"scorers.lpips_backbone: {path} is not torchvision's AlexNet (features.{number}: {error})"
                raise UserError(text) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds for a cut or foreign file
        raise UserError(f"scorers.lpips_backbone: {path} cannot be read as weights ({error})") from error
