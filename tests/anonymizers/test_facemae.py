"""Method facemae: contract, seeds, ratios, bad files."""

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.anonymizers.facemae import FaceMae
from a3gan.config import Config
from a3gan.data.attributes import Policy
from a3gan.errors import UserError

pytest.importorskip("timm")

SMALL = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


def write(path: Path, **meta) -> Path:
    from a3gan.models.facemae import build_facemae

    cfg = Config.model_validate({"stage": "facemae", "model": {"facemae": SMALL}})
    torch.manual_seed(0)
    tensors = checkpoint.prefixed({"facemae": build_facemae(cfg.model.facemae, 64)})
    about = {"stage": "facemae", "kind": "inference", "config": cfg.model_dump(mode="json"), "scorers": ["small:1"]}
    checkpoint.save(path, {k: v.half() for k, v in tensors.items()}, about | meta)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("facemae") / "tiny.safetensors")


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_contract(weights: Path, faces: torch.Tensor) -> None:
    method = FaceMae(weights, "cpu")
    assert (method.name, method.frame, method.size, method.synthesises) == ("facemae", "face", 64, True)
    assert method.meta["scorers"] == ["small:1"] and method.path == weights
    out = method.anonymize(faces, seeds=range(5))
    assert out.shape == faces.shape and out.dtype == torch.float32 and out.abs().max() <= 1
    method.batch = 2
    assert (method.anonymize(faces, seeds=range(5)) - out).abs().max() < 1e-5
    assert (method.anonymize(faces[3:4], seeds=[3]) - out[3:4]).abs().max() < 1e-5
    assert len(method.anonymize(faces[:0], seeds=[])) == 0


def test_a_seed_is_a_mask(weights: Path, faces: torch.Tensor) -> None:
    method = FaceMae(weights, "cpu")
    assert method.supports == {"seed"}
    same = faces[:1].expand(2, -1, -1, -1)
    first, second = method.anonymize(same, seeds=[1, 2])
    assert not torch.allclose(first, second, atol=1e-3)
    assert torch.equal(method.anonymize(same, seeds=[1, 2])[1], second)


def test_what_it_does_not_support_is_refused(weights: Path, faces: torch.Tensor) -> None:
    method = FaceMae(weights, "cpu")
    with pytest.raises(UserError, match="cannot follow a policy"):
        method.anonymize(faces, policy=Policy())
    with pytest.raises(UserError, match="no dial"):
        method.anonymize(faces, alpha=0.5)


def test_the_ratio_decides_what_is_seen(weights: Path, faces: torch.Tensor) -> None:
    most, least = FaceMae(weights, "cpu", ratio=0.9), FaceMae(weights, "cpu", ratio=0.5)
    assert not torch.allclose(most.anonymize(faces), least.anonymize(faces), atol=1e-3)
    for wrong in (0.4, 1.0, -1):
        with pytest.raises(UserError, match="ratio"):
            FaceMae(weights, "cpu", ratio=wrong)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage 'a3gan'"):
        FaceMae(write(tmp_path / "a.safetensors", stage="a3gan"), "cpu")
    with pytest.raises(UserError, match="the state of a run"):
        FaceMae(write(tmp_path / "b.safetensors", kind="state"), "cpu")
    other = Config.model_validate({"stage": "facemae", "model": {"facemae": {**SMALL, "depth": 2}}})
    with pytest.raises(UserError, match="does not fit"):
        FaceMae(write(tmp_path / "c.safetensors", config=other.model_dump(mode="json")), "cpu")
