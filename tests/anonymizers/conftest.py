from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.models.build import build_a3gan
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.blocks import fold


def tiny_config() -> Config:
    return load_config(
        None,
        [
            "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
            "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.encoder.widths=[8,8,8,8]",
            "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
        ],
    )  # fmt: skip


def save_tiny(path: Path, **meta: object) -> Path:
    """An untrained A3GAN of 64 px with its attribute network, in the layout of an inference checkpoint."""
    torch.manual_seed(0)
    cfg = tiny_config()
    # Folded, as the trainer stores it.
    networks = {"model": build_a3gan(cfg), "attributes": fold(AttributeNetwork("plain", 8).eval())}
    built = {"backbone": "plain", "width": 8}
    known = {"stage": "a3gan", "config": cfg.model_dump(), "frame": "face", "size": 64, "attributes": built}
    return checkpoint.save(path, checkpoint.prefixed(networks), known | meta)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def save_tiny_diffusion(path: Path) -> Path:
    """An untrained U-Net and MSI of 64 px, in the layout of a checkpoint of stage msi."""
    pytest.importorskip("diffusers")
    from a3gan.data.synthetic import synthetic_faces
    from a3gan.training.diffusion_stage import DiffusionStage

    sizes = ("widths=[8,16]", "context=16", "tokens=2", "rank=4")
    cfg = load_config(None, ["stage=msi", *(f"model.diffusion.{size}" for size in sizes), "model.msi.heads=2"])
    torch.manual_seed(0)
    stage = DiffusionStage(cfg, synthetic_faces(24, 64, 0), None, torch.device("cpu"))
    with torch.no_grad():
        # Not the zeros that training begins with; little, for a trained one's answer hardly depends on small changes.
        stage.networks["unet"].unet.conv_out.weight.normal_(std=0.02)
    tensors, meta = stage.inference_state(stage.networks)
    known = {"stage": "msi", "config": cfg.model_dump(), "frame": "face", "size": 64}
    return checkpoint.save(path, tensors, known | meta)


@pytest.fixture(scope="session")
def tiny_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_pool(tiny_weights: Path) -> Path:
    """40 codes of the tiny A3GAN, beside it, as stage falco writes them; without features, which loading then makes."""
    from a3gan.anonymizers.falco_pool import Pool

    generator = torch.Generator().manual_seed(3)
    pool = Pool(40, 6, 10, 16, 4)
    pool.codes.normal_(generator=generator)
    pool.basis.normal_(generator=generator)
    pool.filled.fill_(40)
    model = {"name": tiny_weights.stem, "sha256": checkpoint.sha256(tiny_weights)}
    meta = {"stage": "falco", "kind": "inference", "model": model, "frame": "face", "size": 64}
    return checkpoint.save(tiny_weights.parent / "pool.safetensors", checkpoint.prefixed({"pool": pool}), meta)
