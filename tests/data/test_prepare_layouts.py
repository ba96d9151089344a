"""Miniature copies of CelebA and FFHQ from rendered faces: labels, people, splits and landmarks arrive."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from a3gan.data.archive import FaceSet
from a3gan.data.attributes import CELEBA, CELEBA_NAMES, Policy, targets
from a3gan.data.prepare import prepare
from a3gan.data.prepare_layouts import detect, five_points
from a3gan.data.ranges import to_pil
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError

COUNT = 6
HEADER = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"


class NoDetector:
    """Landmarks are given, so nothing may be detected."""

    def detect(self, images: list) -> list:
        raise AssertionError("the detector was asked")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return synthetic_faces(COUNT, 128, 5, frame="ffhq")


def attribute(i: int, k: int) -> int:
    return 1 if (i * 7 + k * 3) % 5 < 2 else -1


def write_celeba(root: Path, faces: FaceSet, kind: str = "img_align_celeba", official: bool = True) -> Path:
    """As the authors' download: Img/ with the pictures, Anno/ and Eval/ with tables; or all in one folder."""
    pictures, anno, evaluation = ((root / n if official else root) for n in ("Img", "Anno", "Eval"))
    (pictures / kind).mkdir(parents=True)
    for folder in (anno, evaluation):
        folder.mkdir(exist_ok=True)
    names = [f"{i + 1:06d}.jpg" for i in range(COUNT)]
    for i, name in enumerate(names):
        to_pil(faces.images[i]).save(pictures / kind / name, quality=98)
    table = [str(COUNT), " ".join(CELEBA_NAMES) + " "]
    table += [f"{n}  " + " ".join(f"{attribute(i, k):2d}" for k in range(40)) for i, n in enumerate(names)]
    (anno / "list_attr_celeba.txt").write_text("\n".join(table) + "\n")
    (anno / "identity_CelebA.txt").write_text("".join(f"{n} {100 + i // 2}\n" for i, n in enumerate(names)))
    (evaluation / "list_eval_partition.txt").write_text("".join(f"{n} {i // 2}\n" for i, n in enumerate(names)))
    points = (faces.landmarks * 128 - 0.5).round().int().flatten(1).tolist()
    lines = [str(COUNT), HEADER] + [f"{n} " + " ".join(map(str, p)) for n, p in zip(names, points, strict=True)]
    stem = "list_landmarks_celeba" if kind == "img_celeba" else "list_landmarks_align_celeba"
    (anno / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    return root


def check_celeba(archive: Path, faces: FaceSet) -> None:
    made = FaceSet.load(archive)
    assert len(made) == COUNT and made.split == ["train", "train", "val", "val", "test", "test"]
    assert made.identity.tolist() == [0, 0, 1, 1, 2, 2] and made.identity_names[0] == "celeba:100"
    known = targets(made, CELEBA)
    assert list(known) == list(CELEBA_NAMES)
    wanted = torch.tensor([[attribute(i, k) == 1 for k in range(40)] for i in range(COUNT)]).float()
    assert torch.equal(torch.stack(list(known.values()), 1), wanted)
    smiling, male = (CELEBA_NAMES.index(name) for name in ("Smiling", "Male"))
    ours = targets(made)
    assert torch.equal(ours["expression"], wanted[:, smiling]) and torch.equal(ours["gender"], wanted[:, male])
    assert ours["yawning"].isnan().all()
    # Aligned by the given points: they lie where the faces' own did, to half a pixel of the source.
    assert (made.landmarks - faces.landmarks).abs().max() < 0.03


@pytest.mark.parametrize("kind", ["img_align_celeba", "img_celeba"])
@pytest.mark.parametrize("official", [True, False])
def test_celeba_folder(faces: FaceSet, tmp_path: Path, kind: str, official: bool) -> None:
    root = write_celeba(tmp_path / "CelebA", faces, kind, official)
    assert detect(root) == "celeba"
    report = prepare(root, tmp_path / "x.zip", size=64, frame="ffhq", detector=NoDetector())
    assert report.kept == COUNT
    check_celeba(tmp_path / "x.zip", faces)
    # The pictures' own folder finds the tables around it as well.
    inner = root / "Img" / kind if official else root / kind
    prepare(inner, tmp_path / "y.zip", size=64, frame="ffhq", detector=NoDetector(), layout="celeba")
    assert FaceSet.load(tmp_path / "y.zip").split == FaceSet.load(tmp_path / "x.zip").split


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, file.relative_to(folder.parent).as_posix())
    return path


def test_celeba_zips(faces: FaceSet, tmp_path: Path) -> None:
    root = write_celeba(tmp_path / "celeba", faces, official=False)
    # torchvision's: the pictures' zip beside the tables
    packed = zipped(root / "img_align_celeba", root / "img_align_celeba.zip")
    prepare(packed, tmp_path / "a.zip", size=64, frame="ffhq", detector=NoDetector())
    check_celeba(tmp_path / "a.zip", faces)
    whole = zipped(root, tmp_path / "everything.zip")  # tables inside
    assert detect(whole) == "celeba"
    prepare(whole, tmp_path / "b.zip", size=64, frame="ffhq", detector=NoDetector())
    check_celeba(tmp_path / "b.zip", faces)


def test_celeba_csv_mirror_and_png(faces: FaceSet, tmp_path: Path) -> None:
    root = write_celeba(tmp_path / "celeba", faces, official=False)
    for name, first in (
        ("list_attr_celeba", "image_id"), ("list_landmarks_align_celeba", "image_id"),
        ("list_eval_partition", "image_id,partition"),
    ):  # fmt: skip
        lines = (root / f"{name}.txt").read_text().splitlines()
        rows = [",".join(line.split()) for line in lines if ".jpg" in line]
        header = [first] if "," in first else ["image_id," + ",".join(lines[1].split())]
        (root / f"{name}.csv").write_text("\n".join(header + rows) + "\n")
        (root / f"{name}.txt").unlink()
    (root / "img_align_celeba").rename(root / "img_align_celeba_png")
    for file in (root / "img_align_celeba_png").iterdir():  # the tables go on saying .jpg
        file.rename(file.with_suffix(".png"))
    prepare(root, tmp_path / "a.zip", size=64, frame="ffhq", detector=NoDetector())
    check_celeba(tmp_path / "a.zip", faces)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("Anno/list_attr_celeba.txt", "1\nSmiling Male\n000001.jpg 1 1\n", "lacks the attribute 5_o_Clock_Shadow"),
        ("Anno/list_landmarks_align_celeba.txt", f"2\n{HEADER}\n000001.jpg 1 2 3\n", "line 3 has 3 values, wanted 10"),
        ("Anno/identity_CelebA.txt", "000001.jpg 5\nsomething else\n", "line 2 begins with 'something'"),
    ],
)
def test_a_damaged_celeba_table_is_named(faces: FaceSet, tmp_path: Path, file: str, text: str, words: str) -> None:
    root = write_celeba(tmp_path / "CelebA", faces)
    (root / file).write_text(text)
    with pytest.raises(UserError) as caught:
        prepare(root, tmp_path / "x.zip", detector=NoDetector())
    assert words in str(caught.value) and Path(file).name in str(caught.value)


def test_celeba_without_pictures_or_tables(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "list_attr_celeba.txt").write_text("0\n")
    with pytest.raises(UserError, match="no img_align_celeba"):
        prepare(tmp_path / "a", tmp_path / "x.zip")
    root = write_celeba(tmp_path / "b", faces, official=False)
    for table in root.glob("*.txt"):
        table.unlink()
    with pytest.raises(UserError, match="none of CelebA's tables"):
        prepare(root, tmp_path / "x.zip")
    with pytest.raises(UserError, match="--layout other: unknown"):
        prepare(root, tmp_path / "x.zip", layout="other")


def sixty_eight(five: list[list[float]]) -> list[list[float]]:
    """68 points whose eyes, nose tip and mouth corners are the five."""
    points = [[1.0, 1.0]] * 68
    for eye, start in ((0, 36), (1, 42)):
        ring = [(-5, 0), (-2, -2), (2, -2), (5, 0), (2, 2), (-2, 2)]
        points[start : start + 6] = [[five[eye][0] + dx, five[eye][1] + dy] for dx, dy in ring]
    points[30], points[48], points[54] = five[2], five[3], five[4]
    return points


def test_68_points_give_five() -> None:
    five = [[10.0, 20.0], [30.0, 21.0], [20.0, 30.0], [12.0, 40.0], [28.0, 41.0]]
    assert five_points(sixty_eight(five)) == [v for point in five for v in point]


def write_ffhq(root: Path, faces: FaceSet, folder: str, nested: bool) -> Path:
    entries = {}
    for i in range(COUNT):
        number = 59_997 + i  # the split lies between them
        inner = root / folder / (f"{number // 1000 * 1000:05d}" if nested else "")
        inner.mkdir(parents=True, exist_ok=True)
        to_pil(faces.images[i]).save(inner / f"{number:05d}.png")
        own = (faces.landmarks[i] * 128 - 0.5).tolist()
        aligned = [[x * 8, y * 8] for x, y in own]  # FFHQ's JSON speaks of 1024 px
        entries[str(number)] = {
            "category": "training", "metadata": {"photo_title": 'a "quoted" }{ title'},
            "image": {"face_landmarks": sixty_eight(aligned)},
            "in_the_wild": {"face_landmarks": sixty_eight(own)},
        }  # fmt: skip
    (root / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    return root


@pytest.mark.parametrize("folder", ["thumbnails128x128", "in-the-wild-images"])
@pytest.mark.parametrize("nested", [True, False])
def test_ffhq(faces: FaceSet, tmp_path: Path, folder: str, nested: bool) -> None:
    root = write_ffhq(tmp_path / "ffhq", faces, folder, nested)
    assert detect(root) == "ffhq"
    report = prepare(root, tmp_path / "x.zip", size=64, frame="ffhq", detector=NoDetector())
    made = FaceSet.load(tmp_path / "x.zip")
    assert report.kept == COUNT and made.split == ["train"] * 3 + ["val"] * 3
    assert (made.identity == -1).all()  # the sub-folders are no people
    assert (made.landmarks - faces.landmarks).abs().max() < 0.03
    packed = zipped(root / folder, tmp_path / f"{folder}.zip")
    assert detect(packed) == "ffhq"
    (tmp_path / "ffhq-dataset-v2.json").write_text((root / "ffhq-dataset-v2.json").read_text())
    prepare(packed, tmp_path / "y.zip", size=64, frame="ffhq", detector=NoDetector())
    assert FaceSet.load(tmp_path / "y.zip").split == made.split


def test_a_cut_ffhq_json_is_named(faces: FaceSet, tmp_path: Path) -> None:
    root = write_ffhq(tmp_path / "ffhq", faces, "thumbnails128x128", True)
    text = (root / "ffhq-dataset-v2.json").read_text()
    (root / "ffhq-dataset-v2.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="ffhq-dataset-v2.json: not the whole"):
        prepare(root, tmp_path / "x.zip", detector=NoDetector())


def test_other_folders_stay_plain(tmp_path: Path, faces: FaceSet) -> None:
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    assert detect(tmp_path / "photos") == "plain" and detect(tmp_path / "absent.zip") == "plain"
    root = write_ffhq(tmp_path / "ffhq", faces, "thumbnails128x128", True)
    with pytest.raises(AssertionError, match="the detector was asked"):
        prepare(root, tmp_path / "x.zip", layout="plain", detector=NoDetector())


def test_the_forty_can_be_named_in_a_policy() -> None:
    c = Policy.parse("keep=expression change=hair,Young", schema=CELEBA).describe(CELEBA)
    assert c["Smiling"] == "keep" and c["Bangs"] == c["Young"] == "change"
