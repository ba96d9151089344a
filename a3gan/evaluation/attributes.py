"""How well an attribute network reads aligned faces.

`python -m a3gan.evaluation.attributes CKPT ARCHIVE... --split test`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.data.attributes import targets as label_targets
from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.scorers.attributes import AttributeNetwork

BINARY = ("gender", "yawning", "eyes_closed")


@torch.no_grad()
def predict(network: AttributeNetwork, faces: FaceSet, batch: int = 128) -> dict[str, Tensor]:
    """All heads over a whole set, on the CPU."""
    parts = [network(faces.fetch(index)) for index in torch.arange(len(faces)).split(batch)]
    return {name: torch.cat([part[name].float().cpu() for part in parts]) for name in parts[0]}


def _balanced(correct: Tensor, target: Tensor) -> float:
    """Mean over the classes of the share that is right."""
    return float(torch.stack([correct[target == k].float().mean() for k in target.unique()]).mean())


def attribute_metrics(network: AttributeNetwork, faces: FaceSet) -> dict[str, float | int]:
    """Accuracy of every head that the set has labels for, and the landmark error.

    smiling: neutral or happiness, decided between these two logits, on faces labelled so. Every accuracy comes with its
    mean over the classes (`_balanced`) and the number of faces (`_count`). landmarks: mean distance over the five
    points and all faces, over the eye distance.
    """
    outputs, targets = predict(network, faces), label_targets(faces)
    result: dict[str, float | int] = {}

    def add(name: str, correct: Tensor, target: Tensor) -> None:
        if len(target):
            result[name] = float(correct.float().mean())
            result[f"{name}_balanced"] = _balanced(correct, target)
            result[f"{name}_count"] = len(target)

    expression = targets["expression"]
    clear = (expression == 0) | (expression == 1)
    add("smiling", outputs["expression"][clear][:, :2].argmax(1) == expression[clear], expression[clear])
    known = ~expression.isnan()
    add("expression", outputs["expression"][known].argmax(1) == expression[known], expression[known])
    for name in BINARY:
        known = ~targets[name].isnan()
        add(name, (outputs[name][known] > 0) == (targets[name][known] > 0.5), targets[name][known])
    eye_distance = (faces.landmarks[:, 1] - faces.landmarks[:, 0]).norm(dim=-1)
    error = (outputs["landmarks"] - faces.landmarks).norm(dim=-1).mean(1) / eye_distance
    result["landmarks"], result["landmarks_count"] = float(error.mean()), len(faces)
    return result


def evaluate_attributes(
    checkpoint: str | Path, archives: Sequence[str | Path], split: str = "test", size: int | None = None
) -> dict[str, float | int]:
    """`attribute_metrics` of a checkpoint (path or shipped name) on one split of some archives, shrunk to `size` px."""
    from a3gan.data.archive import FaceSet
    from a3gan.scorers.attributes import load_attributes

    return attribute_metrics(load_attributes(checkpoint), FaceSet.load(list(archives), split=split, size=size))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the numbers as JSON on standard output."""
    parser = argparse.ArgumentParser(prog="python -m a3gan.evaluation.attributes", description=__doc__)
    parser.add_argument("checkpoint", help="path, or name of shipped weights (attributes_loss, attributes_judge)")
    parser.add_argument("archives", nargs="+", help="archives of `a3gan prepare`")
    parser.add_argument("--split", default="test")
    parser.add_argument("--size", type=int, help="shrink the faces to this side in pixels first")
    options = parser.parse_args(arguments)
    try:
        metrics = evaluate_attributes(options.checkpoint, options.archives, options.split, options.size)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
