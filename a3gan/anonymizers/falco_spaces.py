"""The feature spaces of FALCO: which generated face is near a real one, and which tokens hold its looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.errors import UserError
from a3gan.losses.falco import relative_weights
from a3gan.scorers.attributes import AttributeNetwork, load_attributes
from a3gan.scorers.identity import Recogniser, load_recogniser

SPACES = ("attributes", "identity", "farl")
MAPS = (2, 3)  # of the attribute network: 8x8 and 4x4 places; the finer maps hold edges, which are the person's own


class Tokens(Protocol):
    """What the attribute loss compares. fingerprint: as in `scorers.guard`."""

    fingerprint: str

    def tokens(self, x: Tensor) -> list[Tensor]:
        """Faces [N, 3, S, S] in [-1, 1] -> sets of tokens [N, T, C], differentiable in x."""
        ...

    def weights(self, tokens_in: Sequence[Tensor]) -> list[Tensor] | None:
        """For `losses.falco.token_distance`, of the originals' tokens."""
        ...


class AttributeSpace(nn.Module):
    """Maps of an attribute network of ours: their means as the vector, their places as the tokens."""

    def __init__(self, network: AttributeNetwork, frame: str):
        super().__init__()
        self.network, self.frame, self.fingerprint = network, frame, network.fingerprint

    def maps(self, x: Tensor) -> list[Tensor]:
        """[N, C, 8, 8] and [N, C', 4, 4]."""
        from a3gan.scorers.attributes import to_face_frame

        maps = self.network.features(to_face_frame(x, self.frame)[0])
        return [maps[i] for i in MAPS]

    def embed(self, x: Tensor) -> Tensor:
        """[N, C + C']; each map's mean, scaled to length 1 so that none outweighs the other."""
        return F.normalize(torch.cat([F.normalize(m.float().mean((2, 3))) for m in self.maps(x)], 1))

    def tokens(self, x: Tensor) -> list[Tensor]:
        return [m.flatten(2).transpose(1, 2) for m in self.maps(x)]

    def weights(self, tokens_in: Sequence[Tensor]) -> list[Tensor]:
        return relative_weights(tokens_in)


class IdentitySpace(nn.Module):
    """Embeddings of a recogniser: the nearest generated face is then the one most like the person."""

    def __init__(self, recogniser: Recogniser, frame: str):
        super().__init__()
        self.recogniser, self.frame, self.fingerprint = recogniser, frame, recogniser.fingerprint

    def embed(self, x: Tensor) -> Tensor:
        return self.recogniser(x, self.frame)


def load_space(
    name: str, frame: str, *, attributes: str | Path = "attributes_loss", farl: str | Path | None = None
) -> AttributeSpace | IdentitySpace | nn.Module:
    """One of `SPACES` on the CPU, frozen.

    Raises UserError: an unknown name; 'farl' without its weights or without timm.
    """
    if name == "attributes":
        return AttributeSpace(load_attributes(attributes), frame).eval()
    if name == "identity":
        return IdentitySpace(load_recogniser("", "small"), frame).eval()
    if name != "farl":
        raise UserError(f"method falco: space {name!r} is unknown; known: {', '.join(SPACES)}")
    if farl is None:
        raise UserError("method falco: space 'farl' needs FaRL's weights (farl=FILE); or take 'attributes'")
    from a3gan.scorers.farl import load_farl

    return load_farl(farl)
