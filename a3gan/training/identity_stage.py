"""Stage `identity`: our own small recogniser, by distilling a larger one, by telling people apart, or both.

With a recogniser in `scorers.recognisers` the student learns its embedding of every training face, cosine by cosine;
rendered people are added to the photos, so that it tells those apart as well. Without one it learns from identities
alone (CosFace, Wang et al. 2018), which is what rendered faces are for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.data.augment import augment
from a3gan.errors import UserError
from a3gan.scorers.attributes import resize
from a3gan.scorers.guard import fingerprint
from a3gan.scorers.identity import load_recogniser, wanted_files
from a3gan.scorers.small_identity import SIZE, SmallIdentity
from a3gan.training.attributes_stage import cosine_lr, low_resolutions
from a3gan.training.distributed import is_first
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)
CLASS_WEIGHT = 0.05  # of the class term beside a teacher; without one it is all there is
SCALE, MARGIN = 24.0, 0.2  # CosFace; mild, for people with two or three pictures


class CosFace(nn.Module):
    """Cross-entropy over cosines to one learned centre per person, the right one handicapped by a margin."""

    def __init__(self, dim: int, people: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(people, dim) / dim**0.5)

    def forward(self, embeddings: Tensor, person: Tensor) -> Tensor:
        """Unit embeddings [N,E], class [N] (int64) -> loss [N], 0 or more."""
        cosine = embeddings @ F.normalize(self.centres).T
        cosine = cosine - MARGIN * F.one_hot(person, len(self.centres))
        return F.cross_entropy(SCALE * cosine, person, reduction="none")


def classes_of(identity: Tensor) -> Tensor:
    """Identities int64 [N] (-1 unknown) -> classes [N]: 0.. for people with two or more pictures, else -1."""
    known, inverse, counts = identity.unique(return_inverse=True, return_counts=True)
    able = (known >= 0) & (counts >= 2)
    number = torch.where(able, able.cumsum(0) - 1, torch.full_like(known, -1))
    return number[inverse]


def verification(embeddings: Tensor, identity: Tensor) -> dict[str, float]:
    """How well unit embeddings [N,E] tell people [N] apart: all pairs with known identities.

    genuine, impostor: mean cosines; matches_at_1e-2: share of genuine pairs above the threshold that 1 % of the
    impostors pass; rank1: share of pictures whose nearest other picture is of the same person (people with two).
    """
    rows = identity >= 0
    embeddings, identity = embeddings[rows].float(), identity[rows]
    cosine = embeddings @ embeddings.T
    same = identity[:, None] == identity[None]
    upper = torch.ones_like(same).triu(1)
    genuine, impostor = cosine[same & upper], cosine[~same & upper]
    if len(genuine) == 0 or len(impostor) == 0:
        return {}
    # kthvalue rather than quantile: torch's quantile stops at 16 million values
    threshold = impostor.kthvalue(max(1, int(0.99 * len(impostor)))).values
    several = (same.sum(1) > 1).nonzero()[:, 0]
    nearest = cosine.fill_diagonal_(-2)[several].argmax(1)
    return {
        "genuine": float(genuine.mean()),
        "impostor": float(impostor.mean()),
        "matches_at_1e-2": float((genuine > threshold).float().mean()),
        "rank1": float((identity[nearest] == identity[several]).float().mean()),
    }


class IdentityStage(Stage):
    """Trains one SmallIdentity. It draws its own rows, for it adds rendered people to the trainer's data."""

    name = "identity"
    ema_names = ("identity",)
    clipped = ("identity",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        if cfg.data.path is not None:
            data = self._with_rendered(cfg, data)
        super().__init__(cfg, data, val, device)
        self.classes = classes_of(data.identity).to(self.device)
        self.teacher_rows: Tensor | None = None  # [N,E], of the training faces; at the first step
        if not cfg.scorers.recognisers and self.classes.max() < 1:
            raise UserError(
                "stage identity: no recogniser to learn from (scorers.recognisers) and no two people with two pictures"
            )
        self.networks = self.build_networks(cfg)
        self.networks["classes"] = CosFace(cfg.model.identity.dim, max(1, int(self.classes.max()) + 1))
        parameters = []
        for network in self.networks.values():
            network.to(device)
            parameters += list(network.parameters())
        rest = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.03}]
        groups.append({"params": rest, "weight_decay": 0.0})
        self.optimizers = {"identity": torch.optim.AdamW(groups, lr=cfg.train.lr, betas=tuple(cfg.train.betas))}

    @staticmethod
    def _with_rendered(cfg: Config, data: FaceSet) -> FaceSet:
        from a3gan.data.archive import FaceSet
        from a3gan.data.synthetic import synthetic_faces

        rendered = synthetic_faces(cfg.data.synthetic_count, data.size, cfg.data.synthetic_seed, frame=data.frame)
        return FaceSet.concat([data, rendered]) if data.images is not None else data

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"identity": SmallIdentity(cfg.model.identity.width, cfg.model.identity.dim)}

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        return {"identity": (torch.zeros(batch, 3, SIZE, SIZE),)}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        return checkpoint.missing(wanted_files(cfg.scorers.recognisers[:1]))

    @torch.no_grad()
    def _teach(self) -> Tensor:
        """The teacher's embeddings of all training faces [N,E]: they never change, so once a run is enough."""
        wanted, frame = self.cfg.scorers.recognisers[0], self.data.frame
        teacher = load_recogniser(wanted.path, wanted.kind).to(self.device)
        path = self.cfg.run_dir / "teacher.safetensors"
        faces = {f"{i} {name}": self.data.landmarks[i] for i, name in enumerate(self.data.files)}
        known = {"teacher": teacher.fingerprint, "faces": fingerprint("faces", faces)}
        if path.is_file():
            tensors, meta = checkpoint.load(path)
            if all(meta.get(key) == value for key, value in known.items()):
                return tensors["embeddings"].to(self.device)
        logger.info("the teacher, %s, looks at %d faces once", teacher.family, len(self.data))
        rows = torch.arange(len(self.data)).split(64)
        with self.autocast():
            parts = [teacher(self.data.fetch(i).to(self.device), frame).float() for i in rows]
        if is_first():
            checkpoint.save(path, {"embeddings": torch.cat(parts)}, known)
        return torch.cat(parts)

    def draw(self, count: int) -> Tensor:
        return torch.randint(len(self.data), (count,))

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """One AdamW step."""
        if self.teacher_rows is None and self.cfg.scorers.recognisers:
            self.teacher_rows = self._teach()
        with torch.no_grad():
            images, _ = augment(resize(batch.images, SIZE), rotate=4.0, scale=(0.95, 1.05), shift=0.015)
            images = low_resolutions(images, smallest=28)
        if self.cfg.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        train = self.cfg.train
        for group in self.optimizers["identity"].param_groups:
            group["lr"] = train.lr * cosine_lr(images_seen, train.total_images, train.warmup_images)
        with self.autocast():
            embeddings = self.networks["identity"](images)
        losses = self._losses(embeddings.float(), batch)
        yield Turn("identity", losses["loss"], losses)

    def _losses(self, embeddings: Tensor, batch: Batch) -> dict[str, Tensor]:
        """distil: 1 - cosine to the teacher; people: CosFace over the rows whose person has two pictures."""
        losses = {}
        person = self.classes[batch.index]
        rows = person >= 0
        people = self.networks["classes"](embeddings[rows], person[rows]).sum() / max(1, int(rows.sum()))
        losses["people"] = people
        if self.teacher_rows is None:
            return {**losses, "loss": people}
        losses["distil"] = (1 - (embeddings * self.teacher_rows[batch.index]).sum(1)).mean()
        return {**losses, "loss": losses["distil"] + CLASS_WEIGHT * people}

    @torch.no_grad()
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """`verification` on the validation split."""
        if self.val is None or len(self.val) < 2:
            return {}
        rows = torch.arange(len(self.val)).split(128)
        parts = [nets["identity"](resize(self.val.fetch(i).to(self.device), SIZE)).cpu() for i in rows]
        return verification(torch.cat(parts), self.val.identity)

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Half-precision weights (about 1.8 MB) and what `load_recogniser` needs; the class centres stay behind."""
        state = nets["identity"].state_dict()
        tensors = {f"identity.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
        model = self.cfg.model.identity
        teachers = [r.kind for r in self.cfg.scorers.recognisers[:1]]
        return tensors, {"width": model.width, "dim": model.dim, "frame": self.cfg.data.frame, "teachers": teachers}
