"""Stage `attributes`: trains the attribute network on whatever labels a mixture of data sets has.

Three confounds are met here. Closed and open eyes come from different collections: the eyes head sees small grey crops
only (see scorers/attributes.py), and three pictures of four are brought to a random lower resolution, drawn without
regard to the class. Small faces are 29 % of `yawn` and 2 % of `no_yawn`: the same random resolutions equalise them.
Watermarks lie outside the eye crops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.attributes import targets as label_targets
from a3gan.scorers.attributes import SIZE, AttributeNetwork, resize
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

HEADS = ("expression", "gender", "yawning", "eyes_closed")
LANDMARK_WEIGHT = 4.0  # on the L1 over the eye distance: at 5 % error worth about a tenth of the four class losses
EYE_DISTANCE = 1 / 3  # of the frame `face`, in units of the side
LABEL_SMOOTHING = {"expression": 0.1, "gender": 0.05, "yawning": 0.05, "eyes_closed": 0.05}  # LFW's labels are noisy


def sample_weights(targets: dict[str, Tensor]) -> Tensor:
    """How often each image is drawn: float [N], 1 / sqrt(count of its joint label), for small classes and sets."""
    keys = torch.stack([torch.nan_to_num(targets[name], nan=-1.0) for name in HEADS], 1)
    _, inverse, counts = keys.unique(dim=0, return_inverse=True, return_counts=True)
    return counts[inverse].double().rsqrt()


def random_matrices(n: int, degrees: float = 10.0, scale: float = 0.13, shift: float = 0.05) -> Tensor:
    """Random similarities [N,2,3] from the new picture to the old one in units centred on the picture (-0.5..0.5)."""
    angle = torch.randn(n).clamp(-2, 2) * math.radians(degrees) / 1.5
    size = torch.exp((torch.rand(n) * 2 - 1) * scale)
    a, b = size * angle.cos(), size * angle.sin()
    move = (torch.rand(n, 2) * 2 - 1) * shift
    return torch.stack((torch.stack((a, -b, move[:, 0]), 1), torch.stack((b, a, move[:, 1]), 1)), 1)


def warp(x: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Sample x [N,3,S,S] at `matrices` (new to old, centred units), borders reflected; shrunk to `size`."""
    side = x.shape[-1]
    # For affine_grid the side is 2, so that the shift doubles.
    theta = torch.cat((matrices[:, :, :2], 2 * matrices[:, :, 2:]), 2).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    warped = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return resize(warped, size) if side > size else warped


def move_points(points: Tensor, matrices: Tensor) -> Tensor:
    """Points [N,K,2] of the old picture, in units of the side, where they are in the new one."""
    inverse = torch.linalg.inv(matrices[:, :, :2].double())
    return ((points.double() - 0.5 - matrices[:, None, :, 2].double()) @ inverse.transpose(1, 2) + 0.5).float()


def low_resolutions(x: Tensor, groups: int = 8, smallest: int = 20) -> Tensor:
    """Each group of rows to a random lower resolution and back; a quarter stays. Rows must be in random order."""
    side = x.shape[-1]
    parts = []
    for i, part in enumerate(x.chunk(groups)):
        low = int(torch.randint(smallest, side, ()))
        if i >= groups // 4:
            down = F.interpolate(part, (low, low), mode="bilinear", antialias=True, align_corners=False)
            part = F.interpolate(down, (side, side), mode="bilinear", align_corners=False)
        parts.append(part)
    return torch.cat(parts)


def recolour(x: Tensor) -> Tensor:
    """Random gamma, brightness, contrast, tint, saturation (a sixth grey) and noise; stays in [-1,1]."""
    n = x.shape[0]

    def around(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(n, channels, 1, 1).to(x) * (high - low) + low

    x = ((x + 1) / 2).clamp(1e-3, 1).pow(around(-0.4, 0.4).exp()) * 2 - 1
    grey = x.mean(1, keepdim=True)
    saturation = around(0.3, 1.4) * (around(0, 1) > 1 / 6)
    x = grey + (x - grey) * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * around(0.6, 1.4) + around(-0.25, 0.25) + around(-0.06, 0.06, 3)
    x = x + torch.randn_like(x) * around(-0.03, 0.06).clamp(min=0)
    return x.clamp(-1, 1)


def augment(x: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Training view of aligned faces.

    x [N,3,S,S], points [N,5,2] -> (pictures [N,3,64,64], their points, eye centres [N,2,2] for the eyes head). The
    eye centres are the frame's, moved with the picture, plus a jitter of 1.5 % of the side: the crops that the head
    will see later, where the frame is all that is known. Points of mirrored pictures are NaN: MTCNN's points sit about
    2 % of the eye distance to one side, and mirrored labels would contradict the others.
    """
    n = x.shape[0]
    matrices = random_matrices(n)
    mirrored = (torch.rand(n) < 0.5).to(x.device)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    points = points.masked_fill(mirrored[:, None, None], float("nan"))
    frame_eyes = torch.tensor(((1 / 3, 0.35), (2 / 3, 0.35))).expand(n, 2, 2)
    eyes = move_points(frame_eyes, matrices) + torch.randn(n, 2, 2) * 0.015
    x = recolour(low_resolutions(warp(x, matrices, SIZE)))
    return x, move_points(points.cpu(), matrices).to(x.device), eyes.to(x.device)


def attribute_losses(outputs: dict[str, Tensor], targets: dict[str, Tensor], points: Tensor) -> dict[str, Tensor]:
    """Mean loss of every head over the rows that have its label (0 where none has): cross-entropies and landmarks.

    targets: float [N], points [N,5,2], NaN = missing. landmarks: mean L1 over the eye distance, so 0.05 is 5 %.
    """
    losses = {}
    for name in HEADS:
        target = targets[name].to(outputs[name].device)
        known = ~target.isnan()
        value = outputs[name][known]
        if not known.any():
            losses[name] = outputs[name].sum() * 0
        elif name == "expression":
            losses[name] = F.cross_entropy(value, target[known].long(), label_smoothing=LABEL_SMOOTHING[name])
        else:
            smooth = LABEL_SMOOTHING[name]
            losses[name] = F.binary_cross_entropy_with_logits(value, target[known] * (1 - smooth) + smooth / 2)
    known = ~points.isnan()
    distance = torch.where(known, outputs["landmarks"] - points.nan_to_num(), 0.0).abs()
    losses["landmarks"] = distance.sum() / known.sum().clamp(min=1) / EYE_DISTANCE
    return losses


def cosine_lr(images_seen: int, total: int, warmup: int) -> float:
    """Factor on the learning rate: linear from 0 over `warmup` images, then half a cosine down to 1 %."""
    if images_seen < warmup:
        return (images_seen + 1) / warmup
    done = min(1.0, (images_seen - warmup) / max(1, total - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


class AttributesStage(Stage):
    """Trains one AttributeNetwork; `model.attributes` chooses backbone and width.

    It draws its own rows, weighted by `sample_weights`: uniform ones would show one yawn in eight.
    """

    name = "attributes"
    ema_names = ("attributes",)
    clipped = ("attributes",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.weights = sample_weights(label_targets(data))
        self.networks = self.build_networks(cfg)
        network = self.networks["attributes"].to(device)
        decay = [p for p in network.parameters() if p.ndim > 1]
        rest = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 0.03}, {"params": rest, "weight_decay": 0.0}]
        self.optimizers = {"attributes": torch.optim.AdamW(groups, lr=cfg.train.lr, betas=tuple(cfg.train.betas))}

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"attributes": AttributeNetwork(cfg.model.attributes.backbone, cfg.model.attributes.width)}

    def draw(self, count: int) -> Tensor:
        return torch.multinomial(self.weights, count, replacement=True)

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """One AdamW step."""
        with torch.no_grad():
            images, points, eyes = augment(batch.images, batch.landmarks)
        if self.cfg.run.channels_last:
            images = images.to(memory_format=torch.channels_last)
        train = self.cfg.train
        for group in self.optimizers["attributes"].param_groups:
            group["lr"] = train.lr * cosine_lr(images_seen, train.total_images, train.warmup_images)
        with self.autocast():
            outputs = self.networks["attributes"](images, eyes)
        losses = attribute_losses(outputs, batch.targets, points)
        total = sum(losses[name] for name in HEADS) + LANDMARK_WEIGHT * losses["landmarks"]
        yield Turn("attributes", total, {"loss": total, **losses})

    @torch.no_grad()
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """Accuracies and landmark error on the validation split (see evaluation/attributes.py)."""
        if self.val is None:
            return {}
        from a3gan.evaluation.attributes import attribute_metrics

        metrics = attribute_metrics(nets["attributes"], self.val)
        return {name: value for name, value in metrics.items() if isinstance(value, float)}

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Half-precision weights (about 1.1 MB) and what `load_attributes` needs to rebuild the network."""
        state = nets["attributes"].state_dict()
        tensors = {f"attributes.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
        model = self.cfg.model.attributes
        return tensors, {"backbone": model.backbone, "width": model.width, "frame": self.cfg.data.frame}
