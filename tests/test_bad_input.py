"""Bad input through the command line: one clear line or a listed skip, never a traceback unless --debug asks."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan import checkpoint, cli
from a3gan.data import align
from a3gan.data.archive import FaceSet
from a3gan.data.archive_file import LANDMARK_COLUMNS
from a3gan.data.ranges import to_pil
from a3gan.data.synthetic import synthetic_faces

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [
    "train", "a3gan/quick", "run.device=cpu", "train.total_images=4", "train.batch_size=4", "data.synthetic_count=16",
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.discriminator.channels_base=256",
    "model.discriminator.channels_max=8", "model.encoder.widths=[8,8,8,8]",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen rendered faces of 64 px: twelve to train, four to validate."""
    faces = synthetic_faces(16, 64, 0)
    faces.split = ["train"] * 12 + ["val"] * 4
    path = tmp_path_factory.mktemp("archive") / "faces.zip"
    faces.save(path)
    return path


@pytest.fixture
def line(capsys: pytest.CaptureFixture):  # noqa: ANN201
    """Runs a command that must fail: its one line of error."""

    def run(*argv: object, status: int = 1) -> str:
        assert cli.main([str(a) for a in argv]) == status
        err = capsys.readouterr().err
        # Log lines may come before; the error itself is the last line and names its command.
        last = err.strip().splitlines()[-1]
        assert "Traceback" not in err and last.startswith("a3gan: "), err
        assert "(--debug shows where)" not in last, f"an error that nobody foresaw: {last}"
        return last

    return run


# --- pictures that prepare meets -------------------------------------------------------------------------------------
def face(side: int = 96) -> tuple[Image.Image, list[float]]:
    """A rendered face in colour, and its five points in pixels."""
    faces = synthetic_faces(1, 128, 3)
    picture = to_pil(faces.images[0]).resize((side, side), Image.Resampling.LANCZOS)
    return picture, align.to_pixels(faces.landmarks[0].double(), side).flatten().tolist()


def sixteen_bit(picture: Image.Image, path: Path) -> None:
    gray = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(gray).save(path)


def rotated(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=98)


def palette_with_hole(picture: Image.Image, path: Path) -> None:
    flat = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=255)
    flat.save(path, transparency=255)


def alpha(picture: Image.Image, path: Path) -> None:
    clear = picture.convert("RGBA")
    clear.putalpha(Image.new("L", picture.size, 255))
    clear.save(path)


KINDS = {
    "plain.png": lambda p, path: p.save(path),
    "deep.png": sixteen_bit,
    "print.jpg": lambda p, path: p.convert("CMYK").save(path, quality=98),
    "palette.png": palette_with_hole,
    "clear.png": alpha,
    "gray.jpg": lambda p, path: p.convert("L").save(path, quality=98),
    "gray_clear.png": lambda p, path: p.convert("LA").save(path),
    "one_bit.png": lambda p, path: p.convert("1").save(path),
    "turned.jpg": rotated,
    "float.tif": lambda p, path: p.convert("F").save(path),
}


def write_table(rows: list[tuple[str, list[float] | None]], path: Path) -> Path:
    lines = [",".join(["file", *LANDMARK_COLUMNS])]
    lines += [",".join([name, *(f"{v:.2f}" for v in points or [""] * 10)] if points else [name, *[""] * 10])
              for name, points in rows]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """One face saved in every kind, prepared by given landmarks (of the upright picture)."""
    folder = tmp_path_factory.mktemp("kinds")
    picture, points = face()
    for name, save in KINDS.items():
        save(picture, folder / name)
    table = write_table([(name, points) for name in KINDS], folder / "table.csv")
    assert cli.main(["prepare", str(table), "-o", str(folder / "x.zip"), "--size", "64"]) == 0
    return FaceSet.load(folder / "x.zip")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_gives_the_same_face(every_kind: FaceSet, kind: str) -> None:
    names = list(KINDS)
    plain, own = (every_kind.images[names.index(n)].float() for n in ("plain.png", kind))
    assert len(every_kind) == len(KINDS)
    if kind == "one_bit.png":  # dithered: only its mean is the same
        assert (own.mean() - plain.mean()).abs() < 12
        return
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    error = ((own - plain) * luma).sum(0).abs()
    assert error.mean() < 4, f"{kind}: {error.mean():.1f} of 255"  # JPEG, 256 colours, and the way through CMYK


def test_bad_pictures_are_listed_and_the_rest_is_kept(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    picture, points = face()
    picture.save("good.png")
    whole = Path("good.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("text.jpg").write_text("no picture")
    Path("empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("RGB", (4000, 1)).save("line.png")
    bomb = whole[:16] + (60000).to_bytes(4, "big") * 2 + whole[24:]  # a header that promises 3.6 gigapixels
    Path("bomb.png").write_bytes(bomb)
    names = ["good.png", "cut.png", "text.jpg", "empty.jpg", "dot.png", "line.png", "bomb.png", "absent.png"]
    write_table([(name, points) for name in names], Path("t.csv"))
    assert cli.main(["prepare", "t.csv", "-o", "x.zip", "--size", "32"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 8 pictures kept" in out and "1 missing: absent.png" in out
    assert "4 unreadable: cut.png, text.jpg, empty.jpg, bomb.png" in out and "2 tiny: dot.png, line.png" in out
    assert "Traceback" not in out + err and len(FaceSet.load("x.zip")) == 1


# --- prepare ---------------------------------------------------------------------------------------------------------
def bad_sources() -> dict[str, tuple[object, str]]:
    def empty_folder() -> str:
        Path("empty").mkdir()
        return "empty"

    def only_text() -> str:
        Path("texts").mkdir()
        Path("texts/a.jpg").write_text("no")
        return "texts"

    def written(name: str, content: bytes) -> str:
        Path(name).write_bytes(content)
        return name

    def cut_zip() -> str:
        with zipfile.ZipFile("whole.zip", "w") as out:
            out.writestr("a.png", b"x" * 5000)
        return written("cut.zip", Path("whole.zip").read_bytes()[:2500])

    return {
        "missing": (lambda: "nothing", "nothing: no such folder"),
        "empty folder": (empty_folder, "no pictures found"),
        "no picture in it": (only_text, "no usable face among 1 pictures (1 unreadable)"),
        "cut zip": (cut_zip, "cut.zip: not a zip, or cut short"),
        "empty zip": (lambda: written("e.zip", b""), "e.zip: not a zip"),
        "other file": (lambda: written("a.bin", b"123"), "expected a folder, a zip or a CSV table"),
        "empty table": (lambda: written("t.csv", b""), "needs a column 'file'"),
        "binary table": (lambda: written("t.csv", b"\xff\xfe\x00a"), "not a UTF-8 text table"),
        "table without files": (lambda: written("t.csv", b"file,split\n"), "no pictures found"),
        "table of absent files": (lambda: written("t.csv", b"file\na.jpg\nb.jpg\n"), "none of its 2 files exists"),
    }


@pytest.mark.parametrize("case", bad_sources())
def test_prepare_refuses(line, case: str) -> None:  # noqa: ANN001
    make, words = bad_sources()[case]
    assert words in line("prepare", make(), "-o", "out.zip", "--size", "64")
    assert not Path("out.zip").exists()


def test_prepare_refuses_outputs(line) -> None:  # noqa: ANN001
    Path("in").mkdir()
    face()[0].save("in/a.png")
    assert "is a folder" in line("prepare", "in", "-o", "in")
    assert "must be from 16" in line("prepare", "in", "-o", "x.zip", "--size", "4")
    Path("file").write_text("")
    assert "cannot be written" in line("prepare", "in", "-o", "file/x.zip")


# --- archives --------------------------------------------------------------------------------------------------------
def spoiled(archive: Path, how: str) -> str:
    """A bad copy of a good archive; its path."""
    data, path = archive.read_bytes(), Path("bad.zip")
    if how == "cut":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no zip":
        path.write_bytes(b"no archive at all")
    elif how == "other zip":
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("a.txt", "hello")
    elif how == "damaged picture":
        with zipfile.ZipFile(archive) as old:
            first = old.getinfo(next(n for n in old.namelist() if n.startswith("images/")))
        at = first.header_offset + 200
        path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    elif how == "folder":
        path.mkdir()
    elif how == "picture gone":
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist()[1:]:
                new.writestr(name, old.read(name))
    elif how == "bad number":
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                text = old.read(name)
                new.writestr(name, text.replace(b",0.0000,", b",many,", 1) if name == "index.csv" else text)
    return str(path)


ARCHIVES = {
    "cut": "not a zip, or cut short", "empty": "not a zip, or cut short", "no zip": "not a zip, or cut short",
    "other zip": "not an archive of a3gan prepare", "damaged picture": "missing or damaged",
    "folder": "no such archive", "picture gone": "missing or damaged", "bad number": "index.csv is damaged",
}  # fmt: skip


@pytest.mark.parametrize("how", ARCHIVES)
@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_train_refuses_archives(line, archive: Path, how: str, storage: str) -> None:  # noqa: ANN001
    path = spoiled(archive, how)
    # Read from disk, a picture fails when its turn comes: long enough for all to be drawn.
    enough = ["stage=attributes", "train.total_images=48"]
    text = line(*TRAIN, *enough, f"data.path={path}", f"data.storage={storage}", "run.dir=r")
    assert ARCHIVES[how] in text and "bad.zip" in text


# What is no archive is prepared as raw pictures; in these there are none.
RAW = {"other zip": "no pictures found", "folder": "no pictures found"}


@pytest.mark.parametrize("how", ARCHIVES)
def test_evaluate_refuses_archives(line, archive: Path, how: str) -> None:  # noqa: ANN001
    text = line("evaluate", "eval/lfw", "method=[blur]", "judges=[]", "attributes_judge=null", "data.photos=null",
                f"data.path={spoiled(archive, how)}", "data.split=train", "run.dir=r")  # fmt: skip
    assert (ARCHIVES | RAW)[how] in text and "bad.zip" in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.path=absent.zip"], "absent.zip: no such archive"),
        (["data.path=ARCHIVE", "data.frame=ffhq"], "is aligned to 'face', data.frame is 'ffhq'"),
        (["data.path=ARCHIVE", "data.size=128"], "faces of 64 px, 128 wanted"),
        (["data.path=ARCHIVE", "data.split_train=nobody"], "has no face of split 'nobody'"),
        (["data.path=[]"], "name at least one archive"),
        (["data.size=100"], "must be a power of two"),
        (["scorers.attributes=absent"], "absent: neither a file nor the name of shipped weights"),
        (["scorers.recognisers=[{path: absent, kind: small}]"], "absent: neither"),
        (["scorers.watcher={path: identity_small, kind: small}"], "scorers.watcher: identity_small is also in"),
        (["train.batch_size=0"], "train.batch_size"),
        (["run.dir=file"], "file"),
        (["run.device=gpu"], "run.device"),
    ],
)
def test_train_refuses(line, archive: Path, overrides: list[str], words: str) -> None:  # noqa: ANN001
    Path("file").write_text("in the way")
    run_dir = [] if any(o.startswith("run.dir") for o in overrides) else ["run.dir=r"]
    assert words in line(*TRAIN, *(o.replace("ARCHIVE", archive.as_posix()) for o in overrides), *run_dir)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"stage: [", "c.yaml"),
        (b"\xff\xfe\x00", "c.yaml"),
        (b"- a\n- b\n", "c.yaml"),
        (b"stage: nothing\n", "stage"),
        (b"base: absent.yaml\n", "absent.yaml"),
        (b"base: c.yaml\n", "c.yaml"),
        (b"", None),
    ],
)
def test_configs(line, content: bytes, words: str | None, capsys: pytest.CaptureFixture) -> None:  # noqa: ANN001
    Path("c.yaml").write_bytes(content)
    if words is None:
        assert cli.main(["train", "c.yaml", "--dry-run"]) == 0
        return
    for command in ("train", "evaluate", "sweep"):
        if words != "stage" or command == "train":
            assert words in line(command, "c.yaml")


@pytest.mark.parametrize("command", ["train", "evaluate", "sweep"])
def test_a_config_that_is_not_there(line, command: str) -> None:  # noqa: ANN001
    assert "absent.yaml: no such config file" in line(command, "absent.yaml")
    Path("folder.yaml").mkdir()
    assert "folder.yaml" in line(command, "folder.yaml")


# --- weights ---------------------------------------------------------------------------------------------------------
def spoiled_weights(how: str) -> str:
    data = checkpoint.resolve("identity_small").read_bytes()
    path = Path("bad.safetensors")
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "cut in the header":
        path.write_bytes(data[:100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, str(path))
    elif how == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    elif how == "other stage":
        path.write_bytes(data)
    return str(path)


WEIGHTS = {
    "cut": "not a whole safetensors file", "cut in the header": "not a whole safetensors file",
    "empty": "not a whole safetensors file", "foreign": "not one written by a3gan",
    "pickle": "not a whole safetensors file", "other stage": "stage",
}  # fmt: skip


@pytest.mark.parametrize("how", WEIGHTS)
def test_weights_that_cannot_be_used(line, how: str) -> None:  # noqa: ANN001
    path = spoiled_weights(how)
    face()[0].save("a.png")
    commands = [
        [*TRAIN, f"scorers.attributes={path}", "run.dir=r"],
        [*TRAIN, f"model.weights={path}", "run.dir=r"],
        ["evaluate", "eval/lfw", "method=[a3gan]", f"weights={path}", "judges=[]", "data.path=null", "run.dir=r"],
        ["anonymize", "a.png", "-o", "out", "--weights", path],
    ]
    for command in commands:
        text = line(*command)
        assert WEIGHTS[how] in text and "bad.safetensors" in text
    assert not Path("out/a.png").exists()


def test_a_run_with_cut_states(line) -> None:  # noqa: ANN001
    tiny = [*TRAIN, "run.dir=r", "run.keep_last=0", "run.validate_first=false"]
    assert cli.main(tiny) == 0
    state = Path("r/state.safetensors")
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    assert "no readable state to go on from" in line(*tiny)
    state.write_bytes(whole)
    assert "holds a run of another config: train.lr (was" in line(*tiny, "train.lr=0.5")
    assert cli.main([*tiny, "model.identity.width=8"]) == 0  # of another stage: no other config to this one
    frame = line(*tiny, "data.frame=ffhq")
    assert "data.frame (was 'face', now 'ffhq')" in frame


def test_faces_and_weights_of_different_frames(line, tmp_path: Path) -> None:  # noqa: ANN001
    faces = synthetic_faces(8, 64, 0, frame="ffhq")
    faces.split = ["test"] * 8
    faces.save("ffhq.zip")
    text = line("evaluate", "eval/lfw", "method=[a3gan]", "judges=[]", "attributes_judge=null", "data.photos=null",
                "data.path=ffhq.zip", "run.dir=r")  # fmt: skip
    assert "ffhq" in text and "face" in text


# --- the machine -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what this machine has")
def test_cuda_asked_for_and_absent(line) -> None:  # noqa: ANN001
    face()[0].save("a.png")
    for command in (
        ["train", "a3gan/quick", "run.device=cuda", "run.dir=r"],
        ["evaluate", "eval/lfw", "run.device=cuda", "data.path=null", "judges=[]", "run.dir=r"],
        ["anonymize", "a.png", "-o", "out", "--device", "cuda"],
        ["sweep", "ablation", "run.device=cuda", "dir=s", "only=[full]"],
    ):
        assert "CUDA" in line(*command)
    assert not Path("out/a.png").exists()


@pytest.mark.parametrize(("script", "option"), [("train.py", ""), ("evaluate.py", "--debug")])
def test_the_scripts(script: str, option: str) -> None:
    """The same last line of defence behind both; one of each, since a start takes seconds."""
    command = [sys.executable, str(ROOT / script), "absent.yaml", *option.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "absent.yaml: no such config file" in done.stderr
    assert ("Traceback" in done.stderr) == (option == "--debug") and (option or done.stderr.count("\n") == 1)


UNFORESEEN = [RuntimeError("CUDA out of memory"), RecursionError(), MemoryError(), OSError(28, "No space left")]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["train default", "prepare x -o y", "sweep x", "evaluate eval/lfw"])
def test_the_last_line_of_defence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: Exception, command: str
) -> None:
    """What nobody foresaw is one line too, and says how to see more."""

    def broken(*_: object, **__: object) -> None:
        raise error

    for place in ("config.read", "data.prepare.prepare", "evaluation.protocol.load", "sweep.load", "sweep.is_sweep"):
        monkeypatch.setattr(f"a3gan.{place}", broken)
    assert cli.main(command.split()) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("a3gan: ") and "--debug" in err and "Traceback" not in err
    assert cli.main([*command.split(), "--debug"]) == 1 and "Traceback" in capsys.readouterr().err
