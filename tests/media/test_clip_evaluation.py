"""Clips in an evaluation: tracks once, methods through the pipeline, readings cached (beside `clips.rendered_clip`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import rendered_clip

from a3gan.anonymizers.methods import create
from a3gan.errors import UserError
from a3gan.evaluation import clips as module
from a3gan.media.detect import Faces
from a3gan.scorers.attributes import AttributeNetwork


class Blind:
    """A detector that finds nothing: the tracks are given."""

    name, min_face = "blind", 24

    def detect(self, images: list) -> list[Faces]:
        return [Faces.none() for _ in images]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> module.Clip:
    from a3gan.media.detections import Detections, save
    from a3gan.media.track import Sighting, Track

    folder = tmp_path_factory.mktemp("clip")
    made = rendered_clip(folder / "c.mp4", frames=22, people=2, size=(320, 160), face=128, rate=10)
    tracks = [Track(person, {}, person) for person in range(2)]
    for index, seen in enumerate(made.truth):
        for one in seen:
            tracks[one.person].sightings[index] = Sighting(np.array(one.box), np.array(one.landmarks), 0.99)
    save(folder / "c.json", Detections(tracks, "c.mp4", (320, 160), 22, "10"))
    return module.Clip(folder / "c.mp4", folder / "c.json", tracks, 10.0, None, module.several(tracks, 3), "0")


@pytest.fixture(scope="module")
def network() -> AttributeNetwork:
    torch.manual_seed(0)
    made = AttributeNetwork("plain", 8).eval().requires_grad_(False)
    made.fingerprint = "stub:0"
    return made


def test_frames_with_several_faces_are_spread(clip: module.Clip) -> None:
    assert clip.sampled == [0, 7, 14]
    assert module.several(clip.tracks[:1], 3) == [] and len(module.several(clip.tracks, 99)) == 22


def test_small_faces_are_not_read(clip: module.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_EYES", 10.0)
    assert len(module.long_tracks(clip)) == 2
    monkeypatch.setattr(module, "LEAST_EYES", 200.0)
    assert module.long_tracks(clip) == []


def test_the_original_and_a_method_are_read_at_the_same_places(
    clip: module.Clip, network: AttributeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_EYES", 10.0)
    finder, cpu = Blind(), torch.device("cpu")
    args = (network, {"mtcnn": finder}, tmp_path, None, 1.0, 0, cpu)
    before = module.collect(clip, None, {}, *args)
    same = module.collect(clip, create("identity", size=64), {"method": "identity"}, *args)
    solid = module.collect(clip, create("solid", size=64), {"method": "solid"}, *args)
    old, new, hidden = (module.readings(clip, f) for f in (before, same, solid))
    assert [r.track for r in old] == [0, 1] and len(old[0].eyes_closed) == 22 and old[0].points.shape == (22, 5, 2)
    # The coder alone hardly matters; a covered face does.
    # (By the untrained network's eyes: its yawning moves by a millionth, whatever it is shown.)
    near = np.abs(old[0].eyes_closed - new[0].eyes_closed).mean()
    assert near < 0.05 * np.abs(old[0].eyes_closed - hidden[0].eyes_closed).mean()
    assert np.array_equal(old[0].points.mean((0, 1)).round(-1), new[0].points.mean((0, 1)).round(-1))
    assert len(module.found(before, "mtcnn")) == 3 and module.references(before, "mtcnn")[0].shape == (0, 4)
    # A second time it comes from the cache, and the clip is not made again.
    (video,) = tmp_path.glob("c-solid-*.mp4")
    video.unlink()
    again = module.collect(clip, create("solid", size=64), {"method": "solid"}, *args)
    assert all(np.array_equal(again[name], solid[name]) for name in solid) and not video.exists()


def test_a_missing_clip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        module.open_clip(tmp_path / "none.mp4", tmp_path, lambda: None, 0, 0)
