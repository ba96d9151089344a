from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from a3gan.errors import UserError
from a3gan.media.crops import Crops
from a3gan.media.detect import Faces
from a3gan.media.people import (
    CANDIDATES,
    People,
    References,
    candidates,
    cluster,
    keep_by_references,
    residual,
    sharpness,
)  # fmt: skip
from a3gan.media.track import Sighting, Track

POINTS = np.array([[0.33, 0.35], [0.67, 0.35], [0.5, 0.54], [0.36, 0.74], [0.64, 0.74]])


def track(number, frames, x=10.0, side=64.0, source="detected"):
    box = np.array([x, 10, x + side, 10 + side])
    points = POINTS * side + box[:2]
    return Track(number, {f: Sighting(box, points, 0.99, source) for f in frames})


def units(*rows):
    stack = np.array(rows, np.float64)
    return stack / np.linalg.norm(stack, axis=1, keepdims=True)


A, B, C = np.eye(3)


def near(vector, amount=0.3, seed=0):
    noise = np.random.default_rng(seed).normal(0, amount / np.sqrt(3), (4, 3))
    return units(*(vector + noise))


def test_tracks_of_one_person_are_joined_over_gaps_and_files():
    people = People(recogniser=object())
    first = [track(0, range(10)), track(1, range(10), 200), track(2, range(50, 60)), track(3, range(80, 90))]
    people.name(first, {0: near(A, seed=1), 1: near(B, seed=2), 2: near(B, seed=3)})
    assert [t.person for t in first] == [0, 1, 1, 2]  # the last has no embedding: somebody of its own
    later = [track(0, range(5)), track(1, range(5), 200)]
    people.name(later, {0: near(C, seed=4), 1: near(A, seed=5)})
    assert [t.person for t in later] == [3, 0]


def test_faces_seen_at_the_same_time_are_never_one_person():
    tracks = [track(0, range(10)), track(1, range(9, 20), 200), track(2, range(30, 40))]
    people = People(recogniser=object())
    people.name(tracks, {i: near(A, 0.05, i) for i in range(3)})
    assert tracks[0].person != tracks[1].person and tracks[2].person in (tracks[0].person, tracks[1].person)
    # Guesses beyond a track's end do not count as seen.
    guessed = [track(0, range(10)), track(1, range(10, 20))]
    guessed[0].sightings |= track(0, range(10, 14), source="extended").sightings
    People(object()).name(guessed, {0: near(A, 0.05, 0), 1: near(A, 0.05, 1)})
    assert guessed[0].person == guessed[1].person


def test_cluster_of_nothing_and_of_unknowns():
    assert len(cluster([], np.zeros((0, 0), bool), 0.4)) == 0
    labels = cluster([np.zeros(3), np.zeros(3), A, A], np.zeros((4, 4), bool), 0.4)
    assert labels[0] != labels[1] and labels[2] == labels[3] not in (labels[0], labels[1])


def test_few_vectors_are_clustered_as_by_scipy():
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    rng = np.random.default_rng(0)
    for count in (2, 3, 8, 30):
        vectors = rng.normal(size=(count, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        far = squareform(squareform(np.maximum(1 - vectors @ vectors.T, 0), checks=False))
        for distance in (0.1, 0.4, 0.9):
            wanted = fcluster(linkage(squareform(far), "average"), distance, "distance")
            labels = cluster(list(vectors), np.zeros((count, count), bool), distance)
            assert ((labels[:, None] == labels) == (wanted[:, None] == wanted)).all()


def test_candidates_are_large_frontal_and_spread():
    long = track(0, range(300))
    for f in range(300):
        if f % 20 != 7:
            long.sightings[f].landmarks = long.sightings[f].landmarks + np.eye(5)[2][:, None] * [15, 0]
    assert candidates(long) == list(range(7, 300, 20)) and len(candidates(long)) == CANDIDATES
    assert candidates(track(0, range(5), side=20.0)) == []  # too small to say who it is
    assert candidates(track(0, range(5), source="filled")) == []
    assert candidates(Track(0, {0: Sighting(np.array([0.0, 0, 50, 50]), None, 1.0, "given")})) == []


def test_sharpness_prefers_the_sharp_one():
    sharp = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    soft = np.asarray(sharp.reshape(16, 4, 16, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1), np.uint8)
    assert sharpness(sharp) > 2 * sharpness(soft)


def test_keep_ref_is_strict_and_only_ref_lenient_and_doubt_anonymises():
    references = References(units(A), ["a/photo.jpg"])

    def at(cosine, n=3):
        return units(*[[cosine, np.sqrt(1 - cosine**2), 0]] * n)

    cosines = {0: 0.9, 1: 0.6, 2: 0.3}
    embeddings = {n: at(c) for n, c in cosines.items()} | {3: np.concatenate((at(0.99, 5), at(0.1, 1)))}
    tracks = [track(i, range(3)) for i in range(5)]  # 3 slipped to another face once; 4 has nothing to go by
    measured = keep_by_references(tracks, embeddings, references, only=False)
    assert [t.keep for t in tracks] == [True, False, False, False, False]
    assert measured[0] == pytest.approx(0.9) and np.isnan(measured[4])
    keep_by_references(tracks, embeddings, references, only=True)
    assert [t.keep for t in tracks] == [False, False, True, False, False]


def test_references_without_a_face_or_a_photo_are_errors(tmp_path):
    from PIL import Image

    with pytest.raises(UserError, match="no reference photos"):
        References.load(tmp_path, People(object()), None)
    Image.new("RGB", (80, 80)).save(tmp_path / "wall.png")
    nothing = SimpleNamespace(detect=lambda images: [Faces.none() for _ in images])
    with pytest.raises(UserError, match="wall.png: no face"):
        References.load(tmp_path, People(object()), nothing)
    (tmp_path / "cut.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cut.jpg: cannot be read"):
        References.load(tmp_path, People(object()), nothing)


def test_residual_similarity():
    values = residual(units(A, B), units(A, A))
    assert values == {"mean": 0.5, "highest": 1.0}


class Mean:
    """A recogniser that reads the mean colour."""

    def __call__(self, faces):
        return torch.nn.functional.normalize((faces.mean((2, 3)) + 1) / 2)


def coloured(count, step=1):
    """Frames with a red face at the left and a green one at the right, and the crops of every `step`-th of them."""
    image = np.full((90, 300, 3), 90, np.uint8)
    image[:, :100], image[:, 180:] = (240, 10, 10), (10, 240, 10)
    frames = [SimpleNamespace(index=i, image=image) for i in range(count)]
    both = [track(0, [0]).sightings[0], track(1, [0], 200).sightings[0]]
    faces = Faces(np.stack([s.box for s in both]), np.full(2, 0.99), np.stack([s.landmarks for s in both]))
    crops = Crops()
    for i in range(0, count, step):
        crops.add(i, faces, lambda: image)
    return frames, crops


def unread():
    """Frames of which none may be asked for."""
    raise AssertionError("the clip was decoded")
    yield


def test_kept_crops_give_what_the_frames_give_and_no_frame_is_asked_for():
    frames, crops = coloured(40)
    tracks = [track(0, range(40)), track(1, range(40), 200)]
    people = People(Mean())
    decoded = people.look(frames, tracks)
    drawn = people.crops
    kept = people.look(unread(), tracks, kept=crops)
    assert all((kept[n] == decoded[n]).all() and len(kept[n]) == 6 for n in (0, 1))
    assert all((np.stack(people.crops[n]) == np.stack(drawn[n])).all() for n in (0, 1))


def test_only_tracks_without_crops_are_decoded_for():
    frames, crops = coloured(40, step=4)
    between = track(1, (17, 18), 200)  # none of its frames was cut out
    known, other = track(0, range(40)), track(2, range(20), 200)
    asked = []

    class Reader:
        def __iter__(self):
            for frame in frames:
                asked.append(frame.index)
                yield frame

    found = People(Mean()).look(Reader(), [known, between, other], kept=crops)
    assert {n: len(rows) for n, rows in found.items()} == {0: 6, 1: 2, 2: 5}
    assert max(asked) == 18  # up to the last that is needed, and no further
    with pytest.raises(AssertionError, match="decoded"):  # crops of another kind than those kept
        People(Mean()).look(unread(), [known], ("ffhq", 64), crops)


@pytest.mark.parametrize(("usable", "kept", "decoded"), [(1, 1, False), (9, 3, False), (9, 2, True), (4, 2, False)])
def test_so_many_crops_are_enough(usable, kept, decoded):
    frames, _ = coloured(9)
    one = track(0, range(usable))
    crops = SimpleNamespace(of=lambda track: {f: np.zeros((64, 64, 3), np.uint8) for f in range(kept)})
    found = People(Mean()).look(frames, [one], kept=crops)
    assert len(found[0]) == (min(6, usable) if decoded else kept)


def test_rendered_people_are_told_apart(tmp_path):
    from PIL import Image

    from a3gan.data.align import to_pixels
    from a3gan.data.synthetic import synthetic_faces

    drawn = synthetic_faces(8, 96, seed=5, identities=2)
    who = drawn.identity.tolist()
    pictures, points = drawn.images.permute(0, 2, 3, 1).numpy(), to_pixels(drawn.landmarks, 96).double().numpy()
    frames = [SimpleNamespace(index=i, image=np.ascontiguousarray(p)) for i, p in enumerate(pictures)]
    box = np.array([0.0, 0, 96, 96])
    tracks = [Track(i, {i: Sighting(box, points[i], 0.99)}) for i in range(8)]
    people = People(same=0.5)
    embeddings = people.look(frames, tracks)
    people.name(tracks, embeddings)
    assert set(embeddings) == set(range(8))
    assert all(np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-4) for rows in embeddings.values())
    same = [embeddings[i][0] @ embeddings[j][0] for i in range(8) for j in range(i) if who[i] == who[j]]
    other = [embeddings[i][0] @ embeddings[j][0] for i in range(8) for j in range(i) if who[i] != who[j]]
    assert np.mean(same) > np.mean(other)
    Image.fromarray(pictures[0]).save(tmp_path / "one.png")
    found = Faces(box[None], np.ones(1), points[:1])
    references = References.load(tmp_path, people, SimpleNamespace(detect=lambda images: [found]))
    assert references.similarity(embeddings[0])[0] > 0.95
