import json
import shutil

import pytest
import torch
from farl_layout import clip_layout

from a3gan import checkpoint
from a3gan.anonymizers.falco import Falco
from a3gan.config import load_config
from a3gan.errors import UserError
from a3gan.release import ship


def made(pool, **options):
    return Falco(pool, device="cpu", **{"steps": 3} | options)


@pytest.fixture(scope="module")
def method(tiny_pool):
    return made(tiny_pool)


@pytest.fixture(scope="module")
def faces():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_contract(method, faces):
    out = method.anonymize(faces)
    assert out.shape == faces.shape and out.dtype == torch.float32 and out.abs().max() <= 1
    assert not out.requires_grad
    assert torch.equal(out, method.anonymize(faces))
    assert method.anonymize(faces[:0]).shape == (0, 3, 64, 64)


def test_independent_of_the_batch(tiny_pool, faces):
    method = made(tiny_pool, steps=5)
    many = method.anonymize(faces)
    alone = torch.cat([method.anonymize(face[None]) for face in faces])
    assert (many - alone).abs().max() <= 1e-5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # two faces each
        five = method.anonymize(faces[[0, 1, 2, 0, 1]])
        assert torch.get_num_threads() == 2 and len(method.history) == 5
    finally:
        torch.set_num_threads(threads)
    assert (five - many[[0, 1, 2, 0, 1]]).abs().max() <= 1e-5


def test_nearest_has_no_seed(method, faces):
    assert method.supports == frozenset()
    assert torch.equal(method.anonymize(faces, seeds=[1, 2, 3]), method.anonymize(faces, seeds=[4, 5, 6]))
    with pytest.raises(UserError, match="alpha must be 1"):
        method.anonymize(faces, alpha=0.5)


def test_a_seed_starts_at_one_face_of_the_pool_whatever_the_picture(tiny_pool, faces):
    method = made(tiny_pool, neighbour="seed")
    assert method.supports == {"seed"}
    first, other = method.starts(faces, [7, 7, 8]), method.starts(faces.flip(0), [7, 7, 8])
    assert torch.equal(first, other) and first[0] == first[1] != first[2]
    assert (method.anonymize(faces, seeds=[1] * 3) - method.anonymize(faces, seeds=[2] * 3)).abs().max() > 1e-3


def test_the_nearest_face_of_the_pool_is_itself(method):
    rows = torch.tensor([3, 17, 31])
    assert method.starts(method.pool.render(method.generator, rows), [0] * 3).tolist() == rows.tolist()


def test_only_the_rows_between_come_from_the_pool(tiny_pool, faces):
    method = made(tiny_pool, steps=1)
    code, chosen = method.invert(faces), method.starts(faces, [0] * 3)
    expected = code.clone()
    expected[:, 3:8] = method.pool.w_plus(chosen, 10)[:, 3:8]
    constants = list(method.objective.constants(faces, code))
    image = method.objective.render(expected[:, 3:8], constants)
    torch.testing.assert_close(image, method.generator.synthesis(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [(0, 1), (1, 9), (2, 2), (9, 9)])
def test_any_rows(tiny_pool, faces, rows):
    out = made(tiny_pool, rows=rows, steps=1).anonymize(faces[:2])
    assert out.isfinite().all()


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_the_loss_falls_and_the_cosine_goes_to_the_margin(tiny_pool, faces, margin):
    method = made(tiny_pool, steps=20, margin=margin)
    method.anonymize(faces[:2])
    for trace in method.history:
        loss = [10 * abs(c - margin) + 0.1 * a for c, a in zip(trace.cosine, trace.attribute, strict=True)]
        assert min(loss[-3:]) < loss[0]
    assert len(method.history) == 2


def test_log(tiny_pool, faces, tmp_path):
    path = tmp_path / "log.jsonl"
    method = made(tiny_pool, log=path, margin=0.25)
    method.anonymize(faces[:2])
    method.anonymize(faces[2:])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [len(line["cosine"]) for line in lines] == [3, 3, 3]
    assert lines[2]["margin"] == 0.25 and lines[2]["cosine"] == [round(c, 4) for c in method.history[0].cosine]


def test_spaces_and_scorers(tiny_pool, faces, tmp_path):
    pytest.importorskip("timm")
    weights = tmp_path / "farl.pth"
    torch.save({"state_dict": clip_layout()}, weights)
    families = {}
    for options in ({}, {"space": "identity"}, {"farl": weights}, {"farl": weights, "space": "attributes"}):
        method = made(tiny_pool, steps=1, **options)
        families[str(options)] = {s.partition(":")[0] for s in method.meta["scorers"]}
        assert method.anonymize(faces[:1]).isfinite().all()
    assert list(families.values()) == [
        {"small", "attributes_plain"}, {"small", "attributes_plain"}, {"small", "farl"},
        {"small", "farl", "attributes_plain"},
    ]  # fmt: skip


def test_features_of_the_file_serve_only_the_network_that_made_them(tiny_pool, method, tmp_path):
    shutil.copy(tiny_pool.parent / "tiny.safetensors", tmp_path)
    tensors, meta = checkpoint.load(tiny_pool)
    tensors["pool.features"] = torch.eye(40, 224)
    for fingerprint, taken in ((method.space.fingerprint, True), ("attributes_plain:0", False)):
        path = checkpoint.save(tmp_path / "p.safetensors", tensors, meta | {"features": fingerprint})
        assert torch.equal(made(path).pool.features, torch.eye(40, 224)) == taken


def test_a_shipped_pool_makes_its_features_again(tiny_pool, method, tmp_path):
    shutil.copy(tiny_pool.parent / "tiny.safetensors", tmp_path)
    tensors, meta = checkpoint.load(tiny_pool)
    tensors["pool.features"] = method.pool.features
    meta |= {"features": method.space.fingerprint, "config": load_config(None).model_dump(mode="json")}
    path = checkpoint.save(tmp_path / "p.safetensors", tensors, meta)
    shipped = ship(path, tmp_path / "shipped.safetensors")
    assert checkpoint.load(shipped)[0]["pool.features"].numel() == 0
    torch.testing.assert_close(made(shipped).pool.features, method.pool.features, atol=2e-3, rtol=0)


def test_reduced_precision_is_near(tiny_pool, faces):
    exact, rough = made(tiny_pool, steps=1), made(tiny_pool, steps=1, precision="bf16")
    assert (exact.anonymize(faces) - rough.anonymize(faces)).abs().mean() < 0.05


def test_another_model_is_refused(tiny_pool, tmp_path):
    alone = shutil.copy(tiny_pool, tmp_path)
    with pytest.raises(UserError, match="tiny: neither a file"):
        made(alone)
    with pytest.raises(UserError, match="is another model"):
        made(alone, model="a3gan_64")
    assert made(alone, model=tiny_pool.parent / "tiny.safetensors").size == 64


def test_foreign_files(tiny_pool, tiny_weights, tmp_path):
    with pytest.raises(UserError, match="stage 'a3gan'"):
        made(tiny_weights)
    tensors, meta = checkpoint.load(tiny_pool)
    empty = checkpoint.save(tmp_path / "e.safetensors", tensors | {"pool.filled": torch.tensor(0)}, meta)
    with pytest.raises(UserError, match="no faces yet"):
        made(empty)
    with pytest.raises(UserError, match="holds no pool"):
        made(checkpoint.save(tmp_path / "n.safetensors", {"pool.codes": torch.zeros(1, 1)}, meta))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 1.5}, "margin 1.5"), ({"steps": 0}, "steps 0"), ({"rows": (7, 3)}, "rows"),
        ({"rows": (3, 10)}, "rows"), ({"neighbour": "far"}, "neighbour 'far'"), ({"space": "clip"}, "space 'clip'"),
        ({"space": "farl"}, "FaRL's weights"), ({"recogniser": "arcface"}, "arcface"), ({"precision": "fp8"}, "fp8"),
    ],
)  # fmt: skip
def test_bad_options(tiny_pool, options, words):
    with pytest.raises(UserError, match=words):
        made(tiny_pool, **options)


def test_acceptable_as_of_method_a3gan(method, faces):
    after = faces.clone()
    after[1, 0, 0, 0] = float("nan")
    assert method.acceptable(faces, after).tolist() == [True, False, True]


def test_nothing_of_the_generator_is_changed(method, faces):
    before = {k: v.clone() for k, v in method.generator.state_dict().items()}
    method.anonymize(faces)
    assert all(torch.equal(v, before[k]) for k, v in method.generator.state_dict().items())


def test_the_shipped_pool_belongs_to_the_shipped_model():
    path = checkpoint.resolve("falco_64")
    assert path.stat().st_size < 1.5 * 2**20
    method = Falco(device="cpu", steps=1)
    assert len(method.pool) == 1024 and method.meta["prior"] == "z"
    faces = method.pool.render(method.generator, torch.arange(20))
    assert method.starts(faces, [0] * 20).tolist() == list(range(20))
    assert method.anonymize(faces[:1]).isfinite().all()
