"""Features of originals and of every method, for any set of pictures: what the tasks share, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from a3gan.evaluation import features as feat
from a3gan.evaluation.pictures import Method, Originals
from a3gan.media.fit import PROFILE

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.data.attributes import Policy
    from a3gan.evaluation.protocol import EvalConfig

ORIGINAL = "original"  # the row that no method touched
Table = dict[tuple[str, str], feat.Features]  # (degradation, scorer) -> features


@dataclass
class Gather:
    """The methods of an evaluation with their settings, and where features are kept."""

    cfg: EvalConfig
    methods: dict[str, FaceAnonymizer]
    device: torch.device

    def policy(self, name: str) -> Policy | None:
        """What the method is asked for; None for one that follows no policy."""
        from a3gan.data.attributes import Policy

        return Policy.parse(self.cfg.policy) if "policy" in self.methods[name].supports else None

    def alpha(self, name: str) -> float:
        return self.cfg.alpha if "alpha" in self.methods[name].supports else 1.0

    def key(self, name: str, policy: Policy | None, alpha: float | None = None) -> dict[str, Any]:
        """What a method's pictures follow from, but for the pictures that it is given. alpha: None = the run's."""
        from a3gan import checkpoint

        method = self.methods[name]
        key: dict[str, Any] = {"method": name, "size": method.size, "frame": method.frame}
        if "seed" in method.supports:
            key["seed"] = self.cfg.seed
        if getattr(method, "path", None) is not None:
            key["weights_sha256"] = checkpoint.sha256(method.path)
        if options := self.cfg.options.get(name):  # those not named follow from the code, which the cache also minds
            key["options"] = {option: _content(value) for option, value in sorted(options.items())}
        if method.redraw:
            from a3gan.anonymizers.redraw import LIMIT

            key["redraw"] = [method.redraw, LIMIT]
        if method.redaction is None:
            key["profile"] = PROFILE  # from there on a face is mosaicked
        if policy is not None:
            key["policy"] = str(policy)
        dial = self.alpha(name) if alpha is None else alpha
        return key | ({"alpha": dial} if "alpha" in method.supports else {})

    def method(self, name: str, originals: Originals, policy: Policy | None, alpha: float | None = None) -> Method:
        """The method with a seed for each picture, by its name. alpha: None = the run's."""
        from a3gan.anonymizers.base import face_seed

        files = originals.faces.columns.get("source", originals.faces.files)
        seeds = [face_seed(self.cfg.seed, file) for file in files]
        return Method(self.methods[name], policy, self.alpha(name) if alpha is None else alpha, seeds)

    def tables(
        self, originals: Originals, scorers: Mapping[str, Any], degradations: Sequence[str] | None = None,
        names: Sequence[str] | None = None, label: str = "", policy: Policy | None = None, alpha: float | None = None,
    ) -> dict[str, Table]:  # fmt: skip
        """By method: features of `original` and of the methods (or of `names` among these), from the cache where they
        are there. policy, alpha: in place of the run's."""
        degradations = list(degradations or self.cfg.degradations)
        names = [ORIGINAL, *self.methods] if names is None else list(names)
        digest, result = originals.digest(), {}
        for name in names:
            if name == ORIGINAL:
                source, key = feat.original_source(originals), {"method": ORIGINAL}
            else:
                wanted = policy if policy is not None else self.policy(name)
                method, key = self.method(name, originals, wanted, alpha), self.key(name, wanted, alpha)

                def source(rows: list[int], method: Method = method) -> Any:
                    return method.apply(originals, rows)

            if name == "identity" and ORIGINAL in result and _all_equal(originals, source, self.cfg.run.batch):
                result[name] = dict(result[ORIGINAL])  # the same pictures have the same features
                continue
            title = f"{name}: {label}" if label else name
            result[name] = feat.collect(
                source, len(originals.faces), dict(scorers), degradations, {"data": digest, **key},
                self.cfg.run_dir / "cache", self.cfg.run.batch, title,
            )  # fmt: skip
        return result


def _content(value: Any) -> Any:
    """Of an option that names a file what is in it, of others itself."""
    from a3gan import checkpoint

    return checkpoint.sha256(value) if isinstance(value, str) and Path(value).is_file() else value


def _all_equal(originals: Originals, source: feat.Source, batch: int) -> bool:
    """Whether every picture comes out as it went in, byte for byte."""
    import numpy as np

    from a3gan.evaluation.pictures import batches

    for rows in batches(len(originals.faces), batch):
        before, (after, failed) = originals.view(rows), source(rows)
        same = (np.array_equal(a, b) for a, b in zip(before.pictures, after.pictures, strict=True))
        if failed.any() or not all(same):
            return False
    return True
