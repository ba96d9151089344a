"""A checkpoint as one program: aligned faces, policy, z and alpha in, faces out, the attribute network inside.

`onnx` runs wherever onnxruntime does and is what `--weights FILE.onnx` takes; `torch` is a program of `torch.export`
for code of your own. Both carry what a reader needs to know in their metadata, as JSON under the name `a3gan`.
"""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from a3gan import checkpoint
from a3gan.anonymizers.a3gan import A3ganAnonymizer, dtype_of
from a3gan.anonymizers.onnx import FORMAT, INPUTS, KEY, OUTPUTS
from a3gan.data.attributes import PRESETS, SCHEMA, Policy, random_policies
from a3gan.errors import UserError
from a3gan.files import replacing
from a3gan.models.inference import FoldedA3GAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 18  # with IR 10: what onnxruntime 1.20 reads, and the opset that torch's exporter writes without conversion
IR_VERSION = 10
LARGEST_BATCH = 4096
BATCHES = (1, 2, 5, 8)
ALPHAS = (0.0, 0.5, 1.0)
# Largest difference from the eager float32 model, of a range of 2. A step of 8 bits is 0.008; 16-bit maps differ in a
# few pixels by more, which is why their mean is bounded as well.
LIMITS = {"fp32": (2e-4, 2e-5), "fp16": (0.05, 0.003), "bf16": (0.3, 0.02)}


@dataclass
class Parity:
    """Differences from the eager model over all cases: the largest of a pixel, the largest mean of a case."""

    largest: float = 0.0
    mean: float = 0.0
    landmarks: float = 0.0
    cases: int = 0
    lines: list[str] = field(default_factory=list)


class FaceProgram(nn.Module):
    """The graph that is written: `A3ganAnonymizer`'s networks without its checks, seeds and clamp.

    (faces [N, 3, S, S], policy [N, K], z [N, z_dim], alpha [N]), float32 -> image [N, 3, S, S], about [-1, 1] and not
    clamped; and the five points [N, 5, 2] of the input, units of the frame.
    """

    def __init__(self, method: A3ganAnonymizer, precision: str, up: str):
        super().__init__()
        self.attributes, self.frame, self.temperatures = method.attributes, method.frame, method.temperatures
        self.folded = FoldedA3GAN(method.model, dtype_of(precision), up)

    def forward(self, faces: Tensor, policy: Tensor, z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        from a3gan.scorers.measured import attribute_logits

        read = self.attributes(faces, frame=self.frame)
        a = attribute_logits(read, faces, self.frame, **self.temperatures)
        return self.folded(faces, a, policy, z, alpha), read["landmarks"].float()


def export(
    weights: str | Path, output: str | Path | None = None, *, kind: str = "onnx", precision: str = "fp32"
) -> tuple[Path, Parity]:
    """Writes the program of a checkpoint (path or shipped name) and checks it against the eager model first.

    Args:
        output: None = in the working folder, named after the checkpoint and the precision.
        kind: 'onnx' or 'torch'. precision: of the feature maps, fp32, fp16 or bf16; inputs and outputs stay float32.

    Raises:
        UserError: weights as in `A3ganAnonymizer`; an unknown kind or precision, or one that the kind cannot run; a
            package of the extra [onnx] is missing; the parity fails. Nothing is written then.
    """
    if kind not in SUFFIXES:
        raise UserError(f"format {kind!r} is unknown; known: {', '.join(SUFFIXES)}")
    dtype_of(precision)
    if kind == "onnx":
        _needs_onnx(precision)
    method = A3ganAnonymizer(weights, "cpu")
    suffix = "" if precision == "fp32" else f"_{precision}"
    path = Path(output) if output else Path(f"{method.path.stem}{suffix}{SUFFIXES[kind]}")
    if path.suffix != SUFFIXES[kind]:
        raise UserError(f"{path}: a program of format {kind} is named *{SUFFIXES[kind]}")
    with replacing(path) as temporary:
        run = write(method, temporary, kind, precision)
        parity = check_parity(method, run, precision)
    return path, parity


def write(method: A3ganAnonymizer, path: Path, kind: str, precision: str) -> Callable[..., Any]:
    """Writes a program, unchecked, and returns what runs it: (faces, policy, z, alpha) -> (image, landmarks).

    UserError where the kind cannot run the precision, or a package is missing.
    """
    if kind == "onnx":
        _needs_onnx(precision)
    meta = metadata(method, kind, precision)
    program = _trace(method, precision, "shuffle" if kind == "onnx" else "transpose")
    if kind == "onnx":
        _write_onnx(program, path, meta)
        return _onnx_runner(path)
    _write_torch(program, path, meta)
    return program.module()


def metadata(method: A3ganAnonymizer, kind: str, precision: str) -> dict[str, Any]:
    """What travels inside the file: all that running it needs, and where it came from."""
    known = {key: method.meta[key] for key in ("config", "images_seen", "revision", "attributes") if key in method.meta}
    return known | {
        "format": FORMAT, "kind": kind, "precision": precision, "stage": "a3gan", "frame": method.frame,
        "size": method.size, "z_dim": method.z_dim, "schema": [attribute.name for attribute in SCHEMA],
        "source": method.path.name, "source_sha256": checkpoint.sha256(method.path),
        "exported_by": checkpoint.revision(), "torch": str(torch.__version__),
    }  # fmt: skip


def check_parity(method: A3ganAnonymizer, run: Callable[..., Any], precision: str) -> Parity:
    """Compares `run(faces, policy, z, alpha) -> (image, landmarks)` with the eager model; UserError where it differs.

    Several batch sizes, every alpha of `ALPHAS` and mixed ones, every preset and random policies, rendered faces.
    """
    from a3gan.data.ranges import to_float
    from a3gan.data.synthetic import synthetic_faces

    generator = torch.Generator().manual_seed(0)
    faces = to_float(synthetic_faces(max(BATCHES), method.size, seed=0, frame=method.frame).images)
    presets = [Policy(preset).vector() for preset in PRESETS]
    parity, limits = Parity(), LIMITS[precision]
    for n in BATCHES:
        for alpha in (*ALPHAS, None):
            x = faces[torch.randperm(len(faces), generator=generator)[:n]].contiguous()
            c = random_policies(n, len(SCHEMA), generator)
            c[: len(presets)] = torch.stack(presets)[:n]
            z = torch.randn(n, method.z_dim, generator=generator)
            dial = torch.rand(n, generator=generator) if alpha is None else torch.full((n,), alpha)
            with torch.inference_mode():
                expected = method.model(x, method.logits(x), c, z, dial).image
                points = method.read(x)
            image, landmarks = (torch.as_tensor(part) for part in run(x, c, z, dial))
            if image.shape != expected.shape:
                raise UserError(f"parity fails: {list(image.shape)} for {n} faces, expected {list(expected.shape)}")
            apart = (image - expected).abs()
            largest, mean = _value(apart.max()), _value(apart.mean())
            parity.largest, parity.mean = max(parity.largest, largest), max(parity.mean, mean)
            parity.landmarks = max(parity.landmarks, _value((landmarks - points).abs().max()))
            parity.cases += 1
            name = "mixed" if alpha is None else f"{alpha:g}"
            parity.lines.append(f"batch {n}, alpha {name}: max {largest:.1e}, mean {mean:.1e}")
    if not (parity.largest <= limits[0] and parity.mean <= limits[1] and parity.landmarks <= 1e-4):
        raise UserError(
            f"parity fails: the program differs from the eager model by up to {parity.largest:.2g} (mean "
            f"{parity.mean:.2g}, landmarks {parity.landmarks:.2g}); allowed are {limits[0]:g} and {limits[1]:g}. "
            "Nothing was written"
        )
    return parity


def _value(t: Tensor) -> float:
    """A number that compares as failing where it is not finite."""
    return float(t) if bool(t.isfinite()) else float("inf")


def _needs_onnx(precision: str) -> None:
    if precision == "bf16":
        raise UserError("precision bf16: onnxruntime has no bfloat16 convolution; use fp32 or fp16, or --format torch")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export to ONNX needs {error.name}; pip install 'a3gan[onnx]'") from error


def _trace(method: A3ganAnonymizer, precision: str, up: str) -> torch.export.ExportedProgram:
    program = FaceProgram(method, precision, up).eval()
    n, size = 3, method.size  # neither 0 nor 1, which a trace takes for constants
    example = (torch.zeros(n, 3, size, size), torch.ones(n, len(SCHEMA)), torch.zeros(n, method.z_dim), torch.ones(n))
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with _quiet(), torch.no_grad():
        return torch.export.export(program, example, dynamic_shapes=({0: batch},) * 4)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, meta: dict[str, Any]) -> None:
    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=list(INPUTS), output_names=list(OUTPUTS),
            optimize=True, verbose=False,
        )  # fmt: skip
    made.model.ir_version = min(made.model.ir_version or IR_VERSION, IR_VERSION)
    made.model.metadata_props[KEY] = json.dumps(meta, ensure_ascii=False)
    made.save(str(path), external_data=False)


def _onnx_runner(path: Path) -> Callable[..., list[Any]]:
    from a3gan.anonymizers.onnx import _session

    session = _session(path, "cpu", 0)

    def run(*inputs: Tensor) -> list[Any]:
        return session.run(list(OUTPUTS), {name: t.numpy() for name, t in zip(INPUTS, inputs, strict=True)})

    return run


def _write_torch(program: torch.export.ExportedProgram, path: Path, meta: dict[str, Any]) -> None:
    with _quiet(), open(path, "wb") as file:
        torch.export.save(program, file, extra_files={KEY: json.dumps(meta, ensure_ascii=False)})


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters log progress and warn of their own internals."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in noisy]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in noisy:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
