"""The page: everything escaped, nothing fetched, the same bytes from the same results, marks where they belong."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from a3gan.evaluation import listing, sanity
from a3gan.evaluation.page import drawing, words
from a3gan.evaluation.page.html import Html, tag
from a3gan.evaluation.page.page import headline_parts, page

PNG = b"\x89PNG\r\n\x1a\nnot really"


def _share(value: float, half: float = 0.02) -> dict[str, float | int]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "count": 200, "people": 90}


def results(**more: object) -> dict:
    rows = []
    for method, tar, found in (
        ("original", 0.99, 1.0),
        ("a3gan", 0.02, 0.99),
        ("blur", 0.2, 0.4),
        ("identity", 0.99, 1.0),
    ):
        for degradation in ("none", "half"):
            rows.append({
                "method": method, "degradation": degradation, "mosaicked": 0,
                "verification": {"b": {"tar": _share(tar), "tar_floor": 0.001, "auc": _share(0.7)}},
                "identification": {"b": {"rank1": _share(tar), "rank1_chance": 0.004}},
                "detection": {"picture": {"found": _share(found)}},
                "expression": {"agreement_found": _share(found)},
            })  # fmt: skip
    cells = {"gender female": {"tar": _share(0.1)}, "gender male": {"tar": _share(0.05)}}
    cells |= {"worst": {"tar": "gender female"}, "gap": {"tar": 0.05}}
    return {
        "version": "1", "rows": rows, "judges": {"b": "mobilefacenet_b:123"}, "attributes_judge": None,
        "config": {
            "method": ["a3gan", "blur", "identity"], "far": 0.001, "policy": "<b>&", "alpha": 1.0, "seed": 0,
            "bootstrap": 10, "data": {"split": "test"}, "report": {"faces": "rendered"},
        },
        "data": {
            "digest": "d", "pictures": 200, "people": 90, "people_with_two": 40, "genuine_pairs": 9, "judged": "crops",
        },
        "methods": {"a3gan": {"weights_sha256": "w"}, "blur": {}, "identity": {}},
        "thresholds": {"b": {"cosine": 0.3}},
        "tasks": {"groups": {"a3gan": {"none": cells}, "blur": {"none": cells}}},
        "attackers": {"adaptive": {m: {"none": {"rank1": _share(0.1), "rank1_floor": 0.1}} for m in ("a3gan", "blur")}},
        "attack": {"works": {"adaptive": {"figure": "rank1", "needed": 0.8, "identity": 0.95, "works": True}}},
        "curves": {"b": {"a3gan": [[1e-5, 0.01, 1.0], [0.0, 0.2, 1.0]]}},
        "off": ["task fatigue off: no <labels>"], **more,
    }  # fmt: skip


class Reader(HTMLParser):
    """Which elements there are, that they close, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(name)
        self.fetched += [
            v or "" for k, v in attributes if k in ("src", "href") and not (v or "").startswith(("#", "data:"))
        ]
        if name not in ("meta", "img", "br"):
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(name, attributes)
        if self.open and self.open[-1] == name:
            self.open.pop()

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name


def test_the_page_is_whole_and_fetches_nothing() -> None:
    text = page(results(), {"original": PNG}, {"methods": {"a3gan": {"1": {"faces_per_second": 31.4}}}})
    reader = Reader()
    reader.feed(text)
    assert not reader.open and not reader.fetched and "script" not in reader.seen
    assert not re.search(r"url\(|@import|https?://", text)
    ids = re.findall(r'<section id="(\w+)"', text)
    assert ids == ["summary", "table", "plane", "attackers", "roc", "groups", "faces", "all", "protocol", "origin"]
    assert "31.4" in text and "data:image/png;base64,iVBORw0KGgp" in text
    assert text == page(results(), {"original": PNG}, {"methods": {"a3gan": {"1": {"faces_per_second": 31.4}}}})


def test_everything_is_escaped() -> None:
    text = page(results())
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text and "no &lt;labels&gt;" in text
    assert tag("p", "<i>", title='"') == '<p title="&quot;">&lt;i&gt;</p>'
    assert tag("p", Html("<i></i>"), None, ["a", 1.5]) == "<p><i></i>a1.5</p>"


def test_little_is_enough_for_a_page() -> None:
    bare = results(tasks={}, attackers={}, curves={}, off=[], limits=[], attack={}, judges={})
    for row in bare["rows"]:
        row.update(verification={}, identification={})
        row.pop("expression")
    text = page(bare)
    assert "No judge was given" in text and 'id="plane"' not in text


def test_a_judge_without_figures_is_no_judge() -> None:
    several = results(judges={"a": "mobilefacenet_a:1", "b": "mobilefacenet_b:2"})
    text = page(several)
    assert "Recognisers that judge: b." in text and 'id="plane"' in text and "pairs still matched" in text
    for row in several["rows"]:
        row.update(verification={}, identification={})
    text = page(several)
    assert "Recognisers that judge: none." in text and "pairs still matched" not in text
    assert "Verification was not measured" not in text  # an attacker's figures are there
    assert "Verification was not measured" in page({**several, "attackers": {}, "curves": {}})


def test_broken_limits_and_warnings_come_first() -> None:
    gate = [{"kept": False, "text": "a3gan: too much"}, {"kept": True, "text": "fine"}]
    text = page(results(limits=gate, warnings=["judge b is weak"]))
    top = text[: text.index('id="table"')]
    assert "Limits: 1 of 2 kept" in top and "a3gan: too much" in top and "judge b is weak" in top and "fine" not in top


def test_own_faces_carry_a_warning() -> None:
    mine = results()
    mine["config"]["report"]["faces"] = "own"
    assert "Do not publish it" in page(mine, {"original": PNG}) and "Do not publish it" not in page(results())


def test_the_best_is_marked_only_where_intervals_are_apart() -> None:
    table = listing.table(results())

    def best(name: str, better: str) -> str | None:
        methods = ("original", "a3gan", "blur", "identity")
        return words.best({m: table[name, m, "none"] for m in methods}, better)

    assert best("verification.b.tar", "lower") == "a3gan"  # identity and the originals take no part
    assert best("detection.picture.found", "higher") == "a3gan"
    assert best("verification.b.auc", "lower") is None  # alike
    assert best("verification.b.tar", "") is None


def test_numbers_read_as_people_write_them() -> None:
    figure = listing.Figure("verification.b.tar", "blur", "none", 0.0181, 0.0112, 0.0274, 100, 50)
    assert words.sentence(figure).replace("\u00a0", " ") == "1.81 % (1.12 – 2.74)"
    none = listing.Figure("verification.b.tar", "blur", "none", 0.0, 0.0, 0.0103, 1254, 289)
    assert words.sentence(none).replace("\u00a0", " ").replace("\u202f", " ") == "0 of 1 254 (< 1.03 %)"
    assert words.number(None) == "–" and words.number(0.0002) == "< 0.001" and words.number(31.41) == "31.4"


def test_a_figure_without_an_entry_gets_its_name_as_title() -> None:
    assert words.meaning("tasks.new.some_thing").title == "some thing"
    assert words.meaning("verification.b.tar").better == "lower"


def test_headlines_are_found_by_section() -> None:
    parts = dict(headline_parts(listing.table(results())))
    assert parts["Verification: who is still recognised by judge b"] == ["verification.b.tar"]


def test_axes() -> None:
    axis = drawing.Axis(0.001, 1.0, 0.0, 300.0, log=True)
    assert axis(0.001) == 0.0 and round(axis(0.01), 6) == 100.0 and axis(0.0) == 0.0 and axis.ticks()[-1] == 1.0
    assert drawing.Axis(0.0, 1.0, 0.0, 100.0).ticks() == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_weak_judge_and_a_detector_that_misses_originals_are_named() -> None:
    assert sanity.warnings(results()) == []
    weak = results()
    for row in weak["rows"]:
        if row["method"] == "original":
            row["verification"]["b"]["tar"] = _share(0.5)
            row["detection"]["picture"]["found"] = _share(0.5)
    lines = sanity.warnings(weak)
    assert [line.split()[0] for line in lines] == ["judge", "judge", "the"]
    assert "50.0 % true matches among originals (P0)" in lines[0] and "identity has 99.0 %" in lines[1]
