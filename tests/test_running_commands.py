"""anonymize, detect, models, doctor as people type them."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading

import pytest
from PIL import Image

from a3gan import cli
from a3gan.commands import running
from a3gan.commands.common import loading
from a3gan.media.settings import Settings


def run(capsys: pytest.CaptureFixture, *argv: object) -> tuple[int, str, str]:
    status = cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What `anonymize_all` was called with; nothing is anonymised."""
    seen: dict = {}

    def fake(inputs: object, output: object, settings: Settings, **options: object) -> object:
        from a3gan.media.jobs import Report

        seen.update(options, inputs=inputs, output=output, settings=settings, anonymizer=options["make"]())
        return Report(strict=bool(options["strict"]))

    monkeypatch.setattr("a3gan.media.run.anonymize_all", fake)
    return seen


def test_a_line_for_deface_works(capsys: pytest.CaptureFixture, asked: dict) -> None:
    status, _, err = run(
        capsys, "anonymize", "a.mp4", "b.jpg", "--replacewith", "mosaic", "-t", "0.4", "--mask-scale", "1.3", "-k",
        "--scale", "640x360", "--boxes", "-m", "-o", "out",
    )  # fmt: skip
    settings = asked["settings"]
    assert status == 0, err
    assert asked["inputs"] == ("a.mp4", "b.jpg") and asked["output"] == "out"
    assert (settings.method, settings.thresh, settings.mask_scale, settings.scale) == ("pixelate", 0.4, 1.3, (640, 360))
    assert settings.boxes and settings.audio and settings.metadata == "all" and "thumbnails do not" in err
    assert asked["anonymizer"].method.name == "pixelate" and "pixelate, 128 px, on cpu" in err
    for name, ours in (("solid", "solid"), ("blur", "blur"), ("none", "identity")):
        run(capsys, "anonymize", "a.mp4", "--replacewith", name)
        assert asked["settings"].method == ours
    status, _, err = run(capsys, "anonymize", "a.mp4", "--replacewith", "img")
    assert status == 2 and "cannot replace faces" in err
    assert run(capsys, "anonymize", "a.mp4", "--method", "blurr")[0] == 2


def test_both_spellings_and_times(capsys: pytest.CaptureFixture, asked: dict) -> None:
    status, _, err = run(
        capsys, "anonymize", "a.mp4", "--method", "solid", "--start_time", "1:02.5", "--end-time", "90", "--no_audio",
        "--batch_size", "3", "--identity", "fixed", "--key", "secret", "--no-track", "--contact_sheet",
    )  # fmt: skip
    settings = asked["settings"]
    assert status == 0, err
    assert (settings.start, settings.end, settings.audio, settings.key) == (62.5, 90.0, False, "secret")
    assert not settings.track and asked["contact_sheet"] and asked["batch"] == 3
    for wrong in (["--scale", "640"], ["--start-time", "soon"], ["--end-time", "-3"], ["--thresh", "1.5"]):
        assert run(capsys, "anonymize", "a.mp4", *wrong)[0] == 2
    status, _, err = run(capsys, "anonymize", "a.mp4", "--method", "solid", "--start-time", "5", "--end-time", "2")
    assert status == 1 and "before end time" in err


def test_settings_that_a_method_cannot_meet(capsys: pytest.CaptureFixture, tmp_path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    for options, word in (
        (["--method", "blur", "--policy", "everything"], "policy"),
        (["--method", "blur", "--alpha", "0.5"], "alpha"),
        (["--method", "blur", "--weights", "a3gan_64"], "weights"),
        (["--weights", "no_such"], "no_such"),
        (["--device", "cuda"], "cuda"),
    ):
        if word == "cuda":
            import torch

            if torch.cuda.is_available():
                continue
        status, _, err = run(capsys, "anonymize", tmp_path / "a.png", *options)
        assert status == 1 and word in err and err.count("\n") <= 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_photo_and_json(capsys: pytest.CaptureFixture, tmp_path) -> None:
    pytest.importorskip("facenet_pytorch")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    status, out, _ = run(capsys, "anonymize", tmp_path / "a.png", "--method", "solid", "--json", "--strict")
    record = json.loads(out)
    assert status == record["exit_status"] == 3
    assert record["files"][0]["status"] == "no face" and (tmp_path / "a_anonymized.png").is_file()
    status, out, _ = run(capsys, "anonymize", tmp_path / "a.png", "--method", "solid")
    assert status == 0 and "done before" in out


def test_options_of_a_method(capsys: pytest.CaptureFixture, tmp_path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    asked = ["anonymize", tmp_path / "a.png", "--method", "pixelate", "--json", "--option"]
    status, out, err = run(capsys, *asked, "cells=4")
    assert status == 0 and json.loads(out)["files"][0]["status"] == "no face" and "pixelate, cells 4, 128 px" in err
    assert json.loads(run(capsys, *asked, "cells=4")[1])["files"][0]["status"] == "skipped"
    again = run(capsys, *asked, "cells=3", "--overwrite")  # another option is another result
    assert json.loads(again[1])["files"][0]["status"] == "no face"
    assert run(capsys, *asked, "cells=4")[0] == 1
    status, _, err = run(capsys, *asked, "cels=4")
    assert status == 1 and "no option cels; the nearest is cells" in err


def test_preview_needs_a_display(capsys: pytest.CaptureFixture, monkeypatch, tmp_path, asked: dict) -> None:
    tkinter = pytest.importorskip("tkinter")

    def none() -> None:
        raise tkinter.TclError("no display name")

    monkeypatch.setattr(tkinter, "Tk", none)
    status, _, err = run(capsys, "anonymize", "a.mp4", "--method", "solid", "--preview")
    assert status == 1 and "--preview: there is no display" in err


def test_doctor(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from a3gan import doctor

    monkeypatch.setitem(doctor.CHECKS, "self-test", lambda name, device: iter([doctor.Check(name, "ok", "left out")]))
    status, out, _ = run(capsys, "doctor")
    assert status == 0, out
    for word in ("torch", "sha256 as in the manifest", "libavcodec", "cpu"):
        assert word in out

    def broken(name: str, device: str) -> object:
        raise OSError("no\nluck")

    monkeypatch.setitem(doctor.CHECKS, "video", broken)
    status, out, _ = run(capsys, "doctor")
    assert status == 1 and "FAIL  video       OSError: no luck" in out


def test_models(capsys: pytest.CaptureFixture) -> None:
    assert "a3gan_64" in run(capsys, "models")[1]
    assert "research" in run(capsys, "models", "a3gan_64")[1]
    assert "facemae" in run(capsys, "models")[1] and "--option neighbour=nearest" in run(capsys, "models", "falco")[1]
    assert running.models.callback is not None


def test_the_collector_rests_while_a_command_loads_and_no_longer():
    assert gc.isenabled()
    with pytest.raises(ImportError), loading():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()  # somebody else's choice
    finally:
        gc.enable()


def test_freed_memory_is_kept_where_the_c_library_can_and_nothing_happens_elsewhere(monkeypatch):
    from types import SimpleNamespace

    from a3gan.commands.common import keep_freed_memory

    told = []
    monkeypatch.setattr(
        ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda name, value: told.append((name, value)))
    )
    keep_freed_memory()
    assert told == [(-3, 32 * 2**20), (-1, 2**30), (-8, 1)]
    for error in (OSError, AttributeError):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, error=error: (_ for _ in ()).throw(error()))
        keep_freed_memory()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt") if sys.platform != "win32" else True, reason="no glibc")
@pytest.mark.parametrize(("cores", "free", "touches"), [(2, 900, True), (1, 900, False), (2, 100, False)])
def test_memory_is_touched_beforehand_only_where_there_is_some_to_spare(monkeypatch, cores, free, touches):
    from a3gan.commands import common

    touched = []
    monkeypatch.setattr(common, "_touch", lambda libc, size: touched.append(size))
    monkeypatch.setattr("a3gan.media.threads.cores", lambda: cores)
    monkeypatch.setattr(common, "_free_memory", lambda: free)
    common.keep_freed_memory(warm=100)
    for thread in threading.enumerate():
        if thread.name == "a3gan-warm":
            thread.join()
    assert touched == [100] * touches


def test_free_memory_is_no_more_than_a_container_may_have(tmp_path):
    from a3gan.commands.common import _free_memory

    free = _free_memory(tmp_path)
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (_free_memory(tmp_path) > 10_000) == (free > 10_000)
    (tmp_path / "memory.max").write_text("5000\n")
    assert _free_memory(tmp_path) == min(free, 2000)


def test_what_is_touched_beforehand_is_given_back():
    from types import SimpleNamespace

    from a3gan.commands.common import _touch

    held = {}

    def malloc(size):
        block = ctypes.create_string_buffer(b"x" * size, size)
        held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(address):
        assert set(held.pop(address).raw) == {0}

    _touch(SimpleNamespace(malloc=malloc, free=free), 2**16, block=2**14)
    assert held == {}
