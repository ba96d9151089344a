"""A loss's scorer cannot judge."""

from __future__ import annotations

import pytest
import torch

from a3gan.errors import UserError
from a3gan.scorers.guard import fingerprint, refuse_training_judges


def test_fingerprint_depends_on_names_and_values_alone() -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.ones(2)
    first = fingerprint("net", {"a": a, "b": b})
    assert first == fingerprint("net", {"b": b.clone(), "a": a.t().contiguous().t()})  # order and strides do not count
    assert first != fingerprint("net", {"a": a + 1e-6, "b": b})
    assert first != fingerprint("net", {"a": a.view(3, 2), "b": b})
    assert first.startswith("net:") and len(first) == 4 + 64


def test_fingerprint_reads_half_precisions() -> None:
    assert fingerprint("n", {"a": torch.ones(2).half()}) != fingerprint("n", {"a": torch.ones(2).bfloat16()})


def test_refuses_the_same_weights_and_the_same_family() -> None:
    used = ["attributes_plain:aa", "mobilefacenet_a:bb"]
    refuse_training_judges(used, ["attributes_residual:cc", "mobilefacenet_b:dd"])
    refuse_training_judges([], ["attributes_plain:aa"])
    with pytest.raises(UserError, match="mobilefacenet_a: these very weights"):
        refuse_training_judges(used, ["mobilefacenet_b:dd", "mobilefacenet_a:bb"])
    with pytest.raises(UserError, match="renamed: these very weights"):
        refuse_training_judges(used, ["renamed:aa"])
    with pytest.raises(UserError, match="attributes_plain: one of this family"):
        refuse_training_judges(used, ["attributes_plain:other_seed"])
