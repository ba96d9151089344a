"""Our StyleGAN2 step beside one of the usual design, at equal width, in one process, turn by turn.

The other is written here after the published layout of rosinality/stylegan2-pytorch on its plain PyTorch path: every
image has a weight of its own and the batch runs as one grouped convolution; filters run over single-channel images;
the discriminator's and the generator's steps each render their own faces; one average a parameter. It is a yardstick
for speed: the same networks by formula, no augmentation, no noise inputs on either side.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.bench.timing import by_turns
from a3gan.models.stylegan2 import channels_at

if TYPE_CHECKING:
    from a3gan.config import Config

KERNEL = (1.0, 3.0, 3.0, 1.0)


def filtered(x: Tensor, gain: float, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Zeros between the samples, padding, then the 4x4 low-pass over [N*C, 1, H, W]: [N, C, H, W] -> [N, C, H', W']."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n * c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    taps = torch.tensor(KERNEL, device=x.device, dtype=x.dtype)
    kernel = torch.outer(taps, taps)
    x = F.pad(x.reshape(n * c, 1, *x.shape[2:]), (pad[0], pad[1], pad[0], pad[1]))
    x = F.conv2d(x, (kernel * (gain / kernel.sum()))[None, None])
    return x.reshape(n, c, *x.shape[2:])


def activated(x: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(x + bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2)), 0.2) * math.sqrt(2)


class Dense(nn.Module):
    """Fully connected layer with equalised rate."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, active: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.gain, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, x: Tensor) -> Tensor:
        if self.active:
            return activated(F.linear(x, self.weight * self.gain), self.bias * self.rate)
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class GroupedConv(nn.Module):
    """Modulated convolution with one weight an image, as a grouped convolution of the whole batch."""

    def __init__(self, inputs: int, outputs: int, kernel: int, w_dim: int, demodulate: bool = True, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.style = Dense(w_dim, inputs, bias=1.0)
        self.gain, self.demodulate, self.up = 1 / math.sqrt(inputs * kernel**2), demodulate, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, inputs, h, side = x.shape
        weight = self.weight * self.gain * self.style(w).view(n, 1, inputs, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        outputs, kernel = weight.shape[1], weight.shape[3]
        x = x.reshape(1, n * inputs, h, side)
        if self.up:
            weight = weight.transpose(1, 2).reshape(n * inputs, outputs, kernel, kernel)
            y = F.conv_transpose2d(x, weight, stride=2, groups=n)
            return filtered(y.reshape(n, outputs, *y.shape[2:]), 4.0, pad=(1, 1))
        y = F.conv2d(x, weight.reshape(n * outputs, inputs, kernel, kernel), padding=kernel // 2, groups=n)
        return y.reshape(n, outputs, *y.shape[2:])


class PeerGenerator(nn.Module):
    """Mapping and skip synthesis: Z [N, z_dim] -> image [N, 3, S, S]."""

    def __init__(self, size: int, z_dim: int, w_dim: int, base: int, most: int, layers: int):
        super().__init__()
        widths = [z_dim] + [w_dim] * layers
        self.mapping = nn.Sequential(*(Dense(i, w_dim, rate=0.01, active=True) for i in widths[:-1]))
        self.z_dim, width = z_dim, channels_at(4, base, most)
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.convs = nn.ModuleList([GroupedConv(width, width, 3, w_dim)])
        self.rgbs = nn.ModuleList([GroupedConv(width, 3, 1, w_dim, demodulate=False)])
        for power in range(3, int(math.log2(size)) + 1):
            out = channels_at(2**power, base, most)
            self.convs.extend([GroupedConv(width, out, 3, w_dim, up=True), GroupedConv(out, out, 3, w_dim)])
            self.rgbs.append(GroupedConv(out, 3, 1, w_dim, demodulate=False))
            width = out
        self.biases = nn.ParameterList([torch.zeros(conv.weight.shape[1]) for conv in self.convs])
        self.rgb_biases = nn.ParameterList([torch.zeros(3) for _ in self.rgbs])

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8))
        x = self.constant.repeat(len(z), 1, 1, 1)
        image = None
        for i, (conv, bias) in enumerate(zip(self.convs, self.biases, strict=True)):
            x = activated(conv(x, w), bias)
            if i % 2 == 0:
                rgb = self.rgbs[i // 2](x, w) + self.rgb_biases[i // 2].view(1, 3, 1, 1)
                image = rgb if image is None else rgb + filtered(image, 4.0, up=2, pad=(2, 1))
        return image


class PeerConv(nn.Module):
    """Convolution with equalised rate; `down` filters first, at full size, then strides."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, active: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.gain, self.down = 1 / math.sqrt(inputs * kernel**2), down

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        if self.down:
            x = filtered(x, 1.0, pad=(2, 2) if kernel == 3 else (1, 1))
        stride, padding = (2, 0) if self.down else (1, kernel // 2)
        y = F.conv2d(x, self.weight * self.gain, stride=stride, padding=padding)
        return y if self.bias is None else activated(y, self.bias)


class PeerBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = PeerConv(inputs, inputs, 3), PeerConv(inputs, outputs, 3, down=True)
        self.skip = PeerConv(inputs, outputs, 1, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.second(self.first(x)) + self.skip(x)) / math.sqrt(2)


class PeerDiscriminator(nn.Module):
    """Image [N, 3, S, S] -> logit [N, 1]."""

    def __init__(self, size: int, base: int, most: int, group: int):
        super().__init__()
        widths = [channels_at(2**power, base, most) for power in range(int(math.log2(size)), 1, -1)]
        blocks = [PeerBlock(i, o) for i, o in zip(widths, widths[1:], strict=False)]
        self.body = nn.Sequential(PeerConv(3, widths[0], 1), *blocks)
        self.last = PeerConv(widths[-1] + 1, widths[-1], 3)
        self.head = nn.Sequential(Dense(widths[-1] * 16, widths[-1], active=True), Dense(widths[-1], 1))
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        n, c, h, w = x.shape
        group = min(n, self.group)
        spread = torch.sqrt(x.view(group, -1, c, h, w).var(0, unbiased=False) + 1e-8).mean([1, 2, 3], keepdim=True)
        return self.head(self.last(torch.cat([x, spread.repeat(group, 1, h, w)], 1)).flatten(1))


class Peer:
    """Its training step: D(fake) and D(real), then G, each with faces of its own; R1 as a step of its own."""

    def __init__(self, cfg: Config, device: torch.device):
        g, d, t = cfg.model.generator, cfg.model.discriminator, cfg.train
        self.generator = PeerGenerator(
            cfg.data.size, g.z_dim, g.w_dim, g.channels_base, g.channels_max, g.mapping_layers
        ).to(device)
        self.discriminator = PeerDiscriminator(
            cfg.data.size, d.channels_base, d.channels_max, d.mbstd_group
        ).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.g_adam = torch.optim.Adam(self.generator.parameters(), lr=t.lr_generator, betas=tuple(t.betas))
        self.d_adam = torch.optim.Adam(self.discriminator.parameters(), lr=t.lr_discriminator, betas=tuple(t.betas))
        self.gamma, self.every = cfg.loss.r1_gamma, cfg.loss.r1_every

    def step(self, real: Tensor, penalise: bool) -> None:
        n, z_dim = len(real), self.generator.z_dim
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        fake = self.generator(torch.randn(n, z_dim, device=real.device))
        logits_fake, logits_real = self.discriminator(fake), self.discriminator(real)
        self._down(self.d_adam, F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())
        if penalise:
            images = real.detach().requires_grad_(True)
            logits = self.discriminator(images)
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            penalty = gradient.pow(2).reshape(n, -1).sum(1).mean()
            self._down(self.d_adam, self.gamma / 2 * penalty * self.every)
        self.generator.requires_grad_(True)
        self.discriminator.requires_grad_(False)
        fake = self.generator(torch.randn(n, z_dim, device=real.device))
        self._down(self.g_adam, F.softplus(-self.discriminator(fake)).mean())
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                slow.mul_(0.999).add_(fast, alpha=0.001)

    @staticmethod
    def _down(adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()


def bench_peer(cfg: Config, repeats: int = 5) -> list[str]:
    """Our step and the peer's by turns, in float32 and, for both, in bfloat16 where the config asks for it.

    `cfg`: any config; its widths, batch and R1 count. One line a precision: medians and their ratio.
    """
    return [_line(_without_extras(cfg, p), repeats) for p in dict.fromkeys(("float32", cfg.run.precision))]


def _line(cfg: Config, repeats: int) -> str:
    from a3gan.bench.training import lazy, phases, stepper
    from a3gan.training.batches import build_data
    from a3gan.training.trainer import build_stage, prepare_device

    device, size = prepare_device(cfg), cfg.train.batch_size
    data, val = build_data(cfg, device, limit=size)
    stage, ema = build_stage(cfg, data, val, device)
    step, peer = stepper(cfg, stage, ema, data, device), Peer(cfg, device)
    real = data.fetch(torch.arange(size) % len(data)).to(device)
    plain = phases(stage, cfg)["step"]
    penalised, every = lazy(cfg, plain)["R1"]

    def theirs(penalise: bool) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cfg.run.precision == "bfloat16"):
            peer.step(real, penalise)

    calls = [lambda: step(plain), lambda: theirs(False), lambda: step(penalised), lambda: theirs(True)]
    a, b, a_r1, b_r1 = by_turns(calls, device, repeats)
    ours, other = a + (a_r1 - a) / every, b + (b_r1 - b) / every
    counts = [sum(p.numel() for net in nets for p in net.parameters()) / 1e6
              for nets in (stage.networks.values(), (peer.generator, peer.discriminator))]  # fmt: skip
    return (
        f"{cfg.run.precision}: {size / ours:.1f} images/s, the usual design {size / other:.1f} (lazy R1 included): "
        f"{other / ours:.2f} times as fast; a plain step {b / a:.2f} times, one with R1 {b_r1 / a_r1:.2f} times; "
        f"{counts[0]:.2f} and {counts[1]:.2f} million parameters"
    )


def _without_extras(cfg: Config, precision: str) -> Config:
    """Stage stylegan2 with the widths of `cfg` and what the peer has: R1, no augmentation, no noise, no mixing."""
    changed = {
        "stage": "stylegan2",
        "run": cfg.run.model_copy(update={"precision": precision}),
        "data": cfg.data.model_copy(update={"path": None, "flip": False}),
        "model": cfg.model.model_copy(update={
            "generator": cfg.model.generator.model_copy(update={"noise": False, "weights": None}),
        }),
        "loss": cfg.loss.model_copy(update={"path_length": 0.0, "r1_gamma": cfg.loss.r1_gamma or 10.0}),
        "train": cfg.train.model_copy(update={
            "augment": "none", "mixing": 0.0, "accumulate": 1, "identities_per_batch": 0,
        }),
    }  # fmt: skip
    return cfg.model_copy(update=changed)
