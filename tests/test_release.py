"""Shipping: half precision, no folder of the training machine, a manifest that matches."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from a3gan import checkpoint, release
from a3gan.config import load_config
from a3gan.errors import UserError
from a3gan.models.build import build_generator


def run_checkpoint(folder, **tensors):
    cfg = load_config(None, ["data.path=[/secret/place/faces.zip]", "run.dir=/secret/run"])
    meta = {"stage": "a3gan", "kind": "inference", "images_seen": 7, "config": cfg.model_dump(mode="json")}
    return checkpoint.save(folder / "checkpoint.safetensors", tensors, meta)


def test_ships_half_precision_without_paths(tmp_path):
    source = run_checkpoint(tmp_path, w=torch.tensor([1.5, -2.0]), n=torch.tensor([3]))
    target = release.ship(source, tmp_path / "out" / "small.safetensors")
    tensors, meta = checkpoint.load(target)
    assert tensors["w"].dtype == torch.float16 and tensors["n"].dtype == torch.int64
    assert tensors["w"].tolist() == [1.5, -2.0]
    assert "secret" not in json.dumps(meta)
    assert meta["config"]["data"]["path"] == ["faces.zip"]
    manifest = json.loads((target.parent / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["small.safetensors"]["sha256"] == checkpoint.sha256(target)
    assert manifest["small.safetensors"]["images_seen"] == 7


def test_ships_eight_bits_and_one_network_alone(tmp_path):
    weights = torch.randn(128, 256, generator=torch.Generator().manual_seed(1))
    source = run_checkpoint(tmp_path, **{"net/discriminator.w": weights, "net/model.w": weights})
    target = release.ship(source, tmp_path / "d.safetensors", bits=8, only="net/discriminator")
    tensors, meta = checkpoint.load(target)
    assert list(tensors) == ["net/discriminator.w"] and meta["format"] == "a3gan-2"
    assert target.stat().st_size < release.ship(source, tmp_path / "e.safetensors").stat().st_size / 2.5
    torch.testing.assert_close(tensors["net/discriminator.w"].float(), weights, atol=0.02, rtol=0)
    with pytest.raises(UserError, match="holds nothing named 'net/critic'"):
        release.ship(source, tmp_path / "f.safetensors", only="net/critic")


def test_a_generators_sheet_shows_its_own_faces(tmp_path):
    small = ["stage=stylegan2", "data.size=64", "model.generator.channels_base=256", "model.generator.channels_max=8"]
    cfg = load_config(None, small)
    torch.manual_seed(0)
    networks = {"generator": build_generator(cfg)}
    meta = {"stage": "stylegan2", "images_seen": 1, "config": cfg.model_dump(mode="json")}
    source = checkpoint.save(tmp_path / "checkpoint.safetensors", checkpoint.prefixed(networks), meta)
    target = tmp_path / "shipped" / "g.safetensors"
    assert release.main([str(source), str(target), "--bits", "8", "--sheet"]) == 0
    with Image.open(target.with_suffix(".png")) as picture:
        assert picture.size == (8 * 64, 4 * 64) and len(picture.getcolors(1 << 20)) > 10


def test_refuses_what_half_precision_cannot_hold(tmp_path):
    source = run_checkpoint(tmp_path, w=torch.tensor([1e6]))
    with pytest.raises(UserError, match="half precision"):
        release.ship(source, tmp_path / "big.safetensors")
    assert not (tmp_path / "big.safetensors").exists()


def test_shipped_weights_match_their_manifest():
    for path in checkpoint.shipped().values():
        manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        assert manifest[path.name]["sha256"] == checkpoint.sha256(path)
        assert path.with_suffix(".md").is_file(), f"{path.name} has no card"
