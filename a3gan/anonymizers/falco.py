"""FALCO (Barattin, Tzelepis, Patras, Sebe; CVPR 2023, arXiv 2303.11296): anonymising by optimising a latent code.

For every face: invert it to W+, take the nearest generated face of a pool, and let Adam move rows 3 to 7 of W+, from
that neighbour's, until the recogniser says m and the looks are the original's. Nothing is trained. The published
setting is StyleGAN2-FFHQ at 1024 px, e4e, FaRL and ArcFace IR-SE50; this is its algorithm on the networks at hand.

Differences from the released code, on purpose: our encoder inverts, several faces run at once, a face that has settled
stops, pictures keep their range (theirs are stretched to their own extremes and saved as JPEG of quality 75), and FaRL
gets its normalised input. The recogniser is any of `scorers.identity`; ArcFace IR-SE50 is not among them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from a3gan.anonymizers.a3gan import dtype_of
from a3gan.anonymizers.base import FaceAnonymizer, face_seed, pick_device
from a3gan.anonymizers.falco_descent import Trace, descend
from a3gan.anonymizers.falco_objective import Objective
from a3gan.anonymizers.falco_pool import load_model, load_pool
from a3gan.anonymizers.falco_spaces import load_space
from a3gan.data.attributes import Policy
from a3gan.errors import UserError
from a3gan.models.steady import LEAST, SteadySynthesis
from a3gan.scorers.identity import load_recogniser

log = logging.getLogger(__name__)
T = TypeVar("T")
DEFAULT_POOL = "falco_64"
RATE = 0.01
BATCH = {"cpu": 16, "cuda": 128}  # faces optimised at once
NEIGHBOURS = ("nearest", "seed")


class Falco(FaceAnonymizer):
    """10 |cos(R(x̂), R(x)) - m| + 0.1 Σ_tokens mean |F(x̂) - F(x)|, minimised over a few rows of W+.

    Args:
        weights: the pool of generated faces, a path or shipped name; it names its generator and encoder.
        device: None or 'auto' = cuda where there is one.
        margin: m, the cosine that is aimed at, from either side; the paper's experiments use 0.
        steps: of Adam. rows: first and last row of W+ that it moves.
        neighbour: where it starts. 'nearest', as published: the face of the pool nearest in `space`; there is no
            randomness then, and a seed changes nothing. 'seed': a face of the pool by the seed alone, for clips: the
            nearest face would change from frame to frame and the person with it. So `supports` has 'seed' with the
            latter only.
        space: 'attributes', 'identity' or 'farl', of the search; None = FaRL's where `farl` is given, else attributes.
        farl: FaRL's weights (`scorers.farl`); the looks are then its tokens, as published, else those of
            `attributes_loss`. Make the pool with scorers.farl as well, or its faces are looked at at every start.
        recogniser, recogniser_weights: R, kind and file as `scorers.identity.load_recogniser` takes them.
        model: the A3GAN checkpoint that the pool belongs to, where it is neither shipped nor beside the pool.
        precision: fp32, or bf16 for the generator's and the scorers' maps (a face then depends on its batch as well).
        log: a file to which one JSON line a face is added: cosine and attribute loss at every step.

    On a CPU a face is the same in any batch and on any number of cores. A GPU gets batches of one size and convolutions
    in a fixed order; recognisers that crop, and FaRL, still have gradients there that add in any order, and fifty steps
    make that visible.

    `history` holds the traces of the last call, one a face. A face is done at once or not at all; a run over a folder
    goes on, after a kill, with the pictures that its journal does not list as done.

    Raises UserError: missing, foreign or unmatched files; an option out of its range.
    """

    name = "falco"
    synthesises = True

    def __init__(
        self, weights: str | Path = DEFAULT_POOL, device: str | torch.device | None = None, *, margin: float = 0.0,
        steps: int = 50, rows: tuple[int, int] = (3, 7), neighbour: str = "nearest", space: str | None = None,
        farl: str | Path | None = None, recogniser: str = "small", recogniser_weights: str | Path = "",
        model: str | Path | None = None, precision: str = "fp32", log: str | Path | None = None,
    ):  # fmt: skip
        self.device = pick_device(device)
        self.dtype = dtype_of(precision)
        self.pool, meta, self.path = load_pool(weights)
        self.inverter = load_model(meta, self.path, model, self.device)
        self.frame, self.size = self.inverter.frame, self.inverter.size
        self.model = self.inverter.model
        self.generator = self.model.generator
        _check(margin, steps, rows, neighbour, self.generator.rows)
        self.margin, self.steps, self.rows, self.neighbour = float(margin), int(steps), tuple(rows), neighbour
        self.supports = frozenset({"seed"} if neighbour == "seed" else ())
        looks = "attributes" if farl is None else "farl"
        judge = load_recogniser(recogniser_weights, recogniser).to(self.device)
        tokens = load_space(looks, self.frame, farl=farl).to(self.device)
        self.space = load_space(space or looks, self.frame, farl=farl).to(self.device)
        synthesis = SteadySynthesis(self.generator, self.dtype).to(self.device)
        self.objective = Objective(synthesis, judge, tokens, self.frame, self.rows, self.margin)
        self.pool = self.pool.to(self.device)
        self.batch = BATCH.get(self.device.type, 16)
        if neighbour == "nearest" and meta.get("features") != self.space.fingerprint:
            self.pool.features = self._embed_pool()
        used = {judge.fingerprint, tokens.fingerprint, self.space.fingerprint}
        self.meta = meta | {"scorers": sorted(used | set(self.inverter.meta.get("scorers", [])))}
        self.log = None if log is None else Path(log)
        self.history: list[Trace] = []

    def networks(self) -> list[torch.nn.Module]:
        """Encoder and generator, the pool, and what is looked through."""
        model, objective = self.model, self.objective
        return [
            model.encoder, model.fusion, model.generator, self.pool, self.space, objective.recogniser, objective.tokens
        ]  # fmt: skip

    @property
    def rounds(self) -> int:
        """Steps of Adam, forward and backward each."""
        return self.steps

    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        from tqdm import tqdm

        workers, size = 1, self.batch
        if self.device.type == "cpu":
            workers = torch.get_num_threads()
            size = min(size, max(LEAST, -(-len(faces) // workers)))
        cuts = range(0, len(faces), size)
        with tqdm(total=len(cuts) * self.steps, desc=self.name, disable=None, leave=False) as bar:

            def one(start: int) -> tuple[Tensor, list[Trace], list[int]]:
                x = faces[start : start + size].contiguous(memory_format=torch.channels_last)
                return self._optimise(x, seeds[start : start + size], bar.update)

            parts = _beside_each_other(one, cuts, workers) if self.device.type == "cpu" else [one(i) for i in cuts]
        images, traces, chosen = zip(*parts, strict=True)
        self.history = [trace for some in traces for trace in some]
        self._write(self.history, [start for some in chosen for start in some])
        return torch.cat(images)

    @torch.no_grad()
    def starts(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """The face of the pool, int64 [N], from which each of x [N, 3, S, S] starts."""
        if self.neighbour == "seed":
            drawn = [face_seed(self.name, seed) % len(self.pool) for seed in seeds]
            return torch.tensor(drawn, device=self.device)
        return self._alone(lambda one: (self.space.embed(one) @ self.pool.features.T).argmax(1), x)

    @torch.no_grad()
    def invert(self, x: Tensor) -> Tensor:
        """W+ [N, L, w_dim] of faces [N, 3, S, S]: the encoder's plain reconstruction."""
        return self._alone(lambda one: self.model.fusion(self.model.encoder(one, one.new_zeros(len(one))).features), x)

    @torch.no_grad()
    def _optimise(
        self, x: Tensor, seeds: list[int], ticks: Callable[[], object]
    ) -> tuple[Tensor, list[Trace], list[int]]:
        """Pictures [N, 3, S, S] of one batch, the way of each face, and where in the pool it started."""
        count, least = len(x), LEAST if self.device.type == "cpu" else self.batch
        if count < least:  # a batch of a size at which its size does not show
            x = torch.cat([x, x[-1:].expand(least - count, -1, -1, -1)]).contiguous(memory_format=torch.channels_last)
            seeds = seeds + seeds[-1:] * (least - count)
        chosen, objective = self.starts(x, seeds), self.objective
        constants = list(self._alone(objective.constants, x, self.invert(x)))
        first, last = self.rows
        free = self._alone(lambda one: self.pool.w_plus(one, self.generator.rows)[:, first : last + 1], chosen)
        with self._repeatable():
            free, traces = descend(
                objective, free, constants, steps=self.steps, rate=RATE, margin=self.margin, least=least, ticks=ticks
            )
        return objective.render(free, constants)[:count], traces[:count], chosen.tolist()[:count]

    def _alone(self, work: Callable[..., Any], *inputs: Tensor) -> Any:
        """`work` on one face after the other and the results joined (tensors, or tuples of them): to the bit what a
        face alone gives, for fifty steps make another face of the last bit (`models.steady`). Not on a GPU."""
        if self.device.type != "cpu":
            return work(*inputs)
        parts = [work(*(t[i : i + 1] for t in inputs)) for i in range(len(inputs[0]))]
        return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts, strict=True)))

    def _repeatable(self) -> contextlib.AbstractContextManager:
        """On a GPU, only convolutions that add in a fixed order."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=True, deterministic=True)

    @torch.no_grad()
    def _embed_pool(self) -> Tensor:
        """Features of a space that the file has none of: all faces rendered and looked at."""
        log.info("%s: made without features of %s; making them", self.path, type(self.space).__name__)
        parts = torch.arange(len(self.pool), device=self.device).split(64)
        return torch.cat([self.space.embed(self.pool.render(self.generator, part)) for part in parts])

    def _write(self, traces: Sequence[Trace], chosen: Sequence[int]) -> None:
        if self.log is None:
            return
        with open(self.log, "a", encoding="utf-8") as file:
            for trace, start in zip(traces, chosen, strict=True):
                line = {
                    "start": start, "margin": self.margin, "stopped": trace.stopped,
                    "cosine": [round(c, 4) for c in trace.cosine], "attribute": [round(a, 3) for a in trace.attribute],
                }  # fmt: skip
                file.write(json.dumps(line) + "\n")

    def acceptable(self, before: Tensor, after: Tensor) -> Tensor:
        """bool [N]: finite, and the five points are where they were, as method a3gan checks it."""
        return self.inverter.acceptable(before, after)


def _beside_each_other(work: Callable[[int], T], items: Iterable[int], workers: int) -> list[T]:
    """`work` of each item, on `workers` cores with one thread of torch's each.

    Several threads within one operation would share it out by the size of the batch, and so add in another order.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(before)


def _check(margin: float, steps: int, rows: tuple[int, int], neighbour: str, count: int) -> None:
    if not -1 <= margin <= 1:
        raise UserError(f"method falco: margin {margin}: a cosine, from -1 to 1; 0 = a stranger")
    if steps < 1:
        raise UserError(f"method falco: steps {steps}: must be at least 1; the paper takes 50")
    if len(rows) != 2 or not 0 <= rows[0] <= rows[1] < count:
        raise UserError(f"method falco: rows {tuple(rows)}: first and last row of W+, from 0 to {count - 1}")
    if neighbour not in NEIGHBOURS:
        raise UserError(f"method falco: neighbour {neighbour!r} is unknown; known: {', '.join(NEIGHBOURS)}")
