"""An exported ONNX program as method a3gan: `a3gan export`'s file is all it needs, and onnxruntime all it runs on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3gan.anonymizers.a3gan import BATCH, REDRAW, FaceModel, checked_redraw
from a3gan.data.align import FRAMES
from a3gan.data.attributes import SCHEMA
from a3gan.errors import UserError

KEY = "a3gan"  # the entry of the file's metadata; its value is JSON
FORMAT = "a3gan-program-1"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxAnonymizer(FaceModel):
    """The program of an ONNX file, with the same contract as the checkpoint it was made from.

    Args:
        weights: a file of `a3gan export --format onnx`.
        device: 'cpu' or 'cuda'; None or 'auto' = cuda where onnxruntime has it. Faces stay in the CPU's memory.
        threads: of one operation; 0 = as many as torch uses. redraw: as of `A3ganAnonymizer`.

    Raises:
        UserError: onnxruntime is not installed; the file is missing, cut, foreign or made for another schema; the
            device asked for is not the one that onnxruntime then uses.
    """

    def __init__(
        self, weights: str | Path, device: str | torch.device | None = None, threads: int = 0,
        redraw: int = REDRAW,
    ):  # fmt: skip
        self.path, self.redraw = Path(weights), checked_redraw(redraw)
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; `a3gan export CHECKPOINT --format onnx` makes one")
        self.session = _session(self.path, None if device is None else str(device), threads)
        provider = self.session.get_providers()[0]
        self.runs_on = next((name for name, known in PROVIDERS.items() if known == provider), provider)
        self.batch = BATCH.get(self.runs_on, 16)
        self.meta = _meta(self.path, self.session.get_modelmeta().custom_metadata_map)
        self.frame, self.size, self.z_dim = self.meta["frame"], self.meta["size"], self.meta["z_dim"]

    def one_pass(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
        """The program itself."""
        return self._run(["anonymized"], x, c, z, alpha)[0]

    def pass_and_points(self, x: Tensor, c: Tensor, z: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs of one run."""
        image, points = self._run(["anonymized", "landmarks"], x, c, z, alpha)
        return image, points

    def read(self, x: Tensor) -> Tensor:
        """Five points [n, 5, 2] of x [n, 3, S, S]: only the program's attribute network runs."""
        n = len(x)
        unused = x.new_zeros(n, len(SCHEMA)), x.new_zeros(n, self.z_dim), x.new_zeros(n)
        return self._run(["landmarks"], x, *unused)[0]

    def _run(self, outputs: list[str], *inputs: Tensor) -> list[Tensor]:
        from onnxruntime import RunOptions

        options = RunOptions()
        options.only_execute_path_to_fetches = True
        options.log_severity_level = 3  # it warns of every output that was not asked for
        feed = {name: t.contiguous().numpy() for name, t in zip(INPUTS, inputs, strict=True)}
        return [torch.from_numpy(made) for made in self.session.run(outputs, feed, options)]


INPUTS = ("faces", "policy", "z", "alpha")
OUTPUTS = ("anonymized", "landmarks")


def _session(path: Path, device: str | None, threads: int) -> Any:
    """An onnxruntime session on that device, and on no other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime; pip install 'a3gan[onnx]', or use the checkpoint") from error
    has = onnxruntime.get_available_providers()
    wanted = "cuda" if device in (None, "auto") and PROVIDERS["cuda"] in has and torch.cuda.is_available() else device
    wanted = "cpu" if wanted in (None, "auto") else wanted.partition(":")[0]
    if wanted not in PROVIDERS:
        raise UserError(f"device {device!r}: an ONNX program runs on {' or '.join(PROVIDERS)}; or use the checkpoint")
    if PROVIDERS[wanted] not in has:
        raise UserError(
            f"device {device!r}: this onnxruntime has no {PROVIDERS[wanted]}; pip install onnxruntime-gpu in its place"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # Other stages of a pipeline want the cores while this one waits.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS[wanted]])
    except Exception as error:  # noqa: BLE001  (onnxruntime's own kinds; its text says what is wrong with the file)
        text = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: onnxruntime cannot run it ({text}); it may be cut, export it again") from error
    # A provider that lists itself may still fail to start, and onnxruntime then goes on with another one.
    if session.get_providers()[:1] != [PROVIDERS[wanted]]:
        raise UserError(
            f"device {device!r}: onnxruntime fell back to {session.get_providers()[0]}; its CUDA and cuDNN do not fit "
            "this machine (--device cpu runs it there)"
        )
    return session


def _meta(path: Path, entries: dict[str, str]) -> dict[str, Any]:
    try:
        meta = json.loads(entries[KEY])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: an ONNX file, but none of `a3gan export` (it has no '{KEY}' entry)") from error
    if meta.get("format") != FORMAT:
        raise UserError(f"{path}: format {meta.get('format')!r}, this version reads {FORMAT!r}; export it again")
    if meta.get("schema") != [attribute.name for attribute in SCHEMA] or meta.get("frame") not in FRAMES:
        raise UserError(f"{path}: made for other attributes or another frame than this version knows; export it again")
    return meta
