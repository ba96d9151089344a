"""The table of before and after, and the names beside a sheet's rows."""

from __future__ import annotations

import json
from pathlib import Path

from a3gan.training.a3gan_views import row_names
from a3gan.training.summary import first_validation, summary


def test_table_of_before_and_after(tmp_path: Path) -> None:
    assert summary(tmp_path) == str(tmp_path)  # not complete: nothing to tell
    record = {
        "stage": "a3gan",
        "before": {"reconstruction_l1": 0.5},
        "metrics": {"own": 2.0, "smile_agreement": 0.875, "reconstruction_l1": 0.125},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    (tmp_path / "sheets").mkdir()
    for name in ("000000008.png", "000000016.png"):
        (tmp_path / "sheets" / name).write_bytes(b"")
    lines = summary(tmp_path).splitlines()
    assert lines[0].split() == ["before", "after"]
    assert lines[1].startswith("reconstruction error") and lines[1].split()[-2:] == ["0.500", "0.125"]
    assert lines[2].startswith("smiling or neutral") and lines[2].split()[-2:] == ["-", "0.875"]
    assert lines[3].split() == ["own", "-", "2.000"]
    assert "proves no privacy" in lines[5] and "000000016.png" in lines[6]
    assert len({len(line) for line in lines[:4]}) == 1


def test_first_validation_is_the_one_before_the_first_step(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert first_validation(log) == {}
    log.write_text('{"images": 8, "kind": "val", "error": 1.0}\n')
    assert first_validation(log) == {}
    log.write_text('{"images": 0, "kind": "val", "error": 3.0}\n{"images": 8, "kind": "val", "error": 1.0}\n')
    assert first_validation(log) == {"error": 3.0}


def test_row_names_are_black_on_white() -> None:
    strip = row_names(["one", "two\nlines", ""], 32)
    assert strip.shape == (3, 96, 51) and strip.min() < -0.5 and strip.max() == 1
    assert bool((strip[:, 64:] == 1).all()) and bool((strip[:, :32] < 0).any())
