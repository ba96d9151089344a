"""What stage `a3gan` shows of itself: a fixed sheet of faces, and numbers on the validation people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.data.attributes import SCHEMA, Policy, slices
from a3gan.models.a3gan import A3GAN
from a3gan.models.injection import seed_codes
from a3gan.scorers.landmarks import eye_distance

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.scorers.identity import Recogniser
    from a3gan.training.loss_scorers import LossScorers

SHEET_ROWS = (("expression", 1), ("expression", 2), ("everything", 1), ("everything", 2))  # (policy, seed)
SHEET_FACES = 10
VALIDATION_FACES = 256
CHUNK = 32


@torch.no_grad()
def render(
    model: A3GAN, scorers: LossScorers, x: Tensor, policy: str, seed: int | Sequence[int], alpha: float = 1.0
) -> Tensor:
    """Faces [N, 3, S, S] under one policy and one seed, or one each."""
    n = len(x)
    seeds = [seed] * n if isinstance(seed, int) else list(seed)
    c = Policy.parse(policy).vector().to(x.device).expand(n, -1)
    z = seed_codes(seeds, model.ainet.z_dim).to(x.device)
    a = scorers.view(x).logits
    return model(x, a, c, z, torch.full((n,), alpha, device=x.device)).image


def sheet(model: A3GAN, scorers: LossScorers, faces: FaceSet, device: torch.device) -> Tensor:
    """Columns: faces spread over the set. Rows, named at the left: original, reconstruction, then ``SHEET_ROWS``.

    float [3, H, W] in [-1, 1].
    """
    count = min(SHEET_FACES, len(faces))
    spread = torch.linspace(0, len(faces) - 1, count).long()  # neighbours in an archive are often one person
    x = faces.fetch(spread).to(device)
    rows = [x, model.reconstruct(x)] + [render(model, scorers, x, policy, seed) for policy, seed in SHEET_ROWS]
    names = ["original", "reconstruction"] + [f"{policy}\nseed {seed}" for policy, seed in SHEET_ROWS]
    grid = torch.stack([row.float().cpu() for row in rows])  # [rows, faces, 3, S, S]
    picture = grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).clamp(-1, 1)
    return torch.cat([row_names(names, x.shape[-1]), picture], 2)


def row_names(names: list[str], height: int) -> Tensor:
    """A strip with one name a row of `height` px, black on white: float [3, rows * height, width] in [-1, 1]."""
    from PIL import Image, ImageDraw, ImageFont

    from a3gan.data.ranges import from_pil, to_float

    font = ImageFont.load_default(max(10, height // 5))
    strip = Image.new("RGB", (round(1.6 * height), len(names) * height), "white")
    draw = ImageDraw.Draw(strip)
    for row, name in enumerate(names):
        draw.multiline_text((height // 16, (row + 0.5) * height), name, fill="black", font=font, anchor="lm")
    return to_float(from_pil(strip))


@torch.no_grad()
def validate(
    model: A3GAN, scorers: LossScorers, faces: FaceSet | None, device: torch.device, watcher: Recogniser | None = None
) -> dict[str, float]:
    """On validation faces, by the scorers of the losses (so these numbers steer training and prove nothing).

    reconstruction_l1 in [0, 2]; identity_*: mean cosine to the original at alpha = 0 and 1, and (strangers) between
    originals of different people; two_seeds: cosine between two seeds, another two for every face (a model may take two
    given seeds for one and still know many people); smile_agreement: share whose
    smiling-or-neutral decision stayed; landmark_error: in eye distances. watched_*: the cosines by `watcher`, a
    recogniser that no loss uses.
    """
    if faces is None or len(faces) == 0:
        return {}
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    count = min(VALIDATION_FACES, len(faces))
    chosen = torch.linspace(0, len(faces) - 1, count).long()
    for rows in chosen.split(CHUNK):
        x = faces.fetch(rows).to(device)
        person = faces.identity[rows.to(faces.identity.device)].to(device)
        for name, value in _measure(model, scorers, x, person, watcher, 2 * int(rows[0])).items():
            value = value[~value.isnan()]
            sums[name] = sums.get(name, 0.0) + float(value.sum())
            counts[name] = counts.get(name, 0) + len(value)
    return {name: value / counts[name] for name, value in sums.items() if counts[name]}


def _measure(
    model: A3GAN, scorers: LossScorers, x: Tensor, person: Tensor, watcher: Recogniser | None, seed: int
) -> dict[str, Tensor]:
    """The numbers of `validate` for one chunk: name -> [N], NaN where there is none. person [N]: -1 = unknown; seed:
    the first of 2 N."""
    seen, n = scorers.view(x), len(x)
    seeds = range(seed, seed + n), range(seed + n, seed + 2 * n)
    plain, first, second = model.reconstruct(x), *(render(model, scorers, x, "expression", s) for s in seeds)
    now = scorers.view(first)
    smile = slices(SCHEMA)["expression"].start
    agree = (now.logits[:, smile + 1] > now.logits[:, smile]) == (seen.logits[:, smile + 1] > seen.logits[:, smile])
    values = {
        "reconstruction_l1": (plain - x).abs().mean((1, 2, 3)),
        "smile_agreement": agree.float(),
        "landmark_error": (now.landmarks - seen.landmarks).norm(dim=2).mean(1) / eye_distance(seen.landmarks),
    }
    pictures = (x, plain, first, second)
    if scorers.recognisers:
        found = _cosines([scorers.embed(images)[0].float() for images in pictures], person)
        values |= {("" if name == "two_seeds" else "identity_") + name: value for name, value in found.items()}
    if watcher is not None:
        found = _cosines([watcher(images, scorers.frame, mirror=False).float() for images in pictures], person)
        values |= {f"watched_{name}": value for name, value in found.items()}
    return values


def _cosines(embedded: list[Tensor], person: Tensor) -> dict[str, Tensor]:
    """Embeddings [N, E] of originals, reconstructions and two seeds -> cosines [N] by name."""
    old, zero, one, two = embedded
    half = len(old) // 2
    same = (person == person.roll(half)) & (person >= 0)
    return {
        "reconstructed": (zero * old).sum(1),
        "anonymised": (one * old).sum(1),
        "strangers": (old * old.roll(half, 0)).sum(1).masked_fill(same | (half == 0), float("nan")),
        "two_seeds": (one * two).sum(1),
    }
