"""What the methods cost beside each other: seconds a face at the same batch on one device, steps, sizes of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from a3gan.anonymizers.base import pick_device
from a3gan.anonymizers.methods import METHODS, create
from a3gan.errors import UserError
from a3gan.evaluation import speed

FACES, SEED = 16, 4_000_043  # rendered, 128 px, of as many people; no training draws them


@dataclass
class MethodsReport:
    """rows: method -> steps, parameters, mib, and batch -> figures of `speed.measure`. skipped: why not."""

    device: str
    threads: int
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A table for people."""
        batches = [str(batch) for batch in speed.BATCHES]
        titles = "".join(f"{'s a face, batch ' + batch:>21}" for batch in batches)
        lines = [f"{self.device}; {self.threads} threads"]
        lines.append(f"{'method':13}{'px':>5}{'steps':>7}{'parameters':>13}{'MiB':>8}{titles}")
        for name, row in self.rows.items():
            times = "".join(f"{row['speed'][batch]['seconds_per_face']:21.5f}" for batch in batches)
            side = row["speed"][batches[0]]["size"]
            lines.append(f"{name:13}{side:5d}{row['steps']:7d}{row['parameters']:13,d}{row['mib']:8.1f}{times}")
        return lines + [f"not measured: {text}" for text in self.skipped]


def bench_methods(names: Sequence[str] = (), device: str | None = None) -> MethodsReport:
    """Times every method (or those named) with its shipped weights on the same rendered faces.

    One that cannot be made here (a package or weights are missing) is listed with the reason. UserError: an unknown
    name.
    """
    from a3gan.data.synthetic import synthetic_faces

    where, made, skipped = pick_device(device), {}, []
    for name in names or METHODS:
        try:
            made[name] = create(name, device=where)
        except UserError as error:
            if name not in METHODS:
                raise
            skipped.append(f"{name}: {error}")
    measured = speed.measure(made, where, synthetic_faces(FACES, 128, SEED, identities=FACES))
    rows = {name: speed.networks(one) | {"speed": measured["methods"][name]} for name, one in made.items()}
    return MethodsReport(measured["device"], measured["threads"], rows, skipped)
