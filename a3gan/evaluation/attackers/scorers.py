"""What an attacker sees of a picture: a recogniser's embedding and its last map, of the whole face, of what lies around
it, of the face alone; and the pixels themselves."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.mask import face_mask
from a3gan.data.ranges import to_uint8
from a3gan.evaluation.features import CROP_SIDE, JUDGE_SIDE, Features
from a3gan.scorers.frozen import FrozenDepthwise, FrozenPReLU
from a3gan.scorers.mobilefacenet import MobileFaceNet
from a3gan.scorers.small_identity import SmallIdentity

if TYPE_CHECKING:
    from a3gan.evaluation.pictures import View
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.identity import Recogniser

PIXELS = 64  # px of the crops that inversion works on, frame `face`
FROZEN_BLOCKS = 13  # of MobileFaceNet's 15; what follows sees 7x7 places and is fine-tuned
FROZEN_LAYERS = 8  # of SmallIdentity's 10
PARTS = ("whole", "background", "face")


class Tail(nn.Module):
    """The part of a recogniser behind its `trunk`, as a trainable copy: map [N, C, h, w] -> unit embedding [N, E]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        if isinstance(network, MobileFaceNet):
            parts = [*network.blocks[FROZEN_BLOCKS:], network.widen, network.pool, network.embed, nn.Flatten()]
        else:
            parts = [*network.layers[FROZEN_LAYERS:], nn.Flatten(), network.embed]
        self.layers = thaw(nn.Sequential(*copy.deepcopy(parts))).requires_grad_(True)

    def forward(self, maps: Tensor) -> Tensor:
        return F.normalize(self.layers(maps))


def thaw(network: nn.Module) -> nn.Module:
    """Puts trainable layers of the same values where `scorers.frozen.freeze` put frozen ones; returns the network."""
    for name, child in network.named_children():
        if isinstance(child, FrozenDepthwise):
            channels, _, height, width = child.weight.shape
            conv = nn.Conv2d(
                channels, channels, (height, width), child.stride, child.padding, groups=channels,
                bias=child.bias is not None,
            )  # fmt: skip
            with torch.no_grad():
                conv.weight.copy_(child.weight)
                if child.bias is not None:
                    conv.bias.copy_(child.bias)
            setattr(network, name, conv)
        elif isinstance(child, FrozenPReLU):
            prelu = nn.PReLU(len(child.slope))
            prelu.load_state_dict({"weight": child.slope})
            setattr(network, name, prelu)
        else:
            thaw(child)
    return network


def has_tail(recogniser: Recogniser) -> bool:
    """Whether it is known where to cut this recogniser; of others only the embedding serves."""
    return isinstance(getattr(recogniser, "network", None), MobileFaceNet | SmallIdentity)


def trunk(network: nn.Module, crops: Tensor) -> Tensor:
    """The map [N, C, h, w] that a `Tail` goes on from."""
    if isinstance(network, MobileFaceNet):
        x = network.stem_pointwise(network.stem_depthwise(network.stem(crops)))
        return network.blocks[:FROZEN_BLOCKS](x)
    return network.layers[:FROZEN_LAYERS](crops)


class Seen:
    """A recogniser on whole faces, on faces with the oval painted grey (`background`) and on the oval alone (`face`).

    Gives `embedding`, `embedding_background`, `embedding_face` float32 [B, E] of unit length; with `maps` also `map`
    and `map_background`, float16 [B, C, h, w], where the recogniser can be cut.
    """

    def __init__(self, recogniser: Recogniser, device: torch.device, maps: bool = True, parts: tuple = PARTS):
        self.recogniser, self.device, self.parts = recogniser.to(device), device, parts
        self.cut = maps and has_tail(recogniser)
        self.identity = f"{recogniser.fingerprint}|seen|{','.join(parts)}|{int(self.cut)}"
        # Hard edges at the outer end of the oval: nothing of what a method replaces shines through.
        self.oval = (face_mask(JUDGE_SIDE, "ffhq") > 0.02).float().to(device)

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> Features:
        faces = view.aligned("ffhq", JUDGE_SIDE).to(self.device)
        shown = {"whole": faces, "background": faces * (1 - self.oval), "face": faces * self.oval}
        result: Features = {}
        for part in self.parts:
            suffix = "" if part == "whole" else f"_{part}"
            embedding, maps = self.both(shown[part])
            result[f"embedding{suffix}"] = embedding
            if maps is not None and part != "face":
                result[f"map{suffix}"] = maps
        return result

    def both(self, faces: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Embedding and map of faces [B, 3, S, S] in frame `ffhq`; the embedding is the recogniser's own."""
        if not self.cut:
            return self.recogniser(faces, "ffhq").float().cpu().numpy(), None
        network = self.recogniser.network
        crops = self.recogniser.crops(faces, "ffhq").contiguous(memory_format=torch.channels_last)
        maps = trunk(network, crops)
        embedding = _finish(network, maps)
        if self.recogniser.crop.mirror:
            embedding = embedding + _finish(network, trunk(network, crops.flip(-1)))
        return F.normalize(embedding.float()).cpu().numpy(), maps.half().cpu().numpy()


def _finish(network: nn.Module, maps: Tensor) -> Tensor:
    if isinstance(network, MobileFaceNet):
        return network.embed(network.pool(network.widen(network.blocks[FROZEN_BLOCKS:](maps)))).flatten(1)
    return F.normalize(network.embed(network.layers[FROZEN_LAYERS:](maps).flatten(1)))


class Pixels:
    """The aligned face itself, `pixels` uint8 [B, 3, 64, 64] in frame `face`."""

    identity = f"pixels{PIXELS}"

    def __call__(self, view: View, degradation: str) -> Features:
        return {"pixels": to_uint8(view.aligned("face", PIXELS)).numpy()}


class Code:
    """The flat attribute code, `code` float32 [B, D] logits in schema order, as an attribute network reads it."""

    def __init__(self, network: AttributeNetwork, device: torch.device):
        self.network, self.device = network.to(device), device
        self.identity = f"{network.fingerprint}|code"

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> Features:
        from a3gan.scorers.measured import attribute_logits

        faces = view.aligned("face", CROP_SIDE).to(self.device)
        return {"code": attribute_logits(self.network(faces), faces).float().cpu().numpy()}
