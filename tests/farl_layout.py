"""Random weights of a small image tower in the layout of FaRL's file."""

from __future__ import annotations

import torch

WIDTH, DEPTH, PATCH, SIDE, OUT = 128, 2, 16, 3, 12  # two heads, 9 places


def clip_layout(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names of OpenAI's CLIP, whose image tower FaRL is; with a piece of the text tower."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    state = {
        "class_embedding": draw(WIDTH), "positional_embedding": draw(SIDE * SIDE + 1, WIDTH),
        "conv1.weight": draw(WIDTH, 3, PATCH, PATCH), "proj": draw(WIDTH, OUT),
    }  # fmt: skip
    norms = ["ln_pre", "ln_post"]
    for i in range(DEPTH):
        block = f"transformer.resblocks.{i}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        state |= {f"{block}.attn.in_proj_weight": draw(3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": draw(3 * WIDTH)}
        wide = {"attn.out_proj": (WIDTH, WIDTH), "mlp.c_fc": (4 * WIDTH, WIDTH), "mlp.c_proj": (WIDTH, 4 * WIDTH)}
        for name, shape in wide.items():
            state |= {f"{block}.{name}.weight": draw(*shape), f"{block}.{name}.bias": draw(shape[0])}
    for name in norms:
        state |= {f"{name}.weight": 1 + draw(WIDTH), f"{name}.bias": draw(WIDTH)}
    return {f"visual.{k}": v for k, v in state.items()} | {"positional_embedding": draw(77, 8), "logit_scale": draw(1)}
