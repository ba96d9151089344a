"""Diff-Privacy's sampling (He et al., arXiv 2309.05330): embedding scheduling, energy guidance, inversion to keys.

Times are shares of T, so that schedules mean the same whatever the model's T: 0.4 is "t = 400 of 1000".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from a3gan.anonymizers.diff_privacy_backbone import Backbone
from a3gan.errors import UserError
from a3gan.models.diffusion import ddim, ddim_inverse

Energy = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """One schedule.

    steps: DDIM steps over all of T. strength: share of T to which noise is added; that share of the steps denoises.
    conditioned: the face's own condition above this share of T, the null one at and below. scales: s of the energy's
    gradient above and below it. background: below this share of T, what lies outside the face is the original's; 0 =
    nowhere.
    """

    steps: int
    strength: float
    conditioned: float
    scales: tuple[float, float]
    background: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1 or int(self.steps * self.strength) < 1:
            raise UserError(f"strength {self.strength}: must be in (0, 1], and with {self.steps} steps leave one step")
        if min(self.scales) < 0:
            raise UserError(f"scale {min(self.scales)}: must be 0 or more; 0 = no guidance")

    @property
    def begin(self) -> int:
        """How many of the steps, the noisiest ones, are left out."""
        return self.steps - int(self.steps * self.strength)


def privacy_energy(made: Tensor, original: Tensor) -> Tensor:
    """E [N] = sum_i max(0, cos(R(x_i), R(x))) + sum_{i<j} max(0, cos(R(x_i), R(x_j))): away from the original, and,
    by the second sum, from one another.

    made: unit embeddings [N, K, E] of the K samples of each face; original: [N, E]. In 0 .. K + K (K - 1) / 2.
    """
    to_original = torch.einsum("nke,ne->nk", made, original).clamp_min(0).sum(1)
    among = torch.einsum("nie,nje->nij", made, made).clamp_min(0)
    return to_original + among.triu(1).sum((1, 2))


def hiding_energy(made: Tensor, original: Tensor) -> Tensor:
    """E [N] = sum_i 1 - cos(R(x_i), R(x)): a machine is to verify the person still. Shapes: `privacy_energy`."""
    return (1 - torch.einsum("nke,ne->nk", made, original)).sum(1)


def guided(
    backbone: Backbone, z: Tensor, conditions: Tensor, plan: Plan, energy: Energy,
    keep: tuple[Tensor, Tensor] | None = None, tick: Callable[[], object] = lambda: None,
) -> Tensor:  # fmt: skip
    """Denoises z [M, C, H, W], noised to the plan's strength (`noised`), with guidance: z_0 [M, C, H, W].

    x_{t-1} <- DDIM step - s dE/dx0, with x0 the estimate at this step: the gradient runs through the decoder and the
    recogniser, not through the U-Net. energy: of decoded estimates [M, 3, S, S], a scalar that is a sum over faces, so
    that no face's gradient depends on the others. conditions: C [M, 10, L, D]. keep: (clean z [M, C, H, W], mask of the
    face [1, 1, H, W]): the background that the plan keeps. It enters the estimate, not the noised image itself as in
    the authors' code, so that the U-Net sees the noise it expects there.
    """
    scheduler = ddim(plan.steps, {**backbone.schedule, "clip_sample": backbone.clips})
    for t in scheduler.timesteps[plan.begin :]:
        with torch.no_grad():
            early = float(t) > plan.conditioned * backbone.steps
            times = t.expand(len(z)).to(z.device)
            context = backbone.at(conditions, times) if early else backbone.nothing(len(z))
            made = scheduler.step(backbone.noise(z, times, context), t, z, use_clipped_model_output=backbone.clips)
        z, scale = made.prev_sample, plan.scales[0 if early else 1]
        if scale > 0:
            z = z - scale * _gradient(backbone, made.pred_original_sample, energy)
        if keep is not None and float(t) < plan.background * backbone.steps:
            clean, mask = keep
            before = t - scheduler.config.num_train_timesteps // plan.steps
            alpha = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
            z = z + alpha.sqrt().to(z) * (1 - mask) * (clean - made.pred_original_sample)
        tick()
    return z


def _gradient(backbone: Backbone, estimate: Tensor, energy: Energy) -> Tensor:
    """dE/dx0 at the estimate."""
    with torch.enable_grad():
        estimate = estimate.detach().requires_grad_()
        return torch.autograd.grad(energy(backbone.decode(estimate)), estimate)[0]


def noised(backbone: Backbone, z: Tensor, noise: Tensor, plan: Plan) -> Tensor:
    """z [M, C, H, W] with the noise of the plan's first step."""
    scheduler = ddim(plan.steps, backbone.schedule)
    return scheduler.add_noise(z, noise, scheduler.timesteps[plan.begin].expand(len(z)))


@torch.no_grad()
def inverted(
    backbone: Backbone, z: Tensor, conditions: Tensor, steps: int, rounds: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> Tensor:  # fmt: skip
    """DDIM inversion (eta 0, no guidance) of z [M, C, H, W] under C [M, 10, L, D]: x_T, whence `recovered` leads back.

    A step of inversion wants the noise at the image that it is about to make. rounds = 1 takes that of the image before
    (Dhariwal and Nichol 2021); each further round takes that of the image just made, and comes nearer to the exact
    inverse of `recovered`.
    """
    scheduler = ddim_inverse(steps, backbone.schedule)
    for t in scheduler.timesteps:
        times = t.expand(len(z)).to(z.device)
        context, there = backbone.at(conditions, times), z
        for _ in range(rounds):
            there = scheduler.step(backbone.noise(there, times, context), t, z).prev_sample
            tick()
        z = there
    return z


@torch.no_grad()
def recovered(backbone: Backbone, noise: Tensor, conditions: Tensor, steps: int) -> Tensor:
    """DDIM (eta 0) from x_T [M, C, H, W] under C [M, 10, L, D]: z_0 [M, C, H, W]. Nothing else is read."""
    scheduler = ddim(steps, backbone.schedule)
    z = noise
    for t in scheduler.timesteps:
        times = t.expand(len(z)).to(z.device)
        z = scheduler.step(backbone.noise(z, times, backbone.at(conditions, times)), t, z).prev_sample
    return z


def drawn_noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Tensor:
    """Normal noise [N, *shape], each row by its seed alone; the same on every device."""
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed % 2**63)) for seed in seeds]
    return torch.stack(rows).to(device)
