import pytest
import torch

from a3gan.anonymizers.falco_descent import FLAT, WINDOW, Trace, descend, learning_rate


def quadratic(free, constants):
    """Distance to a target of each row's own; 'cosine' 1, so that nobody settles at margin 0."""
    (target,) = constants
    loss = (free - target).square().sum((1, 2))
    return loss, torch.ones(len(free)), loss.detach()


def test_rate_drops_at_75_and_90_per_cent():
    rates = [learning_rate(step, 50, 0.01) for step in range(50)]
    assert rates[:37] == [0.01] * 37
    assert rates[37:45] == pytest.approx([0.008] * 8)
    assert rates[45:] == pytest.approx([0.0064] * 5)


def test_the_steps_are_those_of_torchs_adam():
    g = torch.Generator().manual_seed(0)
    start, target = torch.randn(3, 2, 4, generator=g), torch.randn(3, 2, 4, generator=g)
    found, _ = descend(quadratic, start, [target], steps=20, rate=0.05, margin=0.0)
    wanted = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([wanted], lr=0.05)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = learning_rate(step, 20, 0.05)
        optimizer.zero_grad()
        quadratic(wanted, [target])[0].sum().backward()
        optimizer.step()
    torch.testing.assert_close(found, wanted.detach(), atol=1e-6, rtol=1e-5)


def test_settled():
    trace = Trace([0.5] * 10, [1.0] * 10)
    assert not trace.settled(0.0) and trace.settled(0.49)
    assert not Trace([0.0] * WINDOW, [1.0] * WINDOW).settled(0.0)  # too short to tell
    falling = [1.0] * WINDOW + [1.0 - 2 * FLAT]
    assert not Trace([0.0] * (WINDOW + 1), falling).settled(0.0)


@pytest.mark.parametrize("least", [1, 3])
def test_a_settled_face_is_frozen_and_the_others_go_on_as_alone(least):
    seen = []

    def objective(free, constants):
        target, still = constants
        seen.append(len(free))
        loss = (free - target).square().sum((1, 2))
        return loss, 1 - still, torch.where(still > 0, torch.ones_like(loss), loss).detach()

    g = torch.Generator().manual_seed(0)
    start, target = torch.randn(3, 1, 4, generator=g), torch.randn(3, 1, 4, generator=g)
    constants = [target, torch.tensor([0.0, 1.0, 0.0])]  # the second is at the margin with a flat L_att
    ticks = []
    found, traces = descend(
        objective, start, constants, steps=20, rate=0.05, margin=0.0, least=least, ticks=lambda: ticks.append(1)
    )
    assert [t.stopped for t in traces] == [False, True, False]
    assert [len(t.cosine) for t in traces] == [20, WINDOW + 1, 20] and len(ticks) == 20
    assert seen[-1] == max(2, least)
    alone, _ = descend(quadratic, start[:1], [target[:1]], steps=20, rate=0.05, margin=0.0)
    torch.testing.assert_close(found[:1], alone)
    wanted = start[1:2].clone().requires_grad_(True)  # it moved WINDOW times, before the rate drops
    optimizer = torch.optim.Adam([wanted], lr=0.05)
    for _ in range(WINDOW):
        optimizer.zero_grad()
        quadratic(wanted, [target[1:2]])[0].sum().backward()
        optimizer.step()
    torch.testing.assert_close(found[1:2], wanted.detach(), atol=1e-6, rtol=1e-5)


def test_ends_when_all_have_settled():
    def objective(free, _):
        return free.sum((1, 2)), torch.zeros(len(free)), torch.ones(len(free))

    ticks = []
    descend(objective, torch.zeros(2, 1, 3), [], steps=50, rate=0.1, margin=0.0, ticks=lambda: ticks.append(1))
    assert len(ticks) == WINDOW
