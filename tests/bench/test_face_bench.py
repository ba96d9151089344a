"""The benchmark of one pass measures every backend it can and says what it cannot; nothing here asserts a speed."""

from __future__ import annotations

import json

import pytest

from a3gan.bench import faces
from a3gan.cli import main
from a3gan.errors import UserError

TINY = """stage: a3gan
model:
  generator: {channels_base: 256, channels_max: 8, w_dim: 16, z_dim: 16, mapping_layers: 1}
  encoder: {widths: [8, 8, 8, 8], lateral: 8}
  ainet: {hidden: 16, code: 16}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def test_untrained_model_of_a_config(config, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(faces, "matrix_rate", lambda *_: 1e9)
    out = tmp_path / "faces.json"
    options = ["--backend", "eager", "--batch", "1", "--batch", "2", "--repeats", "1", "--json", str(out)]
    assert main(["bench", "faces", str(config), *options]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["size"] == 64 and record["gflop"] > 0.01
    assert [(r["backend"], r["precision"], r["batch"]) for r in record["rows"]] == [
        ("eager", "fp32", 1), ("eager", "fp32", 2), ("eager", "bf16", 1), ("eager", "bf16", 2),
    ]  # fmt: skip
    row = record["rows"][0]
    assert row["ms_per_face"] == pytest.approx(1e3 / row["rate"])
    assert row["share"] == pytest.approx(record["gflop"] * row["rate"])  # of 1 GFLOP/s
    assert "faces/s" in capsys.readouterr().out


def test_what_cannot_be_measured_is_named(config, monkeypatch) -> None:
    monkeypatch.setattr(faces, "matrix_rate", lambda *_: 1e9)
    report = faces.bench_faces(config, backends=("onnx",), precisions=("bf16",), repeats=1)
    assert not report.rows and "onnx bf16" in report.lines()[-1] and "bfloat16" in report.lines()[-1]
    with pytest.raises(UserError, match="tensorrt"):
        faces.bench_faces(config, backends=("tensorrt",))
