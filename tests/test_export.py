"""A program is its checkpoint: same faces, same contract, nothing written where it is not."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from a3gan import checkpoint, export
from a3gan.anonymizers.a3gan import A3ganAnonymizer
from a3gan.anonymizers.methods import create
from a3gan.cli import main
from a3gan.config import load_config
from a3gan.data.attributes import SCHEMA, Policy
from a3gan.errors import UserError
from a3gan.models.build import build_a3gan
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.blocks import fold

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Tracing takes seconds; all tests here use one checkpoint."""
    kept, trace = {}, export._trace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_trace", lambda *a: kept.get("one") or kept.setdefault("one", trace(*a)))
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tiny = ["channels_base=256", "channels_max=8", "w_dim=16", "z_dim=16", "mapping_layers=1"]
    cfg = load_config(None, [f"model.generator.{word}" for word in tiny] + [
        "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
    ])  # fmt: skip
    networks = {"model": build_a3gan(cfg), "attributes": fold(AttributeNetwork("plain", 8).eval())}
    known = {"stage": "a3gan", "config": cfg.model_dump(), "frame": "face", "size": 64, "images_seen": 5}
    known["attributes"] = {"backbone": "plain", "width": 8, "eye_temperature": 2.0}
    return checkpoint.save(
        tmp_path_factory.mktemp("export") / "tiny.safetensors", checkpoint.prefixed(networks), known
    )


@pytest.fixture(scope="module")
def program(weights: Path) -> Path:
    return export.export(weights, weights.with_suffix(".onnx"))[0]


@pytest.fixture(scope="module")
def methods(weights: Path, program: Path):
    return A3ganAnonymizer(weights, "cpu"), create("a3gan", weights=program, device="cpu")


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_same_contract_and_same_faces(methods, faces) -> None:
    eager, onnx = methods
    for name in ("name", "supports", "synthesises", "frame", "size", "z_dim"):
        assert getattr(eager, name) == getattr(onnx, name)
    for policy, alpha in ((None, 1.0), (Policy.parse("everything"), 0.4), (Policy.parse("fatigue"), 0.0)):
        expected = eager.anonymize(faces, policy=policy, seeds=range(5), alpha=alpha)
        out = onnx.anonymize(faces, policy=policy, seeds=range(5), alpha=alpha)
        assert out.dtype == torch.float32 and (out - expected).abs().max() < 1e-5


def test_independent_of_the_batch(methods, faces) -> None:
    onnx = methods[1]
    many = onnx.anonymize(faces.repeat(4, 1, 1, 1), seeds=list(range(5)) * 4)
    alone = torch.cat([onnx.anonymize(faces[i : i + 1], seeds=[i]) for i in range(5)])
    assert (many[:5] - alone).abs().max() <= 1e-5 and (many[15:] - alone).abs().max() <= 1e-5


def test_points_and_what_is_acceptable(methods, faces) -> None:
    eager, onnx = methods
    assert (eager.points(faces) - onnx.points(faces)).abs().max() < 1e-5
    after = faces.clone()
    after[2, 0, 5, 5] = float("nan")
    assert onnx.acceptable(faces, after).tolist() == eager.acceptable(faces, after).tolist()


def test_not_finite_is_not_hidden(methods, faces) -> None:
    bad = faces[:2].clone()
    bad[1] = float("nan")
    out = methods[1].anonymize(bad)
    assert out[0].isfinite().all() and not out[1].isfinite().all()


def test_the_file_says_where_it_came_from(weights, methods) -> None:
    meta = methods[1].meta
    assert meta["source_sha256"] == checkpoint.sha256(weights) and meta["images_seen"] == 5
    assert meta["schema"] == [a.name for a in SCHEMA] and meta["config"]["data"]["size"] == 64


def test_opset_and_ir_are_old_enough(program) -> None:
    import onnx

    model = onnx.load(program)
    onnx.checker.check_model(model)
    assert model.ir_version <= 10 and [(o.domain, o.version <= 21) for o in model.opset_import] == [("", True)]
    assert [i.name for i in model.graph.input] == ["faces", "policy", "z", "alpha"]


def test_torch_program(weights, methods, faces, tmp_path) -> None:
    path, parity = export.export(weights, tmp_path / "t.pt2", kind="torch")
    assert 0 < parity.largest < 1e-4 and parity.cases == len(export.BATCHES) * (len(export.ALPHAS) + 1)
    extra = {"a3gan": ""}
    run = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["a3gan"])["precision"] == "fp32"
    image, points = run(faces, torch.ones(5, len(SCHEMA)), torch.zeros(5, methods[0].z_dim), torch.ones(5))
    assert image.shape == faces.shape and points.shape == (5, 5, 2)
    with pytest.raises(UserError, match="code of your own"):
        create("a3gan", weights=path)


def test_nothing_is_written_where_parity_fails(weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "LIMITS", {"fp32": (-1.0, -1.0)})
    with pytest.raises(UserError, match="parity fails"):
        export.export(weights, tmp_path / "x.pt2", kind="torch")
    assert not list(tmp_path.iterdir())


def test_parity_sees_what_is_not_finite(weights, methods) -> None:
    def broken(x, c, z, alpha):
        return torch.full_like(x, float("nan")), torch.zeros(len(x), 5, 2)

    with pytest.raises(UserError, match="up to inf"):
        export.check_parity(methods[0], broken, "bf16")


def test_errors_before_any_work(weights, tmp_path, monkeypatch) -> None:
    for options, text in (
        ({"kind": "tflite"}, "tflite"), ({"precision": "fp8"}, "fp8"), ({"precision": "bf16"}, "format torch"),
        ({"output": tmp_path / "x.bin"}, r"\*.onnx"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=text):
            export.export(weights, **options)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"a3gan\[onnx\]"):
        export.export(weights)


def test_files_that_are_no_program(tmp_path, program) -> None:
    with pytest.raises(UserError, match="no such file"):
        create("a3gan", weights=tmp_path / "none.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(program.read_bytes()[:5000])
    with pytest.raises(UserError, match="export it again"):
        create("a3gan", weights=cut)
    import onnx

    model = onnx.load(program)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(UserError, match="none of `a3gan export`"):
        create("a3gan", weights=tmp_path / "bare.onnx")


def test_without_onnxruntime(program, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"a3gan\[onnx\]"):
        create("a3gan", weights=program)


def test_cuda_is_never_replaced_in_silence(program, monkeypatch) -> None:
    with pytest.raises(UserError, match="mps"):
        create("a3gan", weights=program, device="mps")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="no CUDAExecutionProvider"):
        create("a3gan", weights=program, device="cuda")
    # The list names CUDA, but the session falls back, as it does where the CUDA libraries do not fit.
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    session = types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *_a, **_k: session)
    with pytest.raises(UserError, match="fell back to CPUExecutionProvider"):
        create("a3gan", weights=program, device="cuda")


def test_command(weights, tmp_path, capsys) -> None:
    path = tmp_path / "p.pt2"
    assert main(["export", str(weights), "--format", "torch", "-o", str(path), "-v"]) == 0
    out = capsys.readouterr().out
    assert path.is_file() and "batch 8, alpha mixed" in out and "largest difference" in out
    assert main(["export", str(weights), "--precision", "bf16"]) == 1
