"""What FALCO minimises, and how its free rows of W+ become a picture."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from a3gan.anonymizers.falco_spaces import Tokens
from a3gan.losses.falco import obfuscation, token_distance
from a3gan.models.steady import SteadySynthesis, steady
from a3gan.scorers.identity import Recogniser

LAMBDA_ID, LAMBDA_ATT = 10.0, 0.1


class Objective:
    """10 |cos(R(x̂), R(x)) - m| + 0.1 Σ_tokens mean |F(x̂) - F(x)| of each face of a batch by itself.

    synthesis, recogniser, tokens: frozen; their layers are swapped for steady ones. rows: first and last free row of
    W+. margin: m. Pictures are clamped to [-1, 1] before they are looked at, as they are when they are kept.
    """

    def __init__(
        self, synthesis: SteadySynthesis, recogniser: Recogniser, tokens: Tokens, frame: str, rows: tuple[int, int],
        margin: float,
    ):  # fmt: skip
        self.synthesis, self.recogniser, self.tokens = synthesis, steady(recogniser), steady(tokens)
        self.frame, self.margin = frame, margin
        self.first, self.last = rows
        # What the free rows do not reach is made once; before row 2 there is no picture yet to go on from.
        self.begin = self.first if self.first >= 2 else 0
        self.sets = 0  # of tokens

    @torch.no_grad()
    def constants(self, x: Tensor, code: Tensor) -> tuple[Tensor, ...]:
        """What stays, of originals x [N, 3, S, S] and their codes [N, L, w_dim]: map, code, R(x), tokens, weights and
        the picture so far, each with N rows."""
        maps, rgb = self.synthesis.render(self.synthesis.start(len(x)), None, code.unbind(1), 0, self.begin)
        with self._autocast(x):
            tokens, target = self.tokens.tokens(x), self.recogniser(x, self.frame, mirror=False)
        self.sets = len(tokens)
        weights = self.tokens.weights(tokens) or [x.new_ones(len(x)) for _ in tokens]
        return (maps, code, target, *tokens, *weights, *([] if rgb is None else [rgb]))

    def render(self, free: Tensor, constants: list[Tensor]) -> Tensor:
        """The picture [N, 3, S, S] of free rows [N, rows, w_dim]; differentiable in them."""
        maps, code = constants[:2]
        rgb = constants[-1] if self.begin else None
        rows = list(code.unbind(1))
        rows[self.first : self.last + 1] = free.unbind(1)
        return self.synthesis.render(maps, rgb, rows, self.begin, self.synthesis.rows)[1].float()

    def __call__(self, free: Tensor, constants: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, cosine and L_att, each [N]; see `falco_descent.Loss`."""
        image = self.render(free, constants).clamp(-1, 1)
        with self._autocast(image):
            embedding, seen = self.recogniser(image, self.frame, mirror=False), self.tokens.tokens(image)
        target, rest = constants[2], constants[3:]
        attribute = token_distance(seen, rest[: self.sets], rest[self.sets : 2 * self.sets])
        loss = LAMBDA_ID * obfuscation(embedding, target, self.margin) + LAMBDA_ATT * attribute
        return loss, (embedding * target).sum(1).detach(), attribute.detach()

    def _autocast(self, x: Tensor) -> contextlib.AbstractContextManager:
        if self.synthesis.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, dtype=self.synthesis.dtype)
