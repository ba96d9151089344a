import numpy as np
import pytest
import torch
from PIL import Image

from a3gan import Anonymizer
from a3gan.anonymizers.base import FaceAnonymizer, face_seed
from a3gan.anonymizers.classic import Identity, Solid
from a3gan.data.align import invert, template, transform_points
from a3gan.data.ranges import to_float
from a3gan.errors import UserError
from a3gan.media.detect import Faces


class FakeDetector:
    """Finds the same two faces in every picture: upright, eyes 40 and 20 px apart."""

    def __init__(self, places=((20.0, 30.0, 120.0), (160.0, 60.0, 60.0))):
        self.places = places  # (x, y, side) of the frame in the picture

    def detect(self, images):
        boxes, points = [], []
        for x, y, side in self.places:
            points.append(template("face").numpy() * side - 0.5 + (x, y))
            boxes.append((x + 0.15 * side, y + 0.1 * side, x + 0.85 * side, y + 0.95 * side))
        faces = Faces(np.array(boxes, np.float32), np.ones(len(boxes), np.float32), np.array(points, np.float32))
        return [faces for _ in images]


class Synthetic(FaceAnonymizer):
    """Inverts a face; misbehaves as it is told."""

    name, supports, synthesises = "synthetic", frozenset({"policy", "seed", "alpha"}), True

    def __init__(self, fault=None, size=32):
        self.fault, self.size, self.calls = fault, size, []

    def _anonymize(self, faces, policy, seeds, alpha):
        self.calls.append(len(faces))
        if self.fault == "raises" or (self.fault == "raises in a batch" and len(faces) > 1):
            raise RuntimeError("no luck")
        out = -faces if self.fault != "copies" else faces + 0.001
        if self.fault == "nan":
            out[0, 0, 3, 3] = float("nan")
        return out


@pytest.fixture
def picture():
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 20, 30, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (200, 300), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).to(torch.uint8)


def solid(**options):
    return Anonymizer(Solid(size=32, colour=1.0, device="cpu"), FakeDetector(), **options)


def test_types_round_trip(picture):
    anonymizer = solid()
    array = picture.permute(1, 2, 0).numpy()
    expected = anonymizer(array)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.uint8 and expected.shape == array.shape
    assert (expected != array).any() and (array == picture.permute(1, 2, 0).numpy()).all()
    pil = anonymizer(Image.fromarray(array))
    assert isinstance(pil, Image.Image) and (np.array(pil) == expected).all()
    tensor = anonymizer(picture)
    assert tensor.dtype == torch.uint8 and (tensor.permute(1, 2, 0).numpy() == expected).all()
    batch = anonymizer(torch.stack([picture, picture]))
    assert batch.shape == (2, 3, 200, 300) and torch.equal(batch[1], tensor)
    mixed = anonymizer([array, Image.fromarray(array), picture])
    assert [type(m) for m in mixed] == [np.ndarray, Image.Image, torch.Tensor]
    gray = anonymizer(Image.fromarray(array).convert("L"))
    assert gray.mode == "L" and gray.size == (300, 200)
    assert anonymizer([]) == [] and anonymizer(picture[None][:0]).shape == (0, 3, 200, 300)


def test_float_tensors_keep_untouched_pixels_exactly(picture):
    floats = to_float(picture) + 0.001
    out = solid()(floats)
    assert out.dtype == torch.float32
    changed = (out != floats).any(0)
    assert changed.any() and not changed[:, :20].any() and not changed[190:].any()
    half = solid()(floats.half())
    assert half.dtype == torch.float16


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), torch.zeros(4, 4), torch.full((3, 9, 9), 255.0), "x"],
)
def test_other_pictures_are_refused(bad):
    with pytest.raises(UserError, match="picture"):
        solid()(bad)


def test_two_faces_in_one_picture_one_pass(picture):
    method = Synthetic()
    result = Anonymizer(method, FakeDetector(), seed=4).process(picture)
    assert [f.status for f in result.faces] == ["synthesised"] * 2 and result.mosaicked == 0
    assert [f.seed for f in result.faces] == [face_seed(4, 0), face_seed(4, 1)]
    changed = (result.image != picture).any(0)
    for x, y, side in FakeDetector().places:
        core = changed[int(y + 0.3 * side) : int(y + 0.8 * side), int(x + 0.3 * side) : int(x + 0.7 * side)]
        assert core.float().mean() > 0.9
    assert not changed[:, :20].any() and not changed[:, 225:].any()
    method.calls.clear()
    Anonymizer(method, FakeDetector())([picture, picture, picture])
    assert method.calls == [6]


@pytest.mark.parametrize("fault", ["raises", "copies"])
def test_every_face_that_fails_is_mosaicked(picture, fault):
    result = Anonymizer(Synthetic(fault), FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["mosaicked"] * 2 and all(f.reason for f in result.faces)
    for x, y, side in FakeDetector().places:
        x0, y0, s = int(x + 0.2 * side), int(y + 0.15 * side), int(0.6 * side)
        cells = result.image[:, y0 : y0 + s, x0 : x0 + s].flatten(1).unique(dim=1).shape[1]
        assert cells <= 36


def test_one_bad_face_leaves_the_other_synthesised(picture):
    result = Anonymizer(Synthetic("nan"), FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["mosaicked", "synthesised"]
    result = Anonymizer(Synthetic("raises in a batch"), FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["synthesised"] * 2


def test_a_face_mostly_outside_is_mosaicked(picture):
    result = Anonymizer(Synthetic(), FakeDetector([(-80.0, 20.0, 120.0)])).process(picture)
    assert result.faces[0].status == "mosaicked" and "outside" in result.faces[0].reason
    assert (result.image[:, 40:130, :20] != picture[:, 40:130, :20]).any()


def test_alpha_zero_may_return_the_original(picture):
    anonymizer = Anonymizer(Synthetic("copies"), FakeDetector())
    assert anonymizer.process(picture, alpha=0.0).mosaicked == 0


def test_deterministic_and_independent_of_the_list(picture, tiny_weights):
    from a3gan.anonymizers.a3gan import A3ganAnonymizer

    anonymizer = Anonymizer(A3ganAnonymizer(tiny_weights, device="cpu"), FakeDetector())
    alone, again = anonymizer(picture, seed=1), anonymizer(picture, seed=1)
    assert torch.equal(alone, again)
    together = anonymizer([picture.flip(2), picture], seed=1)[1]
    assert (alone.int() - together.int()).abs().max() <= 1  # 1e-5 may round to the next of 256 values


def test_settings_that_cannot_be_met_fail_even_without_a_face(picture):
    anonymizer = Anonymizer(Identity(size=32, device="cpu"), FakeDetector([]))
    with pytest.raises(UserError, match="policy"):
        anonymizer(picture, policy="everything")
    with pytest.raises(UserError, match="alpha"):
        anonymizer([], alpha=0.5)
    with pytest.raises(UserError, match="expresion"):
        anonymizer(picture, policy="keep=expresion")
    with pytest.raises(UserError, match="Policy"):
        anonymizer(picture, policy=3)


def test_aligned_and_detect(tiny_weights, picture):
    anonymizer = Anonymizer.from_pretrained(tiny_weights, device="cpu")
    faces = torch.zeros(2, 3, 64, 64)
    out = anonymizer.aligned(faces, policy="fatigue", seeds=[1, 2])
    assert out.shape == faces.shape
    assert not torch.equal(anonymizer.aligned(faces), anonymizer.aligned(faces, policy="everything"))
    found = solid().detect([picture, picture])
    assert len(found) == 2 and len(solid().detect(picture)) == 2


def test_from_pretrained_names():
    assert Anonymizer.from_pretrained("pixelate", device="cpu").method.name == "pixelate"
    with pytest.raises(UserError, match="no_such_weights"):
        Anonymizer.from_pretrained("no_such_weights", device="cpu")


def test_mtcnn_finds_two_rendered_faces():
    pytest.importorskip("facenet_pytorch")
    from a3gan.data.synthetic import render, sample_identities, sample_states

    generator = torch.Generator().manual_seed(1)
    who = sample_identities(2, generator)
    faces = render(who, sample_states(2, generator), 160, "photo")
    picture = np.concatenate([((f + 1) * 127.5).byte().permute(1, 2, 0).numpy() for f in faces], 1)
    result = Anonymizer.from_pretrained("solid", device="cpu").process(picture)
    assert len(result.faces) == 2 and result.image.shape == picture.shape


def test_points_of_the_fake_detector_are_the_frame():
    x, y, side = FakeDetector().places[0]
    points = torch.from_numpy(FakeDetector().detect([0])[0].landmarks[:1])
    scale = 32 / side
    matrix = torch.tensor([[[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]]])
    torch.testing.assert_close(transform_points(points, matrix)[0], template("face", 32).float())
    torch.testing.assert_close(transform_points(template("face", 32).float()[None], invert(matrix)), points)
