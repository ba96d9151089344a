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
