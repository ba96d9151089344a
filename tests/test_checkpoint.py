"""The checkpoint format: whole or refused, never half written, never pickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from a3gan import checkpoint, packing
from a3gan.errors import NotWritten, UserError


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
    assert meta["format"] == checkpoint.PLAIN and meta["revision"]


def test_who_may_read_other_files_may_read_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"n": 1})
    monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(NotWritten, match=r"x\.safetensors: cannot be written \(disk full\)"):
        checkpoint.save(path, {"a": torch.zeros(1)}, {"n": 2})
    monkeypatch.undo()
    assert checkpoint.load_meta(path)["n"] == 1 and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_write_that_the_system_cuts_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    """The real thing, through the library's own writer: no file may grow beyond 100 kB here."""
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"n": 1})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(NotWritten, match=r"x\.safetensors: cannot be written"):
            checkpoint.save(path, {"a": torch.zeros(100_000)}, {"n": 2}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoint.load_meta(path)["n"] == 1 and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotWritten, match=r"x\.safetensors: cannot be written .*choose another folder"):
        checkpoint.save(tmp_path / "file" / "x.safetensors", {}, {})


def test_older_files_are_kept_in_order(tmp_path: Path) -> None:
    for n in range(4):
        checkpoint.save(tmp_path / "x.safetensors", {"a": torch.tensor(n)}, {"n": n}, keep=2)
    numbers = {path.name: checkpoint.load_meta(path)["n"] for path in tmp_path.iterdir()}
    assert numbers == {"x.safetensors": 3, "x.1.safetensors": 2, "x.2.safetensors": 1}


@pytest.mark.parametrize("links", [True, False])
def test_what_a_kill_undid_is_no_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links")))
    path, one = tmp_path / "x.safetensors", tmp_path / "x.1.safetensors"
    for images in (8, 16, 24, 16, 16):  # the third was undone by a kill, the fourth written again at the end
        checkpoint.save(path, {"a": torch.tensor(images)}, {"images_seen": images}, keep=1)
        seen = [checkpoint.load_meta(p)["images_seen"] for p in (path, one) if p.exists()]
        assert seen == {8: [8], 16: [16, 8], 24: [24, 16]}[images] or seen == [16, 16]
    path.write_bytes(path.read_bytes()[:100])
    checkpoint.save(path, {}, {"images_seen": 24}, keep=1)  # a cut file is not kept either
    assert checkpoint.load_meta(one)["images_seen"] == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.1.safetensors", "x.safetensors"]


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
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "nothing.safetensors")


def test_formats_of_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"revision": "abc"})
    monkeypatch.setattr(checkpoint, "FORMAT", "a3gan-3")  # two versions later: still read, until it is given up
    assert checkpoint.load_meta(path)["format"] == "a3gan-1"
    monkeypatch.setattr(checkpoint, "OLDEST", 2)
    with pytest.raises(UserError, match="format 1, made by a3gan abc; this version reads formats 2 to 3: train or"):
        checkpoint.load(path)
    monkeypatch.undo()
    checkpoint.save(path, {}, {"format": "a3gan-99", "revision": "xyz"})
    with pytest.raises(UserError, match="format 99, made by a3gan xyz; this version reads up to format 2: update"):
        checkpoint.load(path)
    for strange in ("b3gan-1", None, 1):
        checkpoint.save(path, {}, {"format": strange})
        with pytest.raises(UserError, match="which no a3gan writes"):
            checkpoint.load(path)


def test_eight_bits_are_read_as_sixteen_and_say_so(tmp_path: Path) -> None:
    weights = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 8)[
        :, None, None, None
    ]
    weights[3] = 0
    tensors = {"conv": weights.half(), "bias": torch.arange(8.0), "count": torch.tensor([7])}
    path = checkpoint.save(tmp_path / "p.safetensors", packing.pack(tensors), {})
    assert path.stat().st_size < 0.75 * 2 * weights.numel() + 600
    back, meta = checkpoint.load(path)
    assert meta["format"] == "a3gan-2" and set(back) == set(tensors)
    assert torch.equal(back["bias"], tensors["bias"]) and torch.equal(back["count"], tensors["count"])
    assert back["conv"].dtype == torch.float16
    error = (back["conv"].float() - weights).abs().flatten(1).amax(1)
    assert bool((error <= weights.flatten(1).abs().amax(1) * (1 / 254 + 1 / 1024)).all())
    assert torch.equal(back["conv"][3], torch.zeros(16, 3, 3).half())
    plain = checkpoint.save(tmp_path / "q.safetensors", tensors, {})
    assert checkpoint.load_meta(plain)["format"] == "a3gan-1"  # older versions read it
    with pytest.raises(ValueError, match="conv holds"):
        packing.pack({"conv": weights / 0})


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
