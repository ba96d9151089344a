from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a3gan.media.detect import Faces
from a3gan.media.track import Sighting, TrackConfig, link
from a3gan.media.track_link import _assign
from a3gan.media.track_smooth import envelope, jitter, pchip, savgol, smooth

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
CONFIG = TrackConfig()


def faces(*rows: tuple[float, float, float, float]) -> Faces:
    """Of rows (x, y, side, score)."""
    if not rows:
        return Faces.none()
    x, y, side, score = np.array(rows, np.float64).T
    boxes = np.stack((x, y, x + side, y + side), 1)
    return Faces(boxes, score, boxes[:, None, :2] + POINTS * side[:, None, None])


def walk(frames, start=(100.0, 80.0), step=(2.0, 1.0), side=60.0, score=0.99):
    return {f: faces((start[0] + step[0] * f, start[1] + step[1] * f, side, score)) for f in frames}


def inside(box, outer, slack=1e-6):
    return (box[:2] >= outer[:2] - slack).all() and (box[2:] <= outer[2:] + slack).all()


def test_a_face_seen_every_fourth_frame_is_one_track_without_holes():
    tracks = link(walk(range(20, 61, 4)), 100)
    assert len(tracks) == 1
    track = tracks[0]
    assert (track.first, track.last) == (20 - CONFIG.reach, 60 + CONFIG.reach)
    assert sorted(track.sightings) == list(range(track.first, track.last + 1))
    assert (track.count("detected"), track.count("filled"), track.count("extended")) == (11, 30, 2 * CONFIG.reach)
    # A steady motion is followed exactly between the detections, and no frame of it is doubtful.
    np.testing.assert_allclose(track.sightings[35].box, [170, 115, 230, 175], atol=0.5)
    np.testing.assert_allclose(track.sightings[35].landmarks[0], [188, 139], atol=0.5)
    assert not track.doubtful and track.sure


def test_drop_outs_are_filled_forward_and_back_and_marked():
    seen = walk([f for f in range(0, 80, 4) if not 20 < f < 44])
    (track,) = link(seen, 80)
    assert sorted(track.sightings) == list(range(80))
    assert {21, 30, 43} <= track.doubtful and 8 not in track.doubtful
    box = track.sightings[32].box
    assert inside(np.array([164 + 3, 112 + 3, 224 - 3, 172 - 3]), box)


def test_a_gap_longer_than_allowed_ends_the_track():
    seen = walk([0, 4, 8, 60, 64], step=(0, 0))
    assert len(link(seen, 80)) == 2
    assert len(link(seen, 80, config=TrackConfig(max_gap=60))) == 1


def test_no_track_crosses_a_cut():
    tracks = link(walk(range(0, 40, 4), step=(0, 0)), 40, cuts=[18])
    assert [(t.first, t.last) for t in tracks] == [(0, 17), (18, 39)]


def test_crossing_faces_keep_their_tracks():
    seen = {f: faces((10 + 10 * f, 50, 60, 0.99), (410 - 10 * f, 75, 60, 0.99)) for f in range(41)}
    tracks = link(seen, 41, config=TrackConfig(stride=1))
    assert len(tracks) == 2
    for track in tracks:
        xs = [s.box[0] for f, s in track.sightings.items()]
        assert abs(xs[-1] - xs[0]) > 350


def test_weak_scores_continue_a_track_and_alone_are_covered_or_dropped():
    seen = walk(range(0, 40, 4))
    for f in (12, 16, 20):
        seen[f] = faces((100 + 2 * f, 80 + f, 60, 0.5))
    (track,) = link(seen, 40)
    assert track.count("detected") == 10 and {12, 16, 20} <= track.doubtful
    alone = link({8: faces((10, 10, 30, 0.75)), 20: faces((300, 10, 30, 0.5))}, 40)
    assert [(t.sightings[8].source, t.sure) for t in alone] == [("detected", False)]


def test_two_boxes_on_one_face_are_one_track_that_holds_both():
    seen = {f: faces((100, 100, 60, 0.99), (106, 104, 66, 0.8)) for f in range(0, 24, 4)}
    (track,) = link(seen, 24)
    assert inside(np.array([100, 100, 172, 170.0]), track.sightings[8].box)


def test_a_small_face_inside_a_larger_one_is_not_sure_but_stays():
    def clip(x, side, score=0.99):
        return link({f: faces((100, 100, 90, score), (x, 115, side, 0.99)) for f in range(0, 24, 4)}, 24)

    eye = clip(110, 24)
    assert sorted((t.sightings[8].box[2] - t.sightings[8].box[0] < 50, t.sure) for t in eye) == [
        (False, True), (True, False),
    ]  # fmt: skip
    assert all(track.sure for track in clip(185, 24))  # half beside it: somebody behind
    assert [t.sure for t in clip(110, 24, score=0.75) if t.sightings[8].box[0] > 105] == [True]  # in no sure face


def test_guesses_outside_the_picture_are_left_out():
    seen = walk(range(0, 20, 2), start=(200, 50), step=(15, 0))
    tracks = link(seen, 60, config=TrackConfig(stride=2, extend=12), size=(500, 400))
    assert 18 < tracks[0].last < 30
    assert all(s.box[0] <= 500 for s in tracks[0].sightings.values())


scenes = st.lists(  # frame, x, y, side, score
    st.tuples(
        st.integers(0, 40), st.integers(0, 600), st.integers(0, 400), st.integers(12, 150), st.floats(0.3, 1.0)
    ),
    max_size=14,
)  # fmt: skip
cut_lists = st.lists(st.integers(1, 40), max_size=3)


def scene(rows):
    found: dict[int, list] = {f: [] for f in range(0, 41, 4)}
    for frame, *row in rows:
        found.setdefault(frame, []).append(tuple(row))
    return {f: faces(*rows) for f, rows in found.items()}


@settings(max_examples=60, deadline=None)
@given(scenes, cut_lists)
def test_every_detection_is_covered_and_no_track_has_holes_or_crosses_a_cut(rows, cuts):
    tracks = link(scene(rows), 41, cuts)
    for frame, x, y, side, score in rows:
        if score >= CONFIG.alone:
            box = np.array([x, y, x + side, y + side], np.float64)
            assert any(frame in t.sightings and inside(box, t.sightings[frame].box) for t in tracks)
    for track in tracks:
        assert 0 <= track.first and track.last <= 40
        core = [f for f, s in track.sightings.items() if s.source in ("detected", "filled")]
        assert sorted(core) == list(range(min(core), max(core) + 1))
        assert not any(track.first < cut <= track.last for cut in cuts)
        assert track.doubtful <= set(track.sightings)
    assert [t.number for t in tracks] == list(range(len(tracks)))


@settings(max_examples=30, deadline=None)
@given(scenes, st.randoms(use_true_random=False))
def test_the_order_within_a_frame_does_not_matter(rows, random):
    one = link(scene(rows), 41)
    random.shuffle(rows)
    other = link(scene(rows), 41)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.sightings.keys() == b.sightings.keys()
        for f in a.sightings:
            np.testing.assert_allclose(a.sightings[f].box, b.sightings[f].box)


@settings(max_examples=30, deadline=None)
@given(scenes, st.sampled_from([0.5, 2.0, 4.0]), st.integers(-64, 64))
def test_shift_and_scale_of_the_picture_carry_over(rows, scale, shift):
    moved = [(f, x * scale + shift, y * scale + shift, side * scale, score) for f, x, y, side, score in rows]
    one, other = link(scene(rows), 41), link(scene(moved), 41)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for f in a.sightings:
            np.testing.assert_allclose(a.sightings[f].box * scale + shift, b.sightings[f].box, atol=1e-6)
            np.testing.assert_allclose(a.sightings[f].landmarks * scale + shift, b.sightings[f].landmarks, atol=1e-6)


def test_smoothing_halves_the_jitter_and_does_not_lag():
    rng = np.random.default_rng(0)
    frames = np.arange(120)
    centre = np.stack((200 + 60 * np.sin(frames / 12), np.full(120, 100.0)), 1)
    true = centre[:, None] + 60 * (POINTS - 0.5)
    noisy = true + rng.normal(0, 1.0, true.shape)
    boxes = np.concatenate((centre - 30, centre + 30), 1)
    out, points = smooth(frames, boxes, noisy, {50: boxes[50] + np.array([-9, 0, 0, 0])}, 9, 8)
    assert jitter(points) < 0.5 * jitter(noisy)
    assert np.abs(points - true).mean() < 0.6 * np.abs(noisy - true).mean()
    # Best fit without a shift in time: it does not lag.
    errors = [np.abs(points[5:-5] - true[5 + d : 115 + d]).mean() for d in (-1, 0, 1)]
    assert np.argmin(errors) == 1
    assert out[50, 0] <= boxes[50, 0] - 9 + 1e-9 and out[50, 0] < out[40, 0] + 60


def test_jitter_of_known_noise():
    rng = np.random.default_rng(1)
    still = np.broadcast_to(100 + 80 * POINTS, (400, 5, 2))  # eyes 32 apart
    assert jitter(still) == 0
    noisy = still + rng.normal(0, 0.64, still.shape)
    assert jitter(noisy) == pytest.approx(0.02, rel=0.1)
    # Shared motion, even a wild one, is not jitter of the new face.
    wild = still + rng.normal(0, 5, (400, 1, 2))
    assert jitter(wild, wild) == 0 and jitter(wild) > 0.1
    assert np.isnan(jitter(still[:2]))


def test_the_envelope_is_never_below():
    slack = np.zeros((30, 1))
    slack[12] = 5
    curve = envelope(slack, 9)
    assert (curve >= slack).all() and curve[:4].max() == 0 and np.abs(np.diff(curve[:, 0])).max() < 1


def test_sighting_without_points_has_no_eye_distance():
    assert np.isnan(Sighting(np.zeros(4), None, 1.0, "given").eye_distance)


def test_thresholds_follow_one_number():
    low, high = TrackConfig.of(0.2), TrackConfig.of(0.95, stride=2)
    assert (low.alone, low.keep_on, low.start) == (0.2, 0.2, 0.9)
    assert (high.alone, high.keep_on, high.start, high.stride) == (0.95, 0.3, 0.95, 2)


@pytest.mark.parametrize("count", [3, 4, 9, 40])
def test_smoothing_is_as_scipys(count):
    from scipy.interpolate import PchipInterpolator
    from scipy.ndimage import maximum_filter1d, uniform_filter1d
    from scipy.signal import savgol_filter

    rng = np.random.default_rng(count)
    frames = np.sort(rng.choice(150, count, replace=False))
    values = rng.normal(size=(count, 5)).round(1)  # with equal neighbours, too
    every = np.arange(frames[0], frames[-1] + 1)
    assert np.allclose(pchip(frames, values, every), PchipInterpolator(frames, values)(every), atol=1e-12)
    for window in (3, 5, 9):
        if window <= count:
            wanted = savgol_filter(values, window, min(2, window - 2), axis=0, mode="interp")
            assert np.allclose(savgol(values, window), wanted, atol=1e-12)
    slack = np.maximum(values, 0)
    highest = maximum_filter1d(slack, 9, axis=0, mode="nearest")
    wanted = np.maximum(uniform_filter1d(highest, 9, axis=0, mode="nearest"), slack)
    assert np.allclose(envelope(slack, 9), wanted, atol=1e-12)


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), min_size=1, max_size=5, unique=True))
@settings(max_examples=40, deadline=None)
def test_faces_are_assigned_as_by_scipys_optimiser(places):
    """Also where there is nothing to choose, and it is not asked."""
    from scipy.optimize import linear_sum_assignment

    from a3gan.media.track_link import Chain, _cost

    boxes = np.array([[x, y, x + 60, y + 60] for x, y in places])
    points = boxes[:, None, :2] + np.array([[20, 20], [40, 20], [30, 30], [22, 45], [38, 45]])
    chains = [Chain({0: (box, marks, 0.9)}) for box, marks in zip(boxes, points, strict=True)]
    moved, rows, open_ = boxes + 5.0, list(range(len(boxes))), list(range(len(boxes)))
    cost = _cost(chains, moved, points + 5, 1, 1.2)
    wanted = {(i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost[i, j] < 1e6}
    assert set(_assign(chains, open_, moved, points + 5, rows, 1, 1.2)) == wanted


def test_cost_of_a_known_motion():
    """Detections of 60 px, 5 px right and below of the chain's end; one far off, one twice as large."""
    from a3gan.media.track_link import Chain, _cost

    box = np.array([100.0, 100.0, 160.0, 160.0])
    marks = box[None, :2] + np.array([[20.0, 20], [40, 20], [30, 30], [22, 45], [38, 45]])
    still, running = Chain({0: (box, marks, 0.9)}), Chain({0: (box - 5, marks - 5, 0.9), 1: (box, marks, 0.9)})
    boxes = np.stack([box + 5, box + 200, box + (0, 0, 60, 60)])
    cost = _cost([still, running], boxes, np.stack([marks + 5, marks + 200, marks]), 2, 1.2)
    union = 1 - 55**2 / (2 * 60**2 - 55**2)
    assert cost[0, 0] == pytest.approx(union + 2 * 5 * np.sqrt(2) / 60 + 0.04)
    assert cost[0, 1] == pytest.approx(0.02)  # where its motion leads
    assert (cost[1:] == 1e6).all()


def test_the_optimiser_is_had_without_its_package_or_with_it(monkeypatch):
    """A process that links imports none of scipy's optimisers; where the one file is not found, all of them."""
    import importlib.machinery
    import subprocess
    import sys

    from scipy.optimize import linear_sum_assignment

    from a3gan.media.track_link import assignment

    code = (
        "import sys; from a3gan.media.track_link import assignment; "
        "print(*assignment()([[1, 0], [0, 1]])[1], 'scipy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "0", "False"]
    monkeypatch.setattr(importlib.machinery, "EXTENSION_SUFFIXES", [".none"])
    assert assignment.__wrapped__() is linear_sum_assignment
