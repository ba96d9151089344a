"""Tasks dial and controllability: verdicts and matrices of known value, and one whole evaluation of rendered faces."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stubs import StubJudge, StubMethod, stubbed_run

from a3gan.data.attributes import SCHEMA, Policy
from a3gan.data.synthetic import synthetic_faces
from a3gan.evaluation import catalogue, controllability, dial, kept, listing, protocol, run, verification
from a3gan.evaluation.control_report import RULE, steps, summary_said, verdict_said
from a3gan.evaluation.dryrun import dry_run
from a3gan.evaluation.page.page import headline_parts
from a3gan.evaluation.pictures import Originals

DRAW = (200, 0)
CONFIG = """
method: [a3gan, pixelate]
judges: [{name: stub, kind: small, path: none}]
attributes_judge: stub
tasks: [verification, expression, dial, controllability]
second_detector: null
attackers: []
far: 0.05
bootstrap: 20
degradations: [none]
control: {images: 16, per_person: 2}
heads: {images: 0}
report: {people: 2}
data: {synthetic_count: 24, synthetic_people: 8}
"""


# --- the dial's verdict ---------------------------------------------------------------------------------------------
def _falling(people: int = 40) -> np.ndarray:
    """bool [11, P]: at each step a tenth of the people, a pair each, less is matched."""
    return np.arange(people)[None] < people * (1 - np.arange(11) / 10)[:, None] - 1e-9


def test_true_matches_that_fall_linearly() -> None:
    found = dial.verdict(_falling(), np.arange(40), DRAW)
    assert found["falls"] and found["never_rises"] and found["rises"] == []
    assert found["spearman"] == pytest.approx(-1)
    assert found["drop"].value == 1.0 and found["largest_rise"].value == pytest.approx(-0.1)
    assert found["drop"].count == 40 and found["drop"].people == 40


def test_a_rise_beyond_chance_breaks_the_rule_and_one_within_does_not() -> None:
    matched = _falling()
    matched[10, :8] = True  # eight people are matched again at alpha 1
    found = dial.verdict(matched, np.arange(40), DRAW)
    assert not found["falls"] and not found["never_rises"]
    assert found["rises"] == [[0.9, 1.0]]  # at 0.8 eight were matched: the same
    assert found["largest_rise"].value == pytest.approx(0.1) and found["largest_rise"].low > 0
    assert "does not fall with alpha (alpha 1 matches more than 0.9)" in _said(found)
    matched = _falling()
    matched[10, :5] = True  # one more than at 0.9
    found = dial.verdict(matched, np.arange(40), DRAW)
    assert found["falls"] and not found["never_rises"] and found["largest_rise"].value == pytest.approx(0.025)
    assert _said(found).startswith("falls with alpha; the plain shares rise by at most 2.50 %; Spearman -0.9")


def _said(found: dict) -> str:
    from a3gan.evaluation.tasks import plain

    return verdict_said(plain(found))


def test_what_does_not_move_does_not_fall() -> None:
    found = dial.verdict(np.ones((11, 12), bool), np.arange(12), DRAW)
    assert not found["falls"] and found["never_rises"] and np.isnan(found["spearman"])
    assert "(the last step is no lower); the plain shares never rise; Spearman undefined" in _said(found)


def test_a_slow_drift_is_a_rise_too() -> None:
    """No step alone is beyond chance, all together are."""
    matched = np.arange(60)[None] < np.arange(11)[:, None]
    matched[0] = True
    found = dial.verdict(matched, np.arange(60), DRAW)
    assert not any(after - before < 0.15 for before, after in found["rises"])
    assert found["rises"] and not found["falls"]


def test_people_are_drawn_not_pairs() -> None:
    """Of one person with many pairs nothing is known."""
    matched = np.zeros((11, 20), bool)
    matched[0] = True
    one = dial.verdict(matched, np.zeros(20, int), DRAW)
    assert not one["falls"] and one["drop"].value == 1.0 and np.isnan(one["drop"].low)


def test_ranks_with_ties() -> None:
    assert dial.spearman(np.arange(4), np.array([4.0, 3.0, 3.0, 1.0])) == pytest.approx(-0.948683)  # sqrt(0.9)
    assert dial.spearman(np.arange(3), np.array([1.0, 2.0, 9.0])) == pytest.approx(1)


# --- the dial's steps -----------------------------------------------------------------------------------------------
def _bench(tables, methods: dict, **more: object) -> SimpleNamespace:
    faces = synthetic_faces(24, 32, 0, identities=8)
    main = SimpleNamespace(originals=Originals(faces))
    cfg = SimpleNamespace(control=protocol.Control(images=0, per_person=3), seed=0, data=SimpleNamespace(photos=None))
    gather = SimpleNamespace(methods=methods, tables=tables)
    return SimpleNamespace(main=main, cfg=cfg, gather=gather, draw=DRAW, about={}, attributes=None, **more)


def test_similarity_that_falls_linearly_with_alpha() -> None:
    rng, person = np.random.default_rng(0), synthetic_faces(24, 32, 0, identities=8).identity.numpy()
    axes = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    gallery, aside = axes[person], axes[32 + person]  # pictures of one person are alike, all people at right angles
    asked = []

    def tables(originals, scorers, degradations, names, label="", policy=None, alpha=None) -> dict:
        asked.append((names[0], alpha))
        stay = 1.0 if alpha is None else 1 - alpha
        made = stay * gallery + np.sqrt(1 - stay**2) * aside
        mosaicked = {"mosaicked": np.zeros(24, bool)}
        return {names[0]: {("none", "judge-b"): {"embedding": made}, ("none", "mosaicked"): mosaicked}}

    reference = verification.Reference(gallery, person, 0.01, 0.45, 0.45, 100, np.zeros(1))
    method = SimpleNamespace(supports={"alpha"})
    bench = _bench(
        tables, {"a3gan": method, "blur": SimpleNamespace(supports=set())}, references={"b": reference},
        judges={"b": None},
    )  # fmt: skip
    assert dial.off(bench) == ""
    result = dial.measure(bench)
    assert set(result) == {"original", "a3gan"} and asked == [("original", None)] + [("a3gan", a) for a in dial.STEPS]
    cells = result["a3gan"]["none"]
    assert list(cells) == [f"at_{10 * step}" for step in range(11)] + ["verdict"]
    for alpha in dial.STEPS:
        figures = cells[dial.key(alpha)]["verification"]["b"]
        assert figures["cosine_same_picture"] == pytest.approx(1 - alpha, abs=1e-6)
        assert figures["tar"].value == figures["same_picture"].value == float(1 - alpha > 0.45)
    assert cells["at_0"]["verification"]["b"]["tar"].count == 8 * 3 * 2  # ordered pairs
    verdict = cells["verdict"]["b"]
    assert verdict["falls"] and verdict["never_rises"] and verdict["drop"].value == 1.0
    assert bench.about["dial"] == {"pictures": 24, "people": 8, "pairs": 24}
    assert result["original"]["none"]["verification"]["b"]["tar"].value == 1.0
    bench.gather.methods.pop("a3gan")
    assert dial.off(bench) == "none of blur has a dial (alpha)"
    bench.references = {}
    assert dial.off(bench) == "no judge that verifies (judges, and verification among the tasks)"


# --- what a policy moves --------------------------------------------------------------------------------------------
def test_what_a_policy_can_turn_by_itself() -> None:
    units = {unit.name: unit.attributes for unit in controllability.units()}
    assert [name for names in units.values() for name in names] != [a.name for a in SCHEMA]  # heads are together
    assert sorted(name for names in units.values() for name in names) == sorted(a.name for a in SCHEMA)
    assert units["eyes"] == ("eyes_closed", "eye_opening") and units["yaw"] == ("yaw",)
    found = controllability.policies()
    assert len(found) == 2 * (len(units) + 1)
    for (panel, row), policy in found.items():
        free = {name for name, word in policy.describe().items() if word == "change"}
        named = set(units.get(row, ()))
        assert free == (named if panel == "only" else {a.name for a in SCHEMA} - named)


SCALE = {f"{a.name}_moved": 0.25 for a in SCHEMA}
PEOPLE = np.repeat(np.arange(6), 2)


def _moves(free) -> dict:
    """What moves by as much as strangers differ where `free(name, policy's word)`, else not at all."""
    return {
        place: {name: np.full(12, 0.25 if free(name, word) else 0.0) for name, word in policy.describe().items()}
        for place, policy in controllability.policies().items()
    }


def _summary(moves: dict, scale: dict = SCALE) -> dict:
    from a3gan.evaluation.tasks import plain

    return plain(controllability.figures(moves, scale, PEOPLE, DRAW)["summary"])


def test_a_method_that_obeys() -> None:
    found = _summary(_moves(lambda name, word: word == "change"))
    values = {k: {leaf: f["value"] for leaf, f in v.items()} for k, v in found.items() if k != "selectivity"}
    assert values == {
        "only": {"diagonal": 1.0, "off_diagonal": 0.0}, "but": {"diagonal": 0.0, "off_diagonal": 1.0},
        "nothing": {"moved": 0.0}, "everything": {"moved": 1.0},
    }  # fmt: skip
    assert (found["selectivity"]["value"], found["selectivity"]["people"]) == (1.0, 6)
    assert "the named attribute moves by 1.00, the others by 0.00" in summary_said(found)


def test_methods_that_do_not_obey() -> None:
    assert _summary(_moves(lambda name, word: True))["selectivity"]["value"] == 0.0
    # What always moves is no control, however far; what only one attribute obeys is its share of them.
    assert _summary(_moves(lambda name, word: name == "gender"))["selectivity"]["value"] == 0.0
    one = _summary(_moves(lambda name, word: name == "gender" and word == "change"))
    assert one["selectivity"]["value"] == pytest.approx(1 / 12, abs=1e-6)
    assert _summary(_moves(lambda name, word: word == "keep"))["selectivity"]["value"] == -1.0


def test_what_strangers_hardly_differ_in_has_no_scale() -> None:
    scale = {**SCALE, "yawning_moved": 0.0, "gender_moved": 0.01}
    assert [unit.name for unit in controllability.scaled(scale)] == [
        unit.name for unit in controllability.units() if unit.name != "gender"
    ]
    assert _summary(_moves(lambda name, word: word == "change"), scale)["selectivity"]["value"] == 1.0
    nothing = _summary(_moves(lambda name, word: word == "change"), {})
    assert nothing["selectivity"]["value"] is None and "Selectivity –:" in summary_said(nothing)


def test_a_policy_that_flips_exactly_one_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gender is read differently where it may change; nothing else ever moves. One picture is a mosaic once."""
    rng = np.random.default_rng(1)
    before = {a.name: rng.integers(0, 2, 24) if a.kind != "continuous" else rng.random(24) for a in SCHEMA}

    def tables(originals, scorers, degradations, names, label="", policy: Policy | None = None) -> dict:
        free = policy is not None and policy.describe()["gender"] == "change"
        read = {**before, "gender": 1 - before["gender"] if free else before["gender"]}
        mosaicked = np.arange(24) == (5 if label == "but roll" else -1)
        return {names[0]: {("none", "attributes"): read, ("none", "looks"): {}, ("none", "mosaicked"): {
            "mosaicked": mosaicked}}}  # fmt: skip

    monkeypatch.setattr(kept, "read", lambda heads, tones, temperatures: heads)
    monkeypatch.setattr("a3gan.evaluation.tasks.scorers_of_faces", lambda bench: {})
    bench = _bench(tables, {"a3gan": SimpleNamespace(supports={"policy"})}, temperatures=None)
    assert controllability.off(bench) == "no attributes_judge"
    bench.attributes = object()
    assert controllability.off(bench) == ""
    result = controllability.measure(bench)
    assert bench.about["controllability"] == {"pictures": 24, "people": 8, "mosaicked": {"a3gan": 1}}
    cells = result["a3gan"]["none"]
    for panel in controllability.PANELS:
        for row, figures in cells[panel].items():
            free = (row in ("gender", "everything")) if panel == "only" else row != "gender"
            assert figures["gender_moved"].value == float(free) and figures["gender_moved"].count == 23
            assert all(f.value == 0 for name, f in figures.items() if name != "gender_moved")
    assert cells["summary"]["selectivity"].value > 0 and 0 < result["original"]["none"]["stranger"]["yaw_moved"] < 1
    bench.gather.methods = {"blur": SimpleNamespace(supports={"alpha"})}
    assert controllability.off(bench) == "none of blur has a policy to follow"


# --- one evaluation -------------------------------------------------------------------------------------------------
@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from a3gan.anonymizers import methods

    create = methods.create
    monkeypatch.setattr(
        methods, "create", lambda name, **options: StubMethod() if name == "a3gan" else create(name, **options)
    )
    return stubbed_run(CONFIG, tmp_path, monkeypatch)


def test_both_tasks_in_one_run(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {"dial", "controllability"} & set(protocol.TASKS)  # only if asked for
    results = run.evaluate(config)
    folder = config.parent / "run"
    assert set(results["tasks"]["dial"]) == set(results["tasks"]["controllability"]) == {"original", "a3gan"}
    made = dict(steps(results, "a3gan"))
    assert tuple(made) == dial.STEPS and results["about"]["dial"] == {"pictures": 16, "people": 8, "pairs": 8}
    cosine = [cell["verification"]["stub"]["cosine_same_picture"] for cell in made.values()]
    assert cosine[0] > 0.98 and cosine == sorted(cosine, reverse=True) and cosine[-1] < 0.3
    assert made[0.0]["expression"]["agreement"]["count"] and made[0.0]["quality"]["landmarks"]["value"] >= 0
    cells = results["tasks"]["controllability"]["a3gan"]["none"]
    assert cells["only"]["skin_tone"]["skin_tone_moved"] != cells["only"]["nothing"]["skin_tone_moved"]
    assert cells["only"]["gender"] == cells["only"]["nothing"]  # of the others the stub keeps nothing apart
    assert {f.name for f in listing.figures(results) if catalogue.meaning(f.name) is None} == set()
    shown = {name for _, names in headline_parts(listing.table(results)) for name in names}
    assert {"tasks.dial.verdict.stub.drop", "tasks.controllability.summary.selectivity"} <= shown
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="(dial|control)"', text) == ["dial", "control"]
    assert RULE.split(":")[0] in text and "α 1" in text and text.count("<rect") > 2 * 13 * 14
    assert "## The dial: a3gan" in str(results) and "## What a policy moves: a3gan" in str(results)
    assert "| originals | " in str(results) and "| 0.3 | " in str(results)
    names = ["results.json", "results.md", "report.html"]
    if importlib.util.find_spec("matplotlib"):
        names += ["dial.png", "controllability.png"]
        assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in names[-2:])
    first = {name: (folder / name).read_bytes() for name in names}
    monkeypatch.setattr(StubJudge, "forward", lambda *args: pytest.fail("judged again"))
    run.evaluate(config)
    assert {name: (folder / name).read_bytes() for name in names} == first


def test_what_cannot_be_measured_is_off(config: Path) -> None:
    results = run.evaluate(config, ["method=pixelate", "attributes_judge=null"])
    assert results["tasks"] == {}
    assert "task dial off: none of pixelate has a dial (alpha)" in results["off"]
    assert "task controllability off: no attributes_judge" in results["off"]
    text = dry_run(protocol.load(config, ["attributes_judge=null", "judges=[]"]))
    assert "task dial off: no judge that verifies" in text and "task controllability off: no attributes_judge" in text
    assert "control   images 16, per_person 2" in text
    assert "task dial off" not in dry_run(protocol.load(config))


def test_the_shipped_config() -> None:
    cfg = protocol.load("eval/control")
    assert {"dial", "controllability"} <= set(cfg.tasks) and cfg.data.split == "val" and cfg.degradations == ["none"]
