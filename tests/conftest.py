"""Shared fixtures: the optional shared data, and one thread so that small tests do not fight for cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `../shared` beside the repository; tests that need it skip where it is absent."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("../shared (data sets and recognisers) is not beside the repository")
    return path
