"""PNG and TIFF of 16 bits a channel: read through OpenCV, written here.

Pillow has no mode for colour of 16 bits and reads it as 8 without a word. OpenCV (a dependency of albumentations) reads
it, but is no help with colour profiles and EXIF; the files that we write are simple enough to be put together here.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from a3gan.errors import UserError
from a3gan.media.pictures import Picture

TIFF_BITS, ORIENTATION = 258, 274  # tags
SUB_DIRECTORIES = (0x8769, 0x8825)  # EXIF, GPS
LEVEL = 6  # of zlib
STRIP_BYTES = 1 << 18  # of a TIFF strip, before compression
# What turns a stored picture upright, by its EXIF orientation: (transpose, flip rows, flip columns), in this order.
TURNS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


def is_deep(data: bytes, picture: Image.Image) -> bool:
    """Whether a PNG or TIFF, opened from these bytes, has 16 bits a channel."""
    if picture.format == "PNG":
        return data[24] == 16
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(TIFF_BITS, (1,))) > 8
    return False


def read_deep(data: bytes, picture: Image.Image) -> Picture:
    """The file that `picture` was opened from, upright. UserError where it holds another kind of numbers."""
    import cv2

    # OpenCV turns TIFFs itself, in some versions more of them than in others.
    lying = _lying(data) if picture.format == "TIFF" else data
    values = cv2.imdecode(np.frombuffer(lying, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        kind = "that cannot be read here" if values is None else f"of {values.dtype} numbers"
        raise UserError(f"a {picture.format} {kind}: only 8 and 16 bits a channel can be anonymised, convert it first")
    turn = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    if turn is not None:
        values = values.swapaxes(0, 1) if turn[0] else values
        values = values[:: -1 if turn[1] else 1, :: -1 if turn[2] else 1]
    if values.ndim == 2:
        return Picture(np.repeat(values[..., None], 3, axis=2), gray=True)
    # A PNG's colour type; a TIFF's PhotometricInterpretation.
    gray = data[25] in (0, 4) if picture.format == "PNG" else picture.tag_v2.get(262, 2) in (0, 1)
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(values[..., 2::-1]), alpha, gray)


def png_bytes(picture: Picture, chunks: list[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of 16 bits, with these chunks before its pixels."""
    values = _samples(picture)
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    up = rows.copy()
    up[1:] -= rows[:-1]  # filter 2, "up"; uint8 wraps around as the format has it
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    out = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    out += [_chunk(name, data) for name, data in chunks]
    out += [_chunk(b"IDAT", zlib.compress(lines.tobytes(), LEVEL)), _chunk(b"IEND", b"")]
    return b"".join(out)


def tiff_bytes(picture: Picture, profile: bytes | None = None, exif: Image.Exif | None = None) -> bytes:
    """A TIFF of 16 bits, deflated with horizontal differences; with a colour profile and EXIF."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    values = _samples(picture)
    height, width, channels = values.shape
    rows = max(1, STRIP_BYTES // (width * channels * 2))
    strips = []
    for start in range(0, height, rows):
        part = values[start : start + rows].astype("<u2")
        part[:, 1:] -= part[:, :-1].copy()  # predictor 2
        strips.append(zlib.compress(part.tobytes(), LEVEL))
    sizes = [len(strip) for strip in strips]
    ifd = ImageFileDirectory_v2(prefix=b"II")
    for tag in exif or ():
        ifd[tag] = exif.get_ifd(tag) if tag in SUB_DIRECTORIES else exif[tag]
    ifd.update({
        256: width, 257: height, TIFF_BITS: (16,) * channels, 259: 8, 262: 1 if picture.gray else 2, 274: 1,
        # Offsets from the directory's end; Pillow adds its place.
        273: tuple(sum(sizes[:k]) for k in range(len(sizes))), 277: channels, 278: rows, 279: tuple(sizes), 284: 1,
        317: 2,
    })  # fmt: skip
    if picture.alpha is not None:
        ifd[338] = 2  # alpha that the colours are not multiplied with
    if profile:
        ifd[34675] = profile
    stream = io.BytesIO()
    ifd.save(stream)
    return stream.getvalue() + b"".join(strips)


def _samples(picture: Picture) -> np.ndarray:
    """uint16 [H, W, 1 to 4]: gray or colours, then alpha."""
    values = picture.one_channel()[..., None] if picture.gray else picture.rgb
    return values if picture.alpha is None else np.dstack([values, picture.alpha])


def _lying(data: bytes) -> bytes:
    """A TIFF that says that it need not be turned."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    changed = bytearray(data)
    for i in range(min(count, 4096)):
        entry = place + (8 + 20 * i if big else 2 + 12 * i)
        if struct.unpack_from(order + "H", data, entry)[0] == ORIENTATION:
            struct.pack_into(order + "H", changed, entry + (12 if big else 8), 1)
    return bytes(changed)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
