"""Numbers of an account against hand-made truth."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan.data.align import template
from a3gan.data.ranges import to_float
from a3gan.media.account import Ledger, Sample, jitter, ranges, read_json, residual, totals, write_json
from a3gan.media.contact import contact_sheet
from a3gan.media.track import Sighting, Track


def track(number, frames, source="detected", **options):
    points = template("face").numpy() * 40
    sightings = {i: Sighting(np.array([4.0, 4.0, 36.0, 38.0]), points, 0.9, source) for i in range(frames)}
    return Track(number, sightings, **options)


def test_ranges():
    assert ranges([]) == [] and ranges({5, 3, 4, 9}) == [[3, 5], [9, 9]]


def test_jitter_of_known_motion():
    base = template("face").numpy() * 60  # eyes 20 px apart
    shake = [0, 1, 0, 1, 0, 1]
    points = {i: (base + (2.0 * i, 0), base + (2.0 * i, 0) + (0, 4.0 * s)) for i, s in enumerate(shake)}
    steps = jitter(points)
    assert steps["pairs"] == 5
    assert steps["original"] == pytest.approx(0.1, abs=1e-3) and steps["added"] == pytest.approx(0.2, abs=1e-3)
    assert steps["result"] == pytest.approx(np.hypot(0.1, 0.2), abs=1e-3)
    assert jitter({i: p for i, p in points.items() if i % 2}) is None  # no two in a row


def test_residual():
    def recogniser(x):
        return torch.nn.functional.normalize(x.mean((2, 3)))

    def face(*colour):
        return torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).expand(3, 8, 8)

    other = residual([Sample(i, face(1, 0, 0), face(0, 1, 0)) for i in range(3)], recogniser)
    assert other["mean"] == 0 and not other["still_recognised"] and other["within_result"] == 1
    same = residual([Sample(0, face(1, 0, 0), face(1, 0.1, 0))], recogniser)
    assert same["largest"] > 0.99 and same["still_recognised"] and "within_result" not in same


def test_counts_and_totals():
    tracks = [track(0, 4, doubtful={1}), track(1, 2, "filled", keep=True), track(2, 1, person=3, sure=False)]
    ledger = Ledger(tracks, SimpleNamespace(size=32), compare=False)
    for index in range(4):
        faces = []
        for one in tracks:
            if index in one.sightings:
                status = "kept" if one.keep else "mosaicked" if (one.number, index) == (0, 2) else "synthesised"
                record = SimpleNamespace(status=status, reason="no landmarks" if status == "mosaicked" else "")
                faces.append(SimpleNamespace(track=one, sighting=one.sightings[index], record=record))
        ledger.composed(SimpleNamespace(index=index, faces=faces, image=None), None)
    records = ledger.tracks()
    assert records[0]["fallback_because"] == {"no landmarks": 1} and records[0]["fallback_frames"] == [[2, 2]]
    sums = totals(records)
    assert (sums["faces"], sums["replaced"], sums["fallback"], sums["kept"], sums["doubtful"]) == (7, 4, 1, 2, 1)
    assert (sums["tracks"], sums["sure_tracks"], sums["people"], sums["filled"]) == (3, 2, 1, 2)


def test_a_sheet_shows_both(tmp_path):
    one = track(0, 3)
    ledger = Ledger([one], SimpleNamespace(size=32, frame="face"), sheet=True, compare=False)
    assert not contact_sheet(ledger, tmp_path / "none.png") and not list(tmp_path.iterdir())
    for index in range(3):
        record = SimpleNamespace(status="synthesised", reason="")
        face = SimpleNamespace(track=one, sighting=one.sightings[index], record=record, crop=None)
        work = SimpleNamespace(index=index, faces=[face], image=np.full((40, 40, 3), 200, np.uint8))
        assert ledger.wants(work)
        ledger.composed(work, np.full((40, 40, 3), 30, np.uint8))
    assert contact_sheet(ledger, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet == 30).all(2).sum() > 3 * 120 * 120 and (sheet == 200).all(2).sum() > 3 * 120 * 120


@pytest.mark.parametrize("at_hand", [True, False])
def test_the_frame_as_it_was_is_kept_only_where_no_crop_shows_it(at_hand):
    one = track(0, 1)
    ledger = Ledger([one], SimpleNamespace(size=64, frame="face" if at_hand else "ffhq"))
    crop = SimpleNamespace(face=torch.full((3, 64, 64), 30, dtype=torch.uint8))
    record = SimpleNamespace(status="synthesised", reason="")
    face = SimpleNamespace(track=one, sighting=one.sightings[0], record=record, crop=crop)
    work = SimpleNamespace(index=0, faces=[face], image=np.full((40, 40, 3), 200, np.uint8))
    assert ledger.wants(work) != at_hand
    ledger.composed(work, None if at_hand else np.full((40, 40, 3), 60, np.uint8))
    (sample,) = ledger.entries[0].samples
    levels = to_float(torch.tensor([30 if at_hand else 60, 200], dtype=torch.uint8)).tolist()
    assert sample.before.unique().tolist() == levels[:1] and sample.after.unique().tolist() == levels[1:]


def test_json_is_whole_or_absent(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, 2]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, 2]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"x": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "c.json").write_text("[1", encoding="utf-8")
    assert read_json(tmp_path / "c.json") is None and read_json(tmp_path / "no.json") is None
