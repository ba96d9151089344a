"""The checkpoint format: whole or refused, never half written, never pickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from a3gan import checkpoint
from a3gan.errors import UserError


def test_round_trip_keeps_tensors_and_values(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(1, 3, 2, 2)
    tensors = {
        "a": shared.contiguous(memory_format=torch.channels_last),
        "b": shared[:, 1:],
        "step": torch.tensor(3.0),
        "half": torch.ones(2, dtype=torch.float16),
        "again": shared,
    }
    path = checkpoint.save(tmp_path / "deep/er.safetensors", tensors, {"lr": 0.1 + 0.2, "name": "é", "none": None})
    found, meta = checkpoint.load(path)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())
    assert meta["lr"] == 0.1 + 0.2 and meta["name"] == "é" and meta["none"] is None
    assert meta["format"] == checkpoint.FORMAT and meta["revision"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"n": 1})
    monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"a": torch.zeros(1)}, {"n": 2})
    monkeypatch.undo()
    assert checkpoint.load_meta(path)["n"] == 1 and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_older_files_are_kept_in_order(tmp_path: Path) -> None:
    for n in range(4):
        checkpoint.save(tmp_path / "x.safetensors", {"a": torch.tensor(n)}, {"n": n}, keep=2)
    numbers = {path.name: checkpoint.load_meta(path)["n"] for path in tmp_path.iterdir()}
    assert numbers == {"x.safetensors": 3, "x.1.safetensors": 2, "x.2.safetensors": 1}


def test_foreign_and_cut_files_are_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1000)}, {})
    whole = path.read_bytes()
    for length in (0, 4, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a whole safetensors file"):
            checkpoint.load(path)
    save_file({"a": torch.ones(1)}, str(path))
    with pytest.raises(UserError, match="not one written by a3gan"):
        checkpoint.load(path)
    checkpoint.save(path, {}, {"format": "a3gan-99"})
    with pytest.raises(UserError, match="a3gan-99"):
        checkpoint.load(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "nothing.safetensors")


def test_networks_go_in_by_name_or_not_at_all() -> None:
    nets = {"g": nn.Linear(2, 3), "d": nn.Linear(3, 1)}
    tensors = {name: value.half() for name, value in checkpoint.prefixed(nets).items()}
    other = checkpoint.load_into(nn.Linear(2, 3), tensors, "g", "file")
    assert torch.equal(other.weight, nets["g"].weight.half().float())
    with pytest.raises(UserError, match="first: weight|first weight"):
        checkpoint.load_into(nn.Linear(2, 4), tensors, "g", "file")
    with pytest.raises(UserError, match="'e' does not fit"):
        checkpoint.load_into(nn.Linear(2, 3), tensors, "e", "file")


def test_names_resolve(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "x.safetensors", {}, {})
    assert checkpoint.resolve(path) == path and len(checkpoint.sha256(path)) == 64
    with pytest.raises(UserError, match="neither a file nor the name of shipped weights"):
        checkpoint.resolve("nothing_like_it")
    assert checkpoint.missing({"a.b": path, "c": None, "d.e": "nope"})[0].startswith("d.e: nope")
    for name, shipped in checkpoint.shipped().items():
        assert checkpoint.resolve(name) == shipped
        assert checkpoint.load_meta(shipped)["stage"]
