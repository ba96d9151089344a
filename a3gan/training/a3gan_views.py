"""What stage `a3gan` shows of itself: a fixed sheet of faces, and numbers on the validation people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.data.attributes import SCHEMA, Policy, slices
from a3gan.models.a3gan import A3GAN
from a3gan.scorers.landmarks import eye_distance

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.training.loss_scorers import LossScorers

SHEET_ROWS = (("expression", 1), ("expression", 2), ("everything", 1), ("everything", 2))  # (policy, seed)
SHEET_FACES = 10
VALIDATION_FACES = 256
CHUNK = 32


def seed_codes(seeds: list[int], z_dim: int, device: torch.device) -> Tensor:
    """One N(0, I) vector for each seed, drawn on the CPU so that a seed is the same face on every device: [N, z_dim]."""
    return torch.stack([torch.randn(z_dim, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(device)


@torch.no_grad()
def render(model: A3GAN, scorers: LossScorers, x: Tensor, policy: str, seed: int, alpha: float = 1.0) -> Tensor:
    """Faces [N, 3, S, S] under one policy and one seed."""
    n = len(x)
    c = Policy.parse(policy).vector().to(x.device).expand(n, -1)
    z = seed_codes([seed] * n, model.ainet.z_dim, x.device)
    a = scorers.view(x).logits
    return model(x, a, c, z, torch.full((n,), alpha, device=x.device)).image


def sheet(model: A3GAN, scorers: LossScorers, faces: FaceSet, device: torch.device) -> Tensor:
    """Columns: the first faces of the set. Rows: original, reconstruction, then ``SHEET_ROWS``. [3, H, W] in [-1, 1]."""
    count = min(SHEET_FACES, len(faces))
    spread = torch.linspace(0, len(faces) - 1, count).long()  # neighbours in an archive are often one person
    x = faces.fetch(spread).to(device)
    rows = [x, model.reconstruct(x)] + [render(model, scorers, x, policy, seed) for policy, seed in SHEET_ROWS]
    grid = torch.stack([row.float().cpu() for row in rows])  # [rows, faces, 3, S, S]
    return grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).clamp(-1, 1)


@torch.no_grad()
def validate(model: A3GAN, scorers: LossScorers, faces: FaceSet | None, device: torch.device) -> dict[str, float]:
    """On validation faces, by the scorers of the losses (so these numbers steer training and prove nothing).

    reconstruction_l1 in [0, 2]; identity_*: mean cosine to the original at alpha = 0 and 1; two_seeds: cosine between
    two seeds; smile_agreement: share whose smiling-or-neutral decision stayed; landmark_error: in eye distances.
    """
    if faces is None or len(faces) == 0:
        return {}
    sums: dict[str, float] = {}
    count = min(VALIDATION_FACES, len(faces))
    chosen = torch.linspace(0, len(faces) - 1, count).long()
    for rows in chosen.split(CHUNK):
        x = faces.fetch(rows).to(device)
        seen = scorers.view(x)
        plain, first, second = model.reconstruct(x), *(render(model, scorers, x, "expression", s) for s in (1, 2))
        now = scorers.view(first)
        smile = slices(SCHEMA)["expression"].start
        agree = (now.logits[:, smile + 1] > now.logits[:, smile]) == (seen.logits[:, smile + 1] > seen.logits[:, smile])
        off = (now.landmarks - seen.landmarks).norm(dim=2).mean(1) / eye_distance(seen.landmarks)
        values = {
            "reconstruction_l1": (plain - x).abs().mean((1, 2, 3)),
            "smile_agreement": agree.float(),
            "landmark_error": off,
        }
        if scorers.recognisers:
            old, zero, one, two = (scorers.embed(images)[0].float() for images in (x, plain, first, second))
            values["identity_reconstructed"] = (zero * old).sum(1)
            values["identity_anonymised"] = (one * old).sum(1)
            values["two_seeds"] = (one * two).sum(1)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value.sum())
    return {name: value / count for name, value in sums.items()}
