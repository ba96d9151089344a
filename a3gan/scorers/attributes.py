"""The attribute network: expression, gender, yawning, closed eyes and five landmarks, cheap enough for a loss.

Two backbones, so that the network used in a loss and the one that judges share neither layers nor seed: 'plain' (a
stack of convolutions with ReLU) and 'residual' (basic residual blocks with SiLU). Both run at 64 px in the frame
`face`, with about 40 M multiply-adds and 0.5 M parameters.

The eyes head is a branch of its own that sees two small grey, contrast-normalised crops around the eyes and nothing
else: closed and open eyes come from different collections, and anything beside the eyes gives the collection away.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.data.align import FRAMES
from a3gan.errors import UserError
from a3gan.scorers.blocks import ResidualBlock, Unit, fold, sample
from a3gan.scorers.guard import fingerprint

SIZE = 64  # px, the side at which the trunk runs
EXPRESSIONS = ("neutral", "happiness", "other")
TEMPLATE = FRAMES["face"]  # the landmark head predicts offsets from these points
EYE_CROP = (20, 24)  # height, width in px of one eye crop
EYE_HALF = (0.105, 0.135)  # half height and half width of one eye crop, units of the side


def _plain_trunk(scale: float) -> tuple[list[nn.Module], list[int]]:
    c = [max(8, round(w * scale / 8) * 8) for w in (24, 32, 48, 64, 96, 128)]

    def unit(i: int, o: int, s: int = 1) -> Unit:
        return Unit(i, o, 3, s, activation="relu")

    stages = [
        nn.Sequential(unit(3, c[0], 2), unit(c[0], c[1])),
        nn.Sequential(unit(c[1], c[2], 2), unit(c[2], c[3])),
        nn.Sequential(unit(c[3], c[4], 2), unit(c[4], c[4])),
        nn.Sequential(unit(c[4], c[5], 2), unit(c[5], c[5])),
    ]
    return stages, [c[1], c[3], c[4], c[5]]


def _residual_trunk(scale: float) -> tuple[list[nn.Module], list[int]]:
    c = [max(8, round(w * scale / 8) * 8) for w in (24, 40, 72, 112)]

    def block(i: int, o: int, s: int = 1) -> ResidualBlock:
        return ResidualBlock(i, o, s, "silu")

    stages = [
        nn.Sequential(Unit(3, c[0], 3, 2, activation="silu"), block(c[0], c[0])),
        nn.Sequential(block(c[0], c[1], 2), block(c[1], c[1])),
        nn.Sequential(block(c[1], c[2], 2), block(c[2], c[2])),
        nn.Sequential(block(c[2], c[3], 2)),
    ]
    return stages, c


TRUNKS = {"plain": _plain_trunk, "residual": _residual_trunk}


def resize(x: Tensor, size: int) -> Tensor:
    """Square images [N,C,S,S] -> [N,C,size,size]: area average for whole factors, else antialiased bilinear."""
    side = x.shape[-1]
    if side == size:
        return x
    if side % size == 0:
        return F.avg_pool2d(x, side // size)
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=side > size)


def to_face_frame(x: Tensor, frame: str) -> tuple[Tensor, float, Tensor]:
    """Faces of any frame as the trunk wants them, and the way back: u_frame = u_face * scale + shift [2].

    Frames differ by the distance and the place of the eyes, both level. ValueError for an unknown frame.
    """
    if frame == "face":
        return x, 1.0, x.new_zeros(2)
    if frame not in FRAMES:
        raise ValueError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    own, other = torch.tensor(FRAMES["face"]), torch.tensor(FRAMES[frame])
    scale = float((other[1, 0] - other[0, 0]) / (own[1, 0] - own[0, 0]))
    shift = other[:2].mean(0) - scale * own[:2].mean(0)
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    grid = (torch.stack((u, v), -1) * scale + shift) * 2 - 1
    return sample(x, grid[None].to(x.device)), scale, shift.to(x.device)


def eye_crops(x: Tensor, centres: Tensor) -> Tensor:
    """Grey, contrast-normalised crops around both eyes; the right one mirrored, so that one branch reads both.

    x [N,3,S,S] in [-1,1]; centres [N,2,2] in units of the side (x, y) -> [2N,1,20,24], mean 0, deviation about 1. The
    first N rows are left eyes ("left" as seen in the picture).
    """
    n, (height, width) = x.shape[0], EYE_CROP
    x = x.float()  # crops of a few px: bfloat16 would round their grid
    grey = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    ys = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype) * (2 * EYE_HALF[0])
    xs = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype) * (2 * EYE_HALF[1])
    gy, gx = torch.meshgrid(ys, xs, indexing="ij")
    offsets = torch.stack((torch.stack((gx, gy), -1), torch.stack((-gx, gy), -1)))  # [2,h,w,2], the side is 2
    grid = (centres.to(x.dtype) * 2 - 1)[:, :, None, None] + offsets  # [N,2,h,w,2]
    grid = grid.transpose(0, 1).reshape(2 * n, height, width, 2)
    crops = F.grid_sample(torch.cat((grey, grey)), grid, padding_mode="reflection", align_corners=False)
    crops = crops - crops.mean((2, 3), keepdim=True)
    # 0.05 of the range [-1,1]: keeps a flat patch from being blown up to pure noise.
    return crops / (crops.square().mean((2, 3), keepdim=True) + 0.05**2).sqrt()


class EyeBranch(nn.Module):
    """One eye crop [N,1,20,24] -> logit of `closed` [N]."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Unit(1, 16, 3, activation=activation), Unit(16, 24, 3, 2, activation=activation),
            Unit(24, 32, 3, activation=activation), Unit(32, 48, 3, 2, activation=activation),
        )  # fmt: skip
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(48 * 5 * 6, 1)

    def forward(self, crops: Tensor) -> Tensor:
        return self.out(self.drop(self.layers(crops).flatten(1)))[:, 0]


class AttributeNetwork(nn.Module):
    """Aligned faces [N,3,S,S] in [-1,1], frame `face`, S >= 32 -> dict of heads (see `forward`).

    backbone: "plain" or "residual" (else ValueError); width: channels of the first layer, the others follow (24 = the
    shipped size).
    """

    def __init__(self, backbone: str = "plain", width: int = 24) -> None:
        super().__init__()
        if backbone not in TRUNKS:
            raise ValueError(f"backbone is {backbone!r}; it must be one of {', '.join(TRUNKS)}")
        self.backbone, self.width = backbone, width
        stages, channels = TRUNKS[backbone](width / 24)
        self.stages = nn.ModuleList(stages)
        activation = "relu" if backbone == "plain" else "silu"
        # The face is aligned, so the place on the 4x4 map carries meaning: flatten rather than pool.
        self.squeeze = Unit(channels[-1], 32, 1, activation=activation)
        bend = nn.ReLU() if backbone == "plain" else nn.SiLU()
        self.hidden = nn.Sequential(nn.Linear(32 * 16, 96), bend, nn.Dropout(0.3))
        self.classes = nn.Linear(96, len(EXPRESSIONS) + 2)
        self.point_squeeze = Unit(channels[-2], 16, 1, activation=activation)
        self.points = nn.Linear(16 * 64 + 32 * 16, 10)
        self.eyes = EyeBranch(activation)
        self.register_buffer("template", torch.tensor(TEMPLATE), persistent=False)
        nn.init.normal_(self.points.weight, std=0.01)
        nn.init.zeros_(self.points.bias)

    def features(self, x: Tensor, size: int | None = SIZE) -> list[Tensor]:
        """Maps after the four stages, at 1/2, 1/4, 1/8 and 1/16 of `size` (None: of x's own side)."""
        if size is not None:
            x = resize(x, size)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor, eyes: Tensor | None = None, frame: str = "face") -> dict[str, Tensor]:
        """Heads of x, float32: expression [N,3] logits (neutral, happiness, other); gender (positive = male), yawning
        and eyes_closed [N] logits; landmarks [N,5,2] in units of the side.

        eyes [N,2,2]: eye centres in the same units where they are known (training), else the frame's are taken. frame:
        that of x; landmarks come back in it.
        """
        x, scale, shift = to_face_frame(x, frame)
        outputs = self.heads(self.features(x), x, eyes)
        return {**outputs, "landmarks": outputs["landmarks"] * scale + shift}

    def outputs_and_features(self, x: Tensor, frame: str = "face") -> tuple[dict[str, Tensor], list[Tensor]]:
        """`forward` and `features` at 64 px for the price of one pass; the maps are of the frame `face` in any case."""
        x, scale, shift = to_face_frame(x, frame)
        maps = self.features(x)
        outputs = self.heads(maps, x, None)
        return {**outputs, "landmarks": outputs["landmarks"] * scale + shift}, maps

    def heads(self, maps: list[Tensor], x: Tensor, eyes: Tensor | None) -> dict[str, Tensor]:
        """The heads on the maps of `features(x)`; the eyes head reads x itself."""
        top = self.squeeze(maps[-1]).flatten(1)
        scores = self.classes(self.hidden(top)).float()
        fine = self.point_squeeze(maps[-2]).flatten(1)
        offsets = self.points(torch.cat((fine, top), 1)).float().view(-1, 5, 2)
        centres = self.template[:2].expand(x.shape[0], 2, 2) if eyes is None else eyes
        closed = self.eyes(eye_crops(resize(x, SIZE) if x.shape[-1] > SIZE else x, centres)).float()
        n = len(EXPRESSIONS)
        return {
            "expression": scores[:, :n],
            "gender": scores[:, n],
            "yawning": scores[:, n + 1],
            "eyes_closed": (closed[: x.shape[0]] + closed[x.shape[0] :]) / math.sqrt(2),
            "landmarks": self.template + 0.1 * offsets,
        }


def load_attributes(name_or_path: str | Path, device: str | torch.device = "cpu") -> AttributeNetwork:
    """A trained attribute network by path or shipped name: float32, frozen, batch norms folded, channels last.

    `.family` ('attributes_plain' or 'attributes_residual') and `.fingerprint` serve `guard`. Raises UserError for a
    file of another stage.
    """
    path = checkpoint.resolve(name_or_path)
    tensors, meta = checkpoint.load(path)
    if "backbone" not in meta:
        raise UserError(f"{path}: not an attribute network (stage {meta.get('stage')!r}); train one: stage attributes")
    network = AttributeNetwork(meta["backbone"], meta["width"])
    checkpoint.load_into(network, tensors, "attributes", path)
    network.family = f"attributes_{meta['backbone']}"
    network.fingerprint = fingerprint(network.family, tensors)
    fold(network.eval().requires_grad_(False))
    return network.to(device, memory_format=torch.channels_last)
