"""How an attacker learns: a head on frozen features first, then the last part of the recogniser, then a whole small
recogniser from the pixels, and both together; what counts is the best stage by people it did not train on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.ranges import to_float
from a3gan.evaluation.attackers.scorers import Tail
from a3gan.evaluation.features import Features

if TYPE_CHECKING:
    from a3gan.scorers.identity import Recogniser

SCALE = 16.0  # of cosines in the softmax
RIDGE = 1.0
LOOKS = 5  # times that a training is measured on the held-out people; the best state is kept


class Head(nn.Module):
    """Affine map of unit embeddings [N, E], the identity less the mean at first: -> unit vectors [N, E]."""

    def __init__(self, embedding: Tensor):
        super().__init__()
        width = embedding.shape[1]
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width))
            self.linear.bias.copy_(-embedding.mean(0))

    def forward(self, embedding: Tensor) -> Tensor:
        return F.normalize(self.linear(embedding))


class Chain(nn.Module):
    """Tail and head: map [N, C, h, w] -> unit vectors [N, E]."""

    def __init__(self, tail: Tail, head: Head):
        super().__init__()
        self.tail, self.head = tail, head

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(self.tail(maps))


class PixelNet(nn.Module):
    """Our small recogniser, all of it trainable, with a linear map behind it: pixels [N, 3, 64, 64] -> unit vectors."""

    def __init__(self, width: int):
        super().__init__()
        from a3gan.scorers.identity import load_recogniser

        self.network = copy.deepcopy(load_recogniser("", "small").network).requires_grad_(True)
        self.linear = nn.Linear(self.network.dim, width)
        if width == self.network.dim:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def aim(self, pixels: Tensor, targets: Tensor) -> None:
        """Sets the linear map to the ridge regression from uint8 pixels [N, 3, 64, 64] to `targets` [N, width]."""
        self.eval()
        device = self.linear.weight.device
        seen = torch.cat([self.network(to_float(x.to(device))).cpu() for x in pixels.split(256)]).double()
        seen = torch.cat([seen, torch.ones(len(seen), 1, dtype=torch.float64)], 1)
        square = seen.T @ seen + RIDGE * torch.eye(seen.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(square, seen.T @ targets.double()).float()
        self.linear.weight.copy_(solution[:-1].T)
        self.linear.bias.copy_(solution[-1])

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.linear(self.network(pixels)))


@dataclass
class Learned:
    """A trained attacker: its stages (None = off the shelf) by name, what each scored on the held-out people, and the
    stage it chose. `joined`, where there is one, adds the vectors of two stages, or stacks them (`stacked`)."""

    stages: dict[str, nn.Module | None]
    scores: dict[str, float]
    part: str = ""  # suffix of the features it reads: "" or "_background"
    stacked: bool = False

    @property
    def chosen(self) -> str:
        return max(self.scores, key=lambda name: self.scores[name])

    def features(self, table: Features, stage: str | None = None) -> np.ndarray:
        """Unit vectors float32 [N, E] of the pictures behind `table`."""
        stage = stage or self.chosen
        if stage != "joined":
            return apply(self.stages[stage], table, self.part)
        both = [self.features(table, name) for name in ("tuned" if "tuned" in self.stages else "head", "pixels")]
        vectors = np.concatenate(both, 1) if self.stacked else both[0] + both[1]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@torch.inference_mode()
def apply(network: nn.Module | None, table: Features, part: str = "", batch: int = 256) -> np.ndarray:
    """`network` on what it reads of a table: its map for a `Chain`, its embedding otherwise (None: as it is)."""
    if network is None:
        return table[f"embedding{part}"]
    device = next(network.parameters()).device
    source = torch.from_numpy(table[_reads(network) + part])
    return torch.cat([network(_float(x.to(device))).cpu() for x in source.split(batch)]).numpy()


def _reads(network: nn.Module) -> str:
    return {Chain: "map", PixelNet: "pixels"}.get(type(network), "embedding")


def _float(x: Tensor) -> Tensor:
    return to_float(x) if x.dtype == torch.uint8 else x.float()


def learn(
    recogniser: Recogniser,
    table: Features,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[np.ndarray], float],
    person: np.ndarray,
    train: np.ndarray,
    device: torch.device,
    *,
    head_steps: int,
    tune_steps: int,
    pixel_steps: int,
    batch: int,
    seed: int,
    part: str = "",
    title: str = "",
    target: np.ndarray | None = None,
) -> Learned:
    """Head; tail and head together; a small recogniser from the pixels; the last two together.

    loss: (vectors [B, E], rows int64 [B]) -> scalar. score: vectors of all rows [N, E] -> what is to be large on the
    held-out people. target [N, E]: what the vectors are compared with, if that is fixed. person int64 [N]; train bool
    [N].
    """
    embedding = torch.from_numpy(table[f"embedding{part}"]).to(device)
    rows = torch.from_numpy(np.flatnonzero(train))
    draw = pair_sampler(torch.from_numpy(person)[rows], rows, batch)
    stages: dict[str, nn.Module | None] = {"off_the_shelf": None}
    head = Head(embedding[rows.to(device)]).to(device)
    fit(head, lambda r: loss(head(embedding[r.to(device)]), r), draw, head_steps, 1e-3, seed,
        lambda: score(apply(head, table, part)), f"{title} head")  # fmt: skip
    stages["head"] = head
    if f"map{part}" in table and tune_steps:
        maps = torch.from_numpy(table[f"map{part}"])
        chain = Chain(Tail(recogniser.network), copy.deepcopy(head)).to(device)
        fit(chain, lambda r: loss(chain(maps[r].to(device).float()), r), draw, tune_steps, 4e-4, seed + 1,
            lambda: score(apply(chain, table, part)), f"{title} fine-tuning")  # fmt: skip
        stages["tuned"] = chain
    if f"pixels{part}" in table and pixel_steps:
        pixels = torch.from_numpy(table["pixels"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 2)
            small = PixelNet(embedding.shape[1]).to(device)
        if target is not None:
            small.aim(pixels[rows], torch.from_numpy(target)[rows])
        fit(small, lambda r: loss(small(to_float(pixels[r].to(device))), r), draw, pixel_steps, 7e-4, seed + 2,
            lambda: score(apply(small, table, part)), f"{title} pixels")  # fmt: skip
        stages |= {"pixels": small, "joined": None}
    learned = Learned(stages, {}, part, stacked=target is None)
    learned.scores = {name: round(score(learned.features(table, name)), 6) for name in stages}
    return learned


def pair_sampler(person: Tensor, rows: Tensor, batch: int) -> Callable[[torch.Generator], Tensor]:
    """Draws batches of `batch` // 2 people with two pictures each, as entries of `rows`."""
    from a3gan.data.archive import pxq_indices

    _, counts = person.unique(return_counts=True)
    people = min(batch // 2, int((counts > 1).sum()))
    return lambda generator: rows[pxq_indices(person, people, 2, generator)]


def fit(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    draw: Callable[[torch.Generator], Tensor],
    steps: int,
    rate: float,
    seed: int,
    score: Callable[[], float] | None = None,
    title: str = "",
) -> None:
    """AdamW with a cosine schedule; everything random comes from `seed`. `score`, if given, is asked `LOOKS` times (and
    before the first step) and the best state stays."""
    from tqdm import tqdm

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    best, state = (score() if score else 0.0), copy.deepcopy(network.state_dict())
    looks = {round(steps * (i + 1) / LOOKS) for i in range(LOOKS)}
    for step in tqdm(range(1, steps + 1), desc=title, unit="step", leave=False, dynamic_ncols=True):
        network.train()
        value = loss(draw(generator))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if score and step in looks:
            network.eval()
            now = score()
            if now > best:
                best, state = now, copy.deepcopy(network.state_dict())
    if score:
        network.load_state_dict(state)
    network.eval()


def within_batch(person: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    """Supervised contrastive loss (Khosla et al. 2020) among the vectors of a batch, labels `person` [N]."""
    labels = torch.from_numpy(person)

    def loss(vectors: Tensor, rows: Tensor) -> Tensor:
        who = labels[rows].to(vectors.device)
        own = torch.eye(len(rows), dtype=torch.bool, device=vectors.device)
        logits = (SCALE * vectors @ vectors.T).masked_fill(own, -torch.inf)
        same = (who[:, None] == who[None]) & ~own
        return _pull(logits, same)

    return loss


def against_gallery(gallery: np.ndarray, person: np.ndarray, train: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    """The same against fixed vectors [N, E] of the training people's other pictures, and their own."""
    columns = torch.from_numpy(np.flatnonzero(train))
    fixed, labels = torch.from_numpy(gallery)[columns], torch.from_numpy(person)

    def loss(vectors: Tensor, rows: Tensor) -> Tensor:
        logits = SCALE * vectors @ fixed.to(vectors).T
        same = labels[rows][:, None] == labels[columns][None]
        return _pull(logits, same.to(vectors.device))

    return loss


def _pull(logits: Tensor, same: Tensor) -> Tensor:
    likely = logits - logits.logsumexp(1, keepdim=True)
    return -(likely.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)).mean()
