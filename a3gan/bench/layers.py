"""Our layers against the library's own, forward and backward, in one run."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.bench.timing import seconds


def bench_layers(repeats: int = 5) -> list[str]:
    """Forward and backward of our layers against the library's own: same input, same run (above 1: ours is faster)."""
    from a3gan.models.ops import blur_kernel, upfirdn2d
    from a3gan.scorers.frozen import FrozenDepthwise, FrozenPReLU

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = [f"{device}, {torch.get_num_threads()} threads; input [16, 128, 28, 28], forward and backward"]
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(16, 128, 28, 28, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        x.requires_grad_(True)
        kernel = blur_kernel().to(device)
        weight = kernel.to(dtype)[None, None].expand(128, 1, 4, 4).contiguous()
        pairs: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
            "blur": (
                lambda x, k=kernel: upfirdn2d(x, k, pad=(2, 1)),
                lambda x, w=weight: F.conv2d(F.pad(x, (2, 1, 2, 1)), w, groups=128),
            ),
            "blur and halve": (
                lambda x, k=kernel: upfirdn2d(x, k, down=2, pad=(1, 1)),
                lambda x, w=weight: F.conv2d(F.pad(x, (1, 1, 1, 1)), w, stride=2, groups=128),
            ),
        }
        for stride in (1, 2):
            conv = nn.Conv2d(128, 128, 3, stride, 1, groups=128).to(device, dtype).requires_grad_(False)
            pairs[f"frozen depthwise, stride {stride}"] = (FrozenDepthwise(conv), conv)
        prelu = nn.PReLU(128).to(device, dtype).requires_grad_(False)
        pairs["frozen PReLU"] = (FrozenPReLU(prelu), prelu)
        for name, (ours, theirs) in pairs.items():
            gradient = torch.randn_like(ours(x))
            mine, other = (_both_ways(f, x, gradient, device, repeats) for f in (ours, theirs))
            lines.append(
                f"{str(dtype).removeprefix('torch.'):9} {name:26} {1e3 * mine:7.2f} ms, library {1e3 * other:7.2f} ms: "
                f"{other / mine:5.1f} times as fast"
            )
    return lines + _second_order(device, repeats)


def _second_order(device: torch.device, repeats: int) -> list[str]:
    """What a penalty on the gradient costs (R1, path length): gradient of a squared gradient, float32."""
    from a3gan.models.convolution import conv2d, maps_only
    from a3gan.models.ops import blur_kernel, upfirdn2d

    x = torch.randn(8, 48, 128, 128, device=device).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    kernel = blur_kernel().to(device)
    filters = kernel[None, None].expand(48, 1, 4, 4).contiguous()
    weight = torch.randn(48, 48, 3, 3, device=device).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    triples = {
        "blur": (lambda: upfirdn2d(x, kernel, pad=(2, 2)), lambda: F.conv2d(x, filters, padding=2, groups=48), x),
        "blur and halve": (
            lambda: upfirdn2d(x, kernel, down=2, pad=(1, 1)),
            lambda: F.conv2d(x, filters, stride=2, padding=1, groups=48),
            x,
        ),
        "convolution 3x3": (lambda: conv2d(x, weight, padding=1), lambda: F.conv2d(x, weight, padding=1), weight),
    }

    def penalty(f: Callable[[], Tensor], leaf: Tensor) -> None:
        with maps_only():
            (gradient,) = torch.autograd.grad(f().square().sum(), x, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), leaf)

    lines = ["gradient of a squared gradient, float32; input [8, 48, 128, 128]"]
    for name, (ours, theirs, leaf) in triples.items():
        mine, other = (seconds(lambda f=f, at=leaf: penalty(f, at), device, repeats) for f in (ours, theirs))
        text = f"{1e3 * mine:7.1f} ms, library {1e3 * other:7.1f} ms: {other / mine:5.1f} times as fast"
        lines.append(f"{'float32':9} {name:26} {text}")
    return lines


def _both_ways(
    f: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, device: torch.device, repeats: int
) -> float:
    return seconds(lambda: torch.autograd.grad(f(x), x, gradient), device, repeats)
