"""P7, inversion: a small U-Net learns from pairs of other people to draw the original from the result.

It is good at it where the drawn face is recognised more often than the result itself, or looks more like the original.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.ranges import to_float
from a3gan.evaluation.attackers import measures, training
from a3gan.evaluation.attackers.material import Field, Material
from a3gan.evaluation.attackers.originals import attack_originals, judged_originals
from a3gan.evaluation.figures import plain
from a3gan.evaluation.statistics import Interval, share

WIDTHS = (24, 48, 96)  # at 32, 16 and 8 px
IDENTITY = 0.5  # weight of the small recogniser's distance beside the mean absolute difference
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # Wang et al., "Image quality assessment: from error visibility to structural
SSIM_C = (0.01**2, 0.03**2)  # similarity", IEEE TIP 2004, for a range of 1


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(8, outputs), nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1), nn.GroupNorm(8, outputs), nn.SiLU(),
    )  # fmt: skip


class Inverter(nn.Module):
    """Result [N, 3, 64, 64] in [-1, 1] -> guess of the original, same shape: the result plus what a U-Net adds.

    The first level works on 2x2 blocks of pixels as channels, a quarter of the price.
    """

    def __init__(self, widths: tuple[int, int, int] = WIDTHS):
        super().__init__()
        a, b, c = widths
        self.down1, self.down2, self.middle = _convolutions(12, a), _convolutions(a, b), _convolutions(b, c)
        self.up2, self.up1 = _convolutions(c + b, b), _convolutions(b + a, a)
        self.out = nn.Conv2d(a, 12, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(F.pixel_unshuffle(x, 2))
        mid = self.down2(F.avg_pool2d(fine, 2))
        low = self.middle(F.avg_pool2d(mid, 2))
        mid = self.up2(torch.cat([F.interpolate(low, scale_factor=2.0), mid], 1))
        fine = self.up1(torch.cat([F.interpolate(mid, scale_factor=2.0), fine], 1))
        return x + F.pixel_shuffle(self.out(fine), 2)


def learn(material: Material) -> Inverter:
    """Trained on the attack people's results (mixed degradations) and originals, mirrored at random."""
    from a3gan.scorers.identity import load_recogniser

    f = material.field
    small = load_recogniser("", "small").to(f.device)
    results = torch.from_numpy(material.training()["pixels"])
    originals = torch.from_numpy(attack_originals(f)["pixels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(f.cfg.seed + 13)
        network = Inverter().to(f.device, memory_format=torch.channels_last)
    count = len(results)

    def draw(generator: torch.Generator) -> Tensor:
        rows = torch.randint(count, (f.cfg.attack.inversion_batch,), generator=generator)
        return torch.stack([rows, torch.randint(2, rows.shape, generator=generator)])

    def loss(picked: Tensor) -> Tensor:
        rows, mirrored = picked[0], picked[1].bool()[:, None, None, None].to(f.device)
        x, y = (to_float(table[rows].to(f.device)) for table in (results, originals))
        x, y = (torch.where(mirrored, images.flip(3), images) for images in (x, y))
        guess = network(x.contiguous(memory_format=torch.channels_last))
        with torch.no_grad():
            wanted = small(y)
        return (guess - y).abs().mean() + IDENTITY * (1 - (small(guess) * wanted).sum(1)).mean()

    steps = f.cfg.attack.inversion_steps
    training.fit(network, loss, draw, steps, 2e-3, f.cfg.seed + 14, title=f"{material.name}: inversion")
    return network


def attack(material: Material) -> dict[str, Any]:
    """Figures by degradation: rank1, tar, auc of the drawn faces among originals, rank1_off_the_shelf of the results;
    ssim, perceptual to the original, and *_result for the untouched result."""
    f, network, result = material.field, learn(material), {}
    gallery, truth = judged_originals(f)["embedding"], judged_originals(f)["pixels"]
    for degradation in material.degradations:
        table = material.results(degradation)
        drawn = _draw(network, table["pixels"], f.device)
        vectors = _embed(f, drawn)
        figures = plain(measures.recognition(gallery, vectors, f.person, f.cfg.far, *f.draw, same_picture=True))
        shelf = measures.rank1(table["embedding"] @ gallery.T, f.person, *f.draw)["rank1"]
        figures["rank1_off_the_shelf"] = plain({"rank1": shelf})["rank1"]
        for suffix, pixels in (("", drawn), ("_result", table["pixels"])):
            likeness = _likeness(f, pixels, truth)
            figures |= plain({f"{name}{suffix}": value for name, value in likeness.items()})
        result[degradation] = figures
    return result


@torch.inference_mode()
def _draw(network: Inverter, pixels: np.ndarray, device: torch.device) -> np.ndarray:
    parts = [network(to_float(x.to(device))).clamp(-1, 1).cpu() for x in torch.from_numpy(pixels).split(128)]
    return ((torch.cat(parts) + 1) * 127.5).round().to(torch.uint8).numpy()


@torch.inference_mode()
def _embed(field: Field, pixels: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(pixels).split(field.cfg.run.batch)
    return torch.cat([field.recogniser(to_float(x.to(field.device)), "face").float().cpu() for x in parts]).numpy()


@torch.inference_mode()
def _likeness(field: Field, pixels: np.ndarray, truth: np.ndarray) -> dict[str, Interval | float]:
    values: dict[str, list[Tensor]] = {"ssim": [], "perceptual": []}
    for x, y in zip(torch.from_numpy(pixels).split(128), torch.from_numpy(truth).split(128), strict=True):
        x, y = to_float(x.to(field.device)), to_float(y.to(field.device))
        values["ssim"].append(ssim(x, y).cpu())
        if field.attributes is not None:
            from a3gan.scorers.perceptual import perceptual

            values["perceptual"].append(perceptual(x, y, field.attributes.features).cpu())
    result: dict[str, Interval | float] = {}
    for name, parts in values.items():
        if parts:
            each = torch.cat(parts).double().numpy()
            result[name] = share(each, field.person, *field.draw)
    return result


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity [N] of images [N, 3, S, S] in [-1, 1], mean over places and channels; 1 = equal."""
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2  # variances are small differences of large numbers
    taps = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (taps / SSIM_SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    window = (kernel[:, None] * kernel[None])[None, None].expand(x.shape[1], 1, -1, -1)

    def mean(z: Tensor) -> Tensor:
        return F.conv2d(z, window, groups=x.shape[1])

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = SSIM_C
    value = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return value.mean((1, 2, 3)).float()
