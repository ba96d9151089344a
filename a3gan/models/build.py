"""Networks from a config: the one place where its keys become constructor arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from a3gan.models.a3gan import A3GAN
from a3gan.models.discriminator import Discriminator
from a3gan.models.fusion import Fusion
from a3gan.models.injection import AINet
from a3gan.models.stylegan2 import Generator, rows_of
from a3gan.models.suppression import NarrowTrunk, SuppressiveEncoder

if TYPE_CHECKING:
    from a3gan.config import Config


def build_generator(cfg: Config) -> Generator:
    """StyleGAN2 generator of ``data.size`` pixels."""
    g = cfg.model.generator
    return Generator(
        cfg.data.size, z_dim=g.z_dim, w_dim=g.w_dim, channels_base=g.channels_base, channels_max=g.channels_max,
        mapping_layers=g.mapping_layers, noise=g.noise,
    )


def build_discriminator(cfg: Config) -> Discriminator:
    """Discriminator of ``data.size`` pixels."""
    d = cfg.model.discriminator
    return Discriminator(
        cfg.data.size, channels_base=d.channels_base, channels_max=d.channels_max, stddev_group=d.mbstd_group
    )


def build_encoder(cfg: Config) -> SuppressiveEncoder:
    """Trunk with its suppressive convolution units."""
    scu = cfg.model.scu
    return SuppressiveEncoder(
        _trunk(cfg), levels=tuple(scu.levels) if scu.enabled else (), filler=scu.filler, reduction=scu.reduction
    )


def build_a3gan(cfg: Config) -> A3GAN:
    """The whole model with fresh weights; a trained generator is loaded by the stage, not here."""
    encoder, ainet = build_encoder(cfg), cfg.model.ainet
    w_dim, rows = cfg.model.generator.w_dim, rows_of(cfg.data.size)
    return A3GAN(
        encoder,
        Fusion(encoder.widths, rows, w_dim, cfg.model.encoder.lateral),
        AINet(rows, w_dim, z_dim=ainet.z_dim, hidden=ainet.hidden, code=ainet.code, policy=ainet.policy),
        build_generator(cfg),
    )


def _trunk(cfg: Config) -> nn.ModuleList:
    encoder = cfg.model.encoder
    if encoder.kind == "ir_se50":
        from a3gan.models.ir_se50 import IrSe50Trunk

        return IrSe50Trunk()
    return NarrowTrunk(tuple(encoder.widths), encoder.depth)
