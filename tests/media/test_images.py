import errno
import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from fakes import BrightDetector
from PIL import Image, ImageCms, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from a3gan import Anonymizer
from a3gan.anonymizers.classic import Solid
from a3gan.errors import UserError
from a3gan.media import images
from a3gan.media.images import anonymize_photo
from a3gan.media.jobs import JOURNAL
from a3gan.media.run import anonymize_all
from a3gan.media.settings import Settings


@pytest.fixture
def anonymizer():
    return Anonymizer(Solid(size=32, colour=-1.0, device="cpu"), BrightDetector())


def bright(width=160, height=100, mode="RGB"):
    return Image.new("RGB", (width, height), (230, 200, 180)).convert(mode)


def test_files_and_folders(tmp_path, anonymizer):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    bright().save(source / "a.jpg")
    bright().save(source / "deep" / "B.PNG")
    Image.new("RGB", (50, 50)).save(source / "dark.png")
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (source / "notes.txt").write_text("no photo", encoding="utf-8")
    (source / ".hidden.jpg").write_bytes(b"")
    single = tmp_path / "one.webp"
    bright().save(single)
    report = anonymize_all([source, single], out, anonymizer=anonymizer)
    status = {job.output.relative_to(out).as_posix(): job.status for job in report.jobs}
    assert status == {
        "a.jpg": "done", "broken.jpg": "failed", "dark.png": "no face", "deep/B.PNG": "done", "one.webp": "done",
    }  # fmt: skip
    assert len(report.ignored) == 2 and report.exit_status == 1
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert written == ["a.jpg", JOURNAL, "dark.png", "deep/B.PNG", "one.webp"]  # no temporary file is left
    text = "\n".join(report.lines())
    assert "broken.jpg" in text and "no face found" in text and "dark.png" in text and "5 files: 3 anonymised" in text
    assert np.array(Image.open(out / "deep" / "B.PNG"))[55, 72].max() == 0
    assert (np.array(Image.open(out / "dark.png")) == 0).all()


def test_jpeg_orientation_profile_and_coding(tmp_path, anonymizer):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    exif[0x010F] = "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "phone.jpg"
    options = {"subsampling": 0, "quality": 83, "progressive": True, "comment": b"hello"}
    bright(100, 160).save(path, exif=exif, icc_profile=profile, **options)
    anonymize_all([path], tmp_path / "out", Settings(metadata="strip"), anonymizer=anonymizer)
    with Image.open(path) as source, Image.open(tmp_path / "out" / "phone.jpg") as result:
        assert result.format == "JPEG" and result.size == (160, 100)
        assert not result.getexif() and "comment" not in result.info and "exif" not in result.info
        assert result.info["icc_profile"] == profile and result.info["progressive"]
        assert JpegImagePlugin.get_sampling(result) == 0 and result.quantization == source.quantization
        assert np.array(result)[55, 72].max() < 8


@pytest.mark.parametrize("quality", [40, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_stays_as_large_and_next_to_the_same(tmp_path, anonymizer, quality, subsampling):
    rng = np.random.default_rng(0)
    light = rng.integers(80, 200, (50, 80, 1)).repeat(3, 2) + np.array([20, 0, -20])  # fine in light, not in colour
    detail = Image.fromarray(light.astype(np.uint8)).resize((320, 200))
    detail.paste((255, 255, 255), (0, 0, 16, 16))
    detail.save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    anonymize_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", anonymizer)
    sizes = [(tmp_path / name).stat().st_size for name in ("a.jpg", "b.jpg")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15)
    old, new = (np.array(Image.open(tmp_path / name)).astype(int) for name in ("a.jpg", "b.jpg"))
    # Coded again with the same tables on the same grid, what was not touched hardly changes.
    assert np.abs(old - new)[120:].mean() < 0.5


def test_gray_cmyk_palette_alpha_and_one_pixel(tmp_path, anonymizer):
    text = PngInfo()
    text.add_text("Author", "somebody")
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    bright(mode="L").save(source / "gray.png", pnginfo=text)
    bright(mode="CMYK").save(source / "print.jpg", icc_profile=b"0123456789012345CMYK" + bytes(108))
    bright().quantize(8).save(source / "palette.png")
    bright().save(source / "one.gif")
    bright().save(source / "plain.bmp")
    clear = bright(mode="RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(160, dtype=np.uint8), (100, 1))))
    for name in ("clear.png", "clear.webp", "clear.tif"):
        clear.save(source / name, **({"lossless": True} if name.endswith("webp") else {}))
    Image.new("RGB", (1, 1), "white").save(source / "dot.png")
    Image.new("1", (160, 100), 1).save(source / "bits.tif", compression="group4")
    report = anonymize_all([source], out, anonymizer=anonymizer)
    assert report.exit_status == 0, report.lines()
    results = {path.name: Image.open(path) for path in out.iterdir() if path.name != JOURNAL}
    assert results["gray.png"].mode == "L" and "Author" not in results["gray.png"].info
    assert results["print.jpg"].mode == "RGB" and "icc_profile" not in results["print.jpg"].info
    assert results["palette.png"].convert("RGB").getpixel((150, 95)) == (230, 200, 180)
    for name in ("gray.png", "palette.png", "one.gif", "plain.bmp", "clear.png", "print.jpg", "bits.tif"):
        assert results[name].size == (160, 100)
        assert max(results[name].convert("RGB").getpixel((72, 55))) < 12, name
    for name in ("clear.png", "clear.webp", "clear.tif"):
        old, new = np.array(clear), np.array(results[name])
        assert new.shape == old.shape and (new[..., 3] == old[..., 3]).all()  # the alpha channel as it was
        assert (new[:, 110:] == old[:, 110:]).all() and new[55, 72, :3].max() == 0
    assert results["dot.png"].size == (1, 1)


def test_cmyk_is_converted_by_its_profile(tmp_path, anonymizer, monkeypatch):
    called = []
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda stream: called.append("profile") or stream)
    monkeypatch.setattr(
        ImageCms, "profileToProfile", lambda image, *_, outputMode: Image.new(outputMode, image.size, (9, 8, 7))
    )
    bright(mode="CMYK").save(tmp_path / "print.tif", icc_profile=b"0123456789012345CMYK" + bytes(108))
    anonymize_photo(tmp_path / "print.tif", tmp_path / "out.tif", anonymizer)
    with Image.open(tmp_path / "out.tif") as result:
        assert called == ["profile"] and result.getpixel((5, 5)) == (9, 8, 7) and "icc_profile" not in result.info


def deep_picture(channels):
    """uint16 [100, 160, channels] with all 16 bits in use, bright enough for the detector."""
    return np.random.default_rng(0).integers(50000, 65536, (100, 160, channels)).astype(np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay_outside_the_face_bit_for_bit(tmp_path, anonymizer, suffix, channels):
    import cv2

    values = deep_picture(channels)
    path, out = tmp_path / f"deep{suffix}", tmp_path / f"out{suffix}"
    assert cv2.imwrite(str(path), values)  # OpenCV's order, blue first
    assert anonymize_photo(path, out, anonymizer).faces == 1
    result = cv2.imread(str(out), cv2.IMREAD_UNCHANGED).reshape(100, 160, -1)
    assert result.dtype == np.uint16 and result.shape == values.shape
    colours = slice(0, min(3, channels))
    changed = (result[..., colours] != values[..., colours]).any(2)
    assert changed[30:75, 55:90].all() and not changed[:, 110:].any() and not changed[:, :30].any()
    assert (result[55, 72, colours] == 0).all()
    if channels == 4:
        assert (result[..., 3] == values[..., 3]).all()
    with Image.open(out) as shown:  # other readers take it as well
        shown.load()
        assert shown.size == (160, 100)


def test_sixteen_bits_gray_with_alpha_profile_and_turn(tmp_path, anonymizer):
    import cv2

    from a3gan.media.deep import png_bytes
    from a3gan.media.pictures import Picture

    gray, alpha = deep_picture(1)[..., 0], deep_picture(1)[..., 0][::-1]
    picture = Picture(np.repeat(gray[..., None], 3, 2), np.ascontiguousarray(alpha), gray=True)
    (tmp_path / "la.png").write_bytes(png_bytes(picture))
    with Image.open(tmp_path / "la.png") as opened:
        assert opened.mode in ("LA", "RGBA")  # in whatever mode this Pillow has for it
    anonymize_photo(tmp_path / "la.png", tmp_path / "la_out.png", anonymizer)
    result = cv2.imread(str(tmp_path / "la_out.png"), cv2.IMREAD_UNCHANGED)
    assert (result[:, 110:, 0] == gray[:, 110:]).all() and (result[..., 3] == alpha).all()
    # A TIFF that lies on its side, with a profile.
    values = deep_picture(3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    from a3gan.media import deep

    lying = Picture(np.ascontiguousarray(np.rot90(values)))  # needs a quarter turn clockwise
    data = bytearray(deep.tiff_bytes(lying, profile))
    place = data.index(b"\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00")
    data[place + 8] = 6
    (tmp_path / "turned.tif").write_bytes(bytes(data))
    file = anonymize_photo(tmp_path / "turned.tif", tmp_path / "turned_out.tif", anonymizer)
    assert (file.width, file.height) == (160, 100)
    result = cv2.imread(str(tmp_path / "turned_out.tif"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert (result[:, 110:] == values[:, 110:]).all() and (result[55, 72] == 0).all()
    with Image.open(tmp_path / "turned_out.tif") as opened:
        assert opened.info["icc_profile"] == profile and opened.getexif().get(0x0112, 1) == 1


def test_all_turns_agree_with_pillow():
    from PIL import ImageOps

    from a3gan.media.deep import TURNS

    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for number, (transpose, rows, columns) in TURNS.items():
        image = Image.fromarray(values)
        image.getexif()[0x0112] = number
        mine = values.swapaxes(0, 1) if transpose else values
        mine = mine[:: -1 if rows else 1, :: -1 if columns else 1]
        assert (np.array(ImageOps.exif_transpose(image)) == mine).all(), number


def test_a_camera_s_twelve_bits_in_sixteen_are_seen_as_bright(tmp_path, anonymizer):
    Image.fromarray(np.full((100, 160), 4000, np.uint16)).save(tmp_path / "dim.png")
    assert anonymize_photo(tmp_path / "dim.png", tmp_path / "out.png", anonymizer).faces == 1
    result = np.array(Image.open(tmp_path / "out.png"))
    assert result[55, 72] == 0 and (result[:, 110:] == 4000).all() and result.dtype == np.uint16


def test_another_suffix_asks_for_another_format(tmp_path, anonymizer):
    bright(mode="RGBA").save(tmp_path / "a.png")
    anonymize_photo(tmp_path / "a.png", tmp_path / "a.jpg", anonymizer)
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
    (tmp_path / "wrong.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    anonymize_photo(tmp_path / "wrong.jpg", tmp_path / "b" / "wrong.jpg", anonymizer)
    assert Image.open(tmp_path / "b" / "wrong.jpg").format == "PNG"  # the name was wrong before


def test_identities_of_faces_over_photos(tmp_path):
    seen = []

    class Watching(Solid):
        supports = frozenset({"seed"})
        redaction = None

        def __init__(self):
            super().__init__(size=32, device="cpu")
            self.redaction = None

        def _anonymize(self, faces, policy, seeds, alpha):
            seen.extend(seeds)
            return super()._anonymize(faces, policy, seeds, alpha)

    anonymizer = Anonymizer(Watching(), BrightDetector())
    bright().save(tmp_path / "a.png")
    bright(170).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())

    def run(**options):
        seen.clear()
        for name in "abc":
            anonymize_photo(tmp_path / f"{name}.png", tmp_path / "out.png", anonymizer, **options)
        return list(seen)

    a, b, c = run(seed=1)
    assert a != b and a == c and run(seed=1) == [a, b, c] and run(seed=2)[0] != a
    assert len(set(run(identity="fixed", seed=1))) == 1
    assert len(set(run(identity="random", seed=1))) == 3
    assert run(seeds=lambda number, canvas, faces: [5] * len(faces)) == [5, 5, 5]
    kept = anonymize_photo(tmp_path / "a.png", tmp_path / "k.png", anonymizer, seeds=lambda *_: [None])
    assert kept.records[0].status == "kept" and (np.array(Image.open(tmp_path / "k.png")) == np.array(bright())).all()
    with pytest.raises(UserError, match="identity"):
        run(identity="twin")


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path, anonymizer, monkeypatch):
    bright().save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"an earlier result")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    report = anonymize_all([tmp_path / "a.png"], tmp_path / "out", overwrite=True, anonymizer=anonymizer)
    assert os.strerror(errno.ENOSPC) in report.jobs[0].error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == b"an earlier result"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, anonymizer, monkeypatch):
    bright().save(tmp_path / "a.png")

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(images, "open", refuse, raising=False)
    report = anonymize_all([tmp_path / "a.png"], tmp_path / "out", anonymizer=anonymizer)
    assert report.having("failed") and "Permission denied" in report.jobs[0].error
    assert not any((tmp_path / "out").iterdir())


def test_killed_while_writing_nothing_stands_under_the_final_name(tmp_path):
    code = (
        "import os, sys, time, pathlib\n"
        "from a3gan.media import images\n"
        "def slow(descriptor):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "images.os.fsync = slow\n"
        "images.write_whole(pathlib.Path(sys.argv[1]), b'x' * 100000)\n"
    )
    target = tmp_path / "a.png"
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline().strip() == b"writing"
        process.kill()
        process.wait(10)
    finally:
        process.kill()
        process.stdout.close()
    time.sleep(0.05)
    assert not target.exists() and all(path.suffix == ".tmp" for path in tmp_path.iterdir())


def test_animations_fail_by_name(tmp_path, anonymizer):
    stream = io.BytesIO()
    bright().save(stream, "GIF", save_all=True, append_images=[Image.new("RGB", (160, 100))])
    (tmp_path / "moving.gif").write_bytes(stream.getvalue())
    report = anonymize_all([tmp_path / "moving.gif"], tmp_path / "out", anonymizer=anonymizer)
    assert "2 pictures" in report.jobs[0].error and not (tmp_path / "out" / "moving.gif").exists()


def test_inputs_are_never_overwritten(tmp_path, anonymizer):
    path = tmp_path / "a.png"
    bright().save(path)
    before = path.read_bytes()
    for inputs, output in (([path], tmp_path), ([tmp_path], tmp_path), ([path], tmp_path / "x" / "..")):
        with pytest.raises(UserError, match="overwrite"):
            anonymize_all(inputs, output, anonymizer=anonymizer)
    assert path.read_bytes() == before


def test_output_inside_the_input_is_not_taken_again(tmp_path, anonymizer):
    bright().save(tmp_path / "a.png")
    for _ in range(2):
        report = anonymize_all([tmp_path], tmp_path / "out", anonymizer=anonymizer)
        assert [file.source.name for file in report.jobs] == ["a.png"]
    assert not (tmp_path / "out" / "out").exists()


def test_user_errors_come_before_any_writing(tmp_path, anonymizer):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for folder in "xy":
        bright().save(tmp_path / folder / "same.png")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="two output folders"):
        anonymize_all([tmp_path / "x" / "same.png", tmp_path / "y" / "same.png"], out, anonymizer=anonymizer)
    with pytest.raises(UserError, match="no such file"):
        anonymize_all([tmp_path / "none.png"], out, anonymizer=anonymizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photo"):
        anonymize_all([tmp_path / "empty"], out, anonymizer=anonymizer)
    with pytest.raises(UserError, match="more inputs"):
        anonymize_all([tmp_path / "x"], tmp_path / "x" / "same.png", anonymizer=anonymizer)
    for settings in (Settings("solid", policy="everything"), Settings("solid", alpha=0.5)):
        with pytest.raises(UserError, match=r"policy|dial"):
            anonymize_all([tmp_path / "x"], out, settings)
    with pytest.raises(UserError, match="identity"):
        anonymize_all([tmp_path / "x"], out, Settings(identity="twin"), anonymizer=anonymizer)
    with pytest.raises(UserError, match="metadata"):
        anonymize_photo(tmp_path / "x" / "same.png", out / "a.png", anonymizer, metadata="none")
    assert not out.exists()
