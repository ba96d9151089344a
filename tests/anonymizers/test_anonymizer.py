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
    assert changed.any() and not changed[:, :10].any() and not changed[190:].any()
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


def test_profiles_and_points_beside_their_box_are_mosaicked_in_photos(picture):
    detector = FakeDetector()
    (faces,) = detector.detect([picture])
    faces.landmarks[0, 2] += 0.5 * (faces.landmarks[0, 1] - faces.landmarks[0, 0])
    result = Anonymizer(Synthetic(), detector).process(picture, faces=faces)
    assert [f.status for f in result.faces] == ["mosaicked", "synthesised"]
    assert result.faces[0].reason == "seen from the side"
    faces.landmarks[1] += 200
    result = Anonymizer(Synthetic(), detector).process(picture, faces=faces)
    assert result.faces[1].reason == "its points do not fit its box"
    assert [f.status for f in solid().process(picture, faces=faces).faces] == ["redacted"] * 2


def test_one_bad_face_leaves_the_other_synthesised(picture):
    result = Anonymizer(Synthetic("nan"), FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["mosaicked", "synthesised"]
    result = Anonymizer(Synthetic("raises in a batch"), FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["synthesised"] * 2


def test_a_pass_that_fails_is_halved_until_only_the_bad_face_is_left(picture):
    method = Synthetic("raises in a batch")
    results = Anonymizer(method, FakeDetector()).process([picture, picture])
    assert all(face.status == "synthesised" for result in results for face in result.faces)
    assert method.calls == [4, 2, 1, 1, 2, 1, 1]


def test_batches_shrink_when_memory_runs_out(picture):
    class Small(Synthetic):
        def _anonymize(self, faces, policy, seeds, alpha):
            self.calls.append(len(faces))
            if len(faces) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return -faces

    method = Small()
    anonymizer = Anonymizer(method, FakeDetector(), batch_size=16)
    assert sum(r.mosaicked for r in anonymizer.process([picture] * 3)) == 0
    assert anonymizer.batch_size <= 3
    method.calls.clear()
    anonymizer.process([picture] * 3)
    assert max(method.calls) <= 3  # it was learnt
    assert Anonymizer(Synthetic(), FakeDetector(), batch_size=1)(picture).shape == picture.shape


def test_seeds_by_list_and_by_function(picture):
    anonymizer = Anonymizer(Synthetic(), FakeDetector(), seed=4)
    result = anonymizer.process(picture, seeds=[7, None])
    assert [f.seed for f in result.faces][0] == 7 and [f.status for f in result.faces] == ["synthesised", "kept"]
    changed = (result.image != picture).any(0)
    assert changed[60:110, 60:100].all() and not changed[60:120, 160:220].any()
    seen = []

    def by_picture(number, canvas, faces):
        seen.append((number, canvas.shape, canvas.dtype, len(faces)))
        return [number, number]

    results = anonymizer.process([picture, picture], seeds=by_picture)
    assert [[f.seed for f in r.faces] for r in results] == [[0, 0], [1, 1]]
    assert seen == [(0, (200, 300, 3), np.uint8, 2), (1, (200, 300, 3), np.uint8, 2)]
    for bad in ([1], [1, 2, 3]):
        with pytest.raises(UserError, match="seeds"):
            anonymizer.process(picture, seeds=bad)
    with pytest.raises(UserError, match="seeds"):
        anonymizer.process([picture, picture], seeds=[[1, 2]])


def test_own_detections_and_a_threshold(picture):
    anonymizer = Anonymizer(Synthetic(), FakeDetector(), thresh=0.5)
    faces = FakeDetector().detect([0])[0]
    faces.probability = np.array([0.9, 0.4], np.float32)
    result = anonymizer.process(picture, faces=faces)
    assert len(result.faces) == 1
    assert [len(r.faces) for r in anonymizer.process([picture, picture], faces=[faces, Faces.none()])] == [1, 0]
    with pytest.raises(UserError, match="faces"):
        anonymizer.process([picture, picture], faces=[faces])


@pytest.mark.parametrize("options", [{"mask_scale": 9}, {"mask_scale": 0.1}, {"thresh": 1.0}, {"batch_size": 0}])
def test_impossible_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        solid(**options)


def test_mask_scale_and_boxes_enlarge_what_is_covered(picture):
    own, large, box = solid()(picture), solid(mask_scale=1.3)(picture), solid(boxes=True)(picture)
    counts = [(image != picture).any(0).sum().item() for image in (own, large, box)]
    assert counts[1] > 1.5 * counts[0] and counts[2] > 1.2 * counts[0]
    synthetic = [Anonymizer(Synthetic(), FakeDetector(), mask_scale=m)(picture) for m in (0.8, 1.0, 1.3)]
    counts = [(image != picture).any(0).sum().item() for image in synthetic]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("name", ["blur", "pixelate", "solid"])
def test_redactions_cover_the_box_at_the_picture_s_own_resolution(picture, name):
    result = Anonymizer.from_pretrained(name, "cpu", detector=FakeDetector()).process(picture)
    assert [f.status for f in result.faces] == ["redacted"] * 2 and result.mosaicked == 0
    changed = (result.image != picture).any(0)
    for face in result.faces:
        x0, y0, x1, y1 = (int(v) for v in face.box)
        assert changed[y0:y1, x0:x1].float().mean() > 0.97
    assert not changed[:, :10].any() and not changed[:, 250:].any()


def test_identity_is_bit_for_bit(picture):
    result = Anonymizer.from_pretrained("identity", "cpu", detector=FakeDetector()).process(picture)
    assert torch.equal(result.image, picture) and [f.status for f in result.faces] == ["kept"] * 2


def test_solid_as_the_way_out(picture):
    from a3gan.anonymizers.base import Redaction

    anonymizer = Anonymizer(Synthetic("raises"), FakeDetector(), fallback=Redaction("solid", colour=-1.0))
    assert (anonymizer(picture)[:, 60:110, 50:110] == 0).all()


def test_stages_by_themselves_as_a_pipeline_calls_them(picture):
    from a3gan.anonymizers.records import records_of

    canvas, method = picture.permute(1, 2, 0).numpy(), Synthetic()
    anonymizer = Anonymizer(method, FakeDetector(), seed=4)
    expected = anonymizer(canvas)
    frames = [canvas.copy(), canvas.copy()]
    records = [records_of(faces, 4) for faces in anonymizer.detector.detect(frames)]
    for number, record in enumerate(r for one in records for r in one):
        record.track = number % 2
    crops = [anonymizer.crops(frame, one) for frame, one in zip(frames, records, strict=True)]
    method.calls.clear()
    anonymizer.fill([crop for some in crops for crop in some])
    assert method.calls == [4]  # across frames
    memory = {}
    for frame, one, some in zip(frames, records, crops, strict=True):
        anonymizer.compose(frame, one, some, memory=memory)
    assert (frames[0] == expected).all() and set(memory) == {0, 1}
    assert np.abs(frames[1].astype(int) - expected).max() <= 1  # the same frame again: its colours stay
    # A face that never went through the method is not left as it was.
    lost = records_of(anonymizer.detector.detect([canvas])[0], 4)
    frame = canvas.copy()
    anonymizer.compose(frame, lost, [])
    assert [record.status for record in lost] == ["mosaicked"] * 2 and (
        frame[60:110, 60:100] != canvas[60:110, 60:100]
    ).any()


def test_transparency_and_sixteen_bits_keep_their_kind(picture):
    array = picture.permute(1, 2, 0).numpy()
    alpha = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1))
    rgba = np.dstack([array, alpha])
    anonymizer = Anonymizer(Synthetic(), FakeDetector())
    expected = anonymizer(array)
    out = anonymizer(rgba)
    assert (out[..., 3] == alpha).all() and (out[..., :3] == expected).all()
    pil = anonymizer(Image.fromarray(rgba))
    assert pil.mode == "RGBA" and (np.array(pil) == out).all()
    deep = anonymizer(array.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - expected).max() < 1.5
    unchanged = (expected == array).all(2)
    assert (deep[unchanged] == array[unchanged].astype(np.uint16) * 257).mean() > 0.99
    gray = anonymizer(Image.fromarray(array[..., 0].astype(np.uint16) * 257))
    assert gray.mode.startswith("I;16") and gray.size == (300, 200)


def test_a_face_that_only_shows_over_white_is_found_as_well(picture):
    class Whitish:
        """Finds a face where the picture's mean is above 200."""

        def detect(self, images):
            return [FakeDetector().detect([0])[0] if image.mean() > 200 else Faces.none() for image in images]

    rgba = np.dstack([picture.permute(1, 2, 0).numpy(), np.full((200, 300), 40, np.uint8)])
    assert len(Anonymizer(Synthetic(), Whitish()).process(rgba).faces) == 2
    assert len(Anonymizer(Synthetic(), FakeDetector()).process(rgba).faces) == 2  # found twice, counted once


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


def test_a_folder_called_as_a_method_is_no_weights(tmp_path, monkeypatch):
    (tmp_path / "blur").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Anonymizer.from_pretrained("blur", "cpu").method.name == "blur"


def test_a_fault_is_logged_once(picture, caplog):
    anonymizer = Anonymizer(Synthetic("raises in a batch"), FakeDetector())
    for _ in range(3):
        anonymizer(picture)
    assert sum("trying its halves" in r.message for r in caplog.records if r.levelname == "WARNING") == 1
