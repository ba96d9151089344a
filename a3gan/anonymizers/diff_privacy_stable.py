"""Diff-Privacy on Stable Diffusion, as published: frozen v1.x weights from a local folder, MSI through its prompt.

The folder is one that diffusers' `save_pretrained` writes: vae, unet, text_encoder, tokenizer, scheduler. CLIP's image
tower (ViT-L/14 beside v1.4) comes from `tower`, or from its subfolder image_encoder. Nothing is downloaded.

MSI's output for a bin is a pseudo-word: it takes the place of the token "*" in "a photo of *", and the frozen text
encoder makes the condition of that prompt; the empty prompt is the null condition. The authors draw prompts from a list
while they fit; one is kept to here, for it is the one that is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.anonymizers.diff_privacy_backbone import Backbone
from a3gan.errors import UserError
from a3gan.models.diffusion import diffusers
from a3gan.models.msi import LEVELS, Msi
from a3gan.scorers.guard import fingerprint

PROMPT, WORD = "a photo of *", "*"
# CLIP's own normalisation, of pictures in 0..1.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SHARES = (3 / 24, 7 / 24, 11 / 24, 15 / 24)  # of the tower's depth, of four levels: its states 3, 7, 11, 15 of 24


class StableDiffusion(Backbone):
    """Latents of a VAE under prompts. MSI starts at random (`meta["msi_trained"]` is False), so fitting is needed.

    Raises UserError: a folder that lacks a part, a part that cannot be read, transformers or diffusers not installed.
    """

    frame, clips = "face", False

    def __init__(self, folder: Path, device: torch.device, tower: str | Path | None = None) -> None:
        self.device, self.folder = device, folder
        parts = _parts(folder, None if tower is None else Path(tower))
        self.vae, self.unet, self.text, self.vision = (self._own(part) for part in parts[:4])
        self.tokenizer, scheduler = parts[4:]
        self.schedule = dict(scheduler.config)
        if self.schedule.get("prediction_type", "epsilon") != "epsilon":
            kind = self.schedule["prediction_type"]
            raise UserError(f"{folder}: predicts {kind!r}; Diff-Privacy is for models that predict the noise (v1.x)")
        self.size = self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        weights = sorted((folder / "unet").glob("*.safetensors"))
        self.path = weights[0]
        self.digest = checkpoint.sha256(self.path)
        seen = fingerprint("clip", self.vision.state_dict())
        self.meta: dict[str, Any] = {"stage": "stable_diffusion", "scorers": [seen], "msi_trained": False}
        self.levels_at = _levels_at(self.vision.config.num_hidden_layers)
        self.prompt, self.place = self._prompt()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the start of every fit, so that results belong to seeds alone
            self.msi = self._own(Msi([self.vision.config.hidden_size] * LEVELS, self.text.config.hidden_size))
        self._null = self._encoded(self._ids(""))

    def _own(self, network: nn.Module) -> Any:
        return network.float().eval().requires_grad_(False).to(self.device)

    def networks(self) -> list[nn.Module]:
        return [self.vae, self.unet, self.text, self.vision, self.msi]

    # --- pictures -------------------------------------------------------------------------------------------------
    def encode(self, faces: Tensor) -> Tensor:
        return self.vae.encode(faces).latent_dist.mode() * self.vae.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z / self.vae.config.scaling_factor).sample

    def noise(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(z, t, encoder_hidden_states=context).sample

    @torch.no_grad()
    def levels(self, faces: Tensor) -> list[Tensor]:
        side = self.vision.config.image_size
        seen = F.interpolate(faces, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        mean, std = (faces.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        states = self.vision(((seen + 1) / 2 - mean) / std, output_hidden_states=True).hidden_states
        return [states[i].mean(1) for i in self.levels_at]

    # --- prompts --------------------------------------------------------------------------------------------------
    def nothing(self, count: int) -> Tensor:
        return self._null.expand(count, -1, -1)

    def context(self, words: Tensor) -> Tensor:
        """The prompts [N, L, D] around pseudo-words [N, 1, D]."""
        return self._encoded(self.prompt.expand(len(words), -1), words)

    def _ids(self, text: str) -> Tensor:
        length = self.text.config.max_position_embeddings
        ids = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return ids.input_ids.to(self.device)

    def _prompt(self) -> tuple[Tensor, int]:
        """Token numbers [1, L] of the prompt, and where the pseudo-word stands in them."""
        ids = self._ids(PROMPT)
        word = self.tokenizer(WORD, add_special_tokens=False).input_ids
        places = (ids[0] == word[0]).nonzero()[:, 0].tolist() if len(word) == 1 else []
        if len(places) != 1:
            raise UserError(f"{self.folder}: its tokenizer has no token for {WORD!r} alone; take Stable Diffusion's")
        return ids, places[0]

    def _encoded(self, ids: Tensor, words: Tensor | None = None) -> Tensor:
        """The text encoder's states [N, L, D]. Its embedding of the token at `place` gives way to the words."""

        def replace(_module: nn.Module, _inputs: tuple, embedded: Tensor) -> Tensor:
            here = torch.zeros(1, embedded.shape[1], 1, dtype=torch.bool, device=embedded.device)
            here[0, self.place] = True
            return torch.where(here, words, embedded)

        embedding = self.text.get_input_embeddings()
        hook = embedding.register_forward_hook(replace) if words is not None else None
        try:
            return self.text(ids).last_hidden_state
        finally:
            if hook is not None:
                hook.remove()


def _levels_at(depth: int) -> list[int]:
    """Which hidden states of a tower with `depth` layers are the five levels; 0 would be its input."""
    return [*(max(1, round(share * depth)) for share in SHARES), depth]


def _parts(folder: Path, tower: Path | None) -> list[Any]:
    """VAE, U-Net, text encoder, image tower, tokenizer, scheduler from local files alone."""
    library = diffusers()
    try:
        import transformers
    except ImportError as error:
        raise UserError("method diff_privacy: Stable Diffusion needs transformers; pip install transformers") from error
    kinds = [
        (library.AutoencoderKL, folder / "vae"), (library.UNet2DConditionModel, folder / "unet"),
        (transformers.CLIPTextModel, folder / "text_encoder"),
        (transformers.CLIPVisionModel, tower or folder / "image_encoder"),
        (transformers.CLIPTokenizer, folder / "tokenizer"), (library.DDIMScheduler, folder / "scheduler"),
    ]  # fmt: skip
    parts = []
    for kind, path in kinds:
        if not path.is_dir():
            hint = "; give CLIP's image tower (such as ViT-L/14) with `tower`" if path.name == "image_encoder" else ""
            raise UserError(f"{path}: no such folder of {kind.__name__}{hint}")
        networks = {"use_safetensors": True} if issubclass(kind, nn.Module) else {}  # pickles run code
        if networks and kind.__module__.startswith("diffusers"):
            networks["low_cpu_mem_usage"] = False  # the other way wants one more package
        try:
            parts.append(kind.from_pretrained(str(path), local_files_only=True, **networks))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as {kind.__name__} ({str(error).splitlines()[0]})") from error
    return parts
