"""One pass over aligned faces: faces a second by backend, precision and batch, against the machine's matrix rate."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from a3gan.anonymizers.a3gan import PRECISIONS, A3ganAnonymizer
from a3gan.anonymizers.base import pick_device
from a3gan.bench.timing import matrix_rate, seconds
from a3gan.errors import UserError

log = logging.getLogger(__name__)

BACKENDS = ("eager", "onnx", "torch")
BATCHES = (1, 4, 16, 32)


@dataclass
class Row:
    """One measurement. rate: faces a second. share: of the matrix rate in that precision.

    cpu_ms: CPU time a face over all threads, the smallest of the repeats: what other work on the machine changes least.
    """

    backend: str
    precision: str
    batch: int
    ms_per_face: float
    cpu_ms: float
    rate: float
    share: float


@dataclass
class FacesReport:
    """size: side in pixels. gflop: of one face. matrix: precision -> GFLOP/s of a matrix product. skipped: why not."""

    weights: str
    size: int
    device: str
    threads: int
    gflop: float
    matrix: dict[str, float]
    rows: list[Row]
    skipped: list[str]

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A table for people."""
        rates = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in self.matrix.items())
        lines = [
            f"{self.weights}, {self.size} px, {self.gflop:.2f} GFLOP a face; {self.device}, {self.threads} threads; "
            f"matrix product: {rates}",
            f"{'backend':8} {'precision':9} {'batch':>5} {'ms a face':>10} {'CPU ms':>8} {'faces/s':>9} "
            f"{'of the matrix rate':>19}",
        ]
        lines += [
            f"{r.backend:8} {r.precision:9} {r.batch:5d} {r.ms_per_face:10.2f} {r.cpu_ms:8.2f} {r.rate:9.1f} "
            f"{100 * r.share:17.1f} %"
            for r in self.rows
        ]
        return lines + [f"not measured: {text}" for text in self.skipped]


def bench_faces(
    weights: str | Path, overrides: Sequence[str] = (), *, batches: Sequence[int] = BATCHES,
    backends: Sequence[str] = BACKENDS, precisions: Sequence[str] = ("fp32", "bf16"),
    device: str | None = None, repeats: int = 5,
) -> FacesReport:  # fmt: skip
    """Times one pass (attribute network, policy, model) of a checkpoint, or of an untrained model from a config.

    Args:
        weights: path or shipped name of a checkpoint of stage a3gan; or a training config, whose model is measured with
            random weights (speed does not depend on them). overrides: key=value of a config.
        backends: of 'eager', 'onnx', 'torch'; exported programs run on the CPU. repeats: behind a median.

    Raises:
        UserError: as `A3ganAnonymizer` and `export`; an unknown backend.
    """
    if wrong := sorted(set(backends) - set(BACKENDS)):
        raise UserError(f"backend {wrong[0]!r} is unknown; known: {', '.join(BACKENDS)}")
    where = pick_device(device)
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint_of(weights, Path(folder), overrides)
        method = A3ganAnonymizer(path, where)
        report = FacesReport(str(weights), method.size, str(where), torch.get_num_threads(), flops(method) / 1e9, {},
                             [], [])  # fmt: skip
        rates = {name: matrix_rate(where, PRECISIONS[name]) for name in dict.fromkeys(("fp32", *precisions))}
        report.matrix = {name: rate / 1e9 for name, rate in rates.items()}
        for backend in backends:
            for precision in precisions:
                try:
                    run = _runner(backend, precision, path, where, Path(folder))
                except UserError as error:
                    report.skipped.append(f"{backend} {precision}: {error}")
                    continue
                for batch in batches:
                    inputs = _inputs(batch, method, where)
                    cpu: list[float] = []
                    took = seconds(lambda run=run, inputs=inputs, cpu=cpu: _timed(run, inputs, cpu), where, repeats)
                    took, spent = took / batch, min(cpu[1:]) / batch  # the first one warms up
                    share = 1e9 * report.gflop / took / rates[precision]
                    log.info("%s %s, %d faces: %.2f ms a face", backend, precision, batch, 1e3 * took)
                    report.rows.append(Row(backend, precision, batch, 1e3 * took, 1e3 * spent, 1 / took, share))
    return report


def _timed(run: Callable[..., object], inputs: Sequence[torch.Tensor], cpu: list[float]) -> None:
    began = time.process_time()
    run(*inputs)
    cpu.append(time.process_time() - began)


def checkpoint_of(weights: str | Path, folder: Path, overrides: Sequence[str] = ()) -> str | Path:
    """A checkpoint as it is; for a config, one with random weights, written to `folder`."""
    from a3gan import checkpoint

    name = str(weights)
    if not name.endswith((".yaml", ".yml")) and (Path(name).is_file() or "/" not in name):
        if overrides:
            raise UserError(f"{overrides[0]}: a checkpoint takes no overrides; name a config to measure it untrained")
        return checkpoint.resolve(weights)
    from a3gan.config import load_config
    from a3gan.models.build import build_a3gan
    from a3gan.scorers.attributes import AttributeNetwork

    cfg = load_config(weights, overrides)
    networks = {"model": build_a3gan(cfg), "attributes": AttributeNetwork("plain", 24)}
    meta = {"stage": "a3gan", "config": cfg.model_dump(), "frame": cfg.data.frame, "size": cfg.data.size}
    meta["attributes"] = {"backbone": "plain", "width": 24}
    return checkpoint.save(folder / "untrained.safetensors", checkpoint.prefixed(networks), meta)


def flops(method: A3ganAnonymizer) -> float:
    """Floating-point operations of one face's pass: twice the multiply-adds of its convolutions and products."""
    from torch.utils.flop_counter import FlopCounterMode

    x, c, z, alpha = _inputs(2, method, method.device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        # The model as trained, not the folded one: the same work is asked of every backend.
        method.model(x, method.logits(x), c, z, alpha)
    return counter.get_total_flops() / 2


def _inputs(batch: int, method: A3ganAnonymizer, device: torch.device) -> tuple[torch.Tensor, ...]:
    from a3gan.data.attributes import Policy

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, method.size, method.size, generator=generator) * 2 - 1
    z = torch.randn(batch, method.z_dim, generator=generator)
    c = Policy().vector().expand(batch, -1).contiguous()
    return tuple(part.to(device) for part in (x, c, z, torch.ones(batch)))


def _runner(
    backend: str, precision: str, weights: str | Path, device: torch.device, folder: Path
) -> Callable[..., object]:
    if backend == "eager":
        return torch.inference_mode()(A3ganAnonymizer(weights, device, precision).one_pass)
    if device.type != "cpu":
        raise UserError("exported programs are measured on the CPU")
    from a3gan.export import SUFFIXES, write

    log.info("exporting: %s, %s", backend, precision)
    path = folder / f"{precision}{SUFFIXES[backend]}"
    run = write(A3ganAnonymizer(weights, device), path, backend, precision)
    if backend == "torch":
        return torch.no_grad()(run)
    from a3gan.anonymizers.onnx import OnnxAnonymizer

    return OnnxAnonymizer(path, "cpu").one_pass
