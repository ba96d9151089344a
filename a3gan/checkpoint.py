"""One checkpoint format: tensors as safetensors, plain values as JSON in its header; atomic, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from a3gan import __version__, packing
from a3gan.errors import UserError
from a3gan.files import replacing

PLAIN = "a3gan-1"  # every tensor as it is
FORMAT = "a3gan-2"  # the newest: some tensors in 8 bits (packing); raise it when an older a3gan would misread a file
OLDEST = 1  # the first format that this version still reads
_KEY = "a3gan"  # the one entry of the safetensors header that we use; its value is JSON


def save(path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int = 0) -> Path:
    """Writes `tensors` and JSON-able `meta` to `path`; the old file stays whole until the new one is on disk.

    `keep` older files stay as ``<stem>.1.safetensors`` (the newest of them), ``.2`` and so on. A file of the same or a
    later ``images_seen`` is not older (a kill undid those steps), nor is one that is not whole: they give way.

    Tensors are stored contiguous and on their own, so that views and channels-last weights are fine.
    ``format`` and ``revision`` are added to `meta` where absent; a file without 8-bit tensors names the format that
    older versions read too. Raises NotWritten (full disk, read-only folder); the files that were there are whole then.
    """
    path = Path(path)
    form = FORMAT if packing.is_packed(tensors) else PLAIN
    text = json.dumps({"format": form, "revision": revision(), **meta}, ensure_ascii=False)
    # clone(): safetensors refuses two names on one storage, and a CPU tensor must not change while it is written
    plain = {k: v.detach().to("cpu").clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with replacing(path) as temporary:
        _write(plain, temporary, text)
        if keep and _is_older(path, meta):
            _set_aside(path, keep)
    return path


def _is_older(path: Path, meta: dict[str, Any]) -> bool:
    try:
        before = load_meta(path)
    except UserError:
        return False
    return "images_seen" not in before or before["images_seen"] < meta.get("images_seen", float("inf"))


def _set_aside(path: Path, keep: int) -> None:
    """``.1`` becomes ``.2`` and so on, and `path` is also ``.1``: it stays under its own name until it is replaced."""
    for number in range(keep, 1, -1):
        if older(path, number - 1).is_file():
            os.replace(older(path, number - 1), older(path, number))
    second = path.with_name(f".{path.name}.{os.getpid()}.link.tmp")
    try:
        os.link(path, second)
        os.replace(second, older(path, 1))
    except OSError:  # a file system without hard links
        os.replace(path, older(path, 1))
    finally:
        second.unlink(missing_ok=True)  # rename leaves it where both are one file already


def _write(tensors: dict[str, Tensor], path: Path, text: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # what the user's umask gives any file; the library's are private
    try:
        save_file(tensors, str(path), metadata={_KEY: text})
    except SafetensorError as error:  # how the library reports a failed write
        raise OSError(str(error)) from error
    path.chmod(mode)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def older(path: Path, number: int) -> Path:
    """Where the `number`-th older version of a file lies; 0 = the file itself."""
    return path.with_suffix(f".{number}{path.suffix}") if number else path


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a file written by :func:`save`: (tensors, meta); what lies there in 8 bits comes as float16.

    Raises UserError for a missing, cut or foreign file.
    """
    from safetensors import safe_open

    meta = load_meta(path)
    with safe_open(str(path), framework="pt", device=str(device)) as file:
        # clone(): the tensors are views of the mapped file, which Windows then refuses to replace
        return packing.unpack({key: file.get_tensor(key).clone() for key in file.keys()}), meta


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
    _check_format(path, meta)
    return meta


def _check_format(path: Path, meta: dict[str, Any]) -> None:
    """UserError, in words, for a format that this version does not read."""
    found = re.fullmatch(r"a3gan-(\d+)", str(meta.get("format")))
    if not found:
        raise UserError(f"{path}: its format is {meta.get('format')!r}, which no a3gan writes; get the file again")
    number, newest = int(found[1]), int(FORMAT.removeprefix("a3gan-"))
    made = f"made by a3gan {meta.get('revision', 'of unknown version')}"
    if number > newest:
        raise UserError(f"{path}: format {number}, {made}; this version reads up to format {newest}: update a3gan")
    if number < OLDEST:
        raise UserError(
            f"{path}: format {number}, {made}; this version reads formats {OLDEST} to {newest}: "
            "train or export it again, or use the a3gan that made it"
        )


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


@cache
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
