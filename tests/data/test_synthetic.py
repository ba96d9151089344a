"""Rendered faces: same seed same picture, truth and landmarks agree with what is drawn."""

from __future__ import annotations

import pytest
import torch

from a3gan.data import align, synthetic
from a3gan.data.synthetic import landmarks, render, sample_identities, sample_states, synthetic_faces


def _faces(n: int, seed: int = 3, **fixed: float):
    """n different people in n states with the given state values fixed."""
    generator = torch.Generator().manual_seed(seed)
    who, how = sample_identities(n, generator), sample_states(n, generator)
    for name, value in fixed.items():
        how[name] = torch.full_like(how[name], value)
    return who, how


def test_same_seed_same_faces_other_seed_other_faces():
    first, again, other = (synthetic_faces(6, 32, seed) for seed in (5, 5, 6))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.landmarks, again.landmarks)
    assert (first.images.float() - other.images.float()).abs().mean() > 20


def test_rows_do_not_depend_on_the_chunk(monkeypatch):
    who, how = _faces(7)
    whole = render(who, how, 32)
    monkeypatch.setattr(synthetic, "PIXELS_AT_ONCE", 2 * 32 * 32)
    assert torch.allclose(render(who, how, 32), whole, atol=1e-4)


def test_render_range_and_shape():
    who, how = _faces(3)
    for frame in ("face", "ffhq", "photo"):
        images = render(who, how, 48, frame)
        assert images.shape == (3, 3, 48, 48) and images.dtype == torch.float32
        assert images.isfinite().all() and images.min() >= -1 and images.max() <= 1
    assert render({k: v[:0] for k, v in who.items()}, {k: v[:0] for k, v in how.items()}, 32).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("frame", ["face", "ffhq"])
def test_landmarks_are_already_aligned(frame):
    who, how = _faces(40)
    points = landmarks(who, how, frame).double()
    target = align.template(frame).expand_as(points)
    identity = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)
    assert torch.allclose(align.fit_similarity(points, target), identity.expand(40, 2, 3), atol=1e-4)
    eyes = target[0, 1, 0] - target[0, 0, 0]
    distance = (points - target).norm(dim=2) / eyes
    assert distance.mean() < 0.12 and distance.max() < 0.6  # turned heads do not fit a flat template exactly


def test_pupils_are_dark_where_the_eye_landmarks_are():
    who, how = _faces(8, eye_opening=0.85, gaze_x=0.0, gaze_y=0.0, glasses=0.0, yaw=0.0, pitch=0.0)
    size = 128
    images, points = render(who, how, size), landmarks(who, how) * size - 0.5
    for i in range(8):
        for x, y in points[i, :2].round().long().tolist():
            eye = images[i, :, y - 6 : y + 7, x - 6 : x + 7].mean(0)
            row, column = divmod(int(eye.argmin()), 13)
            assert eye.min() < -0.7 and abs(row - 6) <= 5 and abs(column - 6) <= 4


def test_nose_moves_with_yaw():
    who, how = _faces(1)
    who, how = ({k: v.expand(3, *v.shape[1:]).clone() for k, v in d.items()} for d in (who, how))
    how["yaw"], how["roll"] = torch.tensor([-25.0, 0.0, 25.0]), torch.zeros(3)
    points = landmarks(who, how)
    offset = points[:, 2, 0] - points[:, :2, 0].mean(1)
    assert offset[0] < -0.05 and offset[1].abs() < 1e-4 and offset[2] > 0.05


@pytest.mark.parametrize("name,rows", [("eye_opening", (0, 1)), ("mouth_opening", (3, 4)), ("gaze_x", (0, 1))])
def test_an_opening_changes_only_its_region(name, rows):
    still = ("mouth_opening", "smile", "surprise", "glasses", "yaw", "pitch", "roll", "gaze_x")
    who, how = _faces(6, eye_opening=0.7, **dict.fromkeys(still, 0.0))
    other = dict(how)
    other[name] = how[name] + (-0.7 if name == "eye_opening" else 0.8)
    size = 96
    # The camera of 'photo' does not follow the landmarks, so all that moves is the face.
    change = (render(who, how, size, "photo") - render(who, other, size, "photo")).abs().mean(1)
    points = landmarks(who, how, "photo")
    centre, eyes = points[:, rows, :].mean(1), (points[:, 1] - points[:, 0]).norm(dim=1)
    at = (torch.arange(size) + 0.5) / size
    dx = (at[None, None, :] - centre[:, 0, None, None]) / eyes[:, None, None]
    dy = (at[None, :, None] - centre[:, 1, None, None]) / eyes[:, None, None]
    # The jaw drops with the mouth, so all below the eyes may move a little.
    inside = (dx.abs() < 1.3) & (dy.abs() < 0.55) if "mouth" not in name else (dy > -1.35).expand_as(change)
    near = (dx.abs() < 0.9) & (dy.abs() < 0.4)
    assert change[~inside].max() < 1e-5
    assert change[near].mean() > 0.01 and change[near].mean() > 4 * change.mean()


def test_one_person_in_two_states_is_nearer_than_two_people():
    faces = synthetic_faces(80, 32, 1, per_identity=2)
    # Colour of the skin between eyes and mouth and of the brows: what states (light apart) leave alone.
    patch = faces.images[:, :, 8:20, 10:22].float().flatten(1)
    first, second = patch[0::2], patch[1::2]
    same = (first - second).norm(dim=1).mean()
    different = (first - second.roll(1, 0)).norm(dim=1).mean()
    assert 0 < same < 0.9 * different
    assert (faces.images[0::2].float() - faces.images[1::2].float()).abs().mean(dim=(1, 2, 3)).min() > 5


def test_face_set_labels_and_splits():
    faces = synthetic_faces(120, 16, 2)
    assert len(faces) == 120 and faces.images.dtype == torch.uint8 and faces.frame == "face"
    assert faces.identity.bincount().tolist() == [4] * 30
    people = {s: {int(i) for i, t in zip(faces.identity, faces.split, strict=True) if t == s} for s in set(faces.split)}
    assert {s: len(p) for s, p in people.items()} == {"train": 24, "val": 3, "test": 3}
    assert sum(len(p) for p in people.values()) == 30
    assert set(faces.columns["expression"]) == set(synthetic.EXPRESSIONS)
    assert set(faces.columns["gender"]) == {"male", "female"}
    assert {"yawn", "no_yawn", "open", "closed"} <= set(faces.columns["label"])
    for i, label in enumerate(faces.columns["label"]):
        truth = "eyes_closed" if i % 2 else "yawning"
        assert {"": None, "yawn": 1, "no_yawn": 0, "closed": 1, "open": 0}[label] == (
            None if faces.truth[truth][i].isnan() else int(faces.truth[truth][i])
        )
    assert all(v.shape == (120,) for v in faces.truth.values())
    for name in ("eye_opening", "mouth_opening", "smile"):
        assert 0 <= faces.truth[name].min() and faces.truth[name].max() <= 1


def test_small_sets_and_given_people():
    assert set(synthetic_faces(3, 16, 0, per_identity=1).split) == {"train", "val", "test"}
    assert synthetic_faces(5, 16, 0, identities=1).identity.tolist() == [0] * 5
    assert len(synthetic_faces(10, 16, 0, identities=4).identity_names) == 4


@pytest.mark.parametrize("frame,count,least", [("face", 100, 95), ("ffhq", 20, 19), ("photo", 20, 19)])
def test_mtcnn_finds_the_faces(frame, count, least):
    facenet = pytest.importorskip("facenet_pytorch")
    detector = facenet.MTCNN(select_largest=True, device="cpu")  # its weights come inside the package
    who, how = _faces(count, seed=11)
    images = synthetic.to_uint8(render(who, how, 160, frame)).permute(0, 2, 3, 1).numpy()
    truth = landmarks(who, how, frame) * 160 - 0.5
    found, errors = 0, []
    for image, points in zip(images, truth, strict=True):
        boxes, probability, five = detector.detect(image, landmarks=True)
        if boxes is not None and probability[0] > 0.9:
            found += 1
            error = (torch.tensor(five[0].astype("float32")) - points).norm(dim=1).mean()
            errors.append(error / (points[1] - points[0]).norm())
    assert found >= least
    assert torch.stack(errors).median() < 0.15
