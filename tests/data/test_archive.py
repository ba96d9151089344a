from __future__ import annotations

import json
import zipfile

import pytest
import torch

from a3gan.data.archive import FaceSet, pxq_indices
from a3gan.data.archive_file import ArchiveReader, ArchiveWriter
from a3gan.errors import UserError


def make(count: int = 6, size: int = 32, frame: str = "face", names: tuple[str, ...] = ("ann", "bob"), seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return FaceSet(
        images=torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8),
        files=[f"f{i}.png" for i in range(count)],
        landmarks=torch.rand(count, 5, 2, generator=generator),
        identity=torch.tensor([i % (len(names) + 1) - 1 for i in range(count)]),
        identity_names=list(names),
        split=["train" if i % 3 else "test" for i in range(count)],
        columns={"gender": ["male", ""] * (count // 2)},
        outside=torch.rand(count, generator=generator),
        frame=frame,
        size=size,
        truth={"smile": torch.rand(count, generator=generator)},
    )


@pytest.fixture
def saved(tmp_path):
    faces = make()
    faces.save(tmp_path / "faces.zip")
    return faces, tmp_path / "faces.zip"


@pytest.mark.parametrize("storage", ["memory", "disk", "device"])
def test_saved_set_comes_back(saved, storage):
    faces, path = saved
    back = FaceSet.load(path, storage=storage, device="cpu")
    assert (back.images is None) == (storage == "disk")
    index = torch.tensor([4, 0, 0])
    assert torch.equal(back.fetch(index), faces.fetch(index))
    assert back.fetch([1]).shape == (1, 3, 32, 32) and back.fetch([]).shape == (0, 3, 32, 32)
    torch.testing.assert_close(back.landmarks, faces.landmarks, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.outside, faces.outside, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.truth, faces.truth)
    named = [[f.identity_names[i] if i >= 0 else "" for i in f.identity.tolist()] for f in (back, faces)]
    assert named[0] == named[1]
    assert (back.split, back.columns, back.frame, back.size) == (faces.split, faces.columns, "face", 32)


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_split_subset_and_concat_keep_rows_together(saved, storage):
    faces, path = saved
    test, train = (FaceSet.load(path, split=s, storage=storage) for s in ("test", "train"))
    assert test.split == ["test"] * 2 and len(train) == 4
    assert torch.equal(test.fetch([0, 1]), faces.fetch([0, 3]))
    both = FaceSet.concat([test, train.subset(torch.tensor([True, False, False, True]))])
    assert len(both) == 4 and both.columns["gender"] == ["male", "", "", ""]
    assert torch.equal(both.fetch([0, 1, 2, 3]), faces.fetch([0, 3, 1, 5]))
    assert both.subset([3]).identity_names == both.identity_names


def test_smaller_size_is_the_mean_of_blocks(saved):
    faces, path = saved
    small = FaceSet.load(path, size=16)
    mean = torch.nn.functional.avg_pool2d(faces.images.float(), 2)
    assert small.size == 16 and (small.images.float() - mean).abs().max() <= 1.0
    torch.testing.assert_close(small.landmarks, faces.landmarks, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="64 wanted"):
        FaceSet.load(path, size=64)


def test_concat_joins_people_by_name_and_fills_what_is_missing():
    one, two = make(names=("ann", "bob")), make(names=("bob", "cid"), seed=1)
    two.columns, two.truth = {"label": ["yawn"] * 6}, {}
    both = FaceSet.concat([one, two])
    assert both.identity_names == ["ann", "bob", "cid"]
    assert both.identity.tolist() == [-1, 0, 1, -1, 0, 1, -1, 1, 2, -1, 1, 2]
    assert both.columns["gender"][6:] == [""] * 6 and both.columns["label"][:6] == [""] * 6
    assert both.truth["smile"][6:].isnan().all()


@pytest.mark.parametrize("other", [make(frame="ffhq"), make(size=16)])
def test_mixed_frames_and_sizes_are_refused(other):
    with pytest.raises(UserError, match="do not mix"):
        FaceSet.concat([make(), other])


def test_bad_archives_say_what_is_wrong(saved, tmp_path):
    _, path = saved
    with pytest.raises(UserError, match="no such archive"):
        FaceSet.load(tmp_path / "absent.zip")
    with pytest.raises(UserError, match="no pictures in split val"):
        FaceSet.load(path, split="val")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="cut short"):
        FaceSet.load(cut)
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as z:
        z.writestr("holiday.jpg", b"")
    with pytest.raises(UserError, match="not an archive"):
        FaceSet.load(foreign)
    with zipfile.ZipFile(foreign, "w") as z:
        z.writestr("meta.json", json.dumps({"format": "a3gan-faces", "version": 99}))
        z.writestr("index.csv", "file\n")
    with pytest.raises(UserError, match="version 99"):
        FaceSet.load(foreign)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 30
    data[at : at + 8] = b"\0" * 8
    (tmp_path / "hurt.zip").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        FaceSet.load(tmp_path / "hurt.zip")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), ArchiveWriter(tmp_path / "a.zip", "face", 32) as writer:
        writer.add("../../evil name", ".png", b"x", {})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_member_names_are_tame(tmp_path):
    with ArchiveWriter(tmp_path / "a.zip", "face", 32) as writer:
        writer.add("../über name", ".png", b"x", {"note": "ü,\n\"q\""})
    reader = ArchiveReader(tmp_path / "a.zip")
    assert reader.rows[0]["file"] == "images/000000_..-ber-name.png"
    assert reader.rows[0]["note"] == "ü,\n\"q\""


def test_p_by_q_batches():
    identity = torch.tensor([-1, 0, 0, 0, 1, 2, 2, -1, 3, 3, 3, 3])
    batch = pxq_indices(identity, 3, 3, torch.Generator().manual_seed(0))
    people = identity[batch].view(3, 3)
    assert (people == people[:, :1]).all() and sorted(people[:, 0].tolist()) == [0, 2, 3]
    for row in batch.view(3, 3).tolist():  # two pictures: both, then one again
        assert len(set(row)) == min(3, int((identity == identity[row[0]]).sum()))
    assert torch.equal(batch, pxq_indices(identity, 3, 3, torch.Generator().manual_seed(0)))
    assert len(pxq_indices(identity, 4, 1)) == 4  # one picture each: person 1 counts too
    with pytest.raises(UserError, match="there are 3"):
        pxq_indices(identity, 4, 2)
