"""One pass for inference: the same function as `A3GAN`, with everything that does not depend on the face folded.

Folded once: the gains of equalised layers, the demodulation's sum of squares, sqrt(2) of the activation, the heads of
the fusion (one product a level) and of AINet (one product). What stays differs from `A3GAN` by rounding only. The
graph has no Python branch on the batch, so `torch.export` traces it with a free batch.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.data.attributes import to_values
from a3gan.models.a3gan import A3GAN
from a3gan.models.fusion import POOL, Fusion, level_of_row
from a3gan.models.injection import LIMIT, AINet
from a3gan.models.ops import SQRT2, EqualLinear, blur_kernel
from a3gan.models.stylegan2 import Generator, StyledConv, ToRGB


class FoldedA3GAN(nn.Module):
    """`A3GAN.forward(...).image` of a trained model; alpha = 0 is the plain reconstruction exactly, here too.

    Args:
        model: not changed, and must not change afterwards: in float32 its encoder serves here too.
        dtype: of the feature maps (encoder and synthesis). Codes, styles and the result are float32 in any case.
        up: how a map is doubled: 'transpose' (the library's transposed convolution) or 'shuffle' (four phases of one
            2x2 convolution, then pixel shuffle), which runtimes without a fast transposed convolution prefer.
    """

    def __init__(self, model: A3GAN, dtype: torch.dtype = torch.float32, up: str = "transpose"):
        super().__init__()
        if up not in ("transpose", "shuffle"):
            raise ValueError(f"up is {up!r}; it must be 'transpose' or 'shuffle'")
        self.dtype = dtype
        encoder = model.encoder if dtype == torch.float32 else copy.deepcopy(model.encoder).to(dtype)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.fusion = FoldedFusion(model.fusion)
        self.ainet = FoldedAINet(model.ainet)
        self.synthesis = FoldedSynthesis(model.generator, dtype, up)
        self.eval()

    def forward(self, x: Tensor, a: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
        """x [N, 3, S, S], a [N, D] logits, c [N, K], z [N, z_dim], alpha [N], float32 -> image [N, 3, S, S], float32.

        About [-1, 1] and not clamped, so that a value that is not finite stays visible.
        """
        maps = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        w_sup = self.fusion(self.encoder(maps, alpha).features)
        w_plus = w_sup + alpha[:, None, None] * self.ainet(w_sup, a, c, z)
        return self.synthesis(w_plus)


class FoldedFusion(nn.Module):
    """`Fusion` with one matrix a level."""

    def __init__(self, fusion: Fusion):
        super().__init__()
        self.lateral = nn.ModuleList(_linear(conv.weight.flatten(1), conv.bias) for conv in fusion.lateral)
        self.rows, self.w_dim = fusion.w_start.shape
        levels = [level_of_row(row) for row in range(self.rows)]
        self.heads = nn.ModuleList()
        for level in (1, 2, 3):
            own = [(*_plain(head), start) for head, start, at in zip(fusion.heads, fusion.w_start, levels, strict=True)
                   if at == level]  # fmt: skip
            rows = [(w, b + start) for w, b, start in own]
            one = _linear(*(torch.cat(part) for part in zip(*rows, strict=True))) if rows else nn.Identity()
            self.heads.append(one)
        # Rows come in runs: coarse first.
        self.order = [level for level in (3, 2, 1) if level in levels]

    def forward(self, features: list[Tensor]) -> Tensor:
        """S_1, S_2, S_3 -> w^sup [N, L, w_dim], float32."""
        pooled: dict[int, Tensor] = {}
        below: Tensor | None = None
        for level in (3, 2, 1):
            # A 1x1 convolution as a product over the channels, which channels-last maps have innermost.
            x = self.lateral[level - 1](features[level - 1].float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if below is not None:
                x = x + F.interpolate(below, size=x.shape[2:], mode="bilinear", align_corners=False)
            below = x
            pooled[level] = F.adaptive_avg_pool2d(x, POOL).flatten(1)
        rows = torch.cat([self.heads[level - 1](pooled[level]) for level in self.order], 1)
        return rows.reshape(-1, self.rows, self.w_dim)


class FoldedAINet(nn.Module):
    """`AINet` with its three heads in one matrix; gives alpha's factor `delta` alone."""

    change: Tensor

    def __init__(self, ainet: AINet):
        super().__init__()
        self.schema, self.policy, self.rows, self.w_dim = ainet.schema, ainet.policy, ainet.rows, ainet.w_dim
        self.propose, self.encode = ainet.propose, ainet.encode
        parts = [_plain(head) for head in (ainet.scale, ainet.shift, ainet.gate)]
        self.heads = _linear(*(torch.cat(part) for part in zip(*parts, strict=True)))
        self.register_buffer("row_gain", ainet.row_gain.detach().clone())
        index = [k for k, attribute in enumerate(ainet.schema) for _ in range(attribute.width)]
        self.register_buffer("columns", torch.tensor(index))  # of the policy, for each column of the flat code

    def forward(self, w_sup: Tensor, a: Tensor, c: Tensor, z: Tensor) -> Tensor:
        """As `AINet.forward(...).delta`: [N, L, w_dim]."""
        c = c if self.policy else torch.ones_like(c)
        a = a.clamp(-LIMIT, LIMIT)
        moved = (a + self.propose(torch.cat([a, c, z], 1))).clamp(-LIMIT, LIMIT)
        proposal = torch.where(c[:, self.columns] > 0.5, moved, a)
        new, old = to_values(proposal, self.schema), to_values(a, self.schema)
        seen = c if self.policy else torch.zeros_like(c)
        e = self.encode(torch.cat([new, new - old, seen, z], 1))
        wide = self.rows * self.w_dim
        gamma, beta, gate = self.heads(e).split([wide, wide, self.rows], 1)
        gamma, beta = (part.reshape(-1, self.rows, self.w_dim) for part in (gamma, beta))
        g = torch.sigmoid(gate) * self.row_gain
        return g[:, :, None] * (gamma * F.layer_norm(w_sup, (self.w_dim,)) + beta)


class FoldedSynthesis(nn.Module):
    """`Generator.synthesis` with stored noise."""

    def __init__(self, generator: Generator, dtype: torch.dtype, up: str):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("constant", generator.constant.detach().to(dtype))
        self.convs = nn.ModuleList(FoldedConv(conv, dtype, up) for conv in generator.convs)
        self.to_rgb = nn.ModuleList(FoldedRGB(layer, dtype) for layer in generator.to_rgb)

    def forward(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, w_dim], float32 -> image [N, 3, S, S], float32."""
        rows = w_plus.unbind(1)
        x = self.convs[0](self.constant.repeat(w_plus.shape[0], 1, 1, 1), rows[0])
        rgb = self.to_rgb[0](x, rows[1], None)
        for i in range(1, len(self.to_rgb)):
            x = self.convs[2 * i - 1](x, rows[2 * i - 1])
            x = self.convs[2 * i](x, rows[2 * i])
            rgb = self.to_rgb[i](x, rows[2 * i + 1], rgb)
        return rgb


class FoldedConv(nn.Module):
    """`StyledConv`."""

    noise: Tensor | None

    def __init__(self, layer: StyledConv, dtype: torch.dtype, up: str):
        super().__init__()
        weight = layer.weight.detach().float() * layer.gain
        self.up = up if layer.up else ""
        self.style = _linear(*_plain(layer.style))
        # sqrt(2) lrelu(y) = lrelu(sqrt(2) y): the gain of the activation goes into the scale, bias and noise before it.
        self.register_buffer("power", weight.square().sum((2, 3)).t().contiguous() / 2)
        self.register_buffer("bias", (layer.bias.detach().float() * SQRT2)[None, :, None, None].to(dtype))
        noise = None
        if layer.noise_strength is not None and bool(layer.noise_strength != 0):
            noise = (layer.noise_strength.detach() * layer.noise * SQRT2).to(dtype)
        self.register_buffer("noise", noise)
        if self.up == "shuffle":
            weight = phases(weight)
        elif self.up == "transpose":
            weight = weight.transpose(0, 1)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        if self.up:
            outputs, blur = layer.weight.shape[0], blur_kernel() * 4.0
            self.register_buffer("blur", blur.to(dtype)[None, None].repeat(outputs, 1, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], which is overwritten, w [N, w_dim] -> [N, O, H', W'].

        Scales, offset and activation work in place: on a CPU fresh memory costs more than the arithmetic.
        """
        style = self.style(w)
        style = style * style.square().mean(1, keepdim=True).add(1e-8).rsqrt()
        scale = (style.square() @ self.power + 0.5e-8).rsqrt()  # sqrt(2) times the demodulation: power is halved
        y = x.mul_(style.to(x.dtype)[:, :, None, None])
        if self.up == "transpose":
            y = F.conv_transpose2d(y, self.weight, stride=2)
            y = F.conv2d(y, self.blur, padding=1, groups=self.blur.shape[0])
        elif self.up == "shuffle":
            y = F.pixel_shuffle(F.conv2d(y, self.weight, padding=1), 2)  # one row and column of zeros at the end
            y = F.conv2d(F.pad(y, (1, 0, 1, 0)), self.blur, groups=self.blur.shape[0])
        else:
            y = F.conv2d(y, self.weight, padding=1)
        offset = self.bias if self.noise is None else self.bias + self.noise
        return F.leaky_relu_(y.mul_(scale.to(y.dtype)[:, :, None, None]).add_(offset), 0.2)


class FoldedRGB(nn.Module):
    """`ToRGB`; the modulated weight is made for each image, as three rows cost less than a scaled map."""

    def __init__(self, layer: ToRGB, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.style = _linear(*_plain(layer.style))
        self.register_buffer("weight", (layer.weight.detach().float() * layer.gain).flatten(1)[None])
        self.register_buffer("bias", layer.bias.detach().float()[None, :, None, None])
        self.register_buffer("doubling", doubling_filter(3))

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None) -> Tensor:
        """x [N, I, H, W], w [N, w_dim], skip [N, 3, H/2, W/2] or None -> [N, 3, H, W], float32."""
        weight = (self.weight * self.style(w)[:, None]).to(x.dtype)
        h, wide = x.shape[2:]
        y = torch.bmm(weight, x.flatten(2)).reshape(-1, 3, h, wide).float() + self.bias
        if skip is None:
            return y
        return y + F.pixel_shuffle(F.conv2d(skip, self.doubling, padding=1), 2)


def phases(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] of a transposed convolution, stride 2 -> [4 O, I, 2, 2] of an ordinary one before pixel shuffle.

    Row 2i of the result sees x_i through tap 0 and x_(i-1) through tap 2, row 2i + 1 sees x_i through tap 1. On a map
    padded by one at each side, place i of the convolution sees x_(i-1) and x_i.
    """
    o, i = weight.shape[:2]
    split = weight.new_zeros(o, 2, 2, i, 2, 2)
    taps = {0: ((0, 2), (1, 0)), 1: ((1, 1),)}  # phase -> (place in the 2-tap kernel, tap of the 3-tap one)
    for a, down in taps.items():
        for b, across in taps.items():
            for p, k in down:
                for q, j in across:
                    split[:, a, b, :, p, q] = weight[:, :, k, j]
    return split.reshape(4 * o, i, 2, 2)


def doubling_filter(channels: int) -> Tensor:
    """[4 C, C, 3, 3]: upfirdn2d(x, 4 blur, up=2, pad=(2, 1)) as a convolution (padding 1) before pixel shuffle."""
    one = torch.tensor([[1.0, 3.0, 0.0], [0.0, 3.0, 1.0]]) / 4  # even places lean to the sample before, odd to the next
    filters = (one[:, None, :, None] * one[None, :, None, :]).reshape(4, 3, 3)
    weight = torch.zeros(channels, 4, channels, 3, 3)
    for c in range(channels):
        weight[c, :, c] = filters
    return weight.reshape(4 * channels, channels, 3, 3)


def _plain(layer: EqualLinear) -> tuple[Tensor, Tensor]:
    """Weight and bias with their gains in."""
    return layer.weight.detach().float() * layer.gain, layer.bias.detach().float() * layer.lr_mul


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    layer.weight, layer.bias = (nn.Parameter(t.detach().clone(), requires_grad=False) for t in (weight, bias))
    return layer

