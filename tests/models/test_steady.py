import pytest
import torch
from torch import nn

from a3gan.models.ops import EqualLinear
from a3gan.models.steady import SteadyLinear, SteadyPointwise, SteadySynthesis, steady
from a3gan.models.stylegan2 import Generator


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    made = Generator(64, z_dim=8, w_dim=16, channels_base=512, channels_max=32, mapping_layers=1, noise=True)
    for conv in made.convs:
        nn.init.normal_(conv.bias)
        nn.init.constant_(conv.noise_strength, 0.3)
    return made.eval().requires_grad_(False)


def codes(count: int) -> torch.Tensor:
    return torch.randn(count, 10, 16, generator=torch.Generator().manual_seed(1))


def test_the_picture_is_the_generators(generator):
    w = codes(3)
    torch.testing.assert_close(SteadySynthesis(generator)(w), generator.synthesis(w), atol=1e-4, rtol=1e-4)


def test_the_gradient_is_the_generators(generator):
    gradients = []
    for render in (generator.synthesis, SteadySynthesis(generator)):
        w = codes(2).requires_grad_(True)
        render(w).square().sum().backward()
        gradients.append(w.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("cut", range(2, 10))
def test_parts_make_the_whole_and_early_rows_end_early(generator, cut):
    made, w = SteadySynthesis(generator), codes(2)
    x, rgb = made.render(made.start(2), None, w.unbind(1), 0, cut)
    other = w.clone()
    other[:, :cut] = 0  # no longer looked at
    assert torch.equal(made.render(x, rgb, other.unbind(1), cut, 10)[1], made(w))


def test_layers_are_those_they_stand_for():
    torch.manual_seed(0)
    x = torch.randn(5, 12)
    for layer in (nn.Linear(12, 7), EqualLinear(12, 7, bias=0.3, lr_mul=0.5, activate=True)):
        torch.testing.assert_close(SteadyLinear(layer)(x), layer(x).detach(), atol=1e-5, rtol=1e-5)
    assert SteadyLinear(nn.Linear(12, 7, bias=False))(x.view(5, 1, 12)).shape == (5, 1, 7)
    for stride in (1, 2):
        conv = nn.Conv2d(12, 7, 1, stride)
        maps = torch.randn(3, 12, 6, 6).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(SteadyPointwise(conv)(maps), conv(maps).detach(), atol=1e-5, rtol=1e-5)


def test_swapping_leaves_other_convolutions():
    net = steady(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1, groups=4)))
    kinds = [type(m) for m in (net[0], net[1][0], net[2])]
    assert kinds == [nn.Conv2d, SteadyPointwise, nn.Conv2d]


def test_a_row_is_the_same_beside_any_others(generator):
    made = SteadySynthesis(generator)
    whole = codes(7).requires_grad_(True)
    image = made(whole)
    (gradient,) = torch.autograd.grad(image.square().sum(), whole)
    part = whole.detach()[2:4].clone().requires_grad_(True)
    again = made(part)
    own = torch.autograd.grad(again.square().sum(), part)[0]
    # To the bit where it was written; other processors may have other convolutions.
    torch.testing.assert_close(again, image[2:4], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(own, gradient[2:4], atol=1e-4, rtol=1e-5)
