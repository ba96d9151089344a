"""The contract between the trainer's loop and what is trained: a stage owns its networks, optimisers and one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

T = TypeVar("T")


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


class Turn(NamedTuple):
    """One optimiser's share of a step: its name, the scalar to go down, and scalars for the log."""

    optimizer: str
    loss: Tensor
    scalars: dict[str, Tensor]


class Stage:
    """Base class. A subclass builds networks and optimisers in `__init__` and implements `turns`.

    networks: trainable ones by name, saved for resume. ema_names: those that get a slow copy, which is what inference
    uses. optimizers: by name, over parameters of `networks`. clipped: networks whose gradient train.grad_clip limits.
    taught_by: fingerprints of the frozen scorers of its losses and of those of the weights that it began from.
    The trainer seeds all randomness before construction and before every micro-batch, moves the networks to the device
    (channels last) and calls `turns` in train mode.
    """

    name: str = "stage"
    networks: dict[str, nn.Module]
    ema_names: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    optimizers: dict[str, torch.optim.Optimizer]
    taught_by: Sequence[str] = ()

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        self.cfg, self.data, self.val, self.device = cfg, data, val, torch.device(device)
        self.networks, self.optimizers = {}, {}

    # --- training -----------------------------------------------------------------------------------------------
    def draw(self, count: int) -> Tensor | None:
        """Rows of `self.data` for a micro-batch, int64 [count] on the CPU, for a stage that chooses its own (it then
        also mirrors as it likes); None: the trainer's epochs, half of the faces mirrored."""
        return None

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """The losses of one step on one micro-batch, one `Turn` for each optimiser that is to move.

        Neither backward nor optimiser: between a turn and the next the trainer averages the gradients over the
        micro-batches of all processes and moves that optimiser, so that what follows sees its new weights. Random
        numbers come from the global generators of torch, numpy and Python. `images_seen` does not count this step and
        is the same for all of its micro-batches.
        """
        raise NotImplementedError

    def step(self, batch: Batch, images_seen: int) -> dict[str, Tensor]:
        """A whole step on this one batch, without the trainer (benchmarks, tests); returns its detached scalars."""
        from a3gan.training.descent import descend
        from a3gan.training.distributed import Group

        outcome = descend(self, [lambda: batch], images_seen, Group(device=self.device))
        if outcome.broken:
            raise UserError(f"stage {self.name}: not finite: {', '.join(outcome.broken)}")
        return outcome.scalars

    def steps(self, images_seen: int) -> int:
        """Steps before this one, for what happens every n-th."""
        return images_seen // self.cfg.train.batch_size

    def lean(self, forward: Callable[..., T], *args: Any, **options: Any) -> T:
        """`forward(*args, **options)`; under train.accumulate without keeping its activations.

        All micro-batches of a step wait for each other between two turns (see `turns`); what they carry across is made
        again in the backward pass instead of being held, or accumulation would save no memory there.
        """
        if self.cfg.train.accumulate == 1:
            return forward(*args, **options)
        from torch.utils.checkpoint import checkpoint as again

        def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
            return contextlib.nullcontext(), self._counted_once()

        return again(forward, *args, use_reentrant=False, context_fn=contexts, **options)

    @contextlib.contextmanager
    def _counted_once(self) -> Iterator[None]:
        """Within it no running statistic moves: the same forward pass must not count twice."""
        before = [buffer.clone() for buffer in self.moving]
        try:
            yield
        finally:
            if before:
                torch._foreach_copy_([buffer.data for buffer in self.moving], before)

    @cached_property
    def moving(self) -> list[Tensor]:
        """Buffers of the networks that are saved, so may move in a step (batch statistics, running means)."""
        found = []
        for net in self.networks.values():
            saved = net.state_dict()
            found += [buffer for name, buffer in net.named_buffers() if name in saved]
        return found

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
