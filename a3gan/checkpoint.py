"""One checkpoint format: tensors as safetensors, plain values as JSON in its header; atomic, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from a3gan import __version__
from a3gan.errors import UserError

FORMAT = "a3gan-1"
_KEY = "a3gan"  # the one entry of the safetensors header that we use; its value is JSON


def save(path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int = 0) -> Path:
    """Writes `tensors` and JSON-able `meta` to `path`; the old file stays whole until the new one is on disk.

    `keep` older files stay as ``<stem>.1.safetensors`` (the newest of them), ``.2`` and so on.

    Tensors are stored contiguous and on their own, so that views and channels-last weights are fine.
    ``format`` and ``revision`` are added to `meta` where absent.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "revision": revision(), **meta}, ensure_ascii=False)
    # clone(): safetensors refuses two names on one storage, and a CPU tensor must not change while it is written
    plain = {k: v.detach().to("cpu").clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(plain, str(temporary), metadata={_KEY: text})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        for number in range(keep, 0, -1):
            newer = older(path, number - 1)
            if newer.is_file():
                os.replace(newer, older(path, number))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def older(path: Path, number: int) -> Path:
    """Where the `number`-th older version of a file lies; 0 = the file itself."""
    return path.with_suffix(f".{number}{path.suffix}") if number else path


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a file written by :func:`save`: (tensors, meta). Raises UserError for a missing, cut or foreign file."""
    from safetensors import safe_open

    meta = load_meta(path)
    with safe_open(str(path), framework="pt", device=str(device)) as file:
        # clone(): the tensors are views of the mapped file, which Windows then refuses to replace
        return {key: file.get_tensor(key).clone() for key in file.keys()}, meta


def load_meta(path: str | Path) -> dict[str, Any]:
    """Only the JSON of a checkpoint (config, stage, images_seen, ...); raises like :func:`load`."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a .safetensors file or a name from `a3gan models`")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); it may be cut, get it again") from error
    if _KEY not in header:
        raise UserError(f"{path}: a safetensors file, but not one written by a3gan (its header has no '{_KEY}' entry)")
    try:
        meta = json.loads(header[_KEY])
    except ValueError as error:
        raise UserError(f"{path}: the a3gan header is not JSON ({error})") from error
    if meta.get("format") != FORMAT:
        raise UserError(f"{path}: format {meta.get('format')!r}, this version reads {FORMAT!r}; use a matching a3gan")
    return meta


def subset(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named ``<prefix>.<rest>``, as ``{rest: tensor}``."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}


def prefixed(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The state of several networks in one flat dict, ``<network>.<tensor>``: the layout of inference checkpoints."""
    return {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}


def load_into(module: nn.Module, tensors: dict[str, Tensor], prefix: str, source: str | Path) -> nn.Module:
    """Copies ``<prefix>.*`` into `module` (any float precision); every name and shape must fit, else UserError."""
    state, own = subset(tensors, prefix), module.state_dict()
    wrong = sorted(set(state) ^ set(own)) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise UserError(
            f"{source}: '{prefix}' does not fit the configured network: {len(wrong)} tensors differ, first {wrong[0]}"
        )
    module.load_state_dict(state)
    return module


def sha256(path: str | Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def shipped() -> dict[str, Path]:
    """The weights that come with the package: name -> path (the folder `checkpoints/` of the repository)."""
    folder = _shipped_folder()
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))} if folder else {}


def _shipped_folder() -> Path | None:
    beside = Path(__file__).resolve().parent
    # Installed: a3gan/checkpoints (setup.cfg maps it). In a working tree or an editable install: the sibling folder.
    for folder in (beside / "checkpoints", beside.parent / "checkpoints"):
        if folder.is_dir():
            return folder
    return None


def resolve(name_or_path: str | Path) -> Path:
    """A path as it is, or the name of a shipped checkpoint; UserError lists the names when neither exists."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = shipped()
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    known = ", ".join(names) or "none"
    raise UserError(f"{name_or_path}: neither a file nor the name of shipped weights (shipped: {known})")


def revision() -> str:
    """The git revision of a working tree (with '+' when changed), else the package's version."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return __version__
    try:
        options = {"cwd": root, "capture_output": True, "text": True, "timeout": 5, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **options).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return head + ("+" if dirty else "")


def missing(wanted: dict[str, str | Path | None]) -> list[str]:
    """One line for each config key whose weights are neither a file nor shipped; None = not wanted (dry runs)."""
    lines = []
    for key, name in wanted.items():
        try:
            if name is not None:
                resolve(name)
        except UserError as error:
            lines.append(f"{key}: {error}")
    return lines
