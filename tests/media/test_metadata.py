"""What is left in the new file: each test writes a photo full of data about its taker, and reads the result back."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from a3gan import Anonymizer
from a3gan.anonymizers.classic import Identity, Solid
from a3gan.data.align import template
from a3gan.errors import UserError
from a3gan.media.detect import Faces
from a3gan.media.images import anonymize_photo
from a3gan.media.metadata import clean_xmp

MAKE, MODEL, ORIENTATION, SOFTWARE, TIME, ARTIST = 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B
EXPOSURE, MAKER_NOTE, COMMENT, WIDTH, SERIAL, LENS = 0x829A, 0x927C, 0x9286, 0xA002, 0xA431, 0xA434
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/"'
    b' xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" dc:source="a scan">'
    b"<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:RegionList><rdf:Bag><rdf:li mwg-rs:Name='Jane Doe'/></rdf:Bag>"
    b"</mwg-rs:RegionList></mwg-rs:Regions><xmp:Thumbnails><rdf:Alt><rdf:li><xmpGImg:image>/9j/4AAQ</xmpGImg:image>"
    b"</rdf:li></rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
IPTC = b"\x1c\x02\x05\x00\x05Title\x1c\x02\x50\x00\x04Jane"


class OneFace:
    def detect(self, images):
        points = template("face", 64).numpy() + (40.0, 20.0)
        face = Faces(
            np.array([[50.0, 26, 94, 80]], np.float32), np.ones(1, np.float32), points[None].astype(np.float32)
        )
        return [face for _ in images]


@pytest.fixture
def anonymizer():
    return Anonymizer(Solid(size=32, device="cpu"), OneFace())


def thumbnail():
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def full_exif(maker_note=b"MAKER notes and numbers"):
    exif = Image.Exif()
    exif[MAKE], exif[MODEL], exif[SOFTWARE], exif[TIME], exif[ARTIST] = (
        "Canon",
        "R5",
        "tool",
        "2026:01:02 03:04:05",
        "Jo",
    )
    exif[ORIENTATION] = 6
    inner = exif.get_ifd(0x8769)
    inner.update({
        EXPOSURE: IFDRational(1, 250), MAKER_NOTE: maker_note, COMMENT: b"ASCII\0\0\0Jane at home", WIDTH: 100,
        SERIAL: "SN12345", LENS: "50mm", 0x9214: (50, 50, 20, 20),
    })  # fmt: skip
    exif.get_ifd(0x8825).update({1: "N", 2: (IFDRational(52), IFDRational(31), IFDRational(0))})
    for pointer in (0x8769, 0x8825):  # a TIFF would lack them otherwise
        exif[pointer] = exif.get_ifd(pointer)
    return exif


def exif_with_thumbnail():
    """`full_exif` as bytes, with a second directory that holds a JPEG: what cameras write."""
    block = bytearray(full_exif().tobytes().removeprefix(b"Exif\0\0"))
    order = "<" if block[:2] == b"II" else ">"
    first = struct.unpack(order + "I", block[4:8])[0]
    count = struct.unpack(order + "H", block[first : first + 2])[0]
    picture, place = thumbnail(), len(block) + len(block) % 2
    block += b"\0" * (len(block) % 2)
    link = first + 2 + 12 * count
    block[link : link + 4] = struct.pack(order + "I", place)
    block += struct.pack(order + "H", 2)
    entries = ((0x0201, place + 30), (0x0202, len(picture)))
    block += b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
    block += struct.pack(order + "I", 0) + picture
    return b"Exif\0\0" + bytes(block)


def photo():
    return Image.new("RGB", (100, 160), (230, 200, 180))


def phone_jpeg(path):
    """Thumbnail, GPS, serial, maker's note, XMP regions, IPTC, comment, turned by 90 degrees."""
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
    block += b"8BIM\x04\x0c\0\0" + (28 + len(thumbnail())).to_bytes(4, "big") + b"\0\0\0\x01" + bytes(24) + thumbnail()
    extra = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    photo().save(path, exif=exif_with_thumbnail(), xmp=XMP, comment=b"taken by Jane", extra=extra, dpi=(300, 300))


def read(path):
    with Image.open(path) as image:
        exif = image.getexif()
        inner, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        image.load()
        return image, exif, inner, gps


def test_the_source_holds_what_the_tests_look_for(tmp_path):
    phone_jpeg(tmp_path / "a.jpg")
    image, exif, inner, gps = read(tmp_path / "a.jpg")
    assert exif[MAKE] == "Canon" and inner[SERIAL] == "SN12345" and gps[1] == "N"
    assert thumbnail() in (tmp_path / "a.jpg").read_bytes() and b"Jane Doe" in image.info["xmp"]
    assert image.info["photoshop"][0x0404] == IPTC


def test_strip_leaves_nothing(tmp_path, anonymizer):
    phone_jpeg(tmp_path / "a.jpg")
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer, metadata="strip")
    image, exif, *_ = read(tmp_path / "b.jpg")
    assert image.size == (160, 100) and not len(exif)
    data = (tmp_path / "b.jpg").read_bytes()
    assert not any(word in data for word in (b"Exif", b"Jane", b"Canon", b"SN12345", b"xmpmeta", b"Photoshop"))


def test_safe_keeps_how_it_was_taken_and_nothing_of_whom_or_where(tmp_path, anonymizer):
    phone_jpeg(tmp_path / "a.jpg")
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer)  # the default
    image, exif, inner, gps = read(tmp_path / "b.jpg")
    assert exif[MAKE] == "Canon" and exif[TIME] == "2026:01:02 03:04:05" and image.info["dpi"] == (300, 300)
    assert float(inner[EXPOSURE]) == pytest.approx(1 / 250) and inner[LENS] == "50mm"
    assert not gps and exif.get(ORIENTATION, 1) == 1
    assert not {MAKER_NOTE, COMMENT, SERIAL, 0x9214} & set(inner) and not {SOFTWARE, ARTIST} & set(exif)
    data = (tmp_path / "b.jpg").read_bytes()
    assert not any(word in data for word in (b"Jane", b"SN12345", b"xmpmeta", b"Photoshop", b"MAKER"))
    assert thumbnail() not in data and data.count(b"\xff\xd8\xff") == 1


def test_all_keeps_everything_but_old_pictures_and_regions(tmp_path, anonymizer):
    phone_jpeg(tmp_path / "a.jpg")
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer, metadata="all")
    image, exif, inner, gps = read(tmp_path / "b.jpg")
    assert exif[ARTIST] == "Jo" and inner[SERIAL] == "SN12345" and inner[MAKER_NOTE].startswith(b"MAKER")
    assert gps[1] == "N" and image.info["comment"] == b"taken by Jane" and exif[ORIENTATION] == 1
    assert inner[WIDTH] == 160  # turned
    assert image.info["photoshop"][0x0404] == IPTC and 0x040C not in image.info["photoshop"]
    xmp = image.info["xmp"]
    assert b"a scan" in xmp and b"Jane Doe" not in xmp and b"/9j/" not in xmp and b"Orientation" not in xmp
    data = (tmp_path / "b.jpg").read_bytes()
    assert thumbnail() not in data and data.count(b"\xff\xd8\xff") == 1


def test_a_maker_s_note_with_a_preview_goes(tmp_path, anonymizer):
    photo().save(tmp_path / "a.jpg", exif=full_exif(b"MAKER" + thumbnail()))
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer, metadata="all")
    _, _, inner, *_ = read(tmp_path / "b.jpg")
    assert MAKER_NOTE not in inner and inner[SERIAL] == "SN12345"


def test_a_long_text_is_no_camera_s_name(tmp_path, anonymizer):
    exif = full_exif()
    exif[MODEL] = "x" * 500
    photo().save(tmp_path / "a.jpg", exif=exif)
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer, metadata="safe")
    _, kept, *_ = read(tmp_path / "b.jpg")
    assert MODEL not in kept and kept[MAKE] == "Canon"


@pytest.mark.parametrize("level", ["strip", "safe", "all"])
def test_png_texts(tmp_path, anonymizer, level):
    info = PngInfo()
    info.add_text("Author", "Jane")
    info.add_text("Raw profile type exif", "exif ffd8ffe0")
    info.add_text("Thumb::Image", "/9j/4AAQ")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    photo().save(tmp_path / "a.png", pnginfo=info, exif=exif_with_thumbnail(), dpi=(300, 300))
    anonymize_photo(tmp_path / "a.png", tmp_path / "b.png", anonymizer, metadata=level)
    image, exif, inner, gps = read(tmp_path / "b.png")
    assert image.size == (160, 100) and exif.get(ORIENTATION, 1) == 1
    assert image.info["gamma"] == pytest.approx(0.45455)  # says what the numbers mean, at any level
    texts = {key for key in image.text}
    assert texts == {"strip": set(), "safe": set(), "all": {"Author", "XML:com.adobe.xmp"}}[level]
    assert (len(exif) > 0) == (level != "strip") and bool(gps) == (level == "all")
    data = (tmp_path / "b.png").read_bytes()
    assert b"Jane Doe" not in data and b"/9j/" not in data and thumbnail() not in data
    assert (b"SN12345" in data) == (level == "all")


@pytest.mark.parametrize("suffix", [".webp", ".tif"])
@pytest.mark.parametrize("level", ["strip", "safe", "all"])
def test_webp_and_tiff(tmp_path, anonymizer, suffix, level):
    if suffix == ".tif":
        exif = full_exif()
        exif[0x02BC], exif[0x8649] = XMP, b"8BIM\x04\x0c\0\0" + thumbnail()
        photo().save(tmp_path / "a.tif", exif=exif)
    else:
        photo().save(tmp_path / "a.webp", exif=exif_with_thumbnail(), xmp=XMP)
    source, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    anonymize_photo(source, out, anonymizer, metadata=level)
    image, exif, inner, gps = read(out)
    assert image.size == (160, 100) and exif.get(ORIENTATION, 1) == 1
    assert (exif.get(MAKE) == "Canon") == (level != "strip") and (EXPOSURE in inner) == (level != "strip")
    assert bool(gps) == (level == "all") and (SERIAL in inner) == (level == "all")
    data = out.read_bytes()
    assert b"Jane Doe" not in data and thumbnail() not in data
    assert (b"a scan" in data) == (level == "all")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_metadata_too(tmp_path, anonymizer, suffix):
    from a3gan.media import deep
    from a3gan.media.pictures import Picture

    picture = Picture(np.full((100, 160, 3), 60000, np.uint16))
    exif = full_exif()
    exif[ORIENTATION] = 1
    if suffix == ".png":
        data = deep.png_bytes(picture, [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))])
    else:
        data = deep.tiff_bytes(picture, None, exif)
    (tmp_path / f"a{suffix}").write_bytes(data)
    anonymize_photo(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", anonymizer)
    _, kept, inner, gps = read(tmp_path / f"b{suffix}")
    assert (
        kept[MAKE] == "Canon" and float(inner[EXPOSURE]) == pytest.approx(1 / 250) and not gps and SERIAL not in inner
    )


def test_the_second_picture_of_an_mpo_and_what_follows_a_jpeg_are_dropped(tmp_path, anonymizer):
    second = Image.new("RGB", (100, 160), (10, 200, 10))
    photo().save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[second])
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.mpo").read_bytes() + b"a motion photo's film")
    for name in ("a.mpo", "b.jpg"):
        anonymize_photo(tmp_path / name, tmp_path / f"new_{name}", anonymizer)
        data = (tmp_path / f"new_{name}").read_bytes()
        assert data.count(b"\xff\xd8\xff") == 1 and data.endswith(b"\xff\xd9") and b"film" not in data
        assert Image.open(tmp_path / f"new_{name}").format == "JPEG"


def test_identity_gives_a_png_back_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (100, 160, 4)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    file = anonymize_photo(tmp_path / "a.png", tmp_path / "b.png", Anonymizer(Identity(device="cpu"), OneFace()))
    assert file.records[0].status == "kept" and (np.array(Image.open(tmp_path / "b.png")) == values).all()


def test_xmp_that_cannot_be_trusted_goes():
    assert clean_xmp(b"<x:xmpmeta") is None
    bomb = b'<!DOCTYPE a [<!ENTITY b "bb">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>'
    assert clean_xmp(bomb.replace(b"<x:xmpmeta", b"<y>", 1)) is None
    assert b"entity" not in (clean_xmp(bomb) or b"").lower()


def test_unknown_level(tmp_path, anonymizer):
    photo().save(tmp_path / "a.png")
    with pytest.raises(UserError, match="strip, safe, all"):
        anonymize_photo(tmp_path / "a.png", tmp_path / "b.png", anonymizer, metadata="some")
    assert not (tmp_path / "b.png").exists()
