"""FaRL (Zheng et al., "General Facial Representation Learning", CVPR 2022): CLIP's image tower, trained on faces.

Its published weights (ViT-B/16, LAION-Face-20M, a .pth) are a whole CLIP under "state_dict"; read here is the image
tower, `visual.*`, built by timm. Pre-norm, QuickGELU and a bias-free patch layer as in CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.errors import UserError
from a3gan.models.public_weights import read_file
from a3gan.scorers.guard import fingerprint

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, of 0..1
HEAD = 64  # channels of an attention head in every CLIP
MARK = "visual.conv1.weight"
# Ours of a block -> CLIP's
BLOCK = {
    "norm1": "ln_1", "attn.qkv": "attn.in_proj", "attn.proj": "attn.out_proj", "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


class FaRL(nn.Module):
    """Aligned faces [N, 3, S, S] in [-1, 1] -> tokens and vectors, differentiable in x. Frozen.

    Pictures are brought to the network's size (224 px) and to CLIP's mean and deviation. The code published with FALCO
    leaves the latter out; the network was trained with it.
    """

    family = "farl"

    def __init__(self, tower: nn.Module, final_norm: nn.Module, projection: Tensor, size: int, digest: str):
        super().__init__()
        self.tower, self.final_norm, self.size, self.fingerprint = tower, final_norm, size, digest
        self.register_buffer("projection", projection)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 2, persistent=False)
        self.eval().requires_grad_(False)

    def _last(self, x: Tensor) -> Tensor:
        """[N, T, C]: what the last block gives, before the final norm; the class token is the first."""
        if x.shape[-1] != self.size:
            wide = x.shape[-1] > self.size
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", align_corners=False, antialias=wide)
        return self.tower.forward_features((x - self.mean) / self.std)

    def tokens(self, x: Tensor) -> list[Tensor]:
        """One set [N, 197, 768]: the last block's output, before final norm and projection, as FALCO compares it."""
        return [self._last(x)]

    def weights(self, tokens_in: Sequence[Tensor]) -> None:
        """None: the sum over these tokens is the convention itself."""
        return None

    def embed(self, x: Tensor) -> Tensor:
        """Unit vectors [N, 512]: the class token, normed and projected."""
        return F.normalize((self.final_norm(self._last(x)[:, 0]) @ self.projection).float())


def load_farl(path: str | Path) -> FaRL:
    """FaRL, or any CLIP image tower in OpenAI's layout, from a .pth or .safetensors; sizes are read off the tensors.

    Raises UserError: no timm; a missing, unsafe or foreign file.
    """
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise UserError("method falco: FaRL needs timm; pip install a3gan[methods]") from error
    state = _visual(read_file(path), path)
    width, _, patch, _ = state["conv1.weight"].shape
    depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("transformer.resblocks."))
    side = round((len(state["positional_embedding"]) - 1) ** 0.5)
    tower = VisionTransformer(
        img_size=side * patch, patch_size=patch, embed_dim=width, depth=depth, num_heads=width // HEAD, num_classes=0,
        pre_norm=True, final_norm=False, act_layer="quick_gelu", norm_layer=nn.LayerNorm,
    )  # fmt: skip
    final_norm = nn.LayerNorm(width)
    try:
        tower.load_state_dict(_renamed(state, depth))
        final_norm.load_state_dict({k: state[f"ln_post.{k}"] for k in ("weight", "bias")})
        projection = state["proj"]
    except (KeyError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a whole image tower of FaRL or CLIP ({first})") from error
    return FaRL(tower, final_norm, projection, side * patch, fingerprint("farl", state))


def _visual(tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The tensors of `visual.`, whatever stands before it, in float32."""
    prefix = next((key.removesuffix("conv1.weight") for key in tensors if key.endswith(MARK)), None)
    if prefix is None:
        raise UserError(f"{path}: no FaRL weights: a ViT in CLIP's layout has {MARK}")
    state = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    if "positional_embedding" not in state or not any(k.startswith("transformer.resblocks.") for k in state):
        raise UserError(f"{path}: its image tower is no vision transformer; wanted is FaRL's ViT-B/16")
    return state


def _renamed(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """CLIP's names -> timm's."""
    new = {
        "cls_token": state["class_embedding"][None, None], "pos_embed": state["positional_embedding"][None],
        "patch_embed.proj.weight": state["conv1.weight"],
    }  # fmt: skip
    for kind in ("weight", "bias"):
        new[f"norm_pre.{kind}"] = state[f"ln_pre.{kind}"]
        for i in range(depth):
            for ours, theirs in BLOCK.items():
                joint = "_" if theirs.endswith("in_proj") else "."  # torch names it in_proj_weight
                new[f"blocks.{i}.{ours}.{kind}"] = state[f"transformer.resblocks.{i}.{theirs}{joint}{kind}"]
    return new
