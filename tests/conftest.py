"""Shared fixtures: the optional shared data, and one thread a worker so that small tests do not fight for cores."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported. Beside the speed: with two threads, torch 2.15's CPU backward pass crashes on networks of
# eight channels such as the tests use.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `../shared` beside the repository; tests that need it skip where it is absent."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("../shared (data sets and recognisers) is not beside the repository")
    return path
