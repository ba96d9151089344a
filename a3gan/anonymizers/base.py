"""The contract of every anonymizer: aligned faces in, aligned faces out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from a3gan.data.attributes import Policy
from a3gan.errors import UserError

CELLS = 6
"""Cells across a face. Recognisers still gain from 8x8 mosaics; 6x6 leaves eyes and mouth no pixel of their own."""


@dataclass(frozen=True)
class Redaction:
    """What to do to a face at the picture's own resolution (`media.redact`).

    kind: 'blur', 'pixelate', 'solid', or 'none' to leave it. cells: across a face; for blur the face's side over its
    standard deviation. colour: of solid, grey in [-1, 1].
    """

    kind: str
    cells: float = CELLS
    colour: float = -1.0


class FaceAnonymizer(ABC):
    """One method. Subclasses set the attributes and write `_anonymize`; callers use `anonymize`.

    name         as in `methods.METHODS`
    frame, size  the alignment it wants (`data.align.FRAMES`) and the side of its faces in pixels
    supports     which of 'policy', 'seed' and 'alpha' it honours
    synthesises  True if its output is meant to be another face (False: a redaction, or nothing)
    device       where it runs; faces on another device are moved there and back
    options      its constructor's own options, as far as `methods.create` was given any
    redaction    for redactions: how pictures are done, at their own resolution and without `anonymize`; else None
    concurrent   True if several threads may call it at the same time
    redraw       how many other seeds `settle` tries for a face that resembles its original; 0 = it tries none
    """

    name: str
    frame: str = "face"
    size: int
    supports: frozenset[str] = frozenset()
    synthesises: bool = False
    device: torch.device = torch.device("cpu")
    options: Mapping[str, Any] = MappingProxyType({})
    redaction: Redaction | None = None
    concurrent: bool = False
    redraw: int = 0

    def anonymize(
        self, faces: Tensor, *, policy: Policy | None = None, seeds: Sequence[int] | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Anonymised faces, float32 [N, 3, S, S] in [-1, 1], on the device of the input.

        Args:
            faces: float [N, 3, S, S] RGB in [-1, 1], aligned to `frame`, S = `size`.
            policy: what may change; None = the method's own choice.
            seeds: one integer per face; the same seed gives the same result for the same face, whatever batch it is in
                (to 1e-5 in float32). None = `face_seed(0, i)`. A method without 'seed' has no randomness to steer.
            alpha: strength in [0, 1]; 1 = anonymised, 0 = the method's plain reconstruction.

        Raises:
            UserError: a policy or an alpha other than 1 that the method does not support; alpha out of range; faces of
                another shape; not as many seeds as faces.
        """
        self._check(faces, policy, seeds, alpha)
        if not len(faces):
            return faces.float()
        seeds = [face_seed(0, i) for i in range(len(faces))] if seeds is None else [int(seed) for seed in seeds]
        out = self._anonymize(faces.to(self.device, torch.float32), policy, seeds, float(alpha))
        return out.detach().float().clamp(-1, 1).to(faces.device)

    @abstractmethod
    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        """Checked arguments, float32 faces on `device`, N > 0; sets its own grad mode. Same shape and device out."""

    def settle(
        self, faces: Tensor, seeds: Sequence[int], policy: Policy | None = None,
        people: Sequence[Hashable] | None = None,
    ) -> list[int]:  # fmt: skip
        """The seeds to use in place of `seeds`, so that no result resembles its original: deterministic.

        Here: those given. For methods that may draw a face anew; pictures call it for each face, videos once a person,
        whose face must not change from frame to frame.

        Args:
            faces, seeds, policy: as for `anonymize`. people: who each face is; those of one person get one seed. None =
                each is somebody else.
        """
        return [int(seed) for seed in seeds]

    def acceptable(self, before: Tensor, after: Tensor) -> Tensor:
        """bool [N]: which results are fit to be shown (composing mosaics the others). Here: all values are finite."""
        return after.isfinite().flatten(1).all(1)

    def judged(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor | None]:
        """`acceptable`, and the points [N, 2, 5, 2] before and after that it goes by; None where it reads none."""
        return self.acceptable(before, after), None

    def networks(self) -> list[nn.Module]:
        """All networks that it runs, for their size. Here: those among its attributes."""
        return [value for value in vars(self).values() if isinstance(value, nn.Module)]

    @property
    def rounds(self) -> int:
        """Passes through its networks that a face takes one after the other, at most. Here 1, or 0 without any."""
        return 1 if self.networks() else 0

    def _check(self, faces: Tensor, policy: Policy | None, seeds: Sequence[int] | None, alpha: float) -> None:
        if not faces.is_floating_point() or faces.ndim != 4 or faces.shape[1] != 3:
            raise UserError(f"{self.name}: faces must be float [N, 3, S, S], got {faces.dtype} {list(faces.shape)}")
        if faces.shape[2:] != (self.size, self.size):
            height, width = faces.shape[2:]
            raise UserError(f"{self.name}: faces are {width}x{height}; it takes {self.size}x{self.size}")
        if seeds is not None and len(seeds) != len(faces):
            raise UserError(f"{self.name}: {len(seeds)} seeds for {len(faces)} faces; give one per face")
        if not 0 <= alpha <= 1:
            raise UserError(f"{self.name}: alpha {alpha}: must be in [0, 1]")
        if policy is not None and "policy" not in self.supports:
            raise UserError(f"{self.name}: cannot follow a policy ({policy}); leave it out or use a method that can")
        if alpha != 1 and "alpha" not in self.supports:
            raise UserError(f"{self.name}: has no dial, alpha must be 1 (is {alpha})")


def face_seed(seed: int | str, index: int | str) -> int:
    """Seed in [0, 2^63) of one face: the first 63 bits of SHA-256 over ``seed:index``; the same on every machine."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def pick_device(device: str | torch.device | None) -> torch.device:
    """None or 'auto': cuda where there is one, else cpu. UserError for a device that this machine or torch lacks."""
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r}: unknown; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {str(device)!r}: torch finds no CUDA device; use cpu, or torch built for CUDA")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps': torch finds none here; use cpu")
    return device
