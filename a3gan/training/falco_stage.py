"""Stage `falco`: a pool of generated faces for the method of that name. No gradient; a step draws a batch of faces.

A generator that was trained from noise is drawn from noise, with truncation, as in the paper. One that was trained
along with its encoder has no prior in Z: then W+ comes from a Gaussian around the encoder's codes of the training
faces, its deviations shrunk by the same factor (ours).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.anonymizers.a3gan import A3ganAnonymizer
from a3gan.anonymizers.falco_pool import Pool
from a3gan.anonymizers.falco_spaces import load_space
from a3gan.errors import UserError
from a3gan.scorers.identity import load_recogniser
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

logger = logging.getLogger(__name__)
SHEET = (6, 8)  # rows and columns of pool faces
CHUNK = 64


class FalcoStage(Stage):
    """Draws W or W+ codes and their vectors for the search. The pool is a network without parameters: so it is saved,
    resumed and written like any other."""

    name = "falco"

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        if cfg.train.accumulate != 1 or (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
            raise UserError("stage falco: one process and train.accumulate=1; a step only draws faces")
        if cfg.model.weights is None:
            raise UserError("model.weights: stage falco needs an A3GAN checkpoint, whose generator draws the faces")
        self.inverter = A3ganAnonymizer(cfg.model.weights, device)
        frame, size = self.inverter.frame, self.inverter.size
        if (frame, size) != (data.frame, data.size):
            raise UserError(
                f"model.weights: {self.inverter.path} is of frame {frame} and {size} px, the data of {data.frame} and "
                f"{data.size}; set data.frame={frame} data.size={size}"
            )
        self.model, self.generator = self.inverter.model, self.inverter.model.generator
        space = "farl" if cfg.scorers.farl else "attributes"
        attributes = cfg.scorers.attributes or "attributes_loss"
        self.space = load_space(space, data.frame, attributes=attributes, farl=cfg.scorers.farl).to(self.device)
        self.judge = load_recogniser("", "small").to(self.device)
        # Training from noise follows the mean of W, public weights have one; a generator trained from codes has zeros.
        self.from_noise = bool(self.generator.w_mean.any())
        rows, width = (1, self.generator.w_dim) if self.from_noise else (self.generator.rows, self.generator.w_dim)
        rank = width if self.from_noise else min(cfg.model.pool.rank, len(data) - 1, rows * width)
        batch, total = cfg.train.batch_size, cfg.train.total_images
        features = self._embed(torch.zeros(1, 3, data.size, data.size, device=self.device)).shape[1]
        self.pool = Pool(-(-total // batch) * batch, rank, rows, width, features)
        self.networks = {"pool": self.pool}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        return checkpoint.missing({
            "model.weights": cfg.model.weights, "scorers.attributes": cfg.scorers.attributes,
            "scorers.farl": cfg.scorers.farl,
        })  # fmt: skip

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        return {}  # a pool computes nothing

    @torch.no_grad()
    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """Fills the next rows of the pool; no optimiser moves, so there is no turn."""
        pool = self.pool
        if not bool(pool.basis.any()):
            self._fit()
        rows = torch.arange(images_seen, images_seen + len(batch.images), device=self.device)
        pool.codes[rows] = self._draw(len(rows)).to(pool.codes)
        pool.features[rows] = self._embed(pool.render(self.generator, rows))
        pool.filled.fill_(int(rows[-1]) + 1)
        yield from ()

    def _draw(self, count: int) -> Tensor:
        """Coordinates [count, rank], shrunk towards the mean by the truncation."""
        truncation, generator = self.cfg.model.pool.truncation, self.generator
        if self.from_noise:
            w = generator.mapping(torch.randn(count, generator.z_dim, device=self.device))
            return truncation * (w - generator.w_mean)
        return truncation * torch.randn(count, self.pool.codes.shape[1], device=self.device)

    def _fit(self) -> None:
        """Mean and basis: of W as it is, or the principal directions of the encoder's codes times their deviation."""
        pool = self.pool
        if self.from_noise:
            pool.mean.copy_(self.generator.w_mean[None])
            pool.basis.copy_(torch.eye(self.generator.w_dim, device=self.device)[:, None])
            return
        codes = torch.cat([self._invert(self._faces(self.data, rows)) for rows in _chunks(len(self.data))]).flatten(1)
        pool.mean.copy_(codes.mean(0).view_as(pool.mean))
        rank = len(pool.basis)
        _, values, directions = torch.pca_lowrank(codes, q=rank, niter=4)
        deviation = values / (len(codes) - 1) ** 0.5
        pool.basis.copy_((directions * deviation).T.view_as(pool.basis))
        kept = float(deviation.square().sum() / codes.var(0).sum())
        logger.info("Gaussian around %d codes: rank %d holds %.1f %% of the variance", len(codes), rank, 100 * kept)

    def _faces(self, faces: FaceSet, rows: Tensor) -> Tensor:
        return faces.fetch(rows).to(self.device).contiguous(memory_format=torch.channels_last)

    def _invert(self, x: Tensor) -> Tensor:
        return self.model.fusion(self.model.encoder(x, x.new_zeros(len(x))).features)

    @torch.no_grad()
    def _embed(self, x: Tensor) -> Tensor:
        return self.space.embed(x).float()

    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """Cosine (identity_small) of each pool face to the training face nearest to it: is a pool face somebody?

        The yardstick is the same of validation faces, which are of other people.
        """
        pool = nets["pool"]
        if not len(pool):
            return {}
        known = self._people(self.data)
        drawn = [pool.render(self.generator, rows.to(self.device)) for rows in _chunks(len(pool))]
        metrics = _nearest("pool", torch.cat([self.judge(x, self.data.frame) for x in drawn]), known)
        return metrics if self.val is None else metrics | _nearest("others", self._people(self.val), known)

    def _people(self, faces: FaceSet) -> Tensor:
        """Embeddings [N, E] of a data set."""
        return torch.cat([self.judge(self._faces(faces, rows), faces.frame) for rows in _chunks(len(faces))])

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor | None:
        pool = nets["pool"]
        rows, columns = SHEET
        if len(pool) < rows * columns:
            return None
        grid = pool.render(self.generator, torch.arange(rows * columns, device=self.device)).unflatten(0, SHEET)
        return grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The faces drawn so far, and the checkpoint and the network that they belong to."""
        count = min(len(self.pool), self.cfg.train.total_images)
        tensors = checkpoint.prefixed({"pool": self.pool})
        tensors |= {f"pool.{k}": tensors[f"pool.{k}"][:count] for k in ("codes", "features")}
        tensors["pool.filled"] = torch.tensor(count)
        digest = checkpoint.sha256(self.inverter.path)
        return tensors, {
            "model": {"name": self.inverter.path.stem, "sha256": digest}, "parent": digest,
            "prior": "z" if self.from_noise else "gaussian", "features": self.space.fingerprint,
        }  # fmt: skip


def _chunks(count: int) -> tuple[Tensor, ...]:
    return torch.arange(count).split(CHUNK)


def _nearest(name: str, embeddings: Tensor, known: Tensor) -> dict[str, float]:
    """Mean, 99th percentile and largest of each row's largest cosine to `known`; unit embeddings."""
    nearest = torch.cat([(part @ known.T).amax(1) for part in embeddings.split(CHUNK)]).sort().values
    high = nearest[min(len(nearest) - 1, int(0.99 * len(nearest)))]
    return {f"{name}_mean": float(nearest.mean()), f"{name}_p99": float(high), f"{name}_max": float(nearest[-1])}
