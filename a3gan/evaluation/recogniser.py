"""How well a recogniser tells people apart on aligned faces.

`python -m a3gan.evaluation.recogniser WEIGHTS ARCHIVE... [--kind small] [--split test]`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from a3gan.errors import UserError


@torch.no_grad()
def evaluate_recogniser(
    weights: str | Path, archives: Sequence[str | Path], kind: str = "small", split: str = "test", batch: int = 64
) -> dict[str, float]:
    """`verification` (see training/identity_stage.py) of a recogniser on one split of some archives with identities."""
    from a3gan.data.archive import FaceSet
    from a3gan.scorers.identity import load_recogniser
    from a3gan.training.identity_stage import verification

    faces, recogniser = FaceSet.load(list(archives), split=split), load_recogniser(weights, kind)
    parts = [recogniser(faces.fetch(index), faces.frame) for index in torch.arange(len(faces)).split(batch)]
    return verification(torch.cat(parts), faces.identity)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the numbers as JSON on standard output."""
    parser = argparse.ArgumentParser(prog="python -m a3gan.evaluation.recogniser", description=__doc__)
    parser.add_argument("weights", help="path, or name of shipped weights (identity_small)")
    parser.add_argument("archives", nargs="+", help="archives of `a3gan prepare`")
    parser.add_argument("--kind", default="small", help="small, mobilefacenet_a, mobilefacenet_b or facenet")
    parser.add_argument("--split", default="test")
    options = parser.parse_args(arguments)
    try:
        metrics = evaluate_recogniser(options.weights, options.archives, options.kind, options.split)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
