"""One photo, file to file: `anonymize_photo`. Folders of them: `media.run`."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from a3gan.errors import UserError
from a3gan.files import replacing
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
    """One file. status: 'done' or 'no face' (written unchanged).

    records: of its faces; faces, mosaicked: how many of them, and how many could not be synthesised. width, height: of
    the result.
    """

    source: Path
    output: Path
    status: str = "done"
    faces: int = 0
    mosaicked: int = 0
    records: list[FaceRecord] = field(default_factory=list)
    width: int = 0
    height: int = 0


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
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def reason(error: Exception) -> str:
    """What went wrong with a file, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read here"
    if isinstance(error, OSError) and error.strerror:
        hidden = error.filename is None or str(error.filename).endswith(".tmp")  # nobody asked for a temporary file
        return error.strerror if hidden else f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__
