"""Values that are late by different numbers of steps meet in any expression as if none were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls.delays import Delay, Delays
from rnnx_export.module.subject import Subject
from rnnx_export.states.delay import with_delay
from rnnx_export.states.discover import discover
from rnnx_export.states.program import step_program
from support.chunks import FEW, Calling, Made, Some, agrees_late

Meet = Callable[[Tensor, Tensor], Tensor]


def _in_place(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a += b
    return a.mul_(b)


def _assigned(a: Tensor, b: Tensor) -> Tensor:
    joined = torch.zeros_like(torch.cat([a, b], -1))
    joined[..., : a.shape[-1]] = a
    joined[..., a.shape[-1] :] = b
    return joined[..., ::2] + joined[..., 1::2]


MEETS: list[Meet] = [
    torch.add,
    lambda a, b: a * b.sigmoid(),
    lambda a, b: torch.stack([a, b]).amax(0),
    lambda a, b: torch.where(b > 0, a, -a),
    lambda a, b: torch.cat([a, b], -1).unflatten(-1, (2, -1)).sum(-2),
    lambda a, b: torch.stack([u * v for u, v in zip(a.unbind(-1), b.unbind(-1), strict=True)], -1),
    lambda a, b: torch.einsum("btf,btg->btf", a, b),
    _in_place,
    _assigned,
]


def pulled(x: Tensor, frames: int) -> Tensor:
    """Return [batch, time, 4] that begins so many frames later; zeros at its end."""
    return F.pad(x, (0, 0, -frames, frames)) + 0.5


def expression(some: Some) -> Made:
    """Values pulled forward by some frames or none, that meet in random ways."""
    pulls = [some(1, 3) for _ in range(some(1, 3))]
    pairs = [(some(0, 9), some(0, 9), MEETS[some(0, len(MEETS) - 1)]) for _ in range(some(1, 4))]

    def function(x: Tensor) -> Tensor:
        values = [x]
        for frames in pulls:
            values.append(torch.tanh(pulled(values[-1], frames)))
        for left, right, meet in pairs:
            values.append(meet(values[left % len(values)], values[right % len(values)]))
        return torch.stack([value.tanh() for value in values], -1)

    kinds = ["pad"] * len(pulls)
    return Made(Calling(function), {"x": "float64[batch, time, 4]"}, [], kinds, shortest=max(pulls))


@FEW
@given(st.data())
def test_what_meets_is_equally_late(data: st.DataObject) -> None:
    agrees_late(data, ("pad", expression))


@pytest.mark.parametrize("meet", range(len(MEETS)))
def test_each_way_to_meet(meet: int) -> None:
    """The early one waits, for two steps."""
    module = Calling(lambda x: MEETS[meet](x, pulled(x, 2)))
    plan = with_delay(discover(Subject(module, {"x": "float64[batch, time, 4]"})), None, "auto")
    assert plan.delay is not None
    assert plan.delay.steps == 2
    lines = [state.spec.shape for state in plan.states if state.name in plan.delay.lines]
    assert lines
    assert {shape[:2] for shape in lines} == {(2, "batch")}


def test_a_recurrent_state_stays_at_its_start_until_its_first_step() -> None:
    """In front of the sequence there are no frames: a layer must not take in what stands there instead."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 3, batch_first=True).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(pulled(x, 2))[0]

    torch.manual_seed(0)
    plan = with_delay(discover(Subject(Layer(), {"x": "float64[batch, time, 4]"})), None, "auto")

    step, states = step_program(plan), plan.start({"batch": 1})
    names = list(states)
    moved = []
    for _ in range(4):
        result = step(torch.ones(1, 4, dtype=torch.float64), *states.values())
        states = dict(zip(names, result[1:], strict=True))
        moved.append(bool(states["gru.h"].any()))
    assert moved == [False, False, True, True]


def test_flags_tell_which_steps_are_of_the_sequence() -> None:
    delay = Delay(2, "live", "ended", (), memory=3)
    after: dict[str, Tensor] = {}
    states = {"live": torch.tensor([[1.0, 1.0, 0.0]]), "ended": torch.zeros(1)}
    flags = Delays(delay, states, after, [1])
    assert flags.flags(0, 3).tolist() == [[0, 1, 1, 1]]
    assert flags.exists(3, None, 2).item() is False
    assert flags.exists(2, 1, 3).shape == (1, 1, 1)
    assert after["live"].tolist() == [[1.0, 1.0, 1.0]]
    over = Delays(delay, {"live": after["live"], "ended": torch.ones(1)}, after, [1])
    assert over.flags(0, 2).tolist() == [[1, 1, 0]]
    assert after["ended"].tolist() == [1.0]
