"""The contract between the trainer's loop and what is trained: a stage owns its networks, optimisers and one step."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet


@dataclass
class Batch:
    """What a step sees. All on the training device; rows belong together.

    images: float [B,3,S,S] RGB in [-1,1]; index: int64 [B] into the stage's data; landmarks: float [B,5,2] in frame
    units; identity: int64 [B], −1 unknown; targets: attribute name -> float [B], NaN = missing (class index for
    categorical ones).
    """

    images: Tensor
    index: Tensor
    landmarks: Tensor
    identity: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)


class Stage:
    """Base class. A subclass builds networks and optimisers in `__init__` and implements `step`.

    networks: trainable ones by name, saved for resume. ema_names: those that get a slow copy, which is what inference
    uses. optimizers: by name, over parameters of `networks`. The trainer seeds all randomness before construction and
    before every step, moves the networks to the device (channels last) and calls `step` in train mode.
    """

    name: str = "stage"
    networks: dict[str, nn.Module]
    ema_names: tuple[str, ...] = ()
    optimizers: dict[str, torch.optim.Optimizer]

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        self.cfg, self.data, self.val, self.device = cfg, data, val, torch.device(device)
        self.networks, self.optimizers = {}, {}

    # --- training -----------------------------------------------------------------------------------------------
    def step(self, batch: Batch, images_seen: int) -> dict[str, Tensor]:
        """Forward, backward, optimiser; returns detached scalars to log. `images_seen` does not count this batch."""
        raise NotImplementedError

    def descend(self, name: str, loss: Tensor) -> None:
        """One optimiser step of `optimizers[name]` down the scalar `loss`, with train.grad_clip."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.cfg.train.grad_clip > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.cfg.train.grad_clip)
        optimizer.step()

    def autocast(self) -> contextlib.AbstractContextManager:
        """bfloat16 autocast when run.precision asks for it (CPU and CUDA alike), else nothing.

        Wrap forward passes in it; keep losses that need range (R1, cosine margins) in float32 outside.
        """
        if self.cfg.run.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    # --- looking ------------------------------------------------------------------------------------------------
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """Metrics on the validation data with the EMA copies in `nets` (no gradients, eval mode)."""
        return {}

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor | None:
        """A fixed grid of faces, float [3,H,W] in [-1,1], or None."""
        return None

    # --- saving -------------------------------------------------------------------------------------------------
    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors prefixed by network name, JSON-able metadata) of the inference checkpoint."""
        return checkpoint.prefixed({name: nets[name] for name in self.ema_names}), {}

    def plain_state(self) -> dict[str, Any]:
        """JSON-able state besides weights and optimisers that a resume needs (e.g. ADA's probability)."""
        return {}

    def load_plain_state(self, state: dict[str, Any]) -> None:
        """Takes back what `plain_state` gave."""

    # --- dry run ------------------------------------------------------------------------------------------------
    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        """Weights that training needs and that are not there yet, one line each: the key, the file, how to get it."""
        return []

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module] | None:
        """The trainable networks without any weights file or data; None: only the whole stage can build them."""
        return None

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        """Positional inputs for one forward pass of each network (by name) on the CPU; used for shapes and FLOPs."""
        size = cfg.data.size
        return {name: (torch.zeros(batch, 3, size, size),) for name in networks}
