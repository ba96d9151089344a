"""Schema, flat code and policy."""

from types import SimpleNamespace

import pytest
import torch

from a3gan.data.attributes import (
    EPS,
    PRESETS,
    SCHEMA,
    Attribute,
    Policy,
    decode,
    expand,
    position,
    random_alpha,
    random_policies,
    slices,
    targets,
    to_logits,
    to_values,
    widths,
)
from a3gan.errors import UserError

NAMES = [a.name for a in SCHEMA]
SMALL = (
    Attribute("smile", "binary", ("no", "yes"), "mouth", "head:smile", "smile", (("0", 0), ("1", 1))),
    Attribute("hair", "categorical", ("dark", "fair", "grey", "none"), "hair", "head:hair"),
    Attribute("age", "continuous"),
)


def changed(policy: Policy) -> set[str]:
    return {name for name, verdict in policy.describe().items() if verdict == "change"}


def test_flat_code_has_one_column_each_and_one_a_class():
    assert widths(SMALL) == [1, 4, 1]
    assert slices(SMALL) == {"smile": slice(0, 1), "hair": slice(1, 5), "age": slice(5, 6)}
    assert sum(widths()) == len(SCHEMA) + 2
    assert len(set(NAMES)) == len(NAMES)


def test_expand_repeats_over_columns():
    c = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert expand(c, SMALL).tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 0]]
    with pytest.raises(ValueError, match="3 attributes"):
        expand(torch.zeros(2, 5), SMALL)


def test_values_known_and_inverse():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 2.0]])
    values = to_values(logits, SMALL)
    assert torch.allclose(values, torch.tensor([[0.5, 0.25, 0.25, 0.25, 0.25, 0.8808]]), atol=1e-4)
    random = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(to_values(to_logits(to_values(random))), to_values(random), atol=1e-4)


def test_logits_are_clamped():
    ends = to_logits(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]]), SMALL)
    assert ends.isfinite().all()
    assert torch.allclose(to_values(ends, SMALL)[:, [0, 5]], torch.tensor([[EPS, 1 - EPS]]), atol=1e-6)


def test_values_gradient():
    flat = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: to_values(u, SMALL), flat)
    inner = (torch.rand(3, 6, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: to_logits(v, SMALL), inner)


def test_wrong_width_raises():
    with pytest.raises(ValueError, match="6"):
        to_values(torch.zeros(2, 7), SMALL)


def test_decode_names_classes():
    flat = torch.tensor([[3.0, 0.0, 0.0, 5.0, 0.0, 0.0], [-3.0, 9.0, 0.0, 5.0, 0.0, 2.0]])
    assert decode(flat, SMALL) == {"smile": ["yes", "no"], "hair": ["grey", "dark"], "age": [0.5, 0.881]}


def test_targets_from_columns_and_truth():
    faces = SimpleNamespace(
        files=["a", "b", "c", "d"],
        columns={"expression": ["neutral", "Happiness", "fear", ""], "label": ["yawn", "open", "closed", "no_yawn"]},
        truth={"eye_opening": torch.tensor([0.1, 0.2, 0.3, 0.4]), "gender": torch.tensor([1.0, 0.0, 1.0, 0.0])},
    )
    found = targets(faces)
    assert list(found) == NAMES
    assert found["expression"][:3].tolist() == [0, 1, 2] and found["expression"][3].isnan()
    assert found["yawning"].nan_to_num(-1).tolist() == [1, -1, -1, 0]
    assert found["eyes_closed"].nan_to_num(-1).tolist() == [-1, 0, 1, -1]
    assert torch.allclose(found["eye_opening"], faces.truth["eye_opening"])
    assert found["gender"].tolist() == [1, 0, 1, 0]
    assert found["yaw"].isnan().all()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_zero_or_one_and_print(preset):
    vector = Policy(preset).vector()
    assert vector.shape == (len(SCHEMA),) and set(vector.tolist()) <= {0.0, 1.0}
    assert Policy.parse(str(Policy(preset))) == Policy(preset)


def test_presets_mean_what_they_say():
    assert changed(Policy("everything")) == changed(Policy("detection")) == set(NAMES)
    assert {"gender", "skin_tone", "hair_tone", "nose_length"} <= changed(Policy("verification"))
    assert not {"yaw", "pitch", "roll"} & changed(Policy("verification"))
    assert not {"expression", "eyes_closed", "eye_opening", "yawning", "mouth_opening", "yaw"} & changed(Policy())
    assert not {"yawning", "eyes_closed", "eye_opening", "yaw", "mouth_width"} & changed(Policy("fatigue"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "verification",
        "keep=expression,eyes,mouth,pose change=gender,skin_tone",
        "fatigue change=roll",
        "keep=* ; change=",
        "preset=detection keep=eyes keep=yaw",
    ],
)
def test_policy_round_trips(text):
    policy = Policy.parse(text)
    assert Policy.parse(str(policy)) == policy
    assert torch.equal(Policy.parse(str(policy)).vector(), policy.vector())


def test_policy_follows_preset_where_silent():
    policy = Policy.parse("keep=gender change=eyes, roll", preset="expression")
    assert policy.keep == ("gender",) and policy.change == ("eyes", "roll")
    before, after = changed(Policy("expression")), changed(policy)
    assert after == (before - {"gender"}) | {"eyes_closed", "eye_opening", "roll"}
    assert Policy.parse("preset=everything", preset="fatigue").preset == "everything"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("keep=gendr", "'gender'"),
        ("change=face_shap", "'face_shape'"),
        ("kep=eyes", "'keep'"),
        ("verificaton", "'verification'"),
        ("keep=eyes change=eye_opening", "eye_opening in both keep and change"),
        ("keep=gender change=gender", "gender in both"),
        ("verification detection", "more than one preset"),
    ],
)
def test_policy_errors_name_the_word(text, part):
    with pytest.raises(UserError, match=part):
        Policy.parse(text)


def test_other_schema():
    assert Policy.parse("change=hair", schema=SMALL).vector(SMALL).tolist() == [0, 1, 0]
    assert Policy("expression").vector(SMALL).tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="no attribute or group"):
        Policy.parse("change=gender", schema=SMALL)
    assert position("age", SMALL) == 2
    with pytest.raises(UserError, match="'smile'"):
        position("smil", SMALL)


def test_random_policies_shares():
    draws = torch.stack([random_policies(8, 3, torch.Generator().manual_seed(i)) for i in range(2000)])
    assert draws.shape == (2000, 8, 3) and set(draws.unique().tolist()) == {0.0, 1.0}
    assert (draws[:, :4] == draws[:, :1]).all()
    # forced rows, plus those that three fair bits give by themselves: 0.1 + 0.8 / 8
    assert (draws == 0).all(2).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (draws == 1).all(2).float().mean().item() == pytest.approx(0.2, abs=0.02)
    again = random_policies(8, 3, torch.Generator().manual_seed(7))
    assert torch.equal(again, draws[7])


def test_random_policies_do_not_contradict_one_head():
    c = random_policies(64, SCHEMA, torch.Generator().manual_seed(0))
    assert torch.equal(c[:, position("eyes_closed")], c[:, position("eye_opening")])
    assert torch.equal(c[:, position("yawning")], c[:, position("mouth_opening")])
    assert not torch.equal(c[:, position("yaw")], c[:, position("pitch")])
    assert random_policies(1).shape == (1, len(SCHEMA))


def test_random_alpha_shares():
    alpha = random_alpha(20000, torch.Generator().manual_seed(0))
    assert (alpha == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (alpha == 1).float().mean().item() == pytest.approx(0.3, abs=0.01)
    rest = alpha[(alpha > 0) & (alpha < 1)]
    assert rest.mean().item() == pytest.approx(0.5, abs=0.01) and rest.std().item() == pytest.approx(12**-0.5, abs=0.01)
