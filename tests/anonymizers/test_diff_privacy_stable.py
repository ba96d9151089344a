"""Diff-Privacy on Stable Diffusion: a tiny pipeline with random weights in a local folder, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan.errors import UserError

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from a3gan.anonymizers.diff_privacy import DiffPrivacy  # noqa: E402
from a3gan.anonymizers.diff_privacy_stable import StableDiffusion  # noqa: E402
from a3gan.anonymizers.hiding import Hiding, recover  # noqa: E402

CPU = torch.device("cpu")
LETTERS = "abcdefghijklmnopqrstuvwxyz*"
PIECES = ["ph", "pho", "phot", "photo</w>", "of</w>"]
MERGES = [("p", "h"), ("ph", "o"), ("pho", "t"), ("phot", "o</w>"), ("o", "f</w>")]


def save_tiny(folder: Path) -> Path:
    """64 px pictures, 4x32x32 latents, prompts of 8 tokens of width 16."""
    torch.manual_seed(0)
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1,
    ).save_pretrained(folder / "vae")  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=32, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.02)  # a trained one's answer hardly depends on small changes
    unet.save_pretrained(folder / "unet")
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(c + "</w>" for c in LETTERS), *PIECES]
    tokenizer = transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=MERGES)
    tokenizer.save_pretrained(folder / "tokenizer")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=8, bos_token_id=0, eos_token_id=1, **sizes
    )
    transformers.CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=16, **sizes)
    transformers.CLIPVisionModel(vision).save_pretrained(folder / "image_encoder")
    diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("stable"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> StableDiffusion:
    return StableDiffusion(folder, CPU)


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    from a3gan.data.synthetic import synthetic_faces

    return synthetic_faces(1, 64, 5).fetch([0])


def test_the_word_takes_the_place_of_the_token_alone(backbone: StableDiffusion) -> None:
    assert backbone.prompt[0, backbone.place] == LETTERS.index("*") + 2 + len(LETTERS)
    words = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    context = backbone.context(words)
    assert context.shape == (2, 8, 16) and backbone.nothing(2).shape == (2, 8, 16)
    # The text encoder is causal: what stands before the word cannot depend on it.
    before = backbone.place
    assert torch.equal(context[0, :before], context[1, :before])
    assert not torch.allclose(context[0, before:], context[1, before:])
    context.sum().backward()
    assert words.grad.abs().sum() > 0
    own = backbone.text.get_input_embeddings().weight[backbone.prompt[0, backbone.place]]
    plain = backbone._encoded(backbone.prompt)
    torch.testing.assert_close(backbone.context(own.expand(1, 1, -1)), plain)  # and no hook is left behind


def test_five_levels_of_the_image_tower(backbone: StableDiffusion, face: torch.Tensor) -> None:
    from a3gan.anonymizers.diff_privacy_stable import _levels_at

    assert _levels_at(24) == [3, 7, 11, 15, 24]
    assert [level.shape for level in backbone.levels(face)] == [(1, 16)] * 5
    assert backbone.conditions(backbone.msi, backbone.levels(face)).shape == (1, 10, 8, 16)


def test_anonymises_and_hides(folder: Path, face: torch.Tensor) -> None:
    method = DiffPrivacy(folder, "cpu", steps=5, samples=2, msi_steps=2)
    out = method.anonymize(face, seeds=[3])
    assert out.shape == face.shape and not torch.allclose(out, face)
    assert torch.equal(out, DiffPrivacy(folder, "cpu", steps=5, samples=2, msi_steps=2).anonymize(face, seeds=[3]))
    assert {one.partition(":")[0] for one in method.meta["scorers"]} == {"clip", "small"}
    hiding = Hiding(folder, "cpu", steps=40, msi_steps=1)
    assert hiding.anonymize(face, seeds=[3]).shape == face.shape
    key = hiding.keys[3]
    assert key.noise.shape == (4, 32, 32) and key.conditions.shape == (10, 8, 16)
    with torch.no_grad():
        through = hiding.backbone.decode(hiding.backbone.encode(face)).clamp(-1, 1)
    error = (recover(hiding.backbone, [key], 40) - through).abs().mean()
    assert error < 0.3 * (through - through.mean()).abs().mean() + 0.05  # as near as the VAE goes


def test_errors_in_one_line(folder: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(UserError, match="no trained MSI"):
        DiffPrivacy(folder, "cpu")
    with pytest.raises(UserError, match="vae: no such folder"):
        DiffPrivacy(tmp_path, "cpu", msi_steps=1)
    shutil.copytree(folder, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "image_encoder")
    with pytest.raises(UserError, match="`tower`"):
        DiffPrivacy(tmp_path / "part", "cpu", msi_steps=1)
    assert DiffPrivacy(tmp_path / "part", "cpu", msi_steps=1, tower=folder / "image_encoder").size == 64
    (tmp_path / "part" / "unet" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        DiffPrivacy(tmp_path / "part", "cpu", msi_steps=1, tower=folder / "image_encoder")
