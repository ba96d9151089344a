"""Face recognisers as frozen, differentiable scorers: aligned faces in, unit embeddings out.

Each recogniser was trained on crops of its own. Ours are aligned to a frame, so that one fixed affine map per
recogniser and frame leads from the frame's five points to the recogniser's: no detector, no per-image transform.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.data.align import FRAMES
from a3gan.errors import UserError
from a3gan.scorers.blocks import fold, sample
from a3gan.scorers.guard import fingerprint

KINDS = ("mobilefacenet_a", "mobilefacenet_b", "facenet", "small")
DOWNLOADS = ("", "vggface2", "casia-webface")  # of kind facenet: names that facenet-pytorch fetches, "" = vggface2


@dataclass(frozen=True)
class Crop:
    """What a recogniser wants to see: size in px, five points in px of it (centre of the first = 0), normalisation."""

    height: int
    width: int
    points: tuple[tuple[float, float], ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of an image in [-1,1]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mirror: bool = False  # sum the embeddings of the crop and its mirror image
    stretch: bool = False  # fit height and width apart (crops made from a detector's box)


_A = ((30.3, 51.7), (65.5, 51.5), (48.0, 71.7), (33.5, 92.4), (62.7, 92.2))
# Mean places of the points in MTCNN's boxes, as shares of width and height; measured on 61 LFW photos, made symmetric.
_BOX = ((0.275, 0.387), (0.725, 0.387), (0.5, 0.588), (0.298, 0.751), (0.702, 0.751))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of an image in 0..1

CROPS: dict[str, Crop] = {
    # (x - 127.5) / 128 of 0..255 is x / (128 / 127.5) of [-1,1].
    "mobilefacenet_a": Crop(112, 96, _A, std=(128 / 127.5,) * 3, mirror=True),
    "mobilefacenet_b": Crop(
        112, 112, tuple((x + 8, y) for x, y in _A),
        mean=tuple(2 * m - 1 for m in _IMAGENET[0]), std=tuple(2 * s for s in _IMAGENET[1]),
    ),
    # facenet-pytorch crops MTCNN's box and stretches it to 160x160.
    "facenet": Crop(160, 160, tuple((159 * x, 159 * y) for x, y in _BOX), std=(128 / 127.5,) * 3, stretch=True),
    "small": Crop(64, 64, tuple((64 * x - 0.5, 64 * y - 0.5) for x, y in FRAMES["face"])),
}  # fmt: skip


def crop_matrix(crop: Crop, frame: str) -> Tensor:
    """Least-squares map [2,3], float64, from pixels of the crop to units of the frame; ValueError: unknown frame."""
    if frame not in FRAMES:
        raise ValueError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    source = torch.tensor(crop.points, dtype=torch.float64)
    target = torch.tensor(FRAMES[frame], dtype=torch.float64)
    x, y = source.unbind(1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    if crop.stretch:  # u = a x + b, v = c y + d
        a, b = torch.linalg.lstsq(torch.stack((x, one), 1), target[:, :1]).solution[:, 0]
        c, d = torch.linalg.lstsq(torch.stack((y, one), 1), target[:, 1:]).solution[:, 0]
        return torch.stack((torch.stack((a, a * 0, b)), torch.stack((c * 0, c, d))))
    rows = torch.cat((torch.stack((x, -y, one, zero), 1), torch.stack((y, x, zero, one), 1)))
    a, b, u, v = torch.linalg.lstsq(rows, target.T.reshape(-1, 1)).solution[:, 0]
    return torch.stack((torch.stack((a, -b, u)), torch.stack((b, a, v))))


class Recogniser(nn.Module):
    """A frozen recogniser: faces [N,3,S,S] in [-1,1] of a frame -> unit embeddings [N,E], differentiable in x.

    family: kind of network and training; fingerprint: family and hash of the weights (see `guard`); licence: what is
    known of the weights.
    """

    def __init__(self, network: nn.Module, kind: str, digest: str, licence: str = "unknown; research use") -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.family, self.crop, self.fingerprint, self.licence = kind, CROPS[kind], digest, licence
        for frame in FRAMES:
            self.register_buffer(f"grid_{frame}", self._grid(frame), persistent=False)
        self.register_buffer("mean", torch.tensor(self.crop.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.crop.std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Recogniser:
        """Stays in eval mode whatever it is part of: its batch norms must not move."""
        return super().train(False)

    def _grid(self, frame: str) -> Tensor:
        ys = torch.arange(self.crop.height, dtype=torch.float64)
        xs = torch.arange(self.crop.width, dtype=torch.float64)
        gy, gx = torch.meshgrid(ys, xs, indexing="ij")
        pixels = torch.stack((gx, gy, torch.ones_like(gx)), -1)
        return ((pixels @ crop_matrix(self.crop, frame).T) * 2 - 1).float()[None]  # frame units to grid_sample's -1..1

    def crops(self, x: Tensor, frame: str = "face") -> Tensor:
        """The normalised crops [N,3,h,w] that the network sees."""
        if self.family == "small" and frame == "face" and x.shape[-1] == self.crop.width:
            return x
        if frame not in FRAMES:
            raise ValueError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
        return (sample(x, getattr(self, f"grid_{frame}")) - self.mean) / self.std

    def forward(self, x: Tensor, frame: str = "face", mirror: bool = True) -> Tensor:
        """Unit embeddings [N,E]; mirror=False leaves out the mirror image that some add: half the work, for losses."""
        crop = self.crops(x, frame).contiguous(memory_format=torch.channels_last)
        embedding = self.network(crop)
        if self.crop.mirror and mirror:
            embedding = embedding + self.network(crop.flip(-1))
        return F.normalize(embedding.float())


def wanted_files(recognisers: Sequence[Any]) -> dict[str, str | None]:
    """Key of the config -> file that a recogniser needs; None where it downloads its weights itself (dry runs)."""
    return {
        f"scorers.recognisers.{i}.path": None if r.kind == "facenet" and r.path in DOWNLOADS else r.path
        for i, r in enumerate(recognisers)
    }


def load_recogniser(name_or_path: str | Path, kind: str) -> Recogniser:
    """A recogniser of one of `KINDS` from a file.

    'small' also takes a shipped name ('' = identity_small); 'facenet' also '', 'vggface2' or 'casia-webface', which
    download. Raises UserError for an unknown kind, a missing or foreign file, or a download that fails.
    """
    if kind not in KINDS:
        raise UserError(f"scorers.recognisers: kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if kind == "facenet":
        return _load_facenet(str(name_or_path))
    if kind == "small":
        return _load_small(name_or_path)
    return _load_mobilefacenet(Path(name_or_path), kind)


@functools.cache
def small_recogniser() -> Recogniser:
    """The shipped `identity_small`, loaded once for all that use it; UserError where it is not."""
    return load_recogniser("identity_small", "small")


def _load_mobilefacenet(path: Path, kind: str) -> Recogniser:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from a3gan.scorers.mobilefacenet import from_published

    if not path.is_file():
        raise UserError(f"{path}: no such weights; give the path of {kind}.safetensors in scorers.recognisers")
    try:
        state = load_file(path)
        network, layout = from_published(state)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a whole file of published MobileFaceNet weights ({error})") from error
    if kind != f"mobilefacenet_{layout}":
        raise UserError(f"{path}: these are weights of mobilefacenet_{layout}, not of {kind}; set the kind to that")
    return Recogniser(network, kind, fingerprint(kind, state), "no licence stated; research use")


def _load_small(name_or_path: str | Path) -> Recogniser:
    from a3gan.scorers.small_identity import SmallIdentity

    path = checkpoint.resolve(name_or_path or "identity_small")
    tensors, meta = checkpoint.load(path)
    if meta.get("stage") != "identity":
        stage = meta.get("stage")
        raise UserError(f"{path}: a checkpoint of stage {stage!r}, not a recogniser; train one with stage: identity")
    network = checkpoint.load_into(SmallIdentity(meta["width"], meta["dim"]), tensors, "identity", path)
    fold(network.eval())
    network = network.to(memory_format=torch.channels_last)
    return Recogniser(network, "small", fingerprint("small", tensors), "ours; what it was trained on is on its card")


def facenet_network(pretrained: str | None = "vggface2") -> nn.Module:
    """facenet-pytorch's InceptionResnetV1; 'vggface2' and 'casia-webface' download into its cache, None = random."""
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError as error:
        raise UserError("scorers.recognisers: facenet-pytorch is not installed; pip install facenet-pytorch") from error
    try:
        return InceptionResnetV1(pretrained=pretrained)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a cut cache file gives RuntimeError
        raise UserError(
            f"scorers.recognisers: the weights of facenet ({pretrained}) could not be downloaded ({error}); "
            "connect once, give a file, or use another kind"
        ) from error


def _load_facenet(name: str) -> Recogniser:
    if name and Path(name).is_file():
        network = facenet_network(None)
        try:
            state = torch.load(name, map_location="cpu", weights_only=True)
            state = {key: value for key, value in state.items() if not key.startswith("logits.")}
            network.load_state_dict(state)
        except Exception as error:  # torch's reader raises many kinds for a cut or foreign file
            raise UserError(f"{name}: not a state dict of facenet-pytorch's InceptionResnetV1 ({error})") from error
    elif name in DOWNLOADS:
        network = facenet_network(name or "vggface2")
    else:
        raise UserError(f"{name}: no such file; facenet takes 'vggface2', 'casia-webface' or the path of its weights")
    digest = fingerprint("facenet", network.state_dict())
    return Recogniser(network, "facenet", digest, "MIT code; weights trained on VGGFace2 or CASIA, research use")
