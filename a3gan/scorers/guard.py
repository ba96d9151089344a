"""What was used in a loss may not judge: fingerprints of scorers, and the check that compares them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from a3gan.errors import UserError


def fingerprint(family: str, tensors: Mapping[str, Tensor]) -> str:
    """`family:sha256` over names, shapes, types and values, whatever the file's format, the order or the device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(value.shape)}|{value.dtype}|".encode())
        # As bytes, for numpy knows no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{family}:{digest.hexdigest()}"


def refuse_training_judges(training: Iterable[str], judges: Iterable[str], whose: str = "this checkpoint") -> None:
    """Raise UserError where a judge was used in training, or is of the family of one that was.

    Both are fingerprints (`family:sha256`). The family counts as well as the weights: a copy in half precision or
    another seed of the same backbone shares the weaknesses that a loss has learned to use. So `attributes_loss` (plain)
    cannot judge what it trained, nor can another plain network; `attributes_judge` (residual) can. What guides a method
    while it runs counts as training. whose: of what these are the losses, for the error.
    """
    used = list(training)
    families, digests = {f.partition(":")[0] for f in used}, {f.partition(":")[2] for f in used}
    for judge in judges:
        family, _, digest = judge.partition(":")
        if digest in digests and digest:
            raise UserError(f"judge {family}: these very weights were used in a loss of {whose}; take another")
        if family in families:
            raise UserError(f"judge {family}: one of this family was used in a loss of {whose}; take another")
