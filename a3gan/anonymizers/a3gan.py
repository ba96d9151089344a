"""A3GAN as an anonymizer: an inference checkpoint with the attribute network that reads what the face shows."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from a3gan import checkpoint
from a3gan.anonymizers import redraw as anew
from a3gan.anonymizers.base import FaceAnonymizer, pick_device
from a3gan.anonymizers.methods import method_of_stage
from a3gan.data.align import FRAMES
from a3gan.data.attributes import Policy
from a3gan.data.mask import face_mask
from a3gan.errors import UserError
from a3gan.models.injection import seed_codes

T = TypeVar("T")
DEFAULT_WEIGHTS = "a3gan_64"
BATCH = {"cpu": 16, "cuda": 256}  # faces a pass; results do not depend on it
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REDRAW = 4  # other seeds that are tried for a face that still resembles; most are done after one
LARGEST_SHIFT = 0.35
"""Mean shift of the five points, in eye distances, above which a result is no face in the old place."""


def dtype_of(precision: str) -> torch.dtype:
    """Of the feature maps; UserError for a precision that there is not."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; known: {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def checked_redraw(redraw: int) -> int:
    """The option `redraw`; UserError below 0 or above 100."""
    if not 0 <= redraw <= 100:
        raise UserError(f"redraw={redraw}: must be from 0 (never draw a face anew) to 100 times")
    return redraw


class FaceModel(FaceAnonymizer):
    """What a checkpoint and an exported program share. Subclasses set frame, size, z_dim and write `one_pass`, `read`.

    batch: faces a pass; results do not depend on it.
    """

    name = "a3gan"
    supports = frozenset({"policy", "seed", "alpha"})
    synthesises = True
    concurrent = True
    z_dim: int
    batch: int = BATCH["cpu"]

    @abstractmethod
    def one_pass(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
        """x [n, 3, S, S], c [n, K], z [n, z_dim], alpha [n], float32, n at most `batch` -> image [n, 3, S, S]."""

    def pass_and_points(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """`one_pass` and `read`; subclasses read once."""
        return self.one_pass(x, c, z, alpha), self.read(x)

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """The five points [n, 5, 2] of x [n, 3, S, S], units of the frame, as the attribute network reads them."""

    @torch.inference_mode()
    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        parts = self._passes(self.pass_and_points, faces, policy, seeds, alpha)
        images, points = map(torch.cat, zip(*parts, strict=True))
        self._known()[threading.get_ident()] = faces, points
        return images

    def _passes(
        self, one: Callable[..., T], faces: Tensor, policy: Policy | None, seeds: Sequence[int], alpha: float
    ) -> list[T]:
        """What `one` (a pass, called as `one_pass`) gives for the faces, batch by batch."""
        c = (policy or Policy()).vector().to(faces)
        z = seed_codes(seeds, self.z_dim).to(faces)
        parts = zip(faces.split(self.batch), z.split(self.batch), strict=True)
        return [one(x, c.expand(len(x), -1), codes, x.new_full((len(x),), alpha)) for x, codes in parts]

    @torch.inference_mode()
    def settle(
        self, faces: Tensor, seeds: Sequence[int], policy: Policy | None = None,
        people: Sequence[Hashable] | None = None,
    ) -> list[int]:  # fmt: skip
        """See `FaceAnonymizer.settle`: whoever is still alike at alpha = 1 is drawn anew, `redraw` times at most.

        By the dial's end, so that one face gets one seed at every alpha. Rules: `anonymizers.redraw`.
        """
        if not self.redraw or not len(faces):
            return super().settle(faces, seeds, policy, people)
        self._check(faces, policy, seeds, 1.0)
        x = faces.to(self.device, torch.float32)
        mask = face_mask(self.size, self.frame).to(x)

        def draw(rows: list[int], tried: list[int]) -> Tensor:
            originals = x[rows]
            made = torch.cat(self._passes(self.one_pass, originals, policy, tried, 1.0)).float().clamp(-1, 1)
            # Within the pictures they came from: what is around the face also tells who it is.
            return originals + mask * (made - originals)

        who = range(len(x)) if people is None else people
        return anew.settled(draw, anew.small_embed(self.frame), x, [int(s) for s in seeds], who, self.redraw)

    def _known(self) -> dict[int, tuple[Tensor, Tensor]]:
        """By thread: its last faces, and the points that the pass over them read."""
        return self.__dict__.setdefault("_by_thread", {})

    @torch.inference_mode()
    def acceptable(self, before: Tensor, after: Tensor) -> Tensor:
        """Finite, and the five points are where they were: mean shift at most `LARGEST_SHIFT` eye distances."""
        return self.judged(before, after)[0]

    @torch.inference_mode()
    def judged(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """`acceptable`, and the points [N, 2, 5, 2] before and after that it goes by."""
        from a3gan.scorers.landmarks import eye_distance

        fine = super().acceptable(before, after)
        known = self._known().pop(threading.get_ident(), None)  # not kept: it holds a batch of faces
        same = known is not None and len(known[0]) == len(before) and torch.equal(known[0], before.to(known[0]))
        old, new = known[1] if same else self.points(before), self.points(after.nan_to_num())
        shift = (old - new).norm(dim=2).mean(1) / eye_distance(old)
        return fine & (shift <= LARGEST_SHIFT).to(fine.device), torch.stack((old, new), 1)

    @torch.inference_mode()
    def points(self, faces: Tensor) -> Tensor:
        """The five points [N, 5, 2], in units of the frame, as the attribute network reads them."""
        parts = faces.to(self.device, torch.float32).split(self.batch)
        return torch.cat([self.read(part) for part in parts])


class A3ganAnonymizer(FaceModel):
    """x, policy, seed, alpha -> model(x, A(x), c, z, alpha).

    Args:
        weights: path of an inference checkpoint of stage a3gan, or the name of a shipped one.
        device: None or 'auto' = cuda where there is one.
        precision: of the feature maps: fp32 (the same face in any batch, to 1e-5), bf16 or fp16, which machines with
            such arithmetic run faster and to about 1e-2.
        redraw: how many other seeds `settle` tries for a face that still resembles its original; 0 = none.

    Raises:
        UserError: the file is missing, cut, foreign, of another stage, or does not fit its own config; an unknown
            precision.
    """

    def __init__(
        self, weights: str | Path = DEFAULT_WEIGHTS, device: str | torch.device | None = None, precision: str = "fp32",
        redraw: int = REDRAW,
    ):  # fmt: skip
        from a3gan.config import check
        from a3gan.models.build import build_a3gan
        from a3gan.models.inference import FoldedA3GAN
        from a3gan.scorers.attributes import AttributeNetwork
        from a3gan.scorers.blocks import fold

        self.device, self.redraw = pick_device(device), checked_redraw(redraw)
        self.batch = BATCH.get(self.device.type, 16)
        self.path = checkpoint.resolve(weights)
        tensors, self.meta = checkpoint.load(self.path)
        if self.meta.get("stage") != "a3gan":
            stage = self.meta.get("stage")
            other = method_of_stage(stage)
            hint = f"they are for method {other}" if other else "anonymising needs those of stage 'a3gan'"
            raise UserError(f"{self.path}: weights of stage {stage!r}; {hint}")
        if self.meta.get("kind") == "state":
            raise UserError(f"{self.path}: the state of a run, for resuming it; use the checkpoint beside it")
        if "config" not in self.meta or "attributes" not in self.meta:
            raise UserError(f"{self.path}: lacks its config or attribute network; export it again from its run")
        cfg = check(self.meta["config"], source=str(self.path))
        self.frame, self.size = self.meta.get("frame", cfg.data.frame), self.meta.get("size", cfg.data.size)
        if self.frame not in FRAMES or self.size != cfg.data.size:
            raise UserError(f"{self.path}: frame {self.frame!r} and size {self.size} do not fit its config")
        self.z_dim = cfg.model.ainet.z_dim
        self.model = self._load(build_a3gan(cfg), tensors, "model")
        built = self.meta["attributes"]
        reader = AttributeNetwork(built["backbone"], built["width"]).eval()
        # Training freezes it with its batch norms folded, and so it is stored; one stored as trained is read as well.
        if not any(".norm." in key for key in checkpoint.subset(tensors, "attributes")):
            fold(reader)
        self.attributes = fold(self._load(reader, tensors, "attributes")).to(memory_format=torch.channels_last)
        self.folded = FoldedA3GAN(self.model, dtype_of(precision)).to(self.device)
        self.temperatures = {k: float(built[k]) for k in ("eye_temperature", "mouth_temperature") if k in built}

    def _load(self, network: torch.nn.Module, tensors: dict[str, Tensor], prefix: str) -> torch.nn.Module:
        checkpoint.load_into(network, tensors, prefix, self.path)
        return network.float().eval().requires_grad_(False).to(self.device)

    def networks(self) -> list[torch.nn.Module]:
        """The model as trained (`folded` is the same one, made faster) and the attribute network."""
        return [self.model, self.attributes]

    def one_pass(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
        """`model(x, A(x), c, z, alpha).image`, by the folded model."""
        return self.folded(x, self.logits(x), c, z, alpha)

    def pass_and_points(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """One look of the attribute network serves both."""
        outputs = self.attributes(x, frame=self.frame)
        return self.folded(x, self._code(outputs, x), c, z, alpha), outputs["landmarks"].float()

    def read(self, x: Tensor) -> Tensor:
        """Five points [n, 5, 2] of x [n, 3, S, S]."""
        return self.attributes(x, frame=self.frame)["landmarks"].float()

    def logits(self, faces: Tensor) -> Tensor:
        """a = A(x): the flat attribute code [N, D] of faces [N, 3, S, S] in [-1, 1] of this method's frame."""
        # As the losses read it in training, frame included: the model knows no other code.
        return self._code(self.attributes(faces, frame=self.frame), faces)

    def _code(self, outputs: dict[str, Tensor], faces: Tensor) -> Tensor:
        from a3gan.scorers.measured import attribute_logits

        return attribute_logits(outputs, faces, self.frame, **self.temperatures)
