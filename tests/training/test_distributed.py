"""torchrun on this machine: two CPU processes through the command line, one CUDA process over NCCL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes

import a3gan
from a3gan import checkpoint
from a3gan.config import to_yaml
from a3gan.training.distributed import Group, is_first, share_state

ROOT = Path(a3gan.__file__).resolve().parents[1]


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def tiny(folder: Path, stage: str, *overrides: str) -> list[str]:
    cfg = two_processes.config(folder, stage, "run", "data.synthetic_count=16", *overrides)
    path = folder / "tiny.yaml"
    path.write_text(to_yaml(cfg), encoding="utf-8")
    return [str(path)]


def test_torchrun_trains_and_speaks_once(tmp_path: Path) -> None:
    done = torchrun(2, str(ROOT / "train.py"), *tiny(tmp_path, "attributes"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint  ") == 1 and done.stderr.count("2 x cpu") == 1
    record = json.loads((tmp_path / "run/metrics.json").read_text())
    assert record["images_seen"] == 12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NCCL needs a CUDA device")
@pytest.mark.parametrize("stage", ["stylegan2", "a3gan", "attributes", "identity"])
def test_nccl_with_one_process(tmp_path: Path, stage: str) -> None:
    done = torchrun(1, "-m", "a3gan.cli", "train", *tiny(tmp_path, stage, "run.device=cuda", "train.accumulate=2"))
    assert done.returncode == 0, done.stderr
    state = checkpoint.load(tmp_path / "run/state.safetensors")[0]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_one_process_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    group, x = Group(), torch.ones(2)
    assert group.first and group.any(True) and not group.any(False) and group.gather(3) == [3]
    assert group.sum_(x) is x and group.from_first(x) is x and group.on_first(lambda: 5) == 5
    assert share_state(group, None) is None
    with pytest.raises(ZeroDivisionError):
        group.together(lambda: 1 / 0)
    monkeypatch.delenv("RANK", raising=False)
    assert is_first()
    monkeypatch.setenv("RANK", "1")
    assert not is_first()
