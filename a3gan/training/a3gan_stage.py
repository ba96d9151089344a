"""Stage `a3gan`: encoder, suppressive units and AINet learn to change a face under a policy, in three phases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.config import phase_images
from a3gan.data.attributes import SCHEMA, position, random_alpha, random_policies, slices
from a3gan.data.mask import face_mask
from a3gan.losses import anonymization, code, preservation, suppression
from a3gan.losses.total import total
from a3gan.models.a3gan import A3GANOutput
from a3gan.models.build import build_a3gan, build_discriminator
from a3gan.models.discriminator import LatentDiscriminator
from a3gan.models.injection import InjectionReader
from a3gan.training import warm_start
from a3gan.training.adversary import Adversary, as_judge
from a3gan.training.loss_scorers import LossScorers, View, load_watcher
from a3gan.training.stage import Batch, Stage, Turn

if TYPE_CHECKING:
    from a3gan.config import Config
    from a3gan.data.archive import FaceSet

INSIDE, OUTSIDE = 0.2, 0.8  # perceptual weight inside and outside the face mask
OPENINGS = ("eye_opening", "mouth_opening")
PHASES = ("reconstruct", "suppress", "joint")


class A3GanStage(Stage):
    """The generator trains along unless ``model.generator.freeze``; the scorers never do."""

    name = "a3gan"
    ema_names = ("model",)
    clipped = ("model",)

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = self.build_networks(cfg)
        self.model = self.networks["model"]
        self.parent = warm_start.begin_model(self.model, cfg)
        self.scorers = LossScorers.load(cfg).to(device)
        self.taught_by = sorted({*self.scorers.fingerprints(), *warm_start.inherited_scorers(cfg)})
        self.watcher = load_watcher(cfg, self.taught_by, device)
        if self.scorers.recognisers:
            with torch.no_grad():
                first = self.scorers.embed(data.fetch(torch.tensor([0])).to(self.device))[0]
            self.networks["readers"] = IdentityReaders(self.model.encoder.widths, first.shape[1]).to(device)
        self.optimizers = self._optimizers()
        self.adversary = Adversary(cfg, self.networks["discriminator"], self.autocast)
        began = warm_start.begin_discriminator(self.networks["discriminator"], cfg)
        if began is not None and cfg.train.augment == "ada":
            self.adversary.p = began
        mask = face_mask(cfg.data.size, cfg.data.frame).to(device)
        self.around = 1 - mask
        self.places = (mask * INSIDE + (1 - mask) * OUTSIDE).detach()
        total_images = cfg.train.total_images
        self.judged_from = phase_images(cfg.train.phases.discriminator_rests, total_images)
        self.suppress_from = phase_images(cfg.train.phases.reconstruct, total_images)
        self.join_from = self.suppress_from + phase_images(cfg.train.phases.suppress, total_images)

    @cached_property
    def known(self) -> list[Tensor]:
        """Embeddings [count, E_j] of all originals by every recogniser; made when first needed, so not in a dry run."""
        return self.scorers.embed_all(self.data, self.device) if self.scorers.recognisers else []

    @property
    def readers(self) -> IdentityReaders | None:
        """The heads of the gradient reversal; None without a recogniser."""
        return self.networks.get("readers")

    # --- building -----------------------------------------------------------------------------------------------
    @classmethod
    def build_networks(cls, cfg: Config) -> dict[str, nn.Module]:
        model = build_a3gan(cfg)
        networks = {"model": model, "discriminator": build_discriminator(cfg)}
        networks["injection_reader"] = InjectionReader(model.generator.rows, model.generator.w_dim)
        if cfg.loss.latent > 0:
            networks["latent"] = LatentDiscriminator(model.generator.w_dim)
        return networks

    @classmethod
    def missing_weights(cls, cfg: Config) -> list[str]:
        return LossScorers.missing(cfg) + warm_start.missing(cfg)

    @classmethod
    def example_inputs(cls, cfg: Config, networks: dict[str, nn.Module], batch: int) -> dict[str, tuple]:
        x = torch.zeros(batch, 3, cfg.data.size, cfg.data.size)
        flat = slices(SCHEMA)[SCHEMA[-1].name].stop
        generator = networks["model"].generator
        rows = torch.zeros(batch, generator.rows, generator.w_dim)
        inputs = {
            "model": (
                x, torch.zeros(batch, flat), torch.ones(batch, len(SCHEMA)),
                torch.zeros(batch, cfg.model.ainet.z_dim), torch.ones(batch),
            ),
            "discriminator": (x,), "injection_reader": (rows,), "latent": (rows,),
            "readers": ([torch.zeros(batch, w, 4, 4) for w in networks["model"].encoder.widths],),
        }
        return {name: inputs[name] for name in networks}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        train, model = self.cfg.train, self.model
        model.generator.requires_grad_(not self.cfg.model.generator.freeze)
        # The mapping network has nothing to learn here: no face is drawn from Z in this stage.
        model.generator.mapping.requires_grad_(False)
        own = [model.encoder, model.fusion, model.ainet]
        own += [self.networks[name] for name in ("injection_reader", "readers") if name in self.networks]
        groups = [{"params": [p for net in own for p in net.parameters()], "lr": train.lr}]
        painted = [p for p in model.generator.parameters() if p.requires_grad]
        if painted:
            groups.append({"params": painted, "lr": train.lr_generator})
        betas = tuple(train.betas)
        optimizers: dict[str, torch.optim.Optimizer] = {"model": torch.optim.Adam(groups, betas=betas)}
        for name in ("discriminator", "latent"):
            if name in self.networks:
                parameters = self.networks[name].parameters()
                optimizers[name] = torch.optim.Adam(parameters, lr=train.lr_discriminator, betas=betas)
        return optimizers

    # --- one step -----------------------------------------------------------------------------------------------
    def phase(self, images_seen: int) -> str:
        """'reconstruct' (alpha = 0), then 'suppress' (units on, AINet off), then 'joint'."""
        return PHASES[(images_seen >= self.suppress_from) + (images_seen >= self.join_from)]

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        """Render, teach the discriminators, then the model by the sum of all terms."""
        phase, x = self.phase(images_seen), batch.images
        if self.suppress_from <= images_seen < self.suppress_from + self.cfg.train.batch_size:
            self._wake_units()
        with torch.no_grad(), self.autocast():
            seen = self.scorers.view(x)
        n = len(x)
        alpha = torch.zeros(n, device=x.device) if phase == "reconstruct" else random_alpha(n, device=x.device)
        c = random_policies(n, SCHEMA, device=x.device)
        z = torch.randn(n, self.cfg.model.ainet.z_dim, device=x.device)
        with self.autocast():
            out = self.lean(self.model, x, seen.logits, c, z, alpha, inject=phase == "joint")
        # Early images are blurs that any discriminator tells apart: it only costs time until shapes are there.
        judged = images_seen >= self.judged_from and self.cfg.loss.adversarial > 0
        if judged:
            yield self.adversary.turn(x, out.image, self.steps(images_seen))
        if "latent" in self.networks:
            yield self._latent_turn(out)
        terms = self._terms(batch, seen, out, c, z, alpha, phase)
        if judged:
            terms["adversarial"] = self.adversary.fooled(out.image, x)
        loss, logged = total(terms, self.cfg.loss.model_dump(), alpha)
        scalars = {f"loss/{name}": value for name, value in logged.items()}
        gates = enumerate(out.suppressed.gates, start=1)
        scalars |= {f"gate/level_{level}": g.detach().float().mean() for level, g in gates if g is not None}
        yield Turn("model", loss, scalars)

    def _wake_units(self) -> None:
        """Forget Adam's moments of the suppressive units as they come on: after steps without gradient they are near 0,
        which would make the first real steps many times too long."""
        for parameter in self.model.encoder.units.parameters():
            self.optimizers["model"].state.pop(parameter, None)

    def _latent_turn(self, out: A3GANOutput) -> Turn:
        """The latent discriminator learns rows of w' from rows that the mapping network draws."""
        net, generator = self.networks["latent"], self.model.generator
        with torch.no_grad():
            drawn = generator.mapping(torch.randn(len(out.w_plus), generator.z_dim, device=out.w_plus.device))
        real = drawn[:, None].expand_as(out.w_plus)
        loss = code.latent_discriminator(net(real), net(out.w_plus.detach())).mean()
        return Turn("latent", loss, {"latent/loss": loss.detach()})

    def _terms(
        self, batch: Batch, seen: View, out: A3GANOutput, c: Tensor, z: Tensor, alpha: Tensor, phase: str
    ) -> dict[str, Tensor]:
        """All terms of the loss that the phase has, name -> [N]."""
        weights, image = self.cfg.loss, out.image
        with self.autocast():
            now = self.scorers.view(image)
        terms = {"geometry": self._geometry(now, seen, c if phase == "joint" else None)}
        terms |= self._likeness(batch, seen, now, out, alpha)
        terms |= self._suppression(batch, out, alpha)
        if "latent" in self.networks:  # in all phases, as the encoder alone can leave the prior as well
            with as_judge(self.networks["latent"]):
                terms["latent"] = code.latent(self.networks["latent"](out.w_plus))
        if phase == "reconstruct":
            return terms
        identity = self._identity(batch, image, alpha)
        if identity is not None:
            terms["identity"] = identity
        if phase == "suppress":
            # Without AINet nothing is proposed: every attribute is to stay.
            return terms | {"keep": preservation.keep(now.logits, seen.logits, torch.zeros_like(c))}
        proposal = out.injection.proposal
        # At alpha = 0 nothing is injected, so nothing may be expected to have changed: all is kept there.
        active = c * (alpha > 0).to(c.dtype)[:, None]
        terms |= {
            "attributes_move": anonymization.attributes_move(now.logits, seen.logits, active, margin=weights.m_a),
            "proposal_far": anonymization.proposal_far(proposal, seen.logits, c),
            # The image follows the proposal; were it free to follow the image, both would stay with the original.
            "realise": alpha * anonymization.realise(now.logits, proposal.detach(), active),
            "keep": preservation.keep(now.logits, seen.logits, active),
            "code": code.delta_norm(out.injection.delta),
            "injective": code.injective(self.networks["injection_reader"](out.injection.delta), proposal.detach()),
        }
        if weights.diversity > 0 and self.scorers.recognisers:
            terms["diversity"] = self._diversity(batch, seen, image, c, alpha)
        return terms

    def _likeness(
        self, batch: Batch, seen: View, now: View, out: A3GANOutput, alpha: Tensor
    ) -> dict[str, Tensor]:
        """Perceptual distance, weighted by place where the dial is up; the reconstruction at alpha = 0; the tint."""
        x, image = batch.images, out.image
        plain = (alpha == 0).float()
        places = torch.where(plain[:, None, None, None] > 0, torch.ones_like(self.places), self.places)
        distance = self.scorers.distance(image, x, now, seen, places)
        with_identity = self.known and self.cfg.loss.reconstruction_identity
        embedded = known = None
        if with_identity and bool(plain.any()):
            with self.autocast():
                embedded = self.scorers.embed(image)[0].float()
            known = self.known[0][batch.index]
        rebuilt = preservation.reconstruction(
            image, x, distance, embedded, known, pixel=self.cfg.loss.reconstruction_pixel
        )
        # Features say little about colour: around the face, where nothing is to change, the pixels are held as well.
        off = (self.around * (image - x).square()).mean((1, 2, 3))
        likeness = distance + self.cfg.loss.reconstruction_pixel * off
        tint = preservation.tint(image, x)
        return {"perceptual": likeness * (1 - plain), "reconstruction": rebuilt, "tint": tint}

    def _geometry(self, now: View, seen: View, c: Tensor | None) -> Tensor:
        """Landmarks and openings as in the original; an opening that may change is not held."""
        where = [slices(SCHEMA)[name].start for name in OPENINGS]
        hold = None if c is None else 1 - torch.stack([c[:, position(name)] for name in OPENINGS], 1)
        opening_now, opening_seen = now.logits[:, where].sigmoid(), seen.logits[:, where].sigmoid()
        return preservation.geometry(now.landmarks, seen.landmarks, opening_now, opening_seen, hold)

    def _suppression(self, batch: Batch, out: A3GANOutput, alpha: Tensor) -> dict[str, Tensor]:
        """Gradient reversal on the suppressed features, and the gates' budget."""
        gates = out.suppressed.gates
        terms = {}
        if any(gate is not None for gate in gates):
            terms["gate_budget"] = suppression.gate_budget(gates, self.cfg.loss.rho)
        if self.known and self.cfg.loss.suppression > 0:
            target = self.known[0][batch.index]
            features = out.suppressed.features
            with torch.no_grad():
                readable = [suppression.embedding_regression(r, target) < 1 for r in self.readers(features)]
            # A guess that points away from the person takes nothing from the encoder, or it would learn to mirror.
            hidden = [
                suppression.gradient_reversal(f, alpha * r.to(alpha.dtype))
                for f, r in zip(features, readable, strict=True)
            ]
            errors = [suppression.embedding_regression(r, target) for r in self.readers(hidden)]
            terms["suppression"] = torch.stack(errors).mean(0)
        return terms

    def _identity(self, batch: Batch, image: Tensor, alpha: Tensor) -> Tensor | None:
        """|cosine| to the original beyond the margin, by every training recogniser, of the images with alpha > 0.

        Every other one is looked at as it will be pasted into its photo: what stays around the face also tells.
        """
        if not self.known:
            return None
        rows = (alpha > 0).nonzero()[:, 0]
        term = torch.zeros_like(alpha)
        if len(rows):
            pasted = self._pasted(batch.images[rows[::2]], image[rows[::2]])
            shown = image[rows].index_copy(0, torch.arange(0, len(rows), 2, device=rows.device), pasted)
            with self.autocast():
                new = [e.float() for e in self.scorers.embed(shown, disturb=True)]
            old = [known[batch.index[rows]] for known in self.known]
            term = term.index_put((rows,), anonymization.identity(new, old, self.cfg.loss.m_id))
        return term

    def _pasted(self, x: Tensor, image: Tensor) -> Tensor:
        """The new faces within the old pictures, by the mask of `media.compose`: [N, 3, S, S], dtype of `image`."""
        return (x + (1 - self.around) * (image.float() - x)).to(image.dtype)

    def _diversity(self, batch: Batch, seen: View, image: Tensor, c: Tensor, alpha: Tensor) -> Tensor:
        """Another seed, another face, to every training recogniser: on a quarter of the batch, since it takes a second
        rendering."""
        few = max(1, len(c) // 4)
        rows = alpha.argsort(descending=True)[:few]
        z = torch.randn(few, self.cfg.model.ainet.z_dim, device=c.device)
        with self.autocast():
            other = self.model(batch.images[rows], seen.logits[rows], c[rows], z, alpha[rows]).image
            # Through T, or two seeds would differ by patterns of noise and colour instead of by the person; through
            # one T for both, as two alone push a face away from itself.
            drawn = torch.get_rng_state()
            first = self.scorers.embed(image[rows], disturb=True)
            torch.set_rng_state(drawn)
            pairs = zip(first, self.scorers.embed(other, disturb=True), strict=True)
        close = torch.stack([
            anonymization.diversity(one.float(), two.float(), self.cfg.loss.m_div) for one, two in pairs
        ]).mean(0)
        return torch.zeros_like(alpha).index_put((rows,), close * (len(alpha) / few))

    # --- looking and saving -------------------------------------------------------------------------------------
    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        from a3gan.training.a3gan_views import validate

        return validate(nets["model"], self.scorers, self.val, self.device, self.watcher)

    def sheet(self, nets: dict[str, nn.Module]) -> Tensor | None:
        from a3gan.training.a3gan_views import sheet

        return sheet(nets["model"], self.scorers, self.val if self.val is not None else self.data, self.device)

    def inference_state(self, nets: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged model and the attribute network it reads a = A(x) by, so that the file is enough on its own."""
        attributes = self.scorers.attributes
        tensors = checkpoint.prefixed({"model": nets["model"], "attributes": attributes})
        meta = {
            "attributes": {"backbone": attributes.backbone, "width": attributes.width},
            "scorers": self.taught_by,
            "parent": self.parent,
        }
        return tensors, meta

    def plain_state(self) -> dict[str, Any]:
        return {"augment_p": self.adversary.p}

    def load_plain_state(self, state: dict[str, Any]) -> None:
        self.adversary.p = state["augment_p"]


class IdentityReaders(nn.ModuleList):
    """Heads that try to read the recogniser's embedding from GAP(S_l), one a level."""

    def __init__(self, widths: tuple[int, ...], embedding: int):
        super().__init__(nn.Sequential(nn.Linear(w, 256), nn.ReLU(), nn.Linear(256, embedding)) for w in widths)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """S_1..S_3 -> three guesses [N, E], float32."""
        return [head(f.float().mean((2, 3))) for head, f in zip(self, features, strict=True)]
