"""The keys of the regularisers in the stages that obey them: path length, style mixing, ADA's controller."""

from __future__ import annotations

import pytest
import torch

from a3gan.config import Config, load_config
from a3gan.data.archive import FaceSet
from a3gan.data.synthetic import synthetic_faces
from a3gan.training.adversary import Adversary
from a3gan.training.augment_gan import adapt
from a3gan.training.gan_stage import StyleGan2Stage
from a3gan.training.stage import Batch
from a3gan.training.trainer import build_stage

TINY = [
    "stage=stylegan2", "run.device=cpu", "data.synthetic_count=8", "model.generator.channels_base=256",
    "model.generator.channels_max=8", "model.generator.w_dim=16", "model.generator.z_dim=16",
    "model.generator.mapping_layers=2", "model.discriminator.channels_base=256", "model.discriminator.channels_max=8",
    "train.batch_size=4", "train.augment=none", "loss.r1_every=1000",
]  # fmt: skip


def config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return synthetic_faces(4, 64, 0)


def stage(faces: FaceSet, *overrides: str) -> StyleGan2Stage:
    return build_stage(config(*overrides), faces, faces, torch.device("cpu"))[0]


def step(gan: StyleGan2Stage, faces: FaceSet, number: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(number)
    index = torch.arange(4)
    return gan.step(Batch(faces.fetch(index), index, faces.landmarks, faces.identity), 4 * number)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_path_length_is_lazy_and_moves_the_generator(faces: FaceSet, precision: str) -> None:
    keys = ["loss.path_length=2", "loss.path_length_every=2", f"run.precision={precision}"]
    gan, plain = stage(faces, *keys), stage(faces, f"run.precision={precision}")
    seen = []
    for number in range(3):
        scalars = step(gan, faces, number)
        assert all(bool(torch.isfinite(value)) for value in scalars.values())
        seen.append("generator/path_length" in scalars)
    assert seen == [True, False, True]
    assert gan.plain_state()["path_length"] == gan.path_length.mean > 0
    step(plain, faces, 0)
    assert plain.path_length.mean == 0.0 and "generator/path_length" not in step(plain, faces, 0)
    assert not torch.equal(gan.generator.convs[3].weight, plain.generator.convs[3].weight)


def test_path_length_comes_back_with_the_state(faces: FaceSet) -> None:
    gan, other = stage(faces, "loss.path_length=2"), stage(faces, "loss.path_length=2")
    step(gan, faces, 0)
    other.load_plain_state(gan.plain_state())
    assert other.path_length.mean == gan.path_length.mean > 0
    other.load_plain_state({"augment_p": 0.0})  # a state of before
    assert other.path_length.mean == 0.0


def test_path_length_makes_steps_in_w_even(faces: FaceSet) -> None:
    """By itself, with a large weight, it brings the lengths of different codes together."""
    from a3gan.losses.path_length import path_lengths

    gan = stage(faces, "loss.path_length=1", "train.mixing=0")

    def spread() -> float:
        torch.manual_seed(99)
        w_plus = gan._codes(64, torch.device("cpu"))
        lengths = path_lengths(gan.generator.synthesis(w_plus), w_plus).detach()
        return float(lengths.std() / lengths.mean())

    before = spread()
    adam = torch.optim.Adam(gan.generator.parameters(), lr=5e-3, betas=(0.0, 0.99))
    for number in range(15):
        torch.manual_seed(number)
        penalty = gan._path_length(8, torch.device("cpu"))
        adam.zero_grad()
        penalty.backward()
        adam.step()
    assert spread() < before


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_mixing_is_a_share_of_the_images(faces: FaceSet, share: float) -> None:
    gan = stage(faces, f"train.mixing={share}")
    torch.manual_seed(0)
    w = gan._codes(400, torch.device("cpu"))
    mixed = float((w[:, 1:] != w[:, :-1]).any(2).any(1).float().mean())
    assert mixed == pytest.approx(share, abs=0.07) and (share not in (0, 1) or mixed == share)


def test_the_controller_obeys_its_keys() -> None:
    """Up above the target, down below it, by images/ada_images, within [0, 1]; whatever the logits' size."""
    logits = torch.tensor([100.0, 0.1, 2.0, -5.0])  # mean sign 0.5
    assert adapt(0.2, logits, 10, target=0.4, speed=100) == pytest.approx(0.3)
    assert adapt(0.2, logits, 10, target=0.6, speed=100) == pytest.approx(0.1)
    assert adapt(0.95, logits, 10, target=0.4, speed=100) == 1.0
    assert adapt(0.05, logits, 10, target=0.6, speed=100) == 0.0


@pytest.mark.parametrize(("answer", "end"), [(1.0, 0.4), (-1.0, 0.0)])
def test_the_stage_moves_p_as_its_discriminator_answers(faces: FaceSet, answer: float, end: float) -> None:
    cfg = config("train.augment=ada", "train.ada_target=0.2", "train.ada_images=40")

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_full((len(x),), answer) + 0 * x.sum()

    adversary = Adversary(cfg, Sure(), torch.no_grad)
    images = faces.fetch(range(4))
    for number in range(1, 5):
        turn = adversary.turn(images, images, number)
        assert turn.scalars["discriminator/ada_p"] == pytest.approx(adversary.p)
    assert adversary.p == pytest.approx(end)


def test_impossible_values_are_refused() -> None:
    from a3gan.errors import UserError

    for wrong in ("train.mixing=1.5", "train.ada_target=1", "train.ada_images=0", "loss.path_length=-1"):
        with pytest.raises(UserError, match=wrong.split("=")[0].split(".")[1]):
            config(wrong)


def test_relativistic_game_with_r1_and_r2(faces: FaceSet) -> None:
    keys = ["loss.adversarial_kind=relativistic", "loss.r2_gamma=3", "loss.r1_every=2"]
    gan, plain = stage(faces, *keys), stage(faces, "loss.r1_every=2")
    first, second = step(gan, faces, 0), step(gan, faces, 1)
    assert {"discriminator/r1", "discriminator/r2"} <= set(first) and "discriminator/r2" not in second
    assert "discriminator/r2" not in step(plain, faces, 0)
    assert not torch.equal(gan.generator.convs[3].weight, plain.generator.convs[3].weight)


def test_generator_is_judged_beside_its_real_partner(faces: FaceSet) -> None:
    """Half of each pair is the real face; the loss falls as the generated one looks more real, never touching D."""
    gan = stage(faces, "loss.adversarial_kind=relativistic")
    real = faces.fetch(torch.arange(4))
    fake = torch.zeros(4, 3, 64, 64, requires_grad=True)
    loss = gan.adversary.fooled(fake, real)
    with torch.no_grad():
        better, worse = gan.networks["discriminator"](real), gan.networks["discriminator"](fake)
    torch.testing.assert_close(loss, torch.nn.functional.softplus(better - worse))
    loss.sum().backward()
    assert fake.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in gan.networks["discriminator"].parameters())
    torch.testing.assert_close(gan.adversary.fooled(real, real), torch.full((4,), 0.6931472))  # it cannot tell: log 2


def test_r2_is_the_gradient_at_generated_faces(faces: FaceSet) -> None:
    gan = stage(faces, "loss.r1_gamma=0", "loss.r2_gamma=4", "loss.r1_every=1")
    x = faces.fetch(torch.arange(4)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(gan.networks["discriminator"](x).sum(), x)
    turn = gan.adversary.turn(torch.zeros_like(x), x.detach(), 0)
    expected = 4 / 2 * gradient.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(turn.scalars["discriminator/r2"], expected)
    assert "discriminator/r1" not in turn.scalars
