"""StyleGAN2 generator, 64 to 1024 pixels: mapping Z -> W, synthesis W+ -> image.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020): skip generator, weight
demodulation. W+ has L = 2 log2(S) - 2 rows: row 0 and 1 at 4x4 (convolution, RGB), then for every doubling two
convolutions and an RGB layer, the RGB sharing its row with the first convolution of the next size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from a3gan.models.ops import SQRT2, EqualLinear, blur_kernel, lrelu_, modulated_conv2d, upfirdn2d


def rows_of(size: int) -> int:
    """Number of W+ rows L = 2 log2(S) - 2 of an S-pixel generator (64: 10, 128: 12, 256: 14, 1024: 18)."""
    return 2 * int(math.log2(size)) - 2


def channels_at(resolution: int, base: int, maximum: int) -> int:
    """Feature maps at a resolution: min(base / resolution, maximum), at least 8."""
    return max(8, min(base // resolution, maximum))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation; ``up`` doubles the size."""

    blur: Tensor
    noise: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, up: bool, noise: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.gain = 1.0 / math.sqrt(inputs * 9)
        self.style = EqualLinear(w_dim, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        if noise:
            self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.register_buffer("blur", blur_kernel(), persistent=False)
        self.up = up

    def forward(self, x: Tensor, w: Tensor, random_noise: bool) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, H', W']."""
        y = modulated_conv2d(
            x, self.weight * self.gain, self.style(w), up=self.up, blur=self.blur, gain=SQRT2, bias=self.bias * SQRT2
        )
        if self.noise_strength is not None:
            noise = torch.randn_like(y[:, :1]) if random_noise else self.noise.to(y.dtype)
            y = y + (self.noise_strength * SQRT2).to(y.dtype) * noise
        return lrelu_(y)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, added to the doubled image of the size before."""

    blur: Tensor

    def __init__(self, inputs: int, w_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.gain = 1.0 / math.sqrt(inputs)
        self.style = EqualLinear(w_dim, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("blur", blur_kernel(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None) -> Tensor:
        """x [N, I, H, W], w [N, w_dim], skip [N, 3, H/2, W/2] or None -> [N, 3, H, W]."""
        y = modulated_conv2d(x, self.weight * self.gain, self.style(w), demodulate=False)
        y = y + self.bias.to(y.dtype)[None, :, None, None]
        return y if skip is None else y + upfirdn2d(skip, self.blur * 4.0, up=2, pad=(2, 1)).to(y.dtype)


class Mapping(nn.Module):
    """Z -> W: normalise to unit mean square, then ``layers`` fully connected layers at a hundredth of the rate."""

    def __init__(self, z_dim: int, w_dim: int, layers: int):
        super().__init__()
        widths = [z_dim] + [w_dim] * layers
        self.layers = nn.Sequential(
            *(EqualLinear(i, o, lr_mul=0.01, activate=True) for i, o in zip(widths, widths[1:], strict=False))
        )

    def forward(self, z: Tensor) -> Tensor:
        """[N, z_dim] ~ N(0, I) -> [N, w_dim]."""
        return self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class Generator(nn.Module):
    """StyleGAN2 generator.

    Args:
        size: output side in pixels, a power of two from 8 up. z_dim, w_dim: widths of Z and W. channels_base,
        channels_max: see ``channels_at``. mapping_layers: depth of the mapping network. noise: per-pixel noise inputs.
    ``w_mean`` [w_dim] is the running mean of W: w-bar of the truncation trick and the starting point of inversion.
    """

    w_mean: Tensor

    def __init__(
        self, size: int, *, z_dim: int = 512, w_dim: int = 512, channels_base: int = 32768, channels_max: int = 512,
        mapping_layers: int = 8, noise: bool = True,
    ):
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"generator size must be a power of two from 8 up, not {size}")
        self.size, self.z_dim, self.w_dim, self.rows = size, z_dim, w_dim, rows_of(size)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        width = channels_at(4, channels_base, channels_max)
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        convs = [StyledConv(width, width, w_dim, 4, up=False, noise=noise)]
        to_rgb = [ToRGB(width, w_dim)]
        resolution = 8
        while resolution <= size:
            out = channels_at(resolution, channels_base, channels_max)
            convs.append(StyledConv(width, out, w_dim, resolution, up=True, noise=noise))
            convs.append(StyledConv(out, out, w_dim, resolution, up=False, noise=noise))
            to_rgb.append(ToRGB(out, w_dim))
            width, resolution = out, resolution * 2
        self.convs, self.to_rgb = nn.ModuleList(convs), nn.ModuleList(to_rgb)
        self.register_buffer("w_mean", torch.zeros(w_dim))

    def synthesis(self, w_plus: Tensor, random_noise: bool = False) -> Tensor:
        """W+ [N, L, w_dim] -> image [N, 3, S, S], about [-1, 1], float32.

        random_noise: fresh per-pixel noise (training of the generator alone); otherwise the stored constant noise, so
        that the same code gives the same face.
        """
        if w_plus.shape[1:] != (self.rows, self.w_dim):
            raise ValueError(f"w_plus must be [N, {self.rows}, {self.w_dim}], not {tuple(w_plus.shape)}")
        dtype = torch.get_autocast_dtype(w_plus.device.type) if _autocast(w_plus) else w_plus.dtype
        x = self.constant.to(dtype).expand(len(w_plus), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        w_plus = w_plus.to(dtype)
        x = self.convs[0](x, w_plus[:, 0], random_noise)
        rgb = self.to_rgb[0](x, w_plus[:, 1], None)
        for i in range(1, len(self.to_rgb)):
            x = self.convs[2 * i - 1](x, w_plus[:, 2 * i - 1], random_noise)
            x = self.convs[2 * i](x, w_plus[:, 2 * i], random_noise)
            rgb = self.to_rgb[i](x, w_plus[:, 2 * i + 1], rgb)
        return rgb.float()

    def forward(self, z: Tensor, truncation: float = 1.0, random_noise: bool = False) -> Tensor:
        """Z [N, z_dim] -> image [N, 3, S, S]; truncation pulls W towards its mean (1: none, 0: the mean face)."""
        w = self.w_mean + truncation * (self.mapping(z) - self.w_mean)
        return self.synthesis(w[:, None].expand(-1, self.rows, -1), random_noise)

    @torch.no_grad()
    def track_w_mean(self, w: Tensor, decay: float = 0.998) -> None:
        """Move ``w_mean`` towards the batch mean of w [N, w_dim]."""
        self.w_mean.lerp_(w.float().mean(0).to(self.w_mean.dtype), 1.0 - decay)


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)
