"""Diff-Privacy: energies, schedules as shares of T, inversion, fitting, and what its options refuse."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from a3gan.anonymizers import diff_privacy_sampling as sampling
from a3gan.errors import UserError

pytest.importorskip("diffusers")

from a3gan.anonymizers.diff_privacy import DiffPrivacy  # noqa: E402
from a3gan.anonymizers.diff_privacy_fit import fitted  # noqa: E402
from a3gan.models.diffusion import SCHEDULE  # noqa: E402

PLAN = sampling.Plan(50, 0.6, 0.4, (1.0, 1.0), background=0.3)


class Toy:
    """A diffusion model of 1x4x4 whose noise is linear in z, with a note of how it was asked."""

    clips, schedule, steps = False, SCHEDULE, 1000

    def __init__(self, factor: float = 0.3) -> None:
        self.factor, self.asked = factor, []

    def encode(self, faces):
        return faces

    decode = encode

    def noise(self, z, t, context):
        self.asked.append((int(t[0]), float(context[0, 0, 0])))
        return self.factor * z + 0.1 * context.mean()

    def nothing(self, count):
        return torch.full((count, 1, 1), -1.0)

    def at(self, conditions, t):
        return conditions[torch.arange(len(t)), t * 10 // 1000]


def toy_conditions(count: int) -> torch.Tensor:
    return torch.arange(10.0).view(1, 10, 1, 1).expand(count, -1, -1, -1)


def test_energies_have_known_values() -> None:
    e = torch.eye(3)
    # the original is e0; samples: e0 itself, its opposite, e1, and e1 once more
    made = torch.stack([e[0], -e[0], e[1], e[1]])[None]
    assert sampling.privacy_energy(made, e[:1]).item() == pytest.approx(1 + 1)  # one hit, one equal pair
    assert sampling.privacy_energy(e[:1].expand(1, 4, 3), e[:1]).item() == pytest.approx(4 + 6)
    assert sampling.privacy_energy(-e[None, :1], e[:1]).item() == 0
    assert sampling.hiding_energy(e[None, :1], e[:1]).item() == 0
    assert sampling.hiding_energy(-e[None, :1], e[:1]).item() == 2


def test_energies_are_sums_over_faces_and_have_right_gradients() -> None:
    torch.manual_seed(0)
    made = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    original = F.normalize(torch.randn(2, 5, dtype=torch.float64), dim=1)
    for energy in (sampling.privacy_energy, sampling.hiding_energy):
        assert torch.autograd.gradcheck(lambda m, e=energy: e(F.normalize(m, dim=2), original), (made,))
        both = torch.autograd.grad(energy(F.normalize(made, dim=2), original).sum(), made)[0]
        one = torch.autograd.grad(energy(F.normalize(made[:1], dim=2), original[:1]).sum(), made)[0]
        torch.testing.assert_close(both[0], one[0])


def test_the_schedule_is_conditioned_above_its_share_of_t() -> None:
    toy, z = Toy(), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sampling.guided(toy, z, toy_conditions(2), PLAN, lambda x: x.sum() * 0)
    times = [t for t, _ in toy.asked]
    assert len(times) == 30 and times[0] == 581 and times[-1] == 1  # 0.6 of 50 steps
    for t, context in toy.asked:
        assert context == (t // 100 if t > 400 else -1)
    hiding = sampling.Plan(100, 0.8, 0.6, (1.5, 2.5))
    toy = Toy()
    sampling.guided(toy, z, toy_conditions(2), hiding, lambda x: x.sum() * 0)
    assert len(toy.asked) == 80 and {c for t, c in toy.asked if t > 600} == {6.0, 7.0}
    assert {c for t, c in toy.asked if t <= 600} == {-1.0}


def test_guidance_goes_down_the_energy_by_s() -> None:
    z = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plan = sampling.Plan(10, 0.1, 0.0, (0.25, 0.0))  # a single step
    plain = sampling.guided(Toy(), z, toy_conditions(1), sampling.Plan(10, 0.1, 0.0, (0.0, 0.0)), torch.sum)
    moved = sampling.guided(Toy(), z, toy_conditions(1), plan, lambda x: 3 * x.sum())
    torch.testing.assert_close(moved, plain - 0.25 * 3)
    # at or below the share of T the second scale holds
    second = sampling.Plan(10, 0.1, 0.5, (9.0, 0.5))
    unmoved = sampling.guided(Toy(), z, toy_conditions(1), second, lambda x: 0 * x.sum())
    torch.testing.assert_close(sampling.guided(Toy(), z, toy_conditions(1), second, torch.sum), unmoved - 0.5)


def test_the_background_is_kept_below_its_share() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 1, 4, 4, generator=generator)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    out = sampling.guided(
        Toy(0.0), sampling.noised(Toy(), clean, noise, PLAN), toy_conditions(1), PLAN, lambda x: 0 * x.sum(),
        keep=(clean, mask),
    )  # fmt: skip
    torch.testing.assert_close(out[..., 2:], clean[..., 2:], atol=0.05, rtol=0)
    assert (out[..., :2] - clean[..., :2]).abs().mean() > 0.1


@pytest.mark.parametrize("rounds, error", [(1, 0.5), (3, 3e-2), (12, 1e-4)])
def test_inversion_is_the_inverse_of_recovery(rounds: int, error: float) -> None:
    """More rounds of each step come nearer to the exact inverse."""
    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = sampling.inverted(Toy(), z, toy_conditions(2), 20, rounds)
    back = sampling.recovered(Toy(), noise, toy_conditions(2), 20)
    assert (back - z).abs().max() < error


def test_noise_belongs_to_its_seed() -> None:
    one = sampling.drawn_noise([7, 8], (3, 4), torch.device("cpu"))
    assert torch.equal(one[1], sampling.drawn_noise([8], (3, 4), torch.device("cpu"))[0])
    assert not torch.equal(one[0], one[1])


def test_plans_refuse_nonsense() -> None:
    for arguments in ((50, 0.0), (50, 1.2), (2, 0.3)):
        with pytest.raises(UserError, match="strength"):
            sampling.Plan(*arguments, 0.4, (1.0, 1.0))
    with pytest.raises(UserError, match="scale"):
        sampling.Plan(50, 0.6, 0.4, (-1.0, 1.0))


# --- the method -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    from a3gan.data.synthetic import synthetic_faces

    return synthetic_faces(1, 64, 5).fetch([0])


def test_neighbouring_seeds_are_the_samples_of_one_run(tiny_diffusion: Path, face: torch.Tensor) -> None:
    method = DiffPrivacy(tiny_diffusion, "cpu", steps=4, samples=2)
    pair = method.variants(face, 3)
    assert torch.equal(method.anonymize(face.expand(2, -1, -1, -1), seeds=[6, 7]), pair.clamp(-1, 1))
    assert not torch.allclose(pair[0], pair[1])
    alone = DiffPrivacy(tiny_diffusion, "cpu", steps=4, samples=1)
    assert alone.anonymize(face, seeds=[6]).shape == face.shape


def test_every_option_has_an_effect_and_the_background_stays(tiny_diffusion: Path, face: torch.Tensor) -> None:
    from a3gan.data.mask import face_mask

    options = [{}, {"strength": 0.9}, {"scale": 0.0}, {"msi_steps": 2}, {"samples": 3}]
    made = [DiffPrivacy(tiny_diffusion, "cpu", **{"steps": 10} | o).anonymize(face, seeds=[12]) for o in options]
    for one, other in itertools.combinations(made, 2):
        assert (one - other).abs().max() > 1e-4
    outside = (face_mask(64) == 0).expand_as(face)
    torch.testing.assert_close(made[0][outside], face[outside])


def test_guidance_lowers_the_energy(tiny_diffusion: Path, face: torch.Tensor) -> None:
    def energy(scale: float) -> float:
        method = DiffPrivacy(tiny_diffusion, "cpu", steps=10, strength=0.3, scale=scale)
        made = method.variants(face, 1)
        return float(sampling.privacy_energy(method.embed(made)[None], method.embed(face)))

    assert energy(3.0) < energy(0.0)


def test_fitting_lowers_the_error_and_is_repeatable(tiny_diffusion: Path, face: torch.Tensor) -> None:
    backbone = DiffPrivacy(tiny_diffusion, "cpu").backbone
    before, after = fitted(backbone, face, 0, 1), fitted(backbone, face, 12, 1)
    assert torch.equal(after, fitted(backbone, face, 12, 1)) and not torch.allclose(
        after, fitted(backbone, face, 12, 2)
    )
    generator = torch.Generator().manual_seed(0)
    noise, t = torch.randn(16, 3, 64, 64, generator=generator), torch.arange(16) * 60

    def error(conditions: torch.Tensor) -> float:
        from a3gan.models.diffusion import ddpm

        noisy = ddpm().add_noise(face.expand(16, -1, -1, -1), noise, t)
        context = backbone.at(conditions.expand(16, -1, -1, -1), t)
        return float((backbone.noise(noisy, t, context) - noise).square().mean())

    assert error(after) < error(before)


def test_it_names_the_scorers_that_may_not_judge(tiny_diffusion: Path) -> None:
    families = {one.partition(":")[0] for one in DiffPrivacy(tiny_diffusion, "cpu").meta["scorers"]}
    assert families == {"attributes_plain", "small"}


def test_errors_in_one_line(tiny_diffusion: Path, tmp_path: Path) -> None:
    from a3gan import checkpoint

    for options, word in (({"samples": 0}, "samples"), ({"steps": 2000}, "steps"), ({"msi_steps": -1}, "msi_steps"),
                          ({"recogniser": "nobody"}, "nobody"), ({"tower": tmp_path}, "Stable Diffusion")):  # fmt: skip
        with pytest.raises(UserError, match=word):
            DiffPrivacy(tiny_diffusion, "cpu", **options)
    with pytest.raises(UserError, match="stage"):
        DiffPrivacy("attributes_loss", "cpu")
    tensors, meta = checkpoint.load(tiny_diffusion)
    other = checkpoint.save(tmp_path / "other.safetensors", tensors, meta | {"tower": "attributes_plain:0"})
    with pytest.raises(UserError, match="not the attribute network"):
        DiffPrivacy(other, "cpu")
