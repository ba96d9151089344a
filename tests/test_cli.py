"""The command line: exit statuses, one-line errors, both spellings, dry runs of every shipped config."""

from __future__ import annotations

import configparser
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a3gan import cli
from a3gan.commands import running
from a3gan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# configs/eval/ is read by `a3gan evaluate` and ablation.yaml by `a3gan sweep`, which have keys of their own
TRAINING = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / "configs").rglob("*.yaml")
    if p.parent.name != "eval" and p.name != "ablation.yaml"
)


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_errors_are_one_line(capsys: pytest.CaptureFixture) -> None:
    status, _, err = run(capsys, "train", "configs/default.yaml", "train.lerning_rate=1")
    assert status == 1 and err.startswith("a3gan: override") and err.count("\n") == 1 and "train.lr" in err
    status, _, err = run(capsys, "train", "nothing.yaml", "--debug")
    assert status == 1 and "Traceback" in err
    assert run(capsys, "train")[0] == 2
    assert run(capsys, "train", "configs/default.yaml", "--no-such-flag")[0] == 2
    assert run(capsys, "--version")[1].startswith("a3gan")


def test_unexpected_errors_hint_at_debug(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("a3gan.config.load_config", broken)
    status, _, err = run(capsys, "train", "default")
    assert status == 1 and err == "a3gan: ZeroDivisionError: by zero (--debug shows where)\n"


@pytest.mark.parametrize("flag", ["--max-minutes", "--max_minutes"])
def test_train_passes_its_options_on(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    seen = {}

    def fake(cfg: object, max_minutes: float | None, fresh: bool) -> Path:
        seen.update(lr=cfg.train.lr, max_minutes=max_minutes, fresh=fresh)
        return Path("there")

    monkeypatch.setattr("a3gan.training.trainer.train", fake)
    status, out, _ = run(capsys, "train", "default", "train.lr=3e-4", flag, "1.5", "--fresh")
    assert (status, out.strip()) == (0, "there") and seen == {"lr": 3e-4, "max_minutes": 1.5, "fresh": True}


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a3gan.config.load_config", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(capsys, "train", "default")[0] == 130


@pytest.mark.parametrize("path", TRAINING)
def test_every_config_dry_runs_in_seconds(capsys: pytest.CaptureFixture, path: str, tmp_path: Path) -> None:
    began = time.monotonic()
    status, out, err = run(
        capsys, "train", str(ROOT / path), "--dry-run", "data.path=null", f"run.dir='{tmp_path.as_posix()}/r'"
    )
    assert status == 0, err
    for word in ("parameters", "memory", "missing weights", "rendered faces"):
        assert word in out
    assert not (tmp_path / "r").exists() and time.monotonic() - began < 60


def test_dry_run_opens_a_given_path(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no")
    for name in ("x.zip", "absent.zip"):
        path = (tmp_path / name).as_posix()
        status, _, err = run(capsys, "train", "default", "stage=attributes", f"data.path='{path}'", "--dry-run")
        assert status == 1 and name in err


def test_models_lists(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "models")
    assert status == 0 and out.strip()
    with pytest.raises(UserError):
        running.models.callback(name="nothing_like_it")


def test_train_py_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "default", "train.lr=no"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("a3gan: override 'train.lr=no': train.lr")


def test_setup_lists_every_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(parser["options"]["packages"].split())
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "a3gan").rglob("__init__.py")
    }
    assert listed == found | {"a3gan.checkpoints", "a3gan.configs"}


@pytest.mark.parametrize("status", [0, 3])
def test_a_process_of_its_own_ends_with_its_status_and_tells_who_asked(status: int) -> None:
    program = (
        "import atexit, sys; from a3gan import cli; atexit.register(print, 'told'); "
        f"cli.main = lambda: sys.stdout.write('done ') and {status}; cli.console()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (status, "done told\n")
