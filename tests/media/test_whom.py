"""Persons over photos and tracks, and faces that are kept, with a recogniser that reads a face's colour."""

import numpy as np
import pytest
import torch

from a3gan.anonymizers.records import FaceRecord
from a3gan.data.align import template
from a3gan.media.people import People, References
from a3gan.media.settings import Settings
from a3gan.media.track import Sighting, Track
from a3gan.media.video import Frame
from a3gan.media.whom import Whom

COLOURS = [(250, 5, 5), (5, 250, 5), (5, 5, 250)]


class ByColour(torch.nn.Module):
    """Embedding: the mean colour, 0.1 of it in common."""

    def forward(self, x, frame="face"):
        return torch.nn.functional.normalize((x.mean((2, 3)) + 1) / 2)


def picture(*who):
    """One face of 40 px a person, side by side."""
    image = np.full((40, 40 * len(who), 3), 90, np.uint8)
    for i, person in enumerate(who):
        image[:, 40 * i : 40 * i + 40] = COLOURS[person]
    points = [template("face").numpy() * 40 - 0.5 + (40 * i, 0) for i in range(len(who))]
    boxes = [(40.0 * i + 6, 4.0, 40.0 * i + 34, 38.0) for i in range(len(who))]
    return image, boxes, points


def whom(**settings):
    made = Whom(Settings(**settings), object)
    made._people = People(ByColour())
    return made


def photo(made, *who):
    image, boxes, points = picture(*who)
    records = [FaceRecord(box, p, 0.9, 0) for box, p in zip(boxes, points, strict=True)]
    return made.photo_seeds()(0, image, records)


def test_a_person_has_one_face_over_photos():
    made = whom()
    a, b = photo(made, 0, 1)
    assert a != b and photo(made, 1, 2)[0] == b and photo(made, 0) == [a]
    again = photo(made, 0, 0)  # twice in one photo: they cannot be one
    assert again[0] == a and again[1] != a
    assert photo(whom(), 0, 1) == [a, b] and photo(whom(seed=1), 0)[0] != a
    assert whom(identity="track").photo_seeds() is None


def test_references_keep_or_choose():
    for options, kept in (({"keep_ref": "x"}, 0), ({"only_ref": "x"}, 1)):
        made = whom(**options)
        made._references = References(made.people.embed([picture(0)[0]]), ["x/a.jpg"])
        seeds = photo(made, 0, 1)
        assert seeds[kept] is None and seeds[1 - kept] is not None


def track(number, person, frames, x=0):
    image, boxes, points = picture(person)
    shift = np.array([x, 0.0])
    one = Sighting(np.array(boxes[0]) + np.tile(shift, 2), points[0] + shift, 0.99)
    return Track(number, dict.fromkeys(frames, one))


def test_tracks_are_named_across_gaps_and_files():
    made = whom()
    frames = [Frame(i, i, picture(0, 1)[0]) for i in range(9)]
    tracks = [track(0, 0, range(0, 3)), track(1, 0, range(6, 9)), track(2, 1, range(0, 9), 40)]
    made.name_tracks(lambda: frames, tracks)
    first, second, other = (t.person for t in tracks)
    assert first == second != other
    more = [track(0, 1, range(3))]
    made.name_tracks(lambda: [Frame(i, i, picture(1)[0]) for i in range(3)], more)
    assert more[0].person == other
    assert photo(made, 1) == [made.seed(other, "")]


def test_persons_given_by_hand_stay_and_so_does_keep():
    made = whom(keep_ref="x")
    made._references = References(made.people.embed([picture(1)[0]]), ["x/a.jpg"])
    tracks = [track(0, 0, range(3)), track(1, 1, range(3), 40)]
    tracks[0].person, tracks[1].person, tracks[0].keep = 7, 8, True
    made.name_tracks(lambda: [Frame(i, i, picture(0, 1)[0]) for i in range(3)], tracks)
    assert [t.person for t in tracks] == [7, 8] and [t.keep for t in tracks] == [True, True]


def test_faces_that_cannot_be_read_get_new_persons():
    made = whom()
    image, boxes, _ = picture(0)
    record = FaceRecord(boxes[0], np.full((5, 2), 3.0), 0.9, 0)
    seeds = [made.photo_seeds()(0, image, [record])[0] for _ in range(2)]
    assert len(set(seeds)) == 2
    with pytest.raises(Exception, match="choose one"):
        Settings(keep_ref="a", only_ref="b")


class Redrawing:
    """A method that notes what it is asked to settle, and gives other seeds by a rule."""

    frame, size, redraw, concurrent = "face", 64, 2, False

    def __init__(self):
        self.asked = []

    def settle(self, faces, seeds, policy=None, people=None):
        assert faces.shape == (len(seeds), 3, 64, 64) and list(people) == list(seeds)
        self.asked.append([(seed, int(face.mean((1, 2)).argmax())) for seed, face in zip(seeds, faces, strict=True)])
        return [seed ^ 1 for seed in seeds]


def test_a_person_of_a_clip_settles_once_for_all_its_tracks_and_files():
    made, method = whom(), Redrawing()
    frames = [Frame(i, i, picture(0, 1)[0]) for i in range(9)]
    tracks = [track(0, 0, range(0, 3)), track(1, 0, range(6, 9)), track(2, 1, range(0, 9), 40)]
    made.name_tracks(lambda: frames, tracks, method=method)
    first, seeds = made.track_seeds(tracks, "a.mp4"), made.track_seeds(tracks, "a.mp4", method)
    assert seeds == {number: seed ^ 1 for number, seed in first.items()} and seeds[0] == seeds[1] != seeds[2]
    # Three sightings of each track, with the seed of its person: colour 0 for the first two tracks, 1 for the third.
    assert method.asked == [[(first[0], 0)] * 3 + [(first[1], 0)] * 3 + [(first[2], 1)] * 3]
    more = [track(0, 1, range(3))]
    made.name_tracks(lambda: [Frame(i, i, picture(1)[0]) for i in range(3)], more, method=method)
    assert made.track_seeds(more, "b.mp4", method) == {0: seeds[2]} and len(method.asked) == 1


def test_faces_are_looked_at_for_redrawing_whatever_the_identity_and_kept_ones_are_not():
    made, method = whom(identity="track"), Redrawing()
    tracks = [track(0, 0, range(3)), track(1, 1, range(3), 40)]
    tracks[1].keep = True
    made.name_tracks(lambda: [Frame(i, i, picture(0, 1)[0]) for i in range(3)], tracks, method=method)
    seeds = made.track_seeds(tracks, "a.mp4", method)
    assert len(method.asked[0]) == 3 and seeds[1] == made.track_seeds(tracks, "a.mp4")[1]
    method.redraw, method.asked = 0, []
    made = whom(identity="track")
    made.name_tracks(None, tracks, method=method)  # no frame is asked for
    made.track_seeds(tracks, "a.mp4", method)
    assert not method.asked


def test_who_is_only_redacted_is_not_settled():
    made, method = whom(), Redrawing()
    tracks = [track(0, 0, range(3)), track(1, 1, range(3), 40)]
    tracks[1].sure = False
    made.name_tracks(lambda: [Frame(i, i, picture(0, 1)[0]) for i in range(3)], tracks, method=method)
    first, seeds = made.track_seeds(tracks, "a.mp4"), made.track_seeds(tracks, "a.mp4", method)
    assert len(method.asked[0]) == 3 and seeds == {0: first[0] ^ 1, 1: first[1]}


def test_people_settle_alike_beside_each_other(monkeypatch):
    monkeypatch.setattr("a3gan.media.threads.at_once", lambda: 2)
    for concurrent in (False, True):
        made, method = whom(identity="track"), Redrawing()
        method.concurrent = concurrent
        tracks = [track(i, i, range(3), 40 * i) for i in range(3)]
        made.name_tracks(lambda: [Frame(i, i, picture(0, 1, 2)[0]) for i in range(3)], tracks, method=method)
        seeds, first = made.track_seeds(tracks, "a.mp4", method), whom(identity="track").track_seeds(tracks, "a.mp4")
        assert seeds == {number: seed ^ 1 for number, seed in first.items()}
        assert sorted(map(len, method.asked)) == ([3, 6] if concurrent else [9])


def test_a_person_keeps_over_photos_the_seed_that_a_photo_ended_with():
    made = whom()
    image, boxes, points = picture(0, 1)
    records = [FaceRecord(box, p, 0.9, 0) for box, p in zip(boxes, points, strict=True)]
    first = made.photo_seeds()(0, image, records)
    records[0].seed, records[1].seed, records[1].status = 77, 78, "mosaicked"
    made.note_photo(records)
    assert photo(made, 1, 0) == [first[1], 77]
