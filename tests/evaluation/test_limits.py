"""The gate: limits on figures of a results.json, from the file to the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from a3gan.cli import main
from a3gan.errors import UserError
from a3gan.evaluation import limits, listing, protocol


def _share(value: float, low: float, high: float) -> dict[str, float | int]:
    return {"value": value, "low": low, "high": high, "count": 100, "people": 50}


def _row(method: str, degradation: str, tar: dict, found: dict) -> dict:
    row = {"method": method, "degradation": degradation, "mosaicked": 0}
    return row | {"verification": {"b": {"tar": tar, "fmr": 0.001}}, "detection": {"picture": {"found": found}}}


def results() -> dict:
    full = _share(1.0, 0.97, 1.0)
    rows = [_row("original", "none", full, full), _row("identity", "none", full, full)]
    rows += [_row("blur", "none", _share(0.01, 0.0, 0.03), full), _row("blur", "half", _share(0.02, 0.01, 0.06), full)]
    config = {"method": ["blur", "identity"], "limits": {}}
    return {"config": config, "rows": rows, "tasks": {}, "attackers": {"parrot": {"blur": {"none": {"rank1": 0.2}}}}}


def _check(**given: dict) -> list[limits.Checked]:
    named = {name.replace("__", "."): protocol.Limit(**limit) for name, limit in given.items()}
    return limits.check(results(), named)


def test_figures_are_listed_by_name() -> None:
    table = listing.table(results())
    assert table["verification.b.tar", "blur", "half"].high == 0.06
    assert table["attackers.parrot.rank1", "blur", "none"].value == 0.2
    assert table["mosaicked", "blur", "none"].value == 0 and table["verification.b.fmr", "blur", "none"].low is None


def test_the_bad_end_of_the_interval_and_the_worst_picture_count() -> None:
    (one,) = _check(verification__b__tar={"max": 0.05})
    assert (one.kept, one.method, one.degradation) == (False, "blur", "half")
    assert one.text == (
        "blur: verification.b.tar at half is 0.02 (0.01 to 0.06), not at most 0.05; the interval counts"
    )
    assert _check(verification__b__tar={"max": 0.06})[0].kept
    assert _check(verification__b__tar={"max": 0.02, "interval": False})[0].kept
    assert _check(verification__b__tar={"max": 0.03, "picture": ["none"]})[0].kept


def test_a_least_value_takes_the_lower_end() -> None:
    assert _check(detection__picture__found={"min": 0.97})[0].kept
    assert not _check(detection__picture__found={"min": 0.98})[0].kept
    assert _check(detection__picture__found={"min": 0.98, "interval": False})[0].kept


def test_identity_is_left_out_unless_named() -> None:
    assert [one.method for one in _check(detection__picture__found={"min": 0.5})] == ["blur"]
    (one,) = _check(verification__b__tar={"max": 0.5, "method": ["identity"]})
    assert one.method == "identity" and not one.kept


def test_a_figure_without_interval_is_compared_itself() -> None:
    assert _check(attackers__parrot__rank1={"max": 0.2})[0].kept
    assert not _check(attackers__parrot__rank1={"max": 0.19})[0].kept


def test_what_was_not_measured_breaks_its_limit() -> None:
    (one,) = _check(attackers__adaptive__rank1={"max": 0.9})  # there is such an attacker; this run left it out
    assert not one.kept and one.text == "blur: attackers.adaptive.rank1 was not measured"


def test_an_unknown_figure_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="verification.b.tarr: no such figure; the nearest is verification.b.tar$"):
        _check(verification__b__tarr={"max": 0.1})
    with pytest.raises(UserError, match="method solid was not evaluated, only blur, identity"):
        _check(verification__b__tar={"max": 0.1, "method": ["solid"]})


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("verification.b.tarr", "verification.b.tarr: no such figure; the nearest is .*tar$"),
        ("verification.c.tar", "its second word must be a judge: b$"),
        ("detection.picture.found", "method solid is not evaluated, only blur$"),
    ],
)
def test_a_misspelt_limit_fails_before_anything_is_measured(limit: str, message: str) -> None:
    given = f'limits={{"{limit}": {{max: 0.1, method: [solid]}}}}'
    with pytest.raises(UserError, match=message):
        protocol.load("eval/lfw", ["method=[blur]", given])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {verification.b.tar: {maxx: 0.1}}", "maxx; the nearest valid key is limits.verification.b.tar.max$"),
        ("limits: {verification.b.tar: {max: much}}", "limits.verification.b.tar.max: .*number, got 'much'"),
        ("limits: {verification.b.tar: {}}", "max= or min= must be given"),
        ("limits: {verification.b.tar: 3}", "a section of keys is expected, got 3"),
        ("far: 0.1", "has no limits: section"),
    ],
)
def test_a_wrong_policy_file_is_an_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        limits.load_policy(path)


def test_the_command_line_ends_with_status_one_where_a_limit_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, policy = tmp_path / "results.json", tmp_path / "policy.yaml"
    saved.write_text(json.dumps(results()), encoding="utf-8")
    policy.write_text(
        "limits: {verification.b.tar: {max: 0.05}, detection.picture.found: {min: 0.9}}", encoding="utf-8"
    )
    assert main(["evaluate", str(saved), "--gate", str(policy)]) == 1
    assert capsys.readouterr().out.startswith("limit broken: blur: verification.b.tar at half is 0.02")
    policy.write_text("limits: {verification.b.tar: {max: 0.1}}", encoding="utf-8")
    assert main(["evaluate", str(saved), "--gate", str(policy)]) == 0
    assert capsys.readouterr().out == "limits: all 1 kept\n"
    assert main(["evaluate", str(saved)]) == 1
    assert "made without limits" in capsys.readouterr().err


def test_a_policy_file_becomes_an_override(tmp_path: Path) -> None:
    assert limits.as_override(None) == []
    cfg = protocol.load("eval/lfw", limits.as_override("eval/limits_example"))
    assert cfg.limits["verification.b.tar"].max == 0.05 and cfg.limits["verification.b.tar"].interval
    assert protocol.load("eval/limits_example").method == ["a3gan"]
