"""The small diffusion model of faces behind Diff-Privacy: a U-Net on 2x2 pixel patches, and its noise schedule.

Noise is added as Stable Diffusion v1.4 does it: 1000 steps, beta linear in its square root from 0.00085 to 0.0120.
U-Net and schedulers are those of the library diffusers, which is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.errors import UserError
from a3gan.models.diffusion_prior import GaussianPrior

if TYPE_CHECKING:
    from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

    from a3gan.config import Config

STEPS = 1000  # T, of training
SCHEDULE: dict[str, Any] = {  # set_alpha_to_one: the last step ends where inversion begins
    "num_train_timesteps": STEPS, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip
GROUPS = 8  # of the group norms: widths are multiples of it


def diffusers() -> Any:
    """The library; UserError where it is not installed."""
    try:
        import diffusers as library
    except ImportError as error:
        raise UserError("method diff_privacy: needs diffusers; pip install 'a3gan[methods]'") from error
    return library


def ddim(steps: int, config: Mapping[str, Any] = SCHEDULE) -> DDIMScheduler:
    """Deterministic denoising (Song et al. 2021) in `steps` of T, `timesteps` descending."""
    scheduler = diffusers().DDIMScheduler(**_known("DDIMScheduler", config))
    scheduler.set_timesteps(_checked(steps, config))
    return scheduler


def ddim_inverse(steps: int, config: Mapping[str, Any] = SCHEDULE) -> DDIMInverseScheduler:
    """The way back, from an image to its noise, `timesteps` ascending."""
    scheduler = diffusers().DDIMInverseScheduler(**_known("DDIMInverseScheduler", config))
    scheduler.set_timesteps(_checked(steps, config))
    return scheduler


@lru_cache(maxsize=1)
def ddpm() -> DDPMScheduler:
    """Adds the noise that training takes away again."""
    return diffusers().DDPMScheduler(**_known("DDPMScheduler", SCHEDULE))


def _checked(steps: int, config: Mapping[str, Any]) -> int:
    most = config["num_train_timesteps"]
    if not 1 <= steps <= most:
        raise UserError(f"steps {steps}: must be from 1 to {most}, those that the model was trained on")
    return steps


def _known(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Those entries of a scheduler's config that another kind of scheduler takes as well."""
    import inspect

    taken = inspect.signature(getattr(diffusers(), name).__init__).parameters
    return {key: value for key, value in config.items() if key in taken}


class PixelDiffusion(nn.Module):
    """eps(x_t, t, c): the noise in a noised face, under a condition.

    What a `GaussianPrior` makes of x_t, plus what a U-Net adds. The U-Net sees both as 2x2 pixel patches (size 64 -> 24
    channels at 32x32), which costs a quarter of single pixels. Its widest level only convolves; the others also attend,
    to themselves and to the tokens of the condition.

    Args:
        size: side of the faces in pixels. widths: channels at a half, a quarter ... of it, multiples of 8.
        heads: of attention. context, tokens: width and number of the condition's tokens. patch: side of a patch.
        rank: directions of the prior; 0 = no prior.
    """

    def __init__(
        self, size: int, widths: Sequence[int] = (32, 48, 64), heads: int = 2, context: int = 64, tokens: int = 4,
        patch: int = 2, rank: int = 48,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.patch = size, patch
        attending = len(widths) - 1
        self.prior = GaussianPrior(size, rank) if rank else None
        self.unet = diffusers().UNet2DConditionModel(
            sample_size=size // patch, in_channels=(6 if rank else 3) * patch**2, out_channels=3 * patch**2,
            layers_per_block=1, block_out_channels=tuple(widths), norm_num_groups=GROUPS, cross_attention_dim=context,
            attention_head_dim=heads,  # the library's name for their number
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
            up_block_types=(*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
        )  # fmt: skip
        # Plain softmax attention: with such narrow heads torch's fused one takes half again as long to train on a CPU.
        self.unet.set_attn_processor(diffusers().models.attention_processor.AttnProcessor())
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.register_buffer("alphas", ddpm().alphas_cumprod.clone(), persistent=False)
        self.null = nn.Parameter(torch.randn(tokens, context))

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Noise [N, 3, S, S] in x [N, 3, S, S] at steps t [N] (int64, 0 to T - 1) under context [N, L, D]."""
        if self.prior is None:
            return self._added(x, t, context)
        alpha = self.alphas[t]
        with torch.autocast(x.device.type, enabled=False):  # small differences of large numbers
            known = self.prior(x.float(), alpha)
            noise = (x - alpha.sqrt().view(-1, 1, 1, 1) * known) / (1 - alpha).sqrt().view(-1, 1, 1, 1)
        return noise + self._added(torch.cat([x, known], 1), t, context)

    def _added(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(x, self.patch)
        return F.pixel_shuffle(self.unet(patches, t, context.to(patches.dtype), return_dict=False)[0], self.patch)

    def nothing(self, count: int) -> Tensor:
        """The null condition [count, L, D]: what dropped conditions of training are, and an empty prompt elsewhere."""
        return self.null.expand(count, -1, -1)


def build_diffusion(cfg: Config) -> PixelDiffusion:
    """The U-Net of a config with fresh weights; UserError for widths that the group norms cannot divide."""
    d = cfg.model.diffusion
    if wrong := [width for width in d.widths if width % GROUPS or width % d.heads]:
        raise UserError(f"model.diffusion.widths: {wrong[0]} is no multiple of {GROUPS} and of heads={d.heads}")
    return PixelDiffusion(cfg.data.size, d.widths, d.heads, d.context, d.tokens, d.patch, d.rank)
