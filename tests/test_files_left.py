"""Temporary files of killed writers."""

import os
import subprocess
import sys

from a3gan.files import sweep_dead


def test_only_own_files_of_dead_writers_go(tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = int(process.stdout)
    kept = [
        f".clip.mp4.{os.getpid()}.tmp", f".clip.mp4.{os.getppid()}.tmp", f".other.mp4.{dead}.tmp", ".clip.mp4.tmp",
        f"clip.mp4.{dead}.tmp", ".clip.mp4.note.tmp", "clip.mp4",
    ]  # fmt: skip
    gone = [f".clip.mp4.{dead}.tmp", f".clip.json.{dead}.tmp", f".photo.{dead}.140123.tmp"]
    for name in (*kept, *gone):
        (tmp_path / name).write_text("x")
    if os.name == "nt":
        kept = [name for name in kept if f".{dead}." not in name]
    names = ("clip.mp4", "clip.json", "photo.jpg")
    assert {p.name for p in sweep_dead(tmp_path / name for name in names)} == set(gone)
    assert all((tmp_path / name).exists() for name in kept)
    assert sweep_dead([tmp_path / "absent" / "clip.mp4"]) == []
