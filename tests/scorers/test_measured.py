"""Measurements on points and colours, and the flat code made of them."""

import math

import pytest
import torch

from a3gan.data.align import FRAMES
from a3gan.data.attributes import SCHEMA, Attribute, slices, to_values
from a3gan.scorers.landmarks import eye_distance, measure
from a3gan.scorers.measured import BOUND, PATCHES, attribute_logits, lightness, tone

WHERE = slices()


def outputs(n: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.tensor(FRAMES["face"], dtype=dtype).repeat(n, 1, 1)
    return {
        "expression": torch.randn(n, 3, generator=generator, dtype=dtype),
        "gender": torch.randn(n, generator=generator, dtype=dtype),
        "yawning": torch.randn(n, generator=generator, dtype=dtype),
        "eyes_closed": torch.randn(n, generator=generator, dtype=dtype),
        "landmarks": points + 0.01 * torch.randn(n, 5, 2, generator=generator, dtype=dtype),
    }


def test_frontal_face_has_no_yaw_nor_roll():
    points = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.2, 2.0], [1.8, 2.0]]])
    found = {name: value.item() for name, value in measure(points).items()}
    expected = {
        "yaw": 0.0, "pitch": 0.5, "roll": 0.0, "nose_length": 0.5, "mouth_width": 0.8, "eye_mouth_ratio": 1.0,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)
    assert eye_distance(points).item() == 2.0


def test_signs():
    points = torch.tensor(FRAMES["face"])[None]
    turned, lowered = points.clone(), points.clone()
    turned[0, 2, 0] += 0.05
    lowered[0, 2, 1] += 0.05
    assert measure(turned)["yaw"].item() == pytest.approx(0.15, abs=1e-3)
    assert measure(lowered)["pitch"].item() > measure(points)["pitch"].item()


def test_measures_ignore_similarity_but_roll_turns():
    points = torch.tensor(FRAMES["face"], dtype=torch.float64)[None]
    points[0, 2, 0] += 0.03
    angle = 0.3
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    moved = 7 * points @ turn + 3
    before, after = measure(points), measure(moved)
    for name in before:
        change = angle if name == "roll" else 0.0
        assert (after[name] - before[name]).item() == pytest.approx(change, abs=1e-9), name


def test_points_that_coincide_stay_finite():
    points = torch.zeros(1, 5, 2, requires_grad=True)
    torch.stack(list(measure(points).values())).sum().backward()
    assert points.grad.isfinite().all()


def test_lightness_known_values():
    colours = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1], [2 * 119 / 255 - 1] * 3, [2 / 255 - 1] * 3])
    found = lightness(colours.view(5, 3, 1, 1)).flatten()
    # CIELAB: black, white, pure red 53.24, grey 119 is L* 50.03, the darkest grey lies on the straight part
    assert found.tolist() == pytest.approx([0.0, 100.0, 53.24, 50.03, 0.2742], abs=0.01)


def test_lightness_gradient_is_finite_everywhere():
    x = torch.linspace(-1.5, 1.5, 31).view(1, 1, 1, 31).repeat(1, 3, 1, 1).requires_grad_()
    lightness(x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad > 0).all()


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", PATCHES)
def test_tone_of_one_colour_and_of_its_patch_only(frame, name):
    grey = torch.full((1, 3, 64, 64), 2 * 119 / 255 - 1)
    assert tone(grey, name, frame).item() == pytest.approx(50.03, abs=0.01)
    x = grey.clone().requires_grad_()
    tone(x, name, frame).sum().backward()
    seen = (x.grad[0].sum(0) != 0).float()
    assert 0.01 < seen.mean().item() < 0.2
    assert torch.equal(seen, seen.flip(1))


def test_tone_does_not_depend_on_the_size():
    small = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    for name in PATCHES:
        assert torch.allclose(tone(small, name), tone(large, name), atol=1e-3)


def test_frames_see_the_same_skin():
    """A face drawn in both frames (one flat patch over the cheeks and forehead each) has one tone."""
    dark = torch.full((1, 3, 96, 96), -0.8)
    values = []
    for frame in FRAMES:
        x = dark.clone()
        unit = FRAMES[frame][1][0] - FRAMES[frame][0][0]
        eye = FRAMES[frame][0][1]
        rows, columns = (torch.arange(96) + 0.5) / 96, (torch.arange(96) + 0.5) / 96
        inside = ((rows - eye).abs()[:, None] < 0.9 * unit) & ((columns - 0.5).abs()[None] < 0.9 * unit)
        x[:, :, inside] = 0.4
        values.append(tone(x, "skin_tone", frame).item())
    assert values[0] == pytest.approx(values[1], abs=0.5)
    with pytest.raises(ValueError, match="unknown"):
        tone(dark, "skin_tone", "none")


def test_code_order_and_known_values():
    heads = outputs()
    x = torch.zeros(2, 3, 32, 32)
    code = attribute_logits(heads, x)
    assert code.shape == (2, 16) and code.dtype == torch.float32
    assert code[:, WHERE["gender"]].flatten().tolist() == pytest.approx(
        [BOUND * math.tanh(u / BOUND) for u in heads["gender"].tolist()], abs=1e-5
    )
    assert torch.allclose(code[:, WHERE["eye_opening"]], -code[:, WHERE["eyes_closed"]])
    assert torch.allclose(code[:, WHERE["mouth_opening"]], code[:, WHERE["yawning"]])
    assert torch.allclose(code[:, WHERE["expression"]].argmax(1), heads["expression"].argmax(1))


def test_temperature_is_the_calibration():
    heads = outputs()
    heads["eyes_closed"] = torch.tensor([2.0, -2.0])
    code = attribute_logits(heads, torch.zeros(2, 3, 32, 32), eye_temperature=2.0)
    opening = to_values(code)[:, WHERE["eye_opening"]].flatten()
    assert opening.tolist() == pytest.approx([1 - 0.7311, 0.7311], abs=2e-3)


def test_span_ends_are_two_logits():
    attribute = next(a for a in SCHEMA if a.name == "mouth_width")
    low, high = attribute.span
    points = torch.tensor([[[0.0, 0], [1, 0], [0.5, 0.5], [0.5 - w / 2, 1], [0.5 + w / 2, 1]] for w in (low, high)])
    code = attribute_logits(outputs() | {"landmarks": points}, torch.zeros(2, 3, 32, 32))
    bent = BOUND * math.tanh(2 / BOUND)
    assert code[:, WHERE["mouth_width"]].flatten().tolist() == pytest.approx([-bent, bent], abs=1e-4)


def test_code_is_bounded_and_differentiable():
    heads = {name: (value * 1000).requires_grad_() for name, value in outputs().items()}
    assert attribute_logits(heads, torch.full((2, 3, 32, 32), 3.0)).abs().max() <= BOUND
    x = torch.zeros(2, 3, 32, 32, requires_grad=True)
    heads = {name: value.requires_grad_() for name, value in outputs().items()}
    for column in range(16):
        inputs = [*heads.values(), x]
        grads = torch.autograd.grad(attribute_logits(heads, x)[:, column].sum(), inputs, allow_unused=True)
        assert sum(g.abs().sum() for g in grads if g is not None) > 0


def test_unknown_source_raises():
    schema = (Attribute("weight", "continuous", source="scale"),)
    with pytest.raises(ValueError, match="'weight'"):
        attribute_logits(outputs(), torch.zeros(2, 3, 32, 32), schema=schema)
