"""Visual identity hiding: keys, their files, and hide -> recover through the command line."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan import cli
from a3gan.errors import UserError
from a3gan.media.detect import Faces

pytest.importorskip("diffusers")

from a3gan.anonymizers.hiding import FaceKey, Hiding, recover  # noqa: E402
from a3gan.anonymizers.hiding_keys import PictureKey, read_key, write_key  # noqa: E402
from a3gan.anonymizers.methods import METHODS  # noqa: E402


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    from a3gan.data.synthetic import synthetic_faces

    return synthetic_faces(2, 64, 5, identities=2).fetch([0, 1])


@pytest.fixture(scope="module")
def hiding(tiny_diffusion: Path) -> Hiding:
    return Hiding(tiny_diffusion, "cpu", steps=20, msi_steps=2)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """dB of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (one - other).square().mean()))


def test_the_key_alone_brings_the_face_back(hiding: Hiding, faces: torch.Tensor) -> None:
    hidden = hiding.anonymize(faces, seeds=[1, 2])
    assert hidden.shape == faces.shape and psnr(hidden, faces) < 20
    keys = [hiding.keys[1], hiding.keys[2]]
    back = recover(hiding.backbone, keys, hiding.steps)
    assert psnr(back, faces) > 30
    assert psnr(recover(hiding.backbone, keys[:1], hiding.steps), faces[:1]) > 30  # and by itself
    crossed = [FaceKey(keys[1].noise, keys[0].conditions)]
    assert psnr(recover(hiding.backbone, crossed, hiding.steps), faces[:1]) < 20


def test_it_is_no_method_of_anonymising(hiding: Hiding) -> None:
    assert "hiding" not in METHODS and hiding.name == "hiding"


def example(count: int = 2) -> PictureKey:
    generator = torch.Generator().manual_seed(0)
    faces = [
        FaceKey(torch.randn(3, 8, 8, generator=generator), torch.randn(10, 2, 4, generator=generator))
        for _ in range(count)
    ]
    matrices = [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(count)]
    return PictureKey(faces, matrices, "face", 8, 20, "w.safetensors", "d" * 64, "p" * 64, 160, 100)


def test_key_files_round_trip_and_are_private(tmp_path: Path) -> None:
    path, key = tmp_path / "deep" / "a.key", example()
    old = os.umask(0)
    try:
        assert write_key(path, key) == path
    finally:
        os.umask(old)
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["a.key"]
    back = read_key(path)
    for one, other in zip(key.faces, back.faces, strict=True):
        assert torch.equal(one.noise, other.noise) and torch.equal(one.conditions, other.conditions)
    assert all(torch.equal(a, b) for a, b in zip(key.matrices, back.matrices, strict=True))
    assert replace(back, faces=[], matrices=[]) == replace(key, faces=[], matrices=[])
    before = path.read_bytes()
    with pytest.raises(UserError, match="a key that is overwritten is lost"):
        write_key(path, example(1))
    assert path.read_bytes() == before
    write_key(path, example(1), overwrite=True)
    assert len(read_key(path).faces) == 1


def test_broken_keys_are_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = write_key(tmp_path / "a.key", example())
    data = path.read_bytes()
    cut = tmp_path / "cut.key"
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError, match="not a whole key file"):
            read_key(cut)
    with pytest.raises(UserError, match="no such key"):
        read_key(tmp_path / "none.key")
    tensors = load_file(path)
    foreign = tmp_path / "foreign.key"
    for metadata, word in (
        (None, "not a key file"), ({"a3gan-key": "{"}, "not a key file"), ({"a3gan-key": "[]"}, "not a key file"),
        ({"a3gan-key": json.dumps({"format": "a3gan-key-9"})}, "update a3gan"),
        ({"a3gan-key": json.dumps({"format": "a3gan-key-1"})}, "frame is missing"),
    ):  # fmt: skip
        save_file(tensors, foreign, metadata)
        with pytest.raises(UserError, match=word):
            read_key(foreign)
    write_key(foreign, replace(example(), matrices=[torch.full((2, 3), float("nan"))] * 2), overwrite=True)
    with pytest.raises(UserError, match="0.matrix is missing or broken"):
        read_key(foreign)


# --- through the command line -----------------------------------------------------------------------------------------
class OneFace:
    """Finds the face that `photo` puts at (40, 20), in bright pictures only."""

    def detect(self, images: list) -> list[Faces]:
        from a3gan.data.align import template

        face = Faces(
            np.array([[50.0, 26.0, 94.0, 80.0]], np.float32), np.ones(1, np.float32),
            (template("face", 64).numpy() + (40.0, 20.0))[None].astype(np.float32),
        )  # fmt: skip
        return [face if image[0, 0].mean() > 128 else Faces.none() for image in images]


@pytest.fixture
def photo(tmp_path: Path, faces: torch.Tensor) -> Path:
    """A rendered face in a bright picture of 160x100."""
    from a3gan.data.ranges import to_pil, to_uint8

    picture = Image.new("RGB", (160, 100), (230, 200, 180))
    picture.paste(to_pil(to_uint8(faces[0])), (40, 20))
    picture.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tiny_diffusion: Path):
    monkeypatch.setattr("a3gan.media.detect.load_detector", lambda **options: OneFace())
    monkeypatch.setitem(Hiding.__init__.__kwdefaults__, "steps", 20)

    def call(*argv: object) -> tuple[int, str]:
        status = cli.main([*map(str, argv), "--weights", str(tiny_diffusion), "--device", "cpu"])
        out, err = capsys.readouterr()
        return status, out + err

    return call


def test_hide_and_recover(run, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "photo.key"
    status, said = run("hide", photo, "--key", key, "--msi-steps", 1)
    assert status == 0, said
    assert "1 face hidden" in said and "this key IS the face" in said
    hidden = tmp_path / "photo_hidden.png"
    original, protected = (np.array(Image.open(p)).astype(float) for p in (photo, hidden))
    assert np.abs(original - protected)[30:80, 50:90].mean() > 10 and (original == protected)[:, :35].all()
    assert len(read_key(key).faces) == 1 and {p.name for p in tmp_path.iterdir()} == {photo.name, hidden.name, key.name}

    status, said = run("recover", hidden, "--key", key)
    assert status == 0, said
    assert not caplog.records or "not the picture" not in caplog.text
    back = np.array(Image.open(tmp_path / "photo_hidden_recovered.png")).astype(float)
    assert np.abs(original - back)[45:70, 60:85].mean() < 4

    # a second run replaces neither file
    for wrong, word in ((["-o", tmp_path / "x.png"], "a key that is overwritten is lost"), ([], "exists")):
        status, said = run("hide", photo, "--key", key, "--msi-steps", 1, *wrong)
        assert status == 1 and word in said and said.count("\n") == 1
    assert run("recover", hidden, "--key", key)[0] == 1
    # saved anew: a warning; another size: an error
    Image.open(hidden).convert("RGB").save(tmp_path / "again.jpg", quality=60)
    assert run("recover", tmp_path / "again.jpg", "--key", key)[0] == 0
    assert "not the picture" in caplog.text
    Image.new("RGB", (80, 50)).save(tmp_path / "small.png")
    status, said = run("recover", tmp_path / "small.png", "--key", key)
    assert status == 1 and "the key is of a picture of 160x100" in said


def test_what_cannot_be_hidden(run, photo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (160, 100)).save(tmp_path / "dark.png")
    key = tmp_path / "a.key"
    for arguments, word in (
        (["hide", tmp_path / "dark.png", "--key", key], "no face that can be hidden"),
        (["hide", tmp_path / "none.png", "--key", key], "no such file"),
        (["hide", photo, "--key", photo], "exists"),
        (["hide", photo, "--key", tmp_path / "b.png", "-o", tmp_path / "b.png"], "a file of its own"),
        (["hide", photo, "--key", key, "-o", photo, "--overwrite"], "would replace the photo itself"),
        (["recover", photo, "--key", key], "no such key file"),
    ):
        status, said = run(*arguments, *(["--msi-steps", 0] if arguments[0] == "hide" else []))
        assert status == 1 and word in said and said.count("\n") == 1, said
    assert {p.name for p in tmp_path.iterdir()} == {"photo.png", "dark.png"}


def test_other_weights_are_refused(run, photo: Path, tmp_path: Path) -> None:
    secret = replace(example(1), picture="x")
    write_key(tmp_path / "other.key", secret)
    status, said = run("recover", photo, "--key", tmp_path / "other.key")
    assert status == 1 and "made with other weights (w.safetensors)" in said
