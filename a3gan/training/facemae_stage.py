"""Stage `facemae`: a masked autoencoder of faces, and relations kept among them (Wang et al., arXiv 2205.11090).

L = L_IRM + lambda L_MSE. The pixel term goes over *all* patches, for what is published is drawn throughout; He et al.'s
is over hidden ones alone. Relations are seen through phi: a frozen recogniser, or untrained convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.data.archive import pxq_indices
from a3gan.errors import UserError
from a3gan.losses import relation
from a3gan.models.facemae import build_facemae, mask_noise, masked
from a3gan.scorers.identity import load_recogniser, wanted_files
from a3gan.scorers.random_features import RandomFeatures
from a3gan.training.attributes_stage import cosine_lr
from a3gan.training.batches import mirror
from a3gan.training.identity_stage import verification
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

WEIGHT_DECAY = 0.05  # He et al.
CHUNK = 128  # faces a pass of validation
SHEET = 12  # faces of it


class FaceMaeStage(Stage):
    """Trains one MaskedAutoencoder, by AdamW with warm-up and half a cosine.

    It draws its own rows, P groups of Q pictures of one person and others beside them (`model.facemae.related`), unless
    train.identities_per_batch asks for the trainer's P x Q batches.
    """

    name = "facemae"
    ema_names = ("facemae",)
    clipped = ("facemae",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = self.build_networks(cfg)
        network = self.networks["facemae"].to(device)
        self.tokens = network.tokens
        decay = [p for p in network.parameters() if p.ndim > 1]
        rest = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
        self.optimizers = {"facemae": torch.optim.AdamW(groups, lr=cfg.train.lr, betas=tuple(cfg.train.betas))}
        self.phi = [net.to(device) for net in self._phi(cfg)]

    @staticmethod
    def _phi(cfg: Config) -> list[nn.Module]:
        if cfg.model.facemae.phi == "random":
            return [RandomFeatures()]
        if not cfg.scorers.recognisers:
            raise UserError(
                "scorers.recognisers: stage facemae sees relations through one, such as "
                "{path: identity_small, kind: small}; or set model.facemae.phi=random"
            )
        return [load_recogniser(r.path, r.kind) for r in cfg.scorers.recognisers]

    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        return {"facemae": build_facemae(cfg.model.facemae, cfg.data.size)}

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        used = [] if cfg.model.facemae.phi == "random" else cfg.scorers.recognisers
        return checkpoint.missing(wanted_files(used))

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        size, noise = cfg.data.size, mask_noise(range(batch), networks["facemae"].tokens)
        return {"facemae": (torch.zeros(batch, 3, size, size), noise, cfg.model.facemae.ratios[0])}

    # --- a step -------------------------------------------------------------------------------------------------
    def draw(self, count: int) -> Tensor | None:
        train, related = self.cfg.train, self.cfg.model.facemae.related
        if train.identities_per_batch:
            return None
        groups, people = torch.zeros(0, dtype=torch.int64), int(count * related) // train.images_per_identity
        if people:
            try:
                groups = pxq_indices(self.data.identity, people, train.images_per_identity)
            except UserError as error:
                raise UserError(f"model.facemae.related={related:g}: {error}; lower it or the batch") from error
        return torch.cat([groups, torch.randint(len(self.data), (count - len(groups),))])

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """One AdamW step."""
        train, ratios = self.cfg.train, self.cfg.model.facemae.ratios
        if self.cfg.data.flip:  # of the trainer's own batches half is mirrored already, and so half is again
            batch = mirror(batch, (torch.rand(len(batch.images)) < 0.5).to(self.device))
        noise = torch.rand(len(batch.images), self.tokens).to(self.device)
        ratio = ratios[int(torch.randint(len(ratios), ()))]
        for group in self.optimizers["facemae"].param_groups:
            group["lr"] = train.lr * cosine_lr(images_seen, train.total_images, train.warmup_images)
        with self.autocast():
            made = self.networks["facemae"](batch.images, noise, ratio)
        losses = self._losses(made.float(), batch.images)
        yield Turn("facemae", losses["loss"], losses)

    def _losses(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Each term before its weight, and `loss`, their weighted sum; a term of weight 0 is not computed."""
        weights = self.cfg.loss
        terms = {"relation": relation.instance_relation, "relation_cross": relation.cross}
        terms["relation_moments"] = relation.moments
        wanted = {name: getattr(weights, name) for name in terms if getattr(weights, name) > 0}
        losses = {"relation_pixel": (made - real).square().mean()}
        for phi in self.phi if wanted else ():
            with self.autocast():
                after = phi(made, self.cfg.data.frame)
                with torch.no_grad():
                    before = phi(real, self.cfg.data.frame)
            for name in wanted:
                value = terms[name](after.float(), before.float()).mean() / len(self.phi)
                losses[name] = losses.get(name, 0) + value
        total = weights.relation_pixel * losses["relation_pixel"]
        return {**losses, "loss": total + sum(weight * losses[name] for name, weight in wanted.items())}

    # --- looking ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        """On the validation split, one mask a picture, the first ratio, the first phi.

        pixel_mse, pixel_l1: of the reconstruction, images in [-1, 1]; relation: L_IRM over the whole split; leak_rank1:
        share of reconstructions whose nearest original is their own, with leak_chance; same_rank1: share whose nearest
        other reconstruction is of the same person (people with two), and same_rank1_originals.
        """
        if self.val is None or len(self.val) < 2:
            return {}
        before, after, errors = [], [], []
        for rows in torch.arange(len(self.val)).split(CHUNK):
            real = self.val.fetch(rows).to(self.device)
            made = self._reconstruct(nets, real, rows.tolist())
            errors.append(torch.stack([(made - real).square().mean((1, 2, 3)), (made - real).abs().mean((1, 2, 3))]))
            before.append(self.phi[0](real, self.cfg.data.frame).float())
            after.append(self.phi[0](made, self.cfg.data.frame).float())
        real, made = torch.cat(before), torch.cat(after)
        pixel = torch.cat(errors, 1).mean(1)
        own = (made @ real.T).argmax(1) == torch.arange(len(real), device=real.device)
        result = {
            "pixel_mse": float(pixel[0]),
            "pixel_l1": float(pixel[1]),
            "relation": float(relation.instance_relation(made, real).mean()),
            "leak_rank1": float(own.float().mean()),
            "leak_chance": 1 / len(real),
        }
        for name, vectors in (("same_rank1", made), ("same_rank1_originals", real)):
            found = verification(vectors.cpu(), self.val.identity)
            result |= {name: found["rank1"]} if found else {}
        return result

    def _reconstruct(self, nets: dict[str, nn.Module], real: Tensor, seeds: list[int]) -> Tensor:
        noise = mask_noise(seeds, self.tokens).to(self.device)
        return nets["facemae"](real, noise, self.cfg.model.facemae.ratios[0]).float().clamp(-1, 1)

    @torch.no_grad()
    def sheet(self, nets: dict[str, nn.Module]) -> Tensor:
        """Rows: original, what the mask leaves, reconstruction; fixed faces of the validation split."""
        faces = self.val if self.val is not None and len(self.val) else self.data
        rows = torch.linspace(0, len(faces) - 1, SHEET).long()
        real, model = faces.fetch(rows).to(self.device), self.cfg.model.facemae
        noise = mask_noise(rows.tolist(), self.tokens).to(self.device)
        left = masked(real, noise, model.ratios[0], model.patch)
        grid = torch.stack([real, left, self._reconstruct(nets, real, rows.tolist())])  # [3, n, 3, S, S]
        return grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).float()

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged network; `scorers`: fingerprints of phi, which may not judge what it shaped."""
        tensors, meta = super().inference_state(nets)
        weights = self.cfg.loss
        used = weights.relation + weights.relation_cross + weights.relation_moments > 0
        scorers = [phi.fingerprint for phi in self.phi if used and hasattr(phi, "fingerprint")]
        return tensors, {**meta, "scorers": scorers}
