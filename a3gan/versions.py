"""Which versions a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata

from a3gan import __version__

LIBRARIES = ("torch", "numpy", "scipy", "pillow", "opencv-python-headless", "facenet-pytorch", "av", "onnxruntime")


def versions() -> dict[str, str]:
    """Of a3gan, Python, the system and those of the libraries that are installed."""
    found = {"a3gan": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
