"""Stage `a3gan` with tiny networks: the three phases, what may move, ablations, resume, what it leaves."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.data.attributes import SCHEMA
from a3gan.data.augment import random_transform
from a3gan.data.synthetic import synthetic_faces
from a3gan.losses.total import BY_ALPHA, WEIGHTS
from a3gan.scorers.attributes import AttributeNetwork
from a3gan.scorers.small_identity import SmallIdentity
from a3gan.training import a3gan_stage, a3gan_views, trainer
from a3gan.training.a3gan_stage import A3GanStage, IdentityReaders
from a3gan.training.stage import Batch
from a3gan.training.trainer import build_stage, train

CPU = torch.device("cpu")
TINY = [
    "stage=a3gan", "run.device=cpu", "run.tensorboard=false", "run.log_every=4", "run.sheet_every=0",
    "run.validate_first=false", "model.generator.channels_base=256", "model.generator.channels_max=8",
    "model.generator.w_dim=16", "model.generator.z_dim=16", "model.generator.mapping_layers=1",
    "model.discriminator.channels_base=256", "model.discriminator.channels_max=8", "model.encoder.widths=[8,8,8,8]",
    "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16", "model.ainet.z_dim=8",
    "train.batch_size=4", "train.total_images=24", "train.phases.reconstruct=8", "train.phases.suppress=8",
    "train.lr=1e-3", "train.lr_generator=1e-3", "train.lr_discriminator=1e-3",
]  # fmt: skip
PHASE_AT = {"reconstruct": 0, "suppress": 8, "joint": 16}  # images seen
ALWAYS = {
    "geometry", "perceptual", "tint", "reconstruction", "suppression", "gate_budget", "adversarial", "latent", "total",
}  # fmt: skip
TERMS = {
    "reconstruct": ALWAYS,
    "suppress": ALWAYS | {"identity", "keep"},
    "joint": ALWAYS | set(WEIGHTS),
}
ALPHA = torch.tensor([0.0, 0.5, 1.0, 1.0])


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name untrained scorers."""
    folder = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    attributes, identity = AttributeNetwork("plain", 8).eval(), SmallIdentity(8, 16).eval()
    meta = {"stage": "attributes", "backbone": "plain", "width": 8}
    checkpoint.save(folder / "attributes.safetensors", checkpoint.prefixed({"attributes": attributes}), meta)
    meta = {"stage": "identity", "width": 8, "dim": 16}
    checkpoint.save(folder / "identity.safetensors", checkpoint.prefixed({"identity": identity}), meta)
    where = folder.as_posix()
    return [
        f"scorers.attributes='{where}/attributes.safetensors'",
        f"scorers.recognisers=[{{path: '{where}/identity.safetensors', kind: small}}]",
    ]


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return synthetic_faces(16, 64, 0)


@pytest.fixture(autouse=True)
def _one_batch_has_all_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a3gan_stage, "random_alpha", lambda n, device=None: ALPHA[:n].clone())


def config(scorers: list[str], *overrides: str) -> Config:
    return load_config(None, [*TINY, *scorers, *overrides])


def stage(scorers: list[str], faces: FaceSet, *overrides: str) -> A3GanStage:
    return build_stage(config(scorers, *overrides), faces, faces, CPU)[0]


def batch(faces: FaceSet, n: int = 4) -> Batch:
    index = torch.arange(n)
    return Batch(faces.fetch(index), index, faces.landmarks[:n], faces.identity[:n])


def state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def moved(net: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}


def towards(it: A3GanStage, sign: float) -> None:
    """Give the readers a cosine of this sign to every face of the tiny recogniser, whose embeddings are much alike."""
    for reader in it.readers:
        torch.nn.init.constant_(reader[2].bias, 0.0)
        reader[2].bias.data += sign * it.known[0].mean(0)
        reader[2].weight.data *= 0.1


def step(it: A3GanStage, faces: FaceSet, phase: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return it.step(batch(faces), PHASE_AT[phase])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("phase", list(PHASE_AT))
def test_one_step_of_each_phase(scorers: list[str], faces: FaceSet, phase: str, precision: str) -> None:
    it = stage(scorers, faces, f"run.precision={precision}", "loss.r1_every=1")
    towards(it, 1.0)
    before = {name: state(net) for name, net in it.networks.items()} | {"scorers": state(it.scorers)}
    scalars = step(it, faces, phase)
    assert it.phase(PHASE_AT[phase]) == phase
    assert {k.removeprefix("loss/") for k in scalars if k.startswith("loss/")} == TERMS[phase]
    assert {f"gate/level_{level}" for level in (1, 2, 3)} | {"discriminator/r1", "latent/loss"} <= set(scalars)
    assert all(torch.isfinite(v) and not v.requires_grad for v in scalars.values())
    assert not moved(it.scorers, before["scorers"]) and not it.scorers.training
    changed = moved(it.model, before["model"])
    assert any(k.startswith("encoder.trunk") for k in changed) and any(k.startswith("fusion") for k in changed)
    assert any(k.startswith("generator.convs") for k in changed)
    assert not any(k.startswith("generator.mapping") for k in changed)
    assert any(k.startswith("ainet") for k in changed) == (phase == "joint")
    # At alpha = 0 the budget alone teaches the gates; what fills them waits for its phase.
    assert any(".where." in k for k in changed)
    assert any(".filler." in k or ".refine." in k for k in changed) == (phase != "reconstruct")
    for name in ("discriminator", "latent", "readers"):
        assert moved(it.networks[name], before[name]), name
    assert bool(moved(it.networks["injection_reader"], before["injection_reader"])) == (phase == "joint")
    assert all(p.requires_grad for name in ("discriminator", "latent") for p in it.networks[name].parameters())


def test_total_is_the_weighted_sum(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    scalars, weights = step(it, faces, "joint"), it.cfg.loss.model_dump()
    total = 0.0
    for name in WEIGHTS:
        # The log divides by the share of the images that a term counts for; the loss does not.
        counts = ALPHA.mean() if name in BY_ALPHA else (ALPHA == 0).float().mean() if name == "reconstruction" else 1.0
        total += weights[name] * float(scalars[f"loss/{name}"] * counts)
    assert scalars["loss/total"].item() == pytest.approx(total, rel=1e-4)


def test_frozen_generator(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces, "model.generator.freeze=true")
    before = state(it.model)
    step(it, faces, "joint")
    changed = moved(it.model, before)
    assert changed and not any(k.startswith("generator.") for k in changed)
    assert len(it.optimizers["model"].param_groups) == 1


def test_no_loss_reaches_the_embeddings_of_the_originals(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    assert len(it.known) == 1 and it.known[0].shape == (16, 16) and not it.known[0].requires_grad
    assert it.known[0].norm(dim=1).sub(1).abs().max() < 1e-4


def test_every_weight_can_be_zero(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    for name in sorted(set(WEIGHTS) - {"latent"}):
        it.cfg = it.adversary.cfg = config(scorers, f"loss.{name}=0")
        scalars = step(it, faces, "joint")
        assert all(torch.isfinite(v) for v in scalars.values()), name
        gone = {"diversity", "suppression", "adversarial"}  # a pass of their own: not even logged
        assert (f"loss/{name}" in scalars) == (name not in gone), name


ABLATIONS = {
    "no SCU": ["model.scu.enabled=false"],
    "one level": ["model.scu.levels=[2]"],
    "no filler": ["model.scu.filler=false"],
    "no policy": ["model.ainet.policy=false"],
    "no latent discriminator": ["loss.latent=0"],
    "no recogniser": ["scorers.recognisers=[]"],
    "no cosine": ["loss.reconstruction_identity=false", "train.grad_clip=1.0"],
    "discriminator rests": ["train.phases.discriminator_rests=20"],
}


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_ablations_run(scorers: list[str], faces: FaceSet, name: str) -> None:
    it = stage(scorers, faces, *ABLATIONS[name])
    logged = {}
    for phase in PHASE_AT:
        scalars = step(it, faces, phase)
        assert all(torch.isfinite(v) for v in scalars.values())
        logged[phase] = {k.removeprefix("loss/") for k in scalars if k.startswith("loss/")}
    gates = {int(k[-1]) for k in scalars if k.startswith("gate/")}
    assert gates == {"no SCU": set(), "one level": {2}}.get(name, {1, 2, 3})
    missing = {
        "no SCU": {"gate_budget"}, "no latent discriminator": {"latent"}, "discriminator rests": {"adversarial"},
        "no recogniser": {"identity", "diversity", "suppression"},
    }.get(name, set())  # fmt: skip
    for phase, terms in logged.items():
        assert terms == TERMS[phase] - missing, phase


def test_nothing_changes_where_alpha_is_zero(scorers: list[str], faces: FaceSet, monkeypatch) -> None:
    """A batch at alpha = 0 in the joint phase: no anonymization term counts, and all attributes are to stay."""
    monkeypatch.setattr(a3gan_stage, "random_alpha", lambda n, device=None: torch.zeros(n))
    monkeypatch.setattr(a3gan_stage, "random_policies", lambda n, schema, device=None: torch.ones(n, len(SCHEMA)))
    scalars = step(stage(scorers, faces), faces, "joint")
    for name in ("identity", "attributes_move", "realise", "proposal_far", "diversity", "perceptual"):
        assert scalars[f"loss/{name}"] == 0, name
    assert scalars["loss/keep"] > 0 and scalars["loss/reconstruction"] > 0


def test_every_other_face_is_judged_as_it_is_pasted(scorers: list[str], faces: FaceSet, monkeypatch) -> None:
    """Its corners are the photo's, its middle is the new face's; the rows between are the generated frame."""
    it = stage([*scorers, "loss.m_id=0"], faces)
    embed, shown = it.scorers.embed, []
    monkeypatch.setattr(it.scorers, "embed", lambda x, disturb=False: shown.append(x) or embed(x))
    x = faces.fetch(torch.arange(4))
    batch = Batch(x, torch.arange(4), torch.zeros(4, 5, 2), torch.zeros(4, dtype=torch.long))
    image = x.flip(0).clone().requires_grad_()
    it._identity(batch, image, ALPHA).sum().backward()  # the rows 1, 2, 3 of ALPHA are above 0
    pictures = shown[-1]
    assert torch.equal(pictures[[0, 2]][..., :3, :3], x[[1, 3]][..., :3, :3])
    assert torch.equal(pictures[1], image[2])
    torch.testing.assert_close(pictures[..., 30:34, 30:34], image[1:, :, 30:34, 30:34])
    assert not image.grad[[0]].any() and not image.grad[[1, 3]][..., :3, :3].any() and image.grad[2].any()


def test_two_seeds_are_compared_through_one_transform(scorers: list[str], faces: FaceSet, monkeypatch) -> None:
    """Seeds that change nothing have the cosine 1, whatever T does to both."""
    it = stage([*scorers, "loss.m_div=0.25"], faces)

    def embed(x, disturb=False):  # of the pixels, as to an untrained network all pictures are alike
        return [torch.nn.functional.normalize((random_transform(x) if disturb else x).flatten(1))]

    monkeypatch.setattr(it.scorers, "embed", embed)
    image = faces.fetch(torch.arange(4))
    batch = Batch(image, torch.arange(4), torch.zeros(4, 5, 2), torch.zeros(4, dtype=torch.long))
    monkeypatch.setattr(it, "model", lambda *_: SimpleNamespace(image=image[[2]]))  # alpha sorts row 2 or 3 first
    c, alpha = torch.ones(4, len(SCHEMA)), torch.tensor([0.0, 0.5, 1.0, 0.7])
    term = it._diversity(batch, it.scorers.view(image), image, c, alpha)
    torch.testing.assert_close(term, torch.tensor([0.0, 0.0, 0.75 * 4, 0.0]), atol=1e-4, rtol=0)


def test_validation_draws_two_other_seeds_for_every_face(scorers: list[str], faces: FaceSet, monkeypatch) -> None:
    drawn, codes = [], a3gan_views.seed_codes
    monkeypatch.setattr(a3gan_views, "seed_codes", lambda seeds, width: drawn.extend(seeds) or codes(seeds, width))
    it = stage(scorers, faces)
    monkeypatch.setattr(a3gan_views, "CHUNK", 3)
    a3gan_views.validate(it.model, it.scorers, faces, CPU)
    assert len(drawn) == len(set(drawn)) == 2 * len(faces)


def test_kept_attributes_are_held_in_the_second_phase(scorers: list[str], faces: FaceSet, monkeypatch) -> None:
    seen = []
    keep = a3gan_stage.preservation.keep
    monkeypatch.setattr(a3gan_stage.preservation, "keep", lambda now, then, c: seen.append(c) or keep(now, then, c))
    policies = torch.ones(4, len(SCHEMA))
    monkeypatch.setattr(a3gan_stage, "random_policies", lambda n, schema, device=None: policies)
    it = stage(scorers, faces)
    step(it, faces, "suppress")
    step(it, faces, "joint")
    assert not seen[0].any()
    assert torch.equal(seen[1], policies * (ALPHA > 0)[:, None])


def suppression(it: A3GanStage, faces: FaceSet) -> torch.Tensor:
    """Backward of the suppression term alone; returns S_3."""
    out = it.model(batch(faces).images, torch.zeros(4, 16), torch.ones(4, len(SCHEMA)), torch.zeros(4, 8), ALPHA)
    features = out.suppressed.features[2]
    it._suppression(batch(faces), out, ALPHA)["suppression"].sum().backward(inputs=[features, *it.readers.parameters()])
    return features


def test_reversal_pushes_the_encoder_and_pulls_the_readers(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    towards(it, 1.0)
    features = suppression(it, faces)
    assert features.grad[0].abs().max() == 0 and all(g.abs().max() > 0 for g in features.grad[1:])

    def error(f: torch.Tensor) -> torch.Tensor:
        return 1 - torch.cosine_similarity(it.readers[2](f.mean((2, 3))), it.known[0][:4])

    with torch.no_grad():
        before, step_size = error(features), 0.1 / features.grad.abs().max()
        # A step down this gradient is a step up the reader's error; the reader's own step goes down.
        assert (error(features - step_size * features.grad)[1:] > before[1:]).all()
        for p in it.readers[2].parameters():
            p -= 1e-2 * p.grad
        assert error(features).mean() < before.mean()


def test_encoder_is_not_pushed_beyond_a_cosine_of_zero(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    towards(it, -1.0)
    assert suppression(it, faces).grad.abs().max() == 0


def test_readers_learn_from_a_negative_cosine(scorers: list[str], faces: FaceSet) -> None:
    it = stage(scorers, faces)
    towards(it, -1.0)
    suppression(it, faces)
    assert all(reader[2].weight.grad.abs().max() > 0 for reader in it.readers)


def same(first: Path, second: Path) -> None:
    one, two = (checkpoint.load(folder / "state.safetensors") for folder in (first, second))
    assert one[0].keys() == two[0].keys() and one[1]["plain"] == two[1]["plain"]
    for name, value in one[0].items():
        assert torch.equal(value, two[0][name]), name


@pytest.mark.parametrize("extra", [["train.augment=ada"], ["scorers.recognisers=[]", "run.precision=bfloat16"]])
def test_resume_is_bit_exact_over_the_phases(
    tmp_path: Path, scorers: list[str], faces: FaceSet, extra: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "build_data", lambda cfg, device: (faces, None))

    def run(name: str, total: int) -> Path:
        folder = f"run.dir='{(tmp_path / name).as_posix()}'"
        return train(config(scorers, folder, f"train.total_images={total}", *extra))

    run("parts", 12)  # in the middle of the second phase
    same(run("whole", 24), run("parts", 24))


def test_what_it_leaves(scorers: list[str], faces: FaceSet, tmp_path: Path) -> None:
    it, ema = build_stage(config(scorers), faces, faces, CPU)
    nets = ema.merged(it.networks)
    with torch.no_grad():
        metrics, sheet = it.validate(nets), it.sheet(nets)
    assert metrics.keys() >= {"reconstruction_l1", "identity_anonymised", "two_seeds", "smile_agreement"}
    assert all(math.isfinite(v) for v in metrics.values())
    assert 0 <= metrics["smile_agreement"] <= 1 and -1 <= metrics["two_seeds"] <= 1
    assert sheet.shape[:2] == (3, 6 * 64) and sheet.abs().max() <= 1
    tensors, meta = it.inference_state(nets)
    assert {k.split(".")[0] for k in tensors} == {"model", "attributes"}
    assert meta["attributes"] == {"backbone": "plain", "width": 8}
    families = [f.partition(":")[0] for f in meta["scorers"]]
    assert families == ["attributes_plain", "small"]
    assert A3GanStage.missing_weights(it.cfg) == []
    absent = config(["scorers.attributes=nowhere.safetensors", "scorers.recognisers=[{path: nothing, kind: small}]"])
    lines = A3GanStage.missing_weights(absent)
    assert len(lines) == 2 and "scorers.attributes" in lines[0] and "scorers.recognisers.0.path" in lines[1]


def test_networks_take_their_example_inputs(scorers: list[str]) -> None:
    cfg = config(scorers)
    networks = A3GanStage.build_networks(cfg)
    for name, inputs in A3GanStage.example_inputs(cfg, networks, 2).items():
        networks[name](*inputs)
    assert len(IdentityReaders((8, 8, 8), 4)) == 3
