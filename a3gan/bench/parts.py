"""Where a step's time goes: own time by operation, and by the part of the software that asked for it.

Parts are named by wrapping functions for the time of one profile. What the backward pass does is counted for the part
whose forward pass it undoes: the autograd engine numbers both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from a3gan.training.ema import Ema
    from a3gan.training.stage import Stage

_MARK = "part: "
REST = "losses and the rest"

Target = tuple[Any, str, str]  # owner (object or module), name of one of its functions, part


def targets(stage: Stage, ema: Ema) -> list[Target]:
    """The functions whose time is a part of their own, for any of our stages."""
    found: list[Target] = [(ema, "update", "averages")]
    found += [(optimizer, "step", "optimiser") for optimizer in stage.optimizers.values()]
    for name, net in stage.networks.items():
        if name == "model":
            found += [(getattr(net, part), "forward", part) for part in ("encoder", "fusion", "ainet")]
            found += [(net.generator, "synthesis", "generator")]
        elif name == "generator":
            found += [(net, "synthesis", "generator"), (net.mapping, "forward", "generator")]
        else:
            found.append((net, "forward", "readers" if "reader" in name else name))
    scorers = getattr(stage, "scorers", None)
    if scorers is not None:
        found += [(scorers, "view", "attribute scorer"), (scorers, "distance", "perceptual")]
        found += [(net, "forward", "recogniser") for net in scorers.recognisers]
    return found + _of_modules()


def _of_modules() -> list[Target]:
    from a3gan.training import adversary, attributes_stage, descent, identity_stage, loss_scorers

    augment = [(m, "augment", "augment") for m in (adversary, attributes_stage, identity_stage)]
    augment += [(loss_scorers, "random_transform", "augment"), (identity_stage, "low_resolutions", "augment")]
    return [*augment, (descent, "scale_gradients", "gradient check")]


@contextmanager
def named(wanted: list[Target]) -> Iterator[None]:
    """Within it the functions carry their parts' names into a profile."""
    with ExitStack() as undo:
        for owner, name, part in wanted:
            before = vars(owner).get(name)
            setattr(owner, name, _marked(getattr(owner, name), part))
            undo.callback(setattr, owner, name, before) if before is not None else undo.callback(delattr, owner, name)
        yield


def _marked(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def marked(*args: Any, **options: Any) -> Any:
        with torch.profiler.record_function(_MARK + part):
            return function(*args, **options)

    return marked


def where(step: Callable[[], object]) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Profiles one step: part -> share of the own time (forward, backward), and operation -> share; each sums to 1."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])) as seen:
        step()
    events = [e for e in seen.events() if cuda or e.device_type == torch.autograd.DeviceType.CPU]
    asked = {}  # number of a backward node -> part; the last operation that starts with a number makes the node
    for event in events:
        if event.sequence_nr >= 0 and _node(event) is None:
            asked[event.sequence_nr] = _part(event)
    parts: dict[str, tuple[float, float]] = {}
    operations: dict[str, float] = {}
    for event in events:
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        node = _node(event)
        part = _part(event) if node is None else asked.get(node, REST)
        forward, backward = parts.get(part, (0.0, 0.0))
        parts[part] = (forward + took, backward) if node is None else (forward, backward + took)
        if event.name.startswith(_MARK) or event.name.startswith("autograd::engine"):
            continue
        operations[event.name] = operations.get(event.name, 0.0) + took
    whole, all_operations = sum(f + b for f, b in parts.values()) or 1.0, sum(operations.values()) or 1.0
    return (
        {part: (f / whole, b / whole) for part, (f, b) in parts.items()},
        {name: took / all_operations for name, took in operations.items()},
    )


def _part(event: Any) -> str:
    while event is not None:
        if event.name.startswith(_MARK):
            return event.name.removeprefix(_MARK)
        event = event.cpu_parent
    return REST


def _node(event: Any) -> int | None:
    """Number of the backward node that an event works for; None in the forward pass."""
    while event is not None:
        if event.name.startswith("autograd::engine::evaluate_function"):
            return event.sequence_nr
        event = event.cpu_parent
    return None


def table(parts: dict[str, tuple[float, float]], operations: dict[str, float], count: int = 8) -> list[str]:
    """Lines for people: parts with forward and backward share, then the `count` costliest operations."""
    lines = [f"    {'part':20} {'forward':>8} {'backward':>9}"]
    for part, (forward, backward) in sorted(parts.items(), key=lambda item: -sum(item[1])):
        if forward + backward >= 0.001:
            lines.append(f"    {part:20} {100 * forward:6.1f} % {100 * backward:7.1f} %")
    lines.append(f"    {'operation':20}")
    best = sorted(operations.items(), key=lambda item: -item[1])[:count]
    return lines + [f"    {name:40.40} {100 * share:6.1f} %" for name, share in best]
