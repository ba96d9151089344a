"""What every method of `methods.METHODS` promises, on tiny networks with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.anonymizers import methods
from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.anonymizers.methods import METHODS, create
from a3gan.config import load_config
from a3gan.data.attributes import Policy
from a3gan.errors import UserError

Weights = pytest.FixtureRequest


def tiny_facemae(request: Weights) -> Path:
    from a3gan.models.facemae import build_facemae

    sizes = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    cfg = load_config(None, ["stage=facemae", *(f"model.facemae.{key}={value}" for key, value in sizes.items())])
    torch.manual_seed(0)
    networks = {"facemae": build_facemae(cfg.model.facemae, cfg.data.size)}
    meta = {"stage": "facemae", "config": cfg.model_dump(), "frame": "face", "size": 64, "scorers": []}
    folder = request.getfixturevalue("tmp_path_factory").mktemp("facemae")
    return checkpoint.save(folder / "tiny.safetensors", checkpoint.prefixed(networks), meta)


def tiny_diff_privacy(request: Weights) -> Path:
    return request.getfixturevalue("tiny_diffusion")


def tiny_pool(request: Weights) -> Path:
    return request.getfixturevalue("tiny_pool")


def tiny_a3gan(request: Weights) -> Path:
    return request.getfixturevalue("tiny_weights")


TINY = {"a3gan": tiny_a3gan, "falco": tiny_pool, "facemae": tiny_facemae, "diff_privacy": tiny_diff_privacy,
        "k_same": tiny_pool}  # fmt: skip
CASES = {  # the options that change what is supported, and few steps
    "a3gan": [{}], "falco": [{"steps": 3}, {"steps": 3, "neighbour": "seed"}], "facemae": [{}, {"ratio": 0.9}],
    "diff_privacy": [{"steps": 4}], "k_same": [{"k": 2}],
    "blur": [{}], "pixelate": [{}], "solid": [{}], "identity": [{}],
}  # fmt: skip
ASKED = [(name, options) for name, some in CASES.items() for options in some]


@pytest.fixture(scope="module", params=ASKED, ids=lambda case: "-".join(map(str, [case[0], *case[1].values()])))
def method(request: pytest.FixtureRequest) -> FaceAnonymizer:
    name, options = request.param
    if lacking := methods.missing(name):
        pytest.skip(f"method {name} needs {', '.join(lacking)}: pip install 'a3gan[methods]'")
    weights = TINY[name](request) if name in TINY else None
    return create(name, weights, device="cpu", size=64, **options)


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """Three rendered faces: noise would leave nothing to search for."""
    from a3gan.data.synthetic import synthetic_faces

    return synthetic_faces(3, 64, 5, identities=3).fetch([0, 1, 2])


def test_every_method_has_a_case() -> None:
    assert set(CASES) == set(METHODS)
    assert set(TINY) == {name for name, entry in METHODS.items() if entry.weights}


def test_name_frame_and_size(method: FaceAnonymizer) -> None:
    assert METHODS[method.name].kind == type(method).__name__
    assert (method.frame, method.size) == ("face", 64)
    assert method.supports <= {"policy", "seed", "alpha"}
    assert method.synthesises == (method.redaction is None)


def test_shape_range_and_repetition(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    before = faces.clone()
    out = method.anonymize(faces, seeds=[1, 2, 3])
    assert out.shape == faces.shape and out.dtype == torch.float32 and out.device == faces.device
    assert out.isfinite().all() and out.abs().max() <= 1 and not out.requires_grad
    assert torch.equal(out, method.anonymize(faces, seeds=[1, 2, 3]))
    assert torch.equal(faces, before), "the input was written to"
    assert method.name == "identity" or not torch.equal(out, faces)


def test_a_face_does_not_depend_on_its_batch(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    together = method.anonymize(faces, seeds=[1, 2, 3])
    turned = method.anonymize(faces.flip(0), seeds=[3, 2, 1]).flip(0)
    alone = torch.cat([method.anonymize(faces[i : i + 1], seeds=[i + 1]) for i in range(3)])
    assert (together - alone).abs().max() <= 1e-5
    assert (together - turned).abs().max() <= 1e-5


def test_global_randomness_plays_no_part(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    torch.manual_seed(1)
    first = method.anonymize(faces[:1], seeds=[5])
    torch.manual_seed(2)
    assert torch.equal(first, method.anonymize(faces[:1], seeds=[5]))


def test_what_is_supported_has_an_effect(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    base = method.anonymize(faces, seeds=[1, 2, 3])
    other = method.anonymize(faces, seeds=[4, 5, 6])
    changed = (base - other).abs().flatten(1).amax(1) > 1e-4
    assert changed.any() if "seed" in method.supports else torch.equal(base, other)
    if "alpha" in method.supports:
        assert (method.anonymize(faces, seeds=[1, 2, 3], alpha=0.3) - base).abs().max() > 1e-4
    if "policy" in method.supports:
        policies = map(Policy.parse, ("everything", "fatigue"))
        one, two = (method.anonymize(faces, seeds=[1, 2, 3], policy=policy) for policy in policies)
        assert (one - two).abs().max() > 1e-4


def test_what_is_not_supported_raises(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    if "policy" not in method.supports:
        with pytest.raises(UserError, match=f"{method.name}.*policy"):
            method.anonymize(faces, policy=Policy())
    if "alpha" not in method.supports:
        with pytest.raises(UserError, match=f"{method.name}.*alpha"):
            method.anonymize(faces, alpha=0.5)


def test_wrong_input_raises(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    with pytest.raises(UserError, match="64x64"):
        method.anonymize(faces[:, :, :32, :32])
    with pytest.raises(UserError, match="1 seeds for 3"):
        method.anonymize(faces, seeds=[1])
    with pytest.raises(UserError, match="float"):
        method.anonymize(faces.byte())


def test_no_face_at_all(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    assert method.anonymize(faces[:0], seeds=[]).shape == (0, 3, 64, 64)


def test_what_is_not_finite_is_not_acceptable(method: FaceAnonymizer, faces: torch.Tensor) -> None:
    broken = faces.clone()
    broken[1, 0, 3, 3] = float("nan")
    assert method.acceptable(faces, broken).tolist()[1] is False


def test_a_method_with_weights_says_which_scorers_it_used(method: FaceAnonymizer) -> None:
    if METHODS[method.name].weights:
        assert Path(method.path).is_file() and isinstance(method.meta, dict)
        assert all(isinstance(one, str) for one in method.meta.get("scorers", []))


def test_options_are_explained_and_typed(method: FaceAnonymizer) -> None:
    known = methods.options_of(method.name)
    text = type(method).__doc__ or ""
    if METHODS[method.name].weights:
        assert [key for key in known if f"{key}:" not in text and f"{key}," not in text] == []
    for key, parameter in known.items():
        assert methods.checked_options(method.name, {key: parameter.default}).keys() == {key}


def test_networks_are_counted(method: FaceAnonymizer) -> None:
    from a3gan.evaluation.attackers.suppressed import reaches
    from a3gan.evaluation.speed import networks

    cost, drawn_before = networks(method), method.name == "k_same"
    trained = bool(METHODS[method.name].weights) and not drawn_before
    assert (cost["parameters"] > 0) == (cost["steps"] > 0) == (cost["mib"] > 0) == trained
    assert reaches(method) == (method.name == "a3gan")  # others have no suppressed features to attack
