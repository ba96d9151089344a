"""Two gloo processes and one process agree in every stage; trouble in one process ends or skips in both alike."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import two_processes
from torch import Tensor

import a3gan
from a3gan import checkpoint

LIMIT = 300  # seconds on a machine that does many other things at once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of two processes, made by one pair of them: most of the time is what they need to start."""
    folder = tmp_path_factory.mktemp("two")
    two_processes.scorers(folder)
    runs = len(two_processes.STAGES) + len(two_processes.TROUBLES) + 1  # and the sweep
    command = [sys.executable, two_processes.__file__, str(folder)]
    ports = ",".join(map(str, free_ports(runs)))
    paths = [str(Path(a3gan.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    told = [folder / f"stderr.{rank}.txt" for rank in "01"]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(file.open("w")) for file in told]
        pair = [
            subprocess.Popen([*command, rank, ports], env=environment, stderr=file)
            for rank, file in zip("01", files, strict=True)
        ]
        codes = wait_for(pair)
    if codes != [0, 0]:
        said = "\n".join(f"rank {i} ended with {codes[i]}:\n{told[i].read_text()}" for i in range(2))
        pytest.fail(said, pytrace=False)
    return folder


def wait_for(pair: list[subprocess.Popen]) -> list[int]:
    """Exit codes; where one process fails, or `LIMIT` is over, the other does not wait for it in vain."""
    end = time.monotonic() + LIMIT
    while any(process.poll() is None for process in pair):
        if time.monotonic() > end or any(process.poll() for process in pair):
            for process in pair:
                process.kill()
        time.sleep(0.2)
    return [process.returncode for process in pair]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no system hands out by itself: the groups' own connections take such
    ports while the runs go on."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            break
    assert len(ports) == count
    return ports


@pytest.fixture(scope="module")
def faces() -> two_processes.FaceSet:
    return two_processes.faces()


def ranks(folder: Path, name: str) -> list[dict[str, Tensor]]:
    return [checkpoint.load(folder / f"{name}.{rank}.safetensors")[0] for rank in range(2)]


def told(folder: Path, name: str) -> list[str]:
    return [json.loads((folder / f"told.{rank}.json").read_text())[name] for rank in range(2)]


def log(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("stage", list(two_processes.STAGES))
def test_one_process_in_two_parts_is_two_processes(folder: Path, faces: object, stage: str) -> None:
    first, second = ranks(folder, stage)
    same(first, second)
    alone = two_processes.run(two_processes.config(folder, stage, f"{stage}-one", "train.accumulate=2"), faces)
    assert alone.keys() == first.keys()
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    lines = [(a, b) for a, b in zip(log(folder, f"{stage}-one"), log(folder, f"{stage}-two"), strict=True)]
    assert [a["images"] for a, _ in lines if a["kind"] == "train"] == [4, 8, 12]
    for a, b in lines:
        assert a.keys() == b.keys()
        for name in a.keys() - {"kind", "images_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5), name
    one, two = (checkpoint.load(folder / f"{stage}-{n}" / "state.safetensors")[0] for n in ("one", "two"))
    assert one.keys() == two.keys()  # the optimisers have met the same parameters


def test_what_is_free_of_the_batch_agrees_with_the_whole_batch(folder: Path, faces: object, monkeypatch) -> None:
    monkeypatch.setattr(two_processes.Plain, "trouble", None)
    first, second = ranks(folder, "fine")
    same(first, second)
    for parts in (1, 4):
        extra = ["data.flip=false", "train.identities_per_batch=0", f"train.accumulate={parts}"]
        cfg = two_processes.config(folder, "identity", f"fine-{parts}", *extra)
        alone = two_processes.run(cfg, faces, plain=True)
        for name, value in alone.items():
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_they_go_on_from_what_process_0_finds(folder: Path, faces: object, monkeypatch) -> None:
    monkeypatch.setattr(two_processes.Plain, "trouble", None)
    first, second = ranks(folder, "resumed")
    same(first, second)
    extra = ["data.flip=false", "train.identities_per_batch=0", "train.total_images=16", "train.accumulate=2"]
    alone = two_processes.run(two_processes.config(folder, "identity", "resumed-one", *extra), faces, plain=True)
    same(alone, first)  # as bits: the same sums, and moments of the optimiser that came whole


def test_one_process_writes(folder: Path) -> None:
    run = folder / "fine-two"
    assert {p.name for p in run.iterdir() if p.is_file()} == {
        "config.yaml", "log.jsonl", "metrics.json", "checkpoint.safetensors", "checkpoint.1.safetensors",
        "state.safetensors", "state.1.safetensors",
    }  # fmt: skip
    assert [line["images"] for line in log(folder, "fine-two")] == [4, 8, 12, 12, 16, 16]  # once each


def test_all_stop_when_one_is_asked_to(folder: Path) -> None:
    assert told(folder, "stop") == ["done", "done"]
    same(*ranks(folder, "stop"))
    assert checkpoint.load_meta(folder / "stop-two/state.safetensors")["images_seen"] == 8


def test_all_skip_what_is_not_finite_in_one(folder: Path) -> None:
    assert told(folder, "nan") == ["done", "done"]
    first, second = ranks(folder, "nan")
    same(first, second)
    assert all(torch.isfinite(value).all() for value in first.values())
    assert [line.get("skipped/copy") for line in log(folder, "nan-two")] == [None, 1.0, None, None]
    saved, meta = checkpoint.load(folder / "nan-two/nonfinite_batch.process1.safetensors")
    assert saved["images"].shape == (2, 3, 64, 64) and meta["terms"] == ["copy"]


def test_a_sweep_notes_a_variant_that_fails_in_one(folder: Path) -> None:
    assert told(folder, "sweep") == ["done failed done with a table", "done failed done"]
    results = json.loads((folder / "sweep/results.json").read_text())
    assert [result["images"] for result in results] == [16, 0, 16]
    assert "not finite at 8 images: copy; going back" in results[1]["error"]


def test_an_error_in_one_ends_both(folder: Path) -> None:
    first, second = told(folder, "crash")
    assert second == "RuntimeError: out of memory"
    assert first.startswith("UserError: process 0 of 2: another process has stopped")
    assert told(folder, "validate") == ["ValueError: no such thing", "Elsewhere: 1"]
    first, second = told(folder, "batch")
    assert "train.batch_size: 6 does not divide by processes x train.accumulate = 2 x 2" in first
    assert second == "Elsewhere: 1"
