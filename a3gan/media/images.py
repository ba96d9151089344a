"""Photos and folders of photos, file to file: `anonymize_files`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from a3gan.errors import UserError
from a3gan.media.pictures import colour_profile, is_gray

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.data.attributes import Policy

log = logging.getLogger(__name__)

SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .ppm .mpo .avif .heic .heif".split())
"""What a folder is searched for. Some may not be readable here: those are then listed as failed, not passed over."""
# What one bad file may raise. Pillow reports some broken ones as SyntaxError.
PER_FILE = (UserError, OSError, ValueError, RuntimeError, MemoryError, SyntaxError, Image.DecompressionBombError)
FORMATS: dict[str, dict] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 95, "method": 4},
    "AVIF": {"quality": 90},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "GIF": {},
    "PPM": {},
}


@dataclass
class FileResult:
    """One file. status: 'done', 'no face' (written unchanged) or 'failed' (nothing written; `error` says why)."""

    source: Path
    output: Path
    status: str = "done"
    faces: int = 0
    mosaicked: int = 0
    error: str = ""


@dataclass
class FileReport:
    """What became of all files, in the order of the work; `ignored`: other files in the folders, by their names."""

    files: list[FileResult] = field(default_factory=list)
    ignored: int = 0

    def having(self, status: str) -> list[FileResult]:
        """The files with that status."""
        return [file for file in self.files if file.status == status]

    @property
    def ok(self) -> bool:
        """No file failed."""
        return not self.having("failed")

    def lines(self) -> list[str]:
        """For people: every file that needs a look, by name, then the counts."""
        lines = [f"failed: {file.source}: {file.error}" for file in self.having("failed")]
        lines += [f"no face found, written unchanged: {file.source}" for file in self.having("no face")]
        lines += [f"mosaicked {f.mosaicked} of {f.faces} faces: {f.source}" for f in self.files if f.mosaicked]
        faces, mosaicked = sum(f.faces for f in self.files), sum(f.mosaicked for f in self.files)
        lines.append(
            f"{len(self.files)} photos: {len(self.having('done'))} anonymised ({faces} faces, {mosaicked} mosaicked), "
            f"{len(self.having('no face'))} without a face, {len(self.having('failed'))} failed"
            + (f"; {self.ignored} other files ignored" if self.ignored else "")
        )
        return lines


def anonymize_files(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    weights: str | Path | None = None,
    policy: str | Policy | None = None,
    seed: int | str = 0,
    alpha: float = 1.0,
    device: str | None = None,
    progress: bool = False,
    anonymizer: Anonymizer | None = None,
) -> FileReport:
    """Anonymises photos and folders of photos (searched through) into the folder `output`.

    A photo keeps its name, a folder its tree; format, size and colour profile stay, all other metadata (EXIF with its
    thumbnail, GPS, comments) is dropped, orientation is applied to the pixels. Files are written whole or not at all. A
    bad file is reported and does not stop the others; a photo in which no face is found is written with its pixels as
    they were, and reported. Transparency is laid over white, 16 bits become 8, gray stays gray.

    Args:
        weights, device: as `Anonymizer.from_pretrained`; policy, seed, alpha: as `Anonymizer.process`.
        progress: show a bar on stderr. anonymizer: use this one, with its own weights and device.

    Raises:
        UserError: an input that does not exist, no photo at all, two photos with one output, an output that would
            overwrite an input, or a setting that the method does not support. Nothing has been written then.
    """
    from a3gan.anonymizers.a3gan import DEFAULT_WEIGHTS
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.data.attributes import Policy

    output = Path(output)
    files, ignored = find_files(inputs, output)
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    anonymizer = anonymizer or Anonymizer.from_pretrained(weights or DEFAULT_WEIGHTS, device)
    anonymizer.process([], policy=policy, seed=seed, alpha=alpha)  # impossible settings fail before the first file
    report = FileReport(files, ignored)
    for file in _bar(files, progress):
        try:
            _one(file, anonymizer, policy, seed, alpha)
        except PER_FILE as error:
            file.status, file.error = "failed", _reason(error)
            log.warning("%s: %s", file.source, file.error)
    return report


def find_files(inputs: Sequence[str | Path], output: Path) -> tuple[list[FileResult], int]:
    """Every photo with its output, and the number of other files in the folders. UserErrors of `anonymize_files`."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: exists and is no folder; name a folder for the results")
    files: list[FileResult] = []
    ignored = 0
    for entry in map(Path, inputs):
        if entry.is_dir():
            inside = [p for p in sorted(entry.rglob("*")) if p.is_file() and not _below(p, output, entry)]
            photos = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
            ignored += len(inside) - len(photos)
            files += [FileResult(p, output / p.relative_to(entry)) for p in photos]
        elif entry.is_file():
            files.append(FileResult(entry, output / entry.name))
        else:
            raise UserError(f"{entry}: no such file or folder")
    # A photo named by itself and found in a folder as well is done once.
    files = list({file.source.resolve(): file for file in reversed(files)}.values())[::-1]
    if not files:
        raise UserError(f"no photo in {', '.join(map(str, inputs)) or 'the inputs'} (looked for {' '.join(SUFFIXES)})")
    _refuse_clashes(files)
    return files, ignored


def _below(path: Path, output: Path, entry: Path) -> bool:
    """Whether a file of folder `entry` is an earlier result (the output folder lies inside the input folder)."""
    output = output.resolve()
    return output != entry.resolve() and output in path.resolve().parents


def _refuse_clashes(files: Iterable[FileResult]) -> None:
    files = list(files)
    sources = {file.source.resolve() for file in files}
    taken: dict[str, Path] = {}
    for file in files:
        if file.output.resolve() in sources or (file.output.exists() and file.output.samefile(file.source)):
            raise UserError(f"{file.output}: would overwrite an input; choose another output folder")
        # Compared without case: on Windows and macOS A.jpg and a.jpg are one file.
        other = taken.setdefault(str(file.output.resolve()).casefold(), file.source)
        if other is not file.source:
            raise UserError(f"{other} and {file.source} would both become {file.output}; use two output folders")


def _one(file: FileResult, anonymizer: Anonymizer, policy: Policy | None, seed: int | str, alpha: float) -> None:
    with Image.open(file.source) as picture:
        kind = "JPEG" if picture.format == "MPO" else picture.format  # a JPEG with more behind it
        if kind not in FORMATS:
            raise UserError(f"format {kind} cannot be written; convert it to one of {', '.join(FORMATS)}")
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise UserError(f"holds {picture.n_frames} pictures; only single ones are anonymised, split it first")
        picture.load()
        options = FORMATS[kind] | _kept(picture, kind)
        result = anonymizer.process(picture, policy=policy, seed=seed, alpha=alpha)
    file.faces, file.mosaicked = len(result.faces), result.mosaicked
    file.status = "done" if result.faces else "no face"
    save(result.image, file.output, kind, **options)


def _kept(picture: Image.Image, kind: str) -> dict:
    """What the new file takes from the old: the colour profile, where it still fits, and JPEG's chroma resolution."""
    options: dict = {}
    if kind not in ("BMP", "PPM", "GIF") and (profile := colour_profile(picture)):
        options["icc_profile"] = profile
    if kind == "JPEG" and picture.format in ("JPEG", "MPO") and not is_gray(picture):
        from PIL import JpegImagePlugin

        sampling = JpegImagePlugin.get_sampling(picture)
        options["subsampling"] = sampling if sampling in (0, 1, 2) else 2
    return options


def save(picture: Image.Image, path: Path, kind: str, **options: object) -> None:
    """Writes a picture whole or not at all: to a temporary file beside `path`, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            picture.save(stream, format=kind, **options)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read here"
    return " ".join(str(error).split()) or type(error).__name__


def _bar(files: list[FileResult], progress: bool) -> Iterable[FileResult]:
    if not progress:
        return files
    from tqdm import tqdm

    return tqdm(files, unit="photo", disable=None)  # None: silent where stderr is no terminal
