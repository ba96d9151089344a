import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from a3gan import Anonymizer
from a3gan.anonymizers.classic import Solid
from a3gan.data.align import template
from a3gan.errors import UserError
from a3gan.media.detect import Faces
from a3gan.media.images import anonymize_files, find_files


class BrightDetector:
    """One face, 64 px frame at (40, 20), in pictures that are bright in their first pixel; none in others."""

    def detect(self, images):
        face = Faces(
            np.array([[50.0, 26.0, 94.0, 80.0]], np.float32), np.ones(1, np.float32),
            (template("face", 64).numpy() + (40.0, 20.0))[None].astype(np.float32),
        )  # fmt: skip
        return [face if image[0, 0].mean() > 128 else Faces.none() for image in images]


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
    report = anonymize_files([source, single], out, anonymizer=anonymizer)
    status = {file.output.relative_to(out).as_posix(): file.status for file in report.files}
    assert status == {
        "a.jpg": "done", "broken.jpg": "failed", "dark.png": "no face", "deep/B.PNG": "done", "one.webp": "done",
    }  # fmt: skip
    assert report.ignored == 2 and not report.ok
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert written == ["a.jpg", "dark.png", "deep/B.PNG", "one.webp"]  # no temporary file is left
    text = "\n".join(report.lines())
    assert "broken.jpg" in text and "no face found" in text and "dark.png" in text and "5 photos: 3 anonymised" in text
    assert np.array(Image.open(out / "deep" / "B.PNG"))[55, 72].max() == 0
    assert (np.array(Image.open(out / "dark.png")) == 0).all()


def test_jpeg_metadata_orientation_and_sampling(tmp_path, anonymizer):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    exif[0x010F] = "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "phone.jpg"
    bright(100, 160).save(path, exif=exif, icc_profile=profile, subsampling=0, quality=97, comment=b"hello")
    anonymize_files([path], tmp_path / "out", anonymizer=anonymizer)
    with Image.open(tmp_path / "out" / "phone.jpg") as result:
        assert result.format == "JPEG" and result.size == (160, 100)
        assert not result.getexif() and "comment" not in result.info and "exif" not in result.info
        assert result.info["icc_profile"] == profile
        assert result.layer[0][1:3] == (1, 1)  # 4:4:4, as the source
        assert np.array(result)[55, 72].max() < 8


def test_png_text_gray_and_cmyk(tmp_path, anonymizer):
    text = PngInfo()
    text.add_text("Author", "somebody")
    bright(mode="L").save(tmp_path / "gray.png", pnginfo=text)
    bright(mode="CMYK").save(tmp_path / "print.jpg", icc_profile=b"0123456789012345CMYK" + bytes(108))
    report = anonymize_files([tmp_path / "gray.png", tmp_path / "print.jpg"], tmp_path / "out", anonymizer=anonymizer)
    assert report.ok
    with Image.open(tmp_path / "out" / "gray.png") as gray:
        assert gray.mode == "L" and "Author" not in gray.info
    with Image.open(tmp_path / "out" / "print.jpg") as printed:
        assert printed.mode == "RGB" and "icc_profile" not in printed.info


def test_animations_fail_by_name(tmp_path, anonymizer):
    stream = io.BytesIO()
    bright().save(stream, "GIF", save_all=True, append_images=[Image.new("RGB", (160, 100))])
    (tmp_path / "moving.gif").write_bytes(stream.getvalue())
    report = anonymize_files([tmp_path / "moving.gif"], tmp_path / "out", anonymizer=anonymizer)
    assert "2 pictures" in report.files[0].error and not (tmp_path / "out").exists()


def test_inputs_are_never_overwritten(tmp_path, anonymizer):
    path = tmp_path / "a.png"
    bright().save(path)
    before = path.read_bytes()
    for inputs, output in (([path], tmp_path), ([tmp_path], tmp_path), ([path], tmp_path / "x" / "..")):
        with pytest.raises(UserError, match="overwrite"):
            anonymize_files(inputs, output, anonymizer=anonymizer)
    assert path.read_bytes() == before


def test_output_inside_the_input_is_not_taken_again(tmp_path, anonymizer):
    bright().save(tmp_path / "a.png")
    for _ in range(2):
        report = anonymize_files([tmp_path], tmp_path / "out", anonymizer=anonymizer)
        assert [file.source.name for file in report.files] == ["a.png"]
    assert not (tmp_path / "out" / "out").exists()


def test_user_errors_come_before_any_writing(tmp_path, anonymizer):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for folder in "xy":
        bright().save(tmp_path / folder / "same.png")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="two output folders"):
        find_files([tmp_path / "x" / "same.png", tmp_path / "y" / "same.png"], out)
    with pytest.raises(UserError, match="no such file"):
        find_files([tmp_path / "none.png"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photo"):
        find_files([tmp_path / "empty"], out)
    with pytest.raises(UserError, match="no folder"):
        find_files([tmp_path / "x"], tmp_path / "x" / "same.png")
    with pytest.raises(UserError, match="policy"):
        anonymize_files([tmp_path / "x"], out, policy="everything", anonymizer=anonymizer)
    assert not out.exists()
