"""`a3gan evaluate` of a generator, end to end on rendered faces with tiny networks: files, cache, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan import checkpoint, cli
from a3gan.config import load_config
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.evaluation import generator_features as feat
from a3gan.evaluation import generator_protocol
from a3gan.evaluation.generator import evaluate
from a3gan.models.build import build_generator
from a3gan.scorers.small_identity import SmallIdentity

SMALL = [
    "stage=stylegan2", "model.generator.channels_base=256", "model.generator.channels_max=8",
    "model.generator.w_dim=16", "model.generator.z_dim=16", "model.generator.mapping_layers=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive, a generator and a judge."""
    folder = tmp_path_factory.mktemp("generator")
    faces = synthetic_faces(24, 64, 0, identities=12)
    faces.split = ["train" if i % 3 == 0 else "test" for i in range(len(faces))]
    faces.save(folder / "faces.zip")
    cfg = load_config(None, SMALL)
    torch.manual_seed(0)
    meta = {"kind": "inference", "stage": "stylegan2", "config": cfg.model_dump(mode="json"), "images_seen": 8,
            "frame": "face", "size": 64}  # fmt: skip
    generator = checkpoint.prefixed({"generator": build_generator(cfg)})
    checkpoint.save(folder / "generator.safetensors", generator, meta)
    carried = {f"ema/{name}": value for name, value in generator.items()}
    checkpoint.save(folder / "carry.safetensors", carried, {**meta, "kind": "carry"})
    judge = checkpoint.prefixed({"identity": SmallIdentity(8, 16)})
    checkpoint.save(folder / "judge.safetensors", judge, {"stage": "identity", "width": 8, "dim": 16})
    return folder


def arguments(folder: Path, run: Path) -> list[str]:
    return [
        f"generator='{(folder / 'generator.safetensors').as_posix()}'", f"run.dir='{run.as_posix()}'",
        f"data.path='{(folder / 'faces.zip').as_posix()}'", "far=0.05", "samples=12", "run.device=cpu", "run.batch=5",
        f"judge={{name: ours, kind: small, path: '{(folder / 'judge.safetensors').as_posix()}'}}",
        "paths.count=2", "paths.steps=3", "inversion.images=2", "inversion.steps=2",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every second picture shows a face; the sizes of the batches that were looked at."""
    seen: list[int] = []

    def detect(pictures: list[np.ndarray]) -> list[list[int]]:
        assert all(picture.shape == (128, 128, 3) for picture in pictures)
        seen.append(len(pictures))
        return [[0] * (i % 2) for i in range(len(pictures))]

    fake = SimpleNamespace(name="fake", min_face=40, detect=detect)
    monkeypatch.setattr("a3gan.media.detect.load_detector", lambda *_, **__: fake)
    return seen


def test_from_the_command_to_the_files(
    made: Path, tmp_path: Path, detector: list[int], capsys: pytest.CaptureFixture
) -> None:
    given = ["evaluate", "eval/generator_128", *arguments(made, tmp_path / "a")]
    assert cli.main(given) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "a" / "results.json").read_text(encoding="utf-8"))
    assert set(results["distance"]) == {"by_attributes_residual", "by_ours"}
    for cell in results["distance"].values():
        assert {"frechet", "kernel", "precision", "recall", "train_frechet", "frechet_floor"} <= set(cell)
        assert cell["frechet"] > cell["train_frechet"]  # noise beside rendered faces
    assert results["generator"]["images_seen"] == 8 and results["matches"]["samples"]["count"] == 66
    assert results["detection"]["samples"] == pytest.approx(5 / 12)  # batches of 5, 5 and 2
    assert results["inversion"]["images"] == 2 and 0 < results["inversion"]["l1"] < 2
    assert results["paths"]["slerp_z"]["identity"]["jump"] >= 1
    assert Image.open(tmp_path / "a" / "samples.png").size == (8 * 64, 2 * 64)
    assert Image.open(tmp_path / "a" / "paths.png").size == (4 * 64, 4 * 64)
    table = (tmp_path / "a" / "results.md").read_text(encoding="utf-8")
    assert "precision" in table and "found by MTCNN" in table and "PSNR" in capsys.readouterr().out

    looked = len(detector)
    before = (tmp_path / "a" / "results.json").read_bytes()
    assert cli.main(given) == 0 and len(detector) == looked  # from the cache
    assert (tmp_path / "a" / "results.json").read_bytes() == before
    newest = sorted((tmp_path / "a" / "cache").glob("generator-*-12.npz"))
    assert newest
    newest[0].write_bytes(b"cut")
    assert cli.main(given) == 0 and (tmp_path / "a" / "results.json").read_bytes() == before


def test_samples_do_not_depend_on_the_batch_nor_on_the_kind_of_file(made: Path) -> None:
    device = torch.device("cpu")
    generator, meta = feat.load_generator(str(made / "generator.safetensors"), device)
    carried, _ = feat.load_generator(str(made / "carry.safetensors"), device)
    z = feat.codes(6, generator.z_dim, 3)
    assert torch.equal(z[:4], feat.codes(4, generator.z_dim, 3))
    whole = feat.sampled(generator, z, 0.8)(torch.arange(6))
    parts = torch.cat([feat.sampled(carried, z, 0.8)(rows) for rows in torch.arange(6).split(4)])
    assert whole.dtype == torch.uint8 and (whole.int() - parts.int()).abs().max() <= 1
    assert meta["sha256"] == checkpoint.sha256(made / "generator.safetensors")


def test_dry_run_and_limit(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = arguments(made, tmp_path / "none")
    assert cli.main(["evaluate", "eval/generator_128", *given, "--dry-run"]) == 0
    assert "missing   nothing" in capsys.readouterr().out and not (tmp_path / "none").exists()
    cfg = generator_protocol.load("eval/generator_128", ["samples=4000"], limit=64)
    assert (cfg.samples, cfg.data.max_images, cfg.paths.count, cfg.inversion.images) == (64, 64, 4, 4)
    lacking = generator_protocol.missing(generator_protocol.load("eval/generator_128"))
    assert len(lacking) == 3 and any("a3gan prepare" in line for line in lacking)


def test_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = arguments(made, tmp_path / "r")
    assert cli.main(["evaluate", "eval/generator_128", *given, "--method", "blur"]) == 1
    assert "no --method" in capsys.readouterr().err
    assert cli.main(["train", "eval/generator_128", "--dry-run"]) == 1
    assert "a3gan evaluate eval/generator_128" in capsys.readouterr().err

    def refuse(words: str, *overrides: str) -> None:
        with pytest.raises(UserError, match=words):
            evaluate(generator_protocol.load("eval/generator_128", [*given, *overrides]))

    refuse("of stage 'identity'", f"generator='{(made / 'judge.safetensors').as_posix()}'")
    refuse("no such archive", "data.path=nowhere.zip")
    refuse("judge attributes_residual", "inversion.attributes=attributes_judge")
    refuse("too few", "far=1e-6")
