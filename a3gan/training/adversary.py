"""The discriminator's side of a GAN step, shared by the stages `stylegan2` and `a3gan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from a3gan.losses import adversarial
from a3gan.training.augment_gan import adapt, augment
from a3gan.training.stage import Turn

if TYPE_CHECKING:
    from a3gan.config import Config


@contextmanager
def as_judge(net: nn.Module) -> Iterator[None]:
    """Within it the net's weights take no gradient; what it is shown still does."""
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


class Adversary:
    """Discriminator with its augmentation (none, DiffAugment or ADA), lazy R1 and R2, in the game of
    ``loss.adversarial_kind``.

    ``p`` is the augmentation probability: 1 under DiffAugment, moved by the controller under ADA.
    """

    def __init__(self, cfg: Config, net: nn.Module, autocast: Callable[[], AbstractContextManager]):
        self.cfg, self.net, self.autocast = cfg, net, autocast
        self.p = 1.0 if cfg.train.augment == "diffaugment" else 0.0

    def logits(self, images: Tensor) -> Tensor:
        """Augmented images [N, 3, S, S] -> [N] float32."""
        images = augment(images, self.p)
        with self.autocast():
            return self.net(images)

    def fooled(self, fake: Tensor, real: Tensor) -> Tensor:
        """The generator's own loss [N] at generated images: the discriminator's weights take no gradient.

        ``real``, as many, are looked at in the relativistic game only, where row i of both is a pair.
        """
        with as_judge(self.net):
            logits = self.logits(fake)
            if self.cfg.loss.adversarial_kind == "logistic":
                return adversarial.g_nonsaturating(logits)
            with torch.no_grad():
                goal = self.logits(real)
        return adversarial.relativistic(logits, goal)

    def turn(self, real: Tensor, fake: Tensor, step: int) -> Turn:
        """Its update: the game's loss, every ``loss.r1_every`` steps also R1 and R2 (weighted up by as much)."""
        loss_cfg = self.cfg.loss
        game = adversarial.d_logistic if loss_cfg.adversarial_kind == "logistic" else adversarial.relativistic
        # Two passes: the minibatch statistic must not mix real and generated images.
        logits_real, logits_fake = self.logits(real), self.logits(fake.detach())
        loss = game(logits_real, logits_fake).mean()
        scalars = {
            "discriminator/loss": loss.detach(),
            "discriminator/real": logits_real.detach().mean(),
            "discriminator/fake": logits_fake.detach().mean(),
        }
        if step % loss_cfg.r1_every == 0:
            for name, images, gamma in (("r1", real, loss_cfg.r1_gamma), ("r2", fake, loss_cfg.r2_gamma)):
                if gamma > 0:
                    penalty = self.penalty(images, gamma)
                    loss = loss + penalty * loss_cfg.r1_every
                    scalars[f"discriminator/{name}"] = penalty.detach()
        train = self.cfg.train
        if train.augment == "ada":
            # By the whole batch, though this may be a part of it: the parts' moves are averaged.
            self.p = adapt(self.p, logits_real, train.batch_size, train.ada_target, train.ada_images)
            scalars["discriminator/ada_p"] = torch.tensor(self.p)
        return Turn("discriminator", loss, scalars)

    def penalty(self, images: Tensor, gamma: float) -> Tensor:
        """Mean squared gradient at these images times gamma / 2, not augmented.

        float32 throughout: the squared gradient of a 16-bit pass is mostly rounding.
        """
        images = images.detach().float().requires_grad_(True)
        return adversarial.r1(self.net(images), images, gamma).mean()
