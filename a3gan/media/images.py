"""Photos, file to file: `anonymize_photo`, and `anonymize_files` for folders of them."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from a3gan.errors import UserError
from a3gan.media import deep
from a3gan.media.metadata import Carried, carried, png_chunks, read_ahead, save_options
from a3gan.media.pictures import Picture, is_gray, opened, to_pil_picture

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.anonymizers.records import FaceRecord
    from a3gan.data.attributes import Policy

log = logging.getLogger(__name__)

SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .ppm .mpo .avif .heic .heif".split())
"""What a folder is searched for. Some may not be readable here: those are then listed as failed, not passed over."""
# What one bad file may raise. Pillow reports some broken ones as SyntaxError.
PER_FILE = (UserError, OSError, ValueError, RuntimeError, MemoryError, SyntaxError, Image.DecompressionBombError)
FORMATS: dict[str, dict] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 92, "method": 4},
    "AVIF": {"quality": 90},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "GIF": {},
    "PPM": {},
}
# For a result whose name ends otherwise than its source's; else the format stays, whatever the name.
BY_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF",
    ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF", ".ppm": "PPM", ".mpo": "JPEG",
}  # fmt: skip
LOSSLESS_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
IDENTITIES = ("track", "random", "fixed")
Seeds = Callable[[int, np.ndarray, "list[FaceRecord]"], Sequence["int | None"]]


@dataclass
class FileResult:
    """One file. status: 'done', 'no face' (written unchanged) or 'failed' (nothing written; `error` says why).

    records: of its faces; faces, mosaicked: how many of them, and how many could not be synthesised. width, height: of
    the result.
    """

    source: Path
    output: Path
    status: str = "done"
    faces: int = 0
    mosaicked: int = 0
    error: str = ""
    records: list[FaceRecord] = field(default_factory=list)
    width: int = 0
    height: int = 0


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
        done = self.having("done")
        left = sum(all(record.status == "kept" for record in file.records) for file in done)
        lines.append(
            f"{len(self.files)} photos: {len(done) - left} anonymised ({faces} faces, {mosaicked} mosaicked), "
            + (f"{left} left as they were, " if left else "")
            + f"{len(self.having('no face'))} without a face, {len(self.having('failed'))} failed"
            + (f"; {self.ignored} other files ignored" if self.ignored else "")
        )
        return lines


def anonymize_photo(
    source: str | Path, output: str | Path, anonymizer: Anonymizer, *, policy: str | Policy | None = None,
    seed: int | str | None = None, alpha: float | None = None, identity: str = "track", seeds: Seeds | None = None,
    metadata: str = "safe", show: Callable[[np.ndarray], None] | None = None,
) -> FileResult:  # fmt: skip
    """Anonymises one photo into the file `output`, which is whole or not there at all.

    Size, colour profile, bits a channel, transparency and, for JPEG, quantisation, chroma resolution and progression
    stay as in the source; orientation is applied to the pixels. Palettes become colours; CMYK and LAB become RGB by
    their profile. A photo in which no face is found is written with its pixels as they were, status 'no face'.

    Args:
        output: its format is the source's, unless its name ends otherwise.
        policy, seed, alpha: as `Anonymizer.process`; None = the anonymizer's own.
        identity: 'track' = each face of each photo its own new one, always the same for the same file and seed;
            'random' = never the same again; 'fixed' = one new face for all.
        seeds: a function as `Anonymizer.process` takes it, in place of `identity`: for people known across files, and
            for faces to be kept (None).
        metadata: what of EXIF, XMP, IPTC and texts is kept, see `media.metadata`.
        show: called with the result, uint8 RGB [H, W, 3].

    Raises:
        UserError, OSError and the rest of `PER_FILE`: the file cannot be read, done or written. Nothing is left then.
    """
    source, output = Path(source), Path(output)
    file = FileResult(source, output)
    data = source.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        kind = _kind(image, source, output)
        read_ahead(image)
        picture = _load(data, image)
        file.height, file.width = picture.rgb.shape[:2]
        kept = carried(image, metadata, (file.width, file.height))
        options = FORMATS[kind] | _as_source(data, image, kind) | save_options(kept, kind)
    seed = anonymizer.seed if seed is None else seed
    by_face = seeds or photo_seeds(identity, seed, data)
    result = anonymizer.process(picture, policy=policy, seed=seed, alpha=alpha, seeds=by_face)
    file.records, file.faces, file.mosaicked = result.faces, len(result.faces), result.mosaicked
    file.status = "done" if result.faces else "no face"
    if show is not None:
        show(result.image.view())
    _write(result.image, output, kind, kept, options)
    return file


def photo_seeds(identity: str, seed: int | str, data: bytes) -> Seeds:
    """Seeds for the faces of one file with these bytes. UserError for an unknown mode; see `anonymize_photo`."""
    from a3gan.anonymizers.base import face_seed

    if identity not in IDENTITIES:
        raise UserError(f"identity {identity!r}: must be one of {', '.join(IDENTITIES)}")
    if identity == "fixed":
        return lambda number, canvas, faces: [face_seed(seed, 0)] * len(faces)
    if identity == "random":
        return lambda number, canvas, faces: [secrets.randbits(63) for _ in faces]
    # By content, not by name: a photo that is moved or copied keeps its new faces.
    own = f"{seed}:{hashlib.sha256(data).hexdigest()}"
    return lambda number, canvas, faces: [face_seed(own, i) for i in range(len(faces))]


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
    identity: str = "track",
    metadata: str = "safe",
) -> FileReport:
    """Anonymises photos and folders of photos (searched through) into the folder `output`.

    A photo keeps its name, a folder its tree; what stays of each photo, see `anonymize_photo`. A bad file is reported
    and does not stop the others; a photo in which no face is found is written with its pixels as they were, and
    reported.

    Args:
        weights, device: as `Anonymizer.from_pretrained`; policy, seed, alpha, identity, metadata: as `anonymize_photo`.
        progress: show a bar on stderr. anonymizer: use this one, with its own weights and device.

    Raises:
        UserError: an input that does not exist, no photo at all, two photos with one output, an output that would
            overwrite an input, or a setting that the method does not support. Nothing has been written then.
    """
    from a3gan.anonymizers.a3gan import DEFAULT_WEIGHTS
    from a3gan.anonymizers.anonymizer import Anonymizer, as_policy

    output = Path(output)
    files, ignored = find_files(inputs, output)
    policy = as_policy(policy)
    photo_seeds(identity, seed, b"")
    anonymizer = anonymizer or Anonymizer.from_pretrained(weights or DEFAULT_WEIGHTS, device)
    anonymizer.process([], policy=policy, seed=seed, alpha=alpha)  # impossible settings fail before the first file
    options = {"policy": policy, "seed": seed, "alpha": alpha, "identity": identity, "metadata": metadata}
    for i, file in enumerate(_bar(files, progress)):
        try:
            files[i] = anonymize_photo(file.source, file.output, anonymizer, **options)
        except PER_FILE as error:
            file.status, file.error = "failed", reason(error)
            log.warning("%s: %s", file.source, file.error)
    return FileReport(files, ignored)


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


def _kind(image: Image.Image, source: Path, output: Path) -> str:
    """The format to write, as Pillow names it. UserError where it cannot be, or where there are several pictures."""
    own = "JPEG" if image.format == "MPO" else image.format  # a JPEG with more behind it
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"holds {image.n_frames} pictures; only single ones are anonymised, split it first")
    suffix = output.suffix.lower()
    kind = own if suffix == source.suffix.lower() else BY_SUFFIX.get(suffix, own)
    if kind not in FORMATS:
        raise UserError(f"format {kind} cannot be written; convert it to one of {', '.join(FORMATS)}")
    return kind


def _load(data: bytes, image: Image.Image) -> Picture:
    if deep.is_deep(data, image):
        return deep.read_deep(data, image)
    image.load()
    return opened(image)


def _as_source(data: bytes, image: Image.Image, kind: str) -> dict[str, Any]:
    """How the new file is to be coded, as the old one was, so far as its format tells."""
    if kind == "JPEG" and image.format in ("JPEG", "MPO"):
        return _as_jpeg(image)
    if kind == "WEBP" and image.format == "WEBP":
        # The first chunk that holds pixels: VP8 with a space loses, VP8L does not.
        lossless = b"VP8L" in data[:64] or (b"VP8L" in data and b"VP8 " not in data)
        return {"lossless": True, "quality": 80, "exact": True} if lossless else {}
    if kind == "TIFF" and image.format == "TIFF":
        compression = image.info.get("compression", "raw")
        return {"compression": compression} if compression in LOSSLESS_TIFF else {}
    return {}


def _as_jpeg(image: Image.Image) -> dict[str, Any]:
    """Quantisation tables, chroma resolution and progression of a JPEG."""
    from PIL import JpegImagePlugin

    options: dict[str, Any] = {}
    if tables := getattr(image, "quantization", None):
        tables = [list(tables[key]) for key in sorted(tables)]
        # A gray picture has one table; of CMYK's, black's goes.
        options |= {"qtables": tables[:2], "quality": -1}
    if image.info.get("progressive") or image.info.get("progression"):
        options["progressive"] = True
    if not is_gray(image):
        sampling = JpegImagePlugin.get_sampling(image) if image.mode in ("RGB", "YCbCr") else -1
        # CMYK is kept at full resolution as a rule; what Pillow cannot name becomes 4:2:0.
        options["subsampling"] = sampling if sampling in (0, 1, 2) else 0 if image.mode == "CMYK" else 2
    return options


def _write(picture: Picture, path: Path, kind: str, kept: Carried, options: dict[str, Any]) -> None:
    if picture.deep and kind == "PNG":
        write_whole(path, deep.png_bytes(picture, png_chunks(kept)))
    elif picture.deep and kind == "TIFF":
        write_whole(path, deep.tiff_bytes(picture, kept.profile, options.get("exif")))
    else:
        if picture.deep and not (kind == "PPM" and picture.gray):  # a format of 8 bits was asked for by name
            alpha = None if picture.alpha is None else (picture.alpha // 257).astype(np.uint8)
            picture = Picture(picture.view(), alpha, picture.gray)
        made = to_pil_picture(picture)
        if kind in ("JPEG", "PPM") and picture.alpha is not None:
            made = Image.fromarray(picture.over_white())
        save(made, path, kind, **options)


def save(picture: Image.Image, path: Path, kind: str, **options: object) -> None:
    """Writes a picture whole or not at all."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    write_whole(path, stream.getbuffer())


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all: to a temporary file beside it, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, without the picture's suffix, short enough for any name, and one per thread.
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """What went wrong with a file, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read here"
    if isinstance(error, OSError) and error.strerror:
        hidden = error.filename is None or str(error.filename).endswith(".tmp")  # nobody asked for a temporary file
        return error.strerror if hidden else f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__


def _one(file: FileResult, anonymizer: Anonymizer, policy: Policy | None, seed: int | str, alpha: float) -> None:
    done = anonymize_photo(file.source, file.output, anonymizer, policy=policy, seed=seed, alpha=alpha)
    vars(file).update(vars(done))


_reason = reason


def _bar(files: list[FileResult], progress: bool) -> Iterable[FileResult]:
    if not progress:
        return files
    from tqdm import tqdm

    return tqdm(files, unit="photo", disable=None)  # None: silent where stderr is no terminal
