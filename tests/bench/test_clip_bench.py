"""The video benchmark: the arithmetic of its report, and `deface` played by a script; nothing here asserts a speed."""

from __future__ import annotations

import json
import sys
import time
import types

import pytest

from a3gan.bench import clips
from a3gan.cli import main
from a3gan.errors import UserError


def row(**more) -> clips.ClipRow:
    busy = {"search": 2.0, "of it detector": 1.5, "decode": 0.5, "synthesise": 1.0, "encode": 0.25}
    return clips.ClipRow("a.mp4", "blur", 640, 480, 100, 90, 4.0, busy, **more)


def test_report_counts_frames_and_ratios(tmp_path) -> None:
    versus = clips.Versus("deface", "1.5", "deface CLIP", [(1.0, 3.0), (2.0, 4.0), (1.0, 5.0)])
    report = clips.ClipsReport("cpu", 1, 2, [row(versus=versus), row()])
    text = "\n".join(report.lines())
    assert "25.0 frames/s end to end" in text and "3.00 times as fast" in text and "2.00 to 5.00" in text
    assert "20.00 ms a frame     50.0 frames/s" in text  # search
    record = json.loads(json.dumps(report.record()))
    assert record["rows"][0]["versus"]["median_ratio"] == 3 and record["rows"][0]["rate"] == 25
    assert record["rows"][1]["versus"] is None
    picture = clips.plot(report, tmp_path / "p.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_detector_is_timed_with_its_sensitive_sibling() -> None:
    class Slow:
        name = "slow"

        def sensitive(self) -> Slow:
            return Slow()

        def detect(self, images):
            time.sleep(0.02)
            return images

    timed = clips.TimedDetector(Slow())
    assert timed.sensitive().detect([1]) == [1] and timed.detect([2]) == [2] and timed.name == "slow"
    assert timed.clock[0] >= 0.04


def test_commands_run_in_turn(tmp_path, monkeypatch) -> None:
    clip, ran = tmp_path / "c.mp4", []
    clip.write_bytes(b"")

    def command(words) -> float:
        mine = words[0] == sys.executable
        ran.append("ours" if mine else "theirs")
        (tmp_path / ("ours.mp4" if mine else "theirs.mp4")).write_bytes(b"x")
        return 1.0 if mine else 3.0

    monkeypatch.setattr(clips, "run_command", command)
    monkeypatch.setattr(clips, "deface_version", lambda _: "1")
    settings = types.SimpleNamespace(method="blur", weights=None)
    versus = clips.versus_deface(clip, settings, ["deface", "--backend", "opencv"], tmp_path, 4)
    assert versus.ratios == [3.0] * 4 and versus.command == "deface --backend opencv CLIP"
    assert ran == ["theirs", "ours", "ours", "theirs"] * 2
    monkeypatch.setattr(clips, "run_command", lambda _: 1.0)
    with pytest.raises(UserError, match="wrote no"):
        clips.versus_deface(clip, settings, ["deface"], tmp_path, 1)


def test_failing_commands_say_why() -> None:
    with pytest.raises(UserError, match="status 3: broken"):
        clips.run_command([sys.executable, "-c", "import sys; print('broken', file=sys.stderr); sys.exit(3)"])
    assert clips.run_command([sys.executable, "-c", "import a3gan"]) > 0  # found even where it is not installed


def test_errors_before_any_work(tmp_path, capsys) -> None:
    assert main(["bench", "video", str(tmp_path / "none.mp4")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["bench", "video", "x.mp4", "--deface", str(tmp_path / "deface")]) == 1
    assert "pip install deface" in capsys.readouterr().err
