"""`a3gan doctor`: is everything here that anonymising needs, and does it work? One line a check."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from a3gan import __version__, checkpoint

REQUIRED = (
    "torch torchvision kornia lpips facenet-pytorch tensorboard albumentations scipy numpy pillow av pydantic pyyaml "
    "safetensors tqdm click matplotlib"
).split()
OPTIONAL = {
    "onnxruntime": "for --weights x.onnx: pip install a3gan[onnx]",
    "timm": "for method facemae, and falco with FaRL: pip install a3gan[methods]",
    "diffusers": "for method diff_privacy: pip install a3gan[methods]",
    "transformers": "for method diff_privacy with Stable Diffusion: pip install a3gan[methods]",
}
ENCODERS = ("libx264", "libx265", "mpeg4", "libvpx-vp9", "h264_nvenc", "aac")
NEEDED_ENCODERS = ("libx264", "mpeg4")  # one of them


@dataclass
class Check:
    """status: 'ok', 'note' (something is absent that not everybody needs) or 'FAIL'."""

    name: str
    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.status:4}  {self.name:11} {self.text}"


def doctor(device: str = "auto") -> Iterator[Check]:
    """All checks, as they are done; none raises."""
    for name, check in CHECKS.items():
        try:
            yield from check(name, device)
        except Exception as error:  # noqa: BLE001  (a doctor reports what others raise)
            yield Check(name, "FAIL", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _program(name: str, _device: str) -> Iterator[Check]:
    where = Path(__file__).resolve().parent
    system = f"{platform.system()} {platform.machine()}"
    text = f"a3gan {__version__} in {where}, Python {platform.python_version()}, {system}"
    yield Check(name, "ok" if sys.version_info >= (3, 11) else "FAIL", text)


def _packages(name: str, _device: str) -> Iterator[Check]:
    found, missing = [], []
    for package in REQUIRED:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    yield Check(name, "ok", ", ".join(found))
    if missing:
        yield Check(name, "FAIL", f"missing: {', '.join(missing)}; pip install {' '.join(missing)}")
    for package, use in OPTIONAL.items():
        try:
            yield Check(name, "ok", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            yield Check(name, "note", f"{package} is not installed ({use})")


def _devices(name: str, device: str) -> Iterator[Check]:
    import torch

    from a3gan.anonymizers.base import pick_device

    yield Check(name, "ok", f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            yield Check(name, "ok", f"cuda {i}: {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Check(name, "note", f"no CUDA device ({built})")
    yield Check(name, "ok", f"--device {device} is {pick_device(device)}")


def _weights(name: str, _device: str) -> Iterator[Check]:
    shipped = checkpoint.shipped()
    if not shipped:
        yield Check(name, "FAIL", "none are shipped with this installation; install it again")
        return
    folder = next(iter(shipped.values())).parent
    manifest = folder / "manifest.json"
    wanted = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    for file in sorted({path.name for path in shipped.values()} | set(wanted)):
        path = folder / file
        if not path.is_file():
            yield Check(name, "FAIL", f"{file}: in the manifest, but not there; install it again")
        elif file not in wanted:
            yield Check(name, "note", f"{file}: not in the manifest")
        elif checkpoint.sha256(path) != wanted[file]["sha256"]:
            yield Check(name, "FAIL", f"{file}: sha256 differs from the manifest; install it again")
        else:
            yield Check(name, "ok", f"{file}: sha256 as in the manifest")


def _methods(name: str, _device: str) -> Iterator[Check]:
    from a3gan.anonymizers.methods import METHODS, missing

    shipped = checkpoint.shipped()
    lacking = {method: ", ".join(lack) for method in METHODS if (lack := missing(method))}
    lacking |= {m: f"weights {e.weights}" for m, e in METHODS.items() if e.weights and e.weights not in shipped}
    yield Check(name, "ok", ", ".join(method for method in METHODS if method not in lacking))
    for method, lack in lacking.items():
        yield Check(name, "note", f"{method}: lacks {lack}")


def _video(name: str, _device: str) -> Iterator[Check]:
    import av

    library = ".".join(map(str, av.library_versions["libavcodec"]))
    have = [codec for codec in ENCODERS if _encodes(codec)]
    lack = [codec for codec in ENCODERS if codec not in have]
    usable = any(codec in have for codec in NEEDED_ENCODERS)
    text = f"libavcodec {library}, encoders {', '.join(have)}" + (f"; not {', '.join(lack)}" if lack else "")
    yield Check(name, "ok" if usable else "FAIL", text)


def _encodes(codec: str) -> bool:
    """Whether the encoder is known; one for hardware may still fail without it."""
    import av

    try:
        av.codec.Codec(codec, "w")
    except Exception:  # noqa: BLE001  (av has had several names for this error)
        return False
    return True


def _writing(name: str, _device: str) -> Iterator[Check]:
    for place, folder in (("here", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield Check(name, "ok", f"{place}: {folder}")
        except OSError as error:
            yield Check(name, "note" if place == "here" else "FAIL", f"{place}: {folder}: {error.strerror or error}")


def _self_test(name: str, device: str) -> Iterator[Check]:
    """One rendered face is found, replaced, and differs from what it was."""
    import numpy as np
    import torch

    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.data.ranges import to_uint8
    from a3gan.data.synthetic import render, sample_identities, sample_states

    generator = torch.Generator().manual_seed(1)
    face = render(sample_identities(1, generator), sample_states(1, generator), 160, "photo")
    picture = np.ascontiguousarray(to_uint8(face)[0].permute(1, 2, 0).numpy())
    began = time.perf_counter()
    anonymizer = Anonymizer.from_pretrained(device=device)
    result = anonymizer.process(picture)
    seconds = time.perf_counter() - began
    changed = float((result.image != picture).any(2).mean())
    text = f"{len(result.faces)} face found in a drawing, {changed:.0%} of the picture changed, {seconds:.1f} s"
    if len(result.faces) != 1 or changed < 0.1:
        yield Check(name, "FAIL", text + "; expected 1 face and at least 10 %")
        return
    yield Check(name, "ok", text + (" (mosaicked: no matter in a drawing)" if result.mosaicked else ""))


CHECKS: dict[str, Callable[[str, str], Iterator[Check]]] = {
    "program": _program,
    "packages": _packages,
    "device": _devices,
    "weights": _weights,
    "methods": _methods,
    "video": _video,
    "writing": _writing,
    "self-test": _self_test,
}
