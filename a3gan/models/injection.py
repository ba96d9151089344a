"""AINet, the attribute-aware injective network: proposes attributes under a policy and writes them into W+.

A3GAN (Zhai et al., ACM MM 2022) states its task; the equations are ours (docs/METHOD.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.attributes import SCHEMA, Schema, expand, to_values, widths
from a3gan.models.ops import EqualLinear

GENTLE_FROM = 7  # rows from here on paint skin and light; injected at a fifth, or both drift
GENTLE = 0.2
LIMIT = 6.0  # logits of the proposal stay within +-6, values within about (0.0025, 0.9975)


@dataclass
class Injection:
    """delta [N, L, w_dim]: Delta_i of each row. proposal [N, D]: logits of a*. code [N, code]: e."""

    delta: Tensor
    proposal: Tensor
    code: Tensor


def seed_codes(seeds: Sequence[int], width: int) -> Tensor:
    """z of each seed: float32 [N, width] ~ N(0, I), drawn on the CPU: a seed is the same face on every device."""
    rows = [torch.randn(width, generator=torch.Generator().manual_seed(int(s) % 2**63)) for s in seeds]
    return torch.stack(rows) if rows else torch.zeros(0, width)


class AINet(nn.Module):
    """a* = c ⊙ f(a, c, z) + (1 - c) ⊙ a;  e = MLP_e[a*; a* - a; c; z];  Delta_i = g_i (gamma_i LN(w_i) + beta_i).

    Args:
        rows, w_dim: of W+. z_dim: of the seed. hidden, code: widths. policy: False hides c from every network and lets
        it all change (ablation "AINet without c").
    """

    def __init__(
        self, rows: int, w_dim: int, *, z_dim: int = 64, hidden: int = 256, code: int = 256, policy: bool = True,
        schema: Schema = SCHEMA,
    ):
        super().__init__()
        self.schema, self.policy, self.rows, self.w_dim, self.z_dim = schema, policy, rows, w_dim, z_dim
        flat, k = sum(widths(schema)), len(schema)
        self.propose = nn.Sequential(nn.Linear(flat + k + z_dim, hidden), nn.SiLU(), nn.Linear(hidden, flat))
        self.encode = nn.Sequential(
            nn.Linear(2 * flat + k + z_dim, hidden), nn.SiLU(), nn.Linear(hidden, code), nn.SiLU()
        )
        # Equalised for the same reason as the fusion's heads: they write into W+.
        self.scale = EqualLinear(code, rows * w_dim)  # gamma
        self.shift = EqualLinear(code, rows * w_dim)  # beta
        self.gate = EqualLinear(code, rows)  # u
        with torch.no_grad():
            self.scale.weight.mul_(0.3)
            self.shift.weight.mul_(0.3)
        gentle = torch.tensor([GENTLE if i >= GENTLE_FROM else 1.0 for i in range(rows)])
        self.register_buffer("row_gain", gentle, persistent=False)

    def propose_attributes(self, a: Tensor, c: Tensor, z: Tensor) -> Tensor:
        """Logits of a* [N, D]; what may not change is copied from ``a`` exactly, so control is exact by construction.

        a [N, D] logits of the raw face, c [N, K] in {0, 1} (1: may change), z [N, z_dim].
        """
        a = a.clamp(-LIMIT, LIMIT)
        change = expand(c, self.schema)
        moved = (a + self.propose(torch.cat([a, c, z], 1)).float()).clamp(-LIMIT, LIMIT)
        return torch.where(change > 0.5, moved, a)

    def forward(self, w_sup: Tensor, a: Tensor, c: Tensor, z: Tensor) -> Injection:
        """w_sup [N, L, w_dim], a [N, D] logits, c [N, K], z [N, z_dim]."""
        c = c if self.policy else torch.ones_like(c)
        proposal = self.propose_attributes(a, c, z)
        new, old = to_values(proposal, self.schema), to_values(a.clamp(-LIMIT, LIMIT), self.schema)
        seen = c if self.policy else torch.zeros_like(c)
        e = self.encode(torch.cat([new, new - old, seen, z], 1))
        shape = (len(e), self.rows, self.w_dim)
        gamma, beta = self.scale(e).reshape(shape).float(), self.shift(e).reshape(shape).float()
        g = torch.sigmoid(self.gate(e)).float() * self.row_gain
        delta = g[:, :, None] * (gamma * F.layer_norm(w_sup.float(), (self.w_dim,)) + beta)
        return Injection(delta, proposal, e)


class InjectionReader(nn.Module):
    """MLP_d of the injective loss: reads logits of a* [N, D] back from w' - w^sup [N, L, w_dim]. Training only."""

    def __init__(self, rows: int, w_dim: int, hidden: int = 256, schema: Schema = SCHEMA):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(rows * w_dim, hidden), nn.SiLU(), nn.Linear(hidden, sum(widths(schema)))
        )

    def forward(self, delta: Tensor) -> Tensor:
        """[N, L, w_dim] -> [N, D]."""
        return self.layers(delta.flatten(1)).float()
