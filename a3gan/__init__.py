"""a3gan: train, run and prove face anonymizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Anonymizer", "__version__"]

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer


def __getattr__(name: str) -> object:
    # Lazy, so that `import a3gan` (and every stage that anonymises nothing) does not pull the detector in.
    if name == "Anonymizer":
        from a3gan.anonymizers.anonymizer import Anonymizer

        return Anonymizer
    raise AttributeError(f"module 'a3gan' has no attribute {name!r}")
