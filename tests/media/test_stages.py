"""Pass 2 on frames in memory, with methods that misbehave as they are told."""

import logging
import threading

import numpy as np
import pytest
import torch

from a3gan import Anonymizer
from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.anonymizers.classic import Blur, Solid
from a3gan.data.align import template
from a3gan.media.account import Ledger
from a3gan.media.detect import Faces
from a3gan.media.fit import plausible, sideways
from a3gan.media.stages import SecondPass, run_second_pass
from a3gan.media.track import Sighting, Track
from a3gan.media.video import Frame

SIDE = 60.0


def points(x, y):
    return template("face").numpy() * SIDE - 0.5 + (x, y)


def sighting(x, y, source="detected"):
    box = np.array([x + 0.15 * SIDE, y + 0.1 * SIDE, x + 0.85 * SIDE, y + 0.95 * SIDE])
    return Sighting(box, points(x, y), 0.9, source)


def moving(number, count, x=10.0, y=20.0, step=1.0, **options):
    return Track(number, {i: sighting(x + step * i, y) for i in range(count)}, **options)


def frames(count, size=(160, 120), seed=0):
    random = np.random.default_rng(seed)
    for i in range(count):
        yield Frame(i, 10 * i, random.integers(60, 200, (size[1], size[0], 3), dtype=np.uint8))


class Blind:
    def detect(self, images):
        return [Faces.none() for _ in images]


class Synthetic(FaceAnonymizer):
    """Inverts faces; its second seed, a face each, may be told to fail."""

    name, supports, synthesises, size = "synthetic", frozenset({"policy", "seed", "alpha"}), True, 32

    def __init__(self, most=None, bad=()):
        self.most, self.bad, self.calls, self.seeds = most, bad, [], []

    def _anonymize(self, faces, policy, seeds, alpha):
        if self.most is not None and len(faces) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        self.calls.append(len(faces))
        self.seeds += seeds
        return -faces

    def acceptable(self, before, after):
        return torch.tensor([seed not in self.bad for seed in self.seeds[-len(before) :]])


def run(method, tracks, count, batch=None, ledger=None, **options):
    anonymizer = Anonymizer(method, detector=Blind(), **options)
    stages = SecondPass(anonymizer, tracks, {t.number: 100 + t.number for t in tracks}, ledger, batch=batch)
    out = []
    n, _ = run_second_pass(frames(count), lambda image, pts: out.append((image, pts)), stages)
    assert n == count
    return out


def untouched(image, index, x, y):
    """Share of the face's inner pixels that are as they were."""
    old = [f.image for f in frames(index + 1)][index]
    x0, y0, x1, y1 = (int(v) for v in (x + 0.3 * SIDE, y + 0.3 * SIDE, x + 0.7 * SIDE, y + 0.8 * SIDE))
    same = (image[y0:y1, x0:x1].astype(int) - old[y0:y1, x0:x1]).__abs__().max(2) <= 2
    return same.mean()


def test_order_times_and_every_face_of_every_frame():
    tracks = [moving(0, 30), Track(1, {i: sighting(90, 50) for i in range(5, 25)})]
    method = Synthetic()
    out = run(method, tracks, 30, batch=8)
    assert [pts for _, pts in out] == [10 * i for i in range(30)]
    for i, (image, _) in enumerate(out):
        assert untouched(image, i, 10 + i, 20) < 0.1
        assert (untouched(image, i, 90, 50) < 0.1) == (5 <= i < 25)
    assert sum(method.calls) == 50 and max(method.calls) == 8  # batches reach over frames and faces
    assert set(method.seeds) == {100, 101}


class Paired(Synthetic):
    """A pass ends only when another one runs beside it, the first time."""

    concurrent = True

    def __init__(self):
        super().__init__()
        self.both, self.met = threading.Barrier(2), threading.Event()

    def _anonymize(self, faces, policy, seeds, alpha):
        if not self.met.is_set():
            self.both.wait(timeout=20)
            self.met.set()
        return super()._anonymize(faces, policy, seeds, alpha)

    def acceptable(self, before, after):
        return torch.ones(len(before), dtype=torch.bool)


def test_two_passes_run_at_the_same_time_and_nothing_else_changes(monkeypatch):
    """Frames without a face among the others too."""
    monkeypatch.setattr("a3gan.media.stages.at_once", lambda: 2)

    def tracks():
        return [Track(n, {i: sighting(x + i, 20) for i in range(60) if not 20 <= i < 33}) for n, x in ((0, 5), (1, 60))]

    plain, paired = Synthetic(), Paired()
    alone, beside = (run(method, tracks(), 60, batch=4) for method in (plain, paired))
    assert paired.met.is_set()
    for (old, pts), (new, same) in zip(alone, beside, strict=True):
        assert pts == same and (old == new).all()
    assert sum(plain.calls) == sum(paired.calls) == 94 and max(paired.calls) == 4
    anonymizer = Anonymizer(Paired(), detector=Blind())
    assert [SecondPass(anonymizer, few, {}).passes for few in (tracks(), tracks()[:1], [])] == [2, 1, 1]


class Reader(Synthetic):
    """Reads points of its own: the template's before, 1/8 of the frame to the right after."""

    def judged(self, before, after):
        old = template("face").float().expand(len(before), 5, 2)
        return torch.ones(len(before), dtype=torch.bool), torch.stack((old, old + torch.tensor([0.125, 0.0])), 1)


def test_jitter_is_read_of_the_points_that_the_method_read():
    one = moving(0, 6, step=3.0)
    ledger = Ledger([one], Reader())
    run(Reader(), [one], 6, batch=4, ledger=ledger)
    kept = ledger.entries[0].points
    assert sorted(kept) == list(range(6))
    for i, (old, new) in kept.items():
        assert np.allclose(old, points(10 + 3 * i, 20), atol=1e-3)
        assert np.allclose(new - old, [0.125 * SIDE, 0], atol=1e-3)


def test_a_face_in_one_frame_of_a_gap_is_never_left():
    """The detector saw frames 0 to 3 and 8 to 11; the tracker filled the rest."""
    track = moving(0, 12)
    for i in range(4, 8):
        track.sightings[i].source = "filled"
    for i, (image, _) in enumerate(run(Synthetic(), [track], 12, batch=5)):
        assert untouched(image, i, 10 + i, 20) < 0.1


def test_what_cannot_be_synthesised_is_mosaicked_and_counted():
    nowhere = moving(0, 6)
    nowhere.sightings[2].landmarks = None
    nowhere.sightings[3].landmarks = np.repeat(points(40, 40)[:1], 5, 0)  # all in one place
    nowhere.sightings[4].landmarks = points(300, 300)  # not those of the box
    refused = Track(1, {i: sighting(90, 50) for i in range(6)})
    tracks = [nowhere, refused]
    ledger = Ledger(tracks, Synthetic(), compare=False)
    out = run(Synthetic(bad={101}), tracks, 6, ledger=ledger)
    for i, (image, _) in enumerate(out):
        assert untouched(image, i, 10 + i, 20) < 0.1 and untouched(image, i, 90, 50) < 0.1
    first, second = ledger.tracks()
    assert (first["replaced"], first["fallback"], first["fallback_frames"]) == (3, 3, [[2, 4]])
    assert (second["replaced"], second["fallback"]) == (0, 6) and sum(second["fallback_because"].values()) == 6
    core = out[0][0][70:95, 110:130].reshape(-1, 3)
    assert len(np.unique(core, axis=0)) <= 25  # a coarse mosaic


def test_kept_tracks_are_left_alone():
    out = run(Synthetic(), [moving(0, 4, keep=True)], 4)
    for i, (image, _) in enumerate(out):
        assert (image == list(frames(4))[i].image).all()


def test_batches_halve_when_memory_runs_out(caplog):
    method = Synthetic(most=3)
    with caplog.at_level(logging.WARNING):
        out = run(method, [moving(0, 20)], 20, batch=16)
    assert len(out) == 20 and sum(method.calls) == 20 and max(method.calls) <= 3
    assert all(untouched(image, i, 10 + i, 20) < 0.1 for i, (image, _) in enumerate(out))


def test_an_error_of_the_encoder_stops_everything():
    anonymizer = Anonymizer(Synthetic(), detector=object())
    stages = SecondPass(anonymizer, [moving(0, 50)], {0: 1})

    def full(image, pts):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run_second_pass(frames(50), full, stages)


@pytest.mark.parametrize("method", [Solid(device="cpu"), Blur(device="cpu")])
def test_redactions_need_no_landmarks(method):
    track = moving(0, 3)
    for one in track.sightings.values():
        one.landmarks = None
    for i, (image, _) in enumerate(run(method, [track], 3)):
        assert untouched(image, i, 10 + i, 20) < 0.1


def test_boxes_and_mask_scale():
    def changed(**settings):
        image = run(Solid(device="cpu"), [moving(0, 1, x=50.0, y=30.0)], 1, **settings)[0][0]
        return (image != next(frames(1)).image).any(2)

    oval, box, large = changed(), changed(boxes=True), changed(mask_scale=1.3)
    assert box.sum() > 1.15 * oval.sum() and large.sum() > 1.3 * oval.sum()
    assert (box | ~oval).all()


def test_plausible_points():
    box = sighting(0, 0).box
    assert plausible(box, points(0, 0))
    assert not plausible(box, points(200, 0))
    assert not plausible(box, np.full((5, 2), 30.0))
    assert not plausible(box, np.full((5, 2), np.nan))


class TestKinds:
    """Which faces are redacted although they could be replaced."""

    def statuses(self, tracks, count):
        class Notes(Ledger):
            def composed(self, work, original):
                seen.append([face.record.status for face in work.faces])

        seen = []
        method = Synthetic()
        run(method, tracks, count, batch=4, ledger=Notes(tracks, method, compare=False))
        return [status for one in seen for status in one]

    def test_short_stretches_between_redactions_are_redacted_as_well(self):
        track = moving(0, 40)
        for i in (3, 6, 7, 16, 30):
            track.sightings[i].landmarks = None
        redacted = [i for i, status in enumerate(self.statuses([track], 40)) if status == "mosaicked"]
        assert redacted == [*range(3, 17), 30]

    def test_tracks_that_are_not_sure_are_redacted(self):
        assert self.statuses([moving(0, 3, sure=False)], 3) == ["mosaicked"] * 3

    def test_faces_of_damaged_frames_are_doubtful(self):
        track = moving(0, 4)
        stages = SecondPass(Anonymizer(Synthetic(), detector=Blind()), [track], {0: 1})
        damaged = [Frame(f.index, f.pts, f.image, damaged=f.index == 2) for f in frames(4)]
        run_second_pass(damaged, lambda image, pts: None, stages)
        assert track.doubtful == {2}

    def test_profiles_are_redacted(self):
        face = points(10, 20)
        turned = face.copy()
        turned[2] += 0.5 * (face[1] - face[0])
        assert not sideways(face) and sideways(turned)
        rolled = np.array([[0.6, -0.8], [0.8, 0.6]])
        assert not sideways(face @ rolled.T) and sideways(turned @ rolled.T)
        track = moving(0, 3)
        track.sightings[1].landmarks[2] += [20, 0]
        assert self.statuses([track], 3) == ["synthesised", "mosaicked", "synthesised"]
