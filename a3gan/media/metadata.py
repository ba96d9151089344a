"""What a photo's new file keeps of what the old one said about itself.

levels: 'strip' nothing but the colour profile; 'safe' how it was taken (camera, lens, exposure, time), no place, no
serial number, name, free text, thumbnail or maker's note; 'all' everything but embedded pictures and marked face
regions, which show or point at the old face. Orientation is applied to the pixels and written as 1 or not at all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from a3gan.errors import UserError
from a3gan.media.pictures import colour_profile

log = logging.getLogger(__name__)

LEVELS = ("strip", "safe", "all")
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005  # pointers to sub-directories
ORIENTATION, XMP_TAG, IPTC_TAG = 0x0112, 0x02BC, 0x83BB
# Numbers and times of the EXIF standard (CIPA DC-008) that tell how a photo was taken.
SAFE_BASE = {0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0132}  # make, model, resolution, time
SAFE_EXIF = {
    0x829A, 0x829D, 0x8822, 0x8827, 0x8830, 0x8831, 0x8832, 0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9201,
    0x9202, 0x9203, 0x9204, 0x9205, 0x9206, 0x9207, 0x9208, 0x9209, 0x920A, 0x9290, 0x9291, 0x9292, 0xA001, 0xA20E,
    0xA20F, 0xA210, 0xA217, 0xA402, 0xA403, 0xA404, 0xA405, 0xA406, 0xA407, 0xA408, 0xA409, 0xA40A, 0xA432, 0xA433,
    0xA434,
}  # fmt: skip
SAFE_LENGTH = 128  # of a text that names a camera; more would be something else
# The layout of the file (TIFF), pictures in it, and what is written otherwise.
NEVER = (
    {0x00FE, 0x00FF, 0x0106, 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122}
    | set(range(0x0100, 0x0104)) | set(range(0x0123, 0x0126)) | {0x012D, 0x013D, 0x0140, 0x0141, 0x0142, 0x0143}
    | {0x0144, 0x0145, 0x014A, 0x014C, 0x014D, 0x014E, 0x0150, 0x0151, 0x0152, 0x0153, 0x0154, 0x0155, 0x0156, 0x0157}
    | {0x015B} | set(range(0x0200, 0x0215)) | {XMP_TAG, IPTC_TAG, 0x8649, 0x8773, 0x935C, 0x013E, 0x013F, 0xEA1C}
    | set(range(0x5000, 0x6000)) | {0xC68B, 0xC68C, 0xC7A1, 0xC616, 0xC65D}
)  # fmt: skip
SIZE_TAGS = (0xA002, 0xA003)  # width and height, which turn with the picture
MAKER_NOTE = 0x927C
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF", b"/9j/", b"iVBORw0KGgo")  # as bytes and in base64
LARGEST = 60_000  # bytes of EXIF that a JPEG segment takes
# XML namespaces of marked faces and of pictures inside XMP.
DROPPED_SPACES = (
    "http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/",
    "http://ns.adobe.com/xap/1.0/g/img/", "http://ns.google.com/photos/", "http://ns.apple.com/faceinfo/",
    "http://ns.apple.com/HDRGainMap/", "http://ns.adobe.com/hdr-gain-map/", "http://ns.acdsee.com/regions/",
    "http://ns.adobe.com/xmp/note/", "http://ns.google.com/photos/1.0/container/",
)  # fmt: skip
DROPPED_NAMES = ("Thumbnails", "ImageRegion", "RegionInfo", "Regions", "Orientation", "PersonInImageWDetails")


@dataclass
class Carried:
    """What goes into the new file, whatever its format. text: of PNG; iptc: records as JPEG and TIFF hold them."""

    profile: bytes | None = None
    exif: Image.Exif | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: list[tuple[str, str]] = field(default_factory=list)
    dpi: tuple[float, float] | None = None
    colours: list[tuple[bytes, bytes]] = field(default_factory=list)  # PNG chunks that say what the numbers mean


def read_ahead(picture: Image.Image) -> None:
    """Reads the EXIF directories of a picture just opened: Pillow closes a TIFF with its pixels, and these are gone."""
    if picture.format != "PNG":  # that may have its EXIF behind the pixels, and loads them itself
        exif = picture.getexif()
        for pointer in (EXIF, GPS):
            exif.get_ifd(pointer)


def carried(picture: Image.Image, level: str, size: tuple[int, int]) -> Carried:
    """From an opened picture, whose new file has that (width, height). UserError for an unknown level."""
    if level not in LEVELS:
        raise UserError(f"metadata {level!r}: must be one of {', '.join(LEVELS)}")
    kept = Carried(profile=colour_profile(picture), colours=_colours(picture))
    if level == "strip":
        return kept
    dpi = picture.info.get("dpi")
    if dpi and len(dpi) == 2 and all(0 < float(v) < 1e5 for v in dpi):
        kept.dpi = (float(dpi[0]), float(dpi[1]))
    source = picture.getexif()
    kept.exif = _safe_exif(source) if level == "safe" else _all_exif(source, size)
    if level == "all":
        kept.xmp, kept.iptc = _xmp(picture, source), _iptc(picture)
        comment = picture.info.get("comment")
        comment = comment.encode("utf-8", "replace") if isinstance(comment, str) else comment
        kept.comment = comment if comment and not _holds_picture(comment) else None
        text = getattr(picture, "text", {}) if picture.format == "PNG" else {}
        kept.text = [(key, str(value)) for key, value in text.items() if _harmless(key, str(value))]
    return kept


def save_options(kept: Carried, kind: str) -> dict[str, Any]:
    """Arguments for Pillow's `save` in a format, of all that the format can hold."""
    options: dict[str, Any] = {}
    if kind in ("BMP", "PPM", "GIF"):
        if kind == "GIF" and kept.comment:
            options["comment"] = kept.comment
        return options
    if kept.profile:
        options["icc_profile"] = kept.profile
    if kept.dpi and kind in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = kept.dpi
    if kept.exif is not None and len(kept.exif):
        options["exif"] = kept.exif
    if kind == "TIFF":
        if extra := {tag: value for tag, value in ((XMP_TAG, kept.xmp), (IPTC_TAG, kept.iptc)) if value}:
            options["exif"] = options.get("exif") or Image.Exif()
            for tag, value in extra.items():
                options["exif"][tag] = value
    elif kind == "PNG":
        options["pnginfo"] = _png_text(kept)
    elif kept.xmp:
        options["xmp"] = kept.xmp
    if kind == "JPEG":
        if kept.comment:
            options["comment"] = kept.comment
        if kept.iptc and len(kept.iptc) < LARGEST:
            options["extra"] = _photoshop_segment(kept.iptc)
    return options


def png_chunks(kept: Carried) -> list[tuple[bytes, bytes]]:
    """The same as raw chunks, for `deep.png_bytes`."""
    import zlib

    chunks = [(b"iCCP", b"ICC Profile\0\0" + zlib.compress(kept.profile))] if kept.profile else list(kept.colours)
    chunks += [(name, data) for name, data, *_ in _png_text(kept, colours=False).chunks]
    if kept.dpi:
        x, y = (round(v / 0.0254) for v in kept.dpi)
        chunks.append((b"pHYs", x.to_bytes(4, "big") + y.to_bytes(4, "big") + b"\x01"))
    if kept.exif is not None and len(kept.exif):
        chunks.append((b"eXIf", kept.exif.tobytes().removeprefix(b"Exif\0\0")))
    return chunks


def _safe_exif(source: Image.Exif) -> Image.Exif:
    kept = Image.Exif()
    for tag in SAFE_BASE & set(source):
        if _plain(source[tag]):
            kept[tag] = source[tag]
    _set_directory(kept, EXIF, {t: v for t, v in source.get_ifd(EXIF).items() if t in SAFE_EXIF and _plain(v)})
    return kept


def _all_exif(source: Image.Exif, size: tuple[int, int]) -> Image.Exif:
    kept = Image.Exif()
    for tag, value in source.items():
        if tag not in NEVER and tag not in (EXIF, GPS, INTEROP) and not _holds_picture(value):
            kept[tag] = value
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    inner = {tag: v for tag, v in source.get_ifd(EXIF).items() if tag != INTEROP and not _holds_picture(v)}
    for tag, length in zip(SIZE_TAGS, size, strict=True):
        if tag in inner:
            inner[tag] = length
    _set_directory(kept, EXIF, inner)
    _set_directory(kept, GPS, {tag: v for tag, v in source.get_ifd(GPS).items() if not _holds_picture(v)})
    if len(kept.tobytes()) > LARGEST:  # a maker's note fills most of it then
        inner.pop(MAKER_NOTE, None)
        _set_directory(kept, EXIF, inner)
    return kept if len(kept.tobytes()) <= LARGEST else _safe_exif(source)


def _set_directory(exif: Image.Exif, pointer: int, values: dict[int, Any]) -> None:
    exif.get_ifd(pointer).clear()
    if values:
        exif.get_ifd(pointer).update(values)
        exif[pointer] = exif.get_ifd(pointer)
    elif pointer in exif:
        del exif[pointer]


def _plain(value: Any) -> bool:
    """A short text or a few numbers: nothing that could hold more than its tag says."""
    if isinstance(value, tuple):
        return len(value) <= 8 and all(_plain(v) for v in value)
    if isinstance(value, (str, bytes)):
        return len(value) <= SAFE_LENGTH
    return isinstance(value, (int, float, IFDRational))


def _holds_picture(value: Any) -> bool:
    """Whether a value has the beginning of a picture in it, as bytes or base64."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    return isinstance(value, (bytes, bytearray)) and any(start in value for start in PICTURES)


def _colours(picture: Image.Image) -> list[tuple[bytes, bytes]]:
    """A PNG's gAMA, cHRM and sRGB: without them its colours would look otherwise."""
    if picture.format != "PNG":
        return []
    chunks = []
    if (intent := picture.info.get("srgb")) is not None:
        chunks.append((b"sRGB", bytes([intent])))
    if (gamma := picture.info.get("gamma")) is not None:
        chunks.append((b"gAMA", round(gamma * 100000).to_bytes(4, "big")))
    if (places := picture.info.get("chromaticity")) is not None and len(places) == 8:
        chunks.append((b"cHRM", b"".join(round(v * 100000).to_bytes(4, "big") for v in places)))
    return chunks


def _png_text(kept: Carried, colours: bool = True) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, data in kept.colours if colours and not kept.profile else ():
        info.add(name, data)
    for key, value in kept.text:
        info.add_itxt(key, value)
    if kept.xmp:
        info.add_itxt("XML:com.adobe.xmp", kept.xmp.decode("utf-8", "replace"))
    return info


def _harmless(key: str, value: str) -> bool:
    """Of a PNG's texts: no XMP (that goes its own way), no thumbnail, none of ImageMagick's raw profiles."""
    lower = key.lower()
    if lower.startswith(("xml:", "raw profile", "thumb")):
        return False
    return not _holds_picture(value)


def _iptc(picture: Image.Image) -> bytes | None:
    """The IPTC records (titles, names, places), without the thumbnail that Photoshop keeps beside them."""
    records = None
    if isinstance(found := picture.info.get("photoshop"), dict):
        records = found.get(0x0404)
    elif picture.format == "TIFF":
        records = picture.tag_v2.get(IPTC_TAG)
    return records if isinstance(records, bytes) and records and not _holds_picture(records) else None


def _photoshop_segment(iptc: bytes) -> bytes:
    block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block


def _xmp(picture: Image.Image, exif: Image.Exif) -> bytes | None:
    """The XMP packet without face regions and pictures; none at all if it cannot be read for certain."""
    packet = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or exif.get(XMP_TAG)
    if not packet:
        return None
    packet = packet.encode("utf-8") if isinstance(packet, str) else bytes(packet)
    cleaned = clean_xmp(packet)
    return cleaned if cleaned is not None and len(cleaned) < LARGEST else None


def clean_xmp(packet: bytes) -> bytes | None:
    """An XMP packet without face regions, thumbnails and other pictures; None if it is no XML, or declares entities."""
    from xml.etree import ElementTree

    start, end = packet.find(b"<x:xmpmeta"), packet.rfind(b"</x:xmpmeta>")
    body = packet[start : end + len(b"</x:xmpmeta>")] if 0 <= start < end else packet.strip(b"\0 \r\n\t")
    if b"<!" in body:  # entities and documents' types have no place in XMP; nested ones take gigabytes
        log.info("XMP with a document type left out")
        return None
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        log.info("XMP that cannot be read left out (%s)", error)
        return None
    _prune(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)


def _prune(element: Any) -> None:
    for name in [name for name, value in element.attrib.items() if _unwanted(name) or _holds_picture(value)]:
        del element.attrib[name]
    for child in list(element):
        if _unwanted(child.tag) or _holds_picture(child.text or ""):
            element.remove(child)
        else:
            _prune(child)


def _unwanted(name: str) -> bool:
    space, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    return local in DROPPED_NAMES or space.startswith(DROPPED_SPACES)
