"""The discriminator's side of a GAN step, shared by the stages `stylegan2` and `a3gan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from a3gan.losses.adversarial import d_logistic, r1
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
    """Discriminator with its augmentation (none, DiffAugment or ADA) and lazy R1.

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

    def against(self, fake: Tensor) -> Tensor:
        """Logits of generated images for the generator's own loss: the discriminator's weights take no gradient."""
        with as_judge(self.net):
            return self.logits(fake)

    def turn(self, real: Tensor, fake: Tensor, step: int) -> Turn:
        """Its update: logistic loss, every ``loss.r1_every`` steps also R1 (weighted up by as much)."""
        loss_cfg = self.cfg.loss
        # Two passes: the minibatch statistic must not mix real and generated images.
        logits_real, logits_fake = self.logits(real), self.logits(fake.detach())
        loss = d_logistic(logits_real, logits_fake).mean()
        scalars = {
            "discriminator/loss": loss.detach(),
            "discriminator/real": logits_real.detach().mean(),
            "discriminator/fake": logits_fake.detach().mean(),
        }
        if loss_cfg.r1_gamma > 0 and step % loss_cfg.r1_every == 0:
            # float32 throughout: the squared gradient of a 16-bit pass is mostly rounding.
            images = real.detach().float().requires_grad_(True)
            penalty = r1(self.net(images), images, loss_cfg.r1_gamma).mean()
            loss = loss + penalty * loss_cfg.r1_every
            scalars["discriminator/r1"] = penalty.detach()
        train = self.cfg.train
        if train.augment == "ada":
            # By the whole batch, though this may be a part of it: the parts' moves are averaged.
            self.p = adapt(self.p, logits_real, train.batch_size, train.ada_target, train.ada_images)
            scalars["discriminator/ada_p"] = torch.tensor(self.p)
        return Turn("discriminator", loss, scalars)
