"""A module's sequence cut into chunks: each begins from the states that the one before it left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx.model.contract import axis_index
from rnnx_export.calls.table import HANDLERS
from rnnx_export.module.spec import TensorSpec, time_axis
from rnnx_export.module.subject import Subject, one_thread
from rnnx_export.states.causality import join_steps
from rnnx_export.states.delay import steps_and_end, with_delay
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program, step_program

# The same examples in every run: what fails fails again. They are small, and not shrunk further.
FEW = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
Some = Callable[[int, int], int]  # a number from the first to the last, both included


class Calling(nn.Module):
    """Computes a function of its input and of weights.

    Args:
        function: (x, weights...) -> y.
        weights: what it computes with beside its input.
    """

    def __init__(self, function: Callable[..., Any], *weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(weights)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.weights)


@dataclasses.dataclass(frozen=True)
class Made:
    """A module that uses one call, and what has to be found in it.

    Attributes:
        module: computes in float64, so that little can pass for rounding.
        inputs: specs by parameter.
        states: what the states' names end with, in order.
        kinds: of the calls whose memory becomes states.
        fallbacks: kinds that are lifted only by a fallback rule.
        longest: steps of a chunk, at most; 1 where a loop is captured step by step.
        shortest: steps of a whole sequence, at least: PyTorch cannot cut off more than there are.
    """

    module: nn.Module
    inputs: dict[str, str]
    states: Sequence[str]
    kinds: Sequence[str]
    fallbacks: Sequence[str] = ()
    longest: int = 5
    shortest: int = 1


Row = tuple[str, Callable[[Some], Made]]  # the call's name, and what makes a module of random sizes


def normal(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def calls_of(module: ModuleType) -> set[str]:
    """Return the names of the intercepted calls that a module of handlers takes."""
    return {
        name
        for name, handlers in HANDLERS.items()
        if any(handler.__module__ == module.__name__ for handler in handlers)
    }


def named(row: Row) -> str:
    """Return what to call a test of a row."""
    call, make = row
    parts = [getattr(make, "func", make).__name__, *getattr(make, "args", ())]
    return "-".join([call, *(str(part) for part in parts if part != call)])


def some_of(data: st.DataObject) -> Some:
    return lambda low, high: data.draw(st.integers(low, high))


@one_thread()
def agrees_in_chunks(data: st.DataObject, row: Row) -> None:
    """Assert that a whole sequence and chunks of it give the same, at random sizes."""
    some = some_of(data)
    torch.manual_seed(some(0, 1000))
    made = row[1](some)
    plan = discover(Subject(made.module, made.inputs), fallbacks=made.fallbacks)
    kinds, names = [lift.kind for lift in plan.lifts.values()], [state.name for state in plan.states]
    assert kinds == list(made.kinds), f"{kinds} were lifted"
    assert [name.rpartition(".")[2] for name in names] == list(made.states), f"{names} were found"
    chunks = data.draw(st.lists(st.integers(1, made.longest), min_size=1, max_size=6))
    while sum(chunks) < made.shortest:
        chunks.append(some(1, made.longest))
    sizes = {"batch": some(1, 3), "time": sum(chunks)}
    generator = torch.Generator().manual_seed(some(0, 1000))
    inputs = {name: spec.random(sizes, generator) for name, spec in plan.subject.inputs.items()}
    with torch.no_grad():
        whole = plan.subject.fresh()(**{name: value.clone() for name, value in inputs.items()})
        got, ends = in_chunks(plan, inputs, chunks, sizes)
    expected = whole if isinstance(whole, tuple) else (whole,)
    assert len(got) == len(expected), plan.outputs
    for name, one, other in zip(plan.outputs, got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=lambda said, n=name: f"{n}: {said}")
    for state, end in zip(plan.states, ends, strict=True):
        wanted = (state.spec.sizes(sizes), state.spec.dtype)
        assert (tuple(end.shape), end.dtype) == wanted, f"{state.name}: {tuple(end.shape)} {end.dtype}"


@one_thread()
def agrees_late(data: st.DataObject, row: Row) -> None:
    """Assert that steps and the end after them give late what a whole sequence gives, at random sizes."""
    some = some_of(data)
    torch.manual_seed(some(0, 1000))
    made = row[1](some)
    found = discover(Subject(made.module, made.inputs))
    plan = with_delay(found, None, "auto")
    assert [lift.kind for lift in plan.lifts.values()] == list(made.kinds)
    sizes = {"batch": some(1, 3), "time": made.shortest + some(0, 8)}
    generator = torch.Generator().manual_seed(some(0, 1000))
    inputs = {name: spec.random(sizes, generator) for name, spec in plan.subject.inputs.items()}
    with torch.no_grad():
        whole = plan.subject.fresh()(**{name: value.clone() for name, value in inputs.items()})
        got = steps_and_end(plan, inputs, plan.start(sizes))
    expected = whole if isinstance(whole, tuple) else (whole,)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def in_chunks(
    plan: Plan, inputs: dict[str, Tensor], chunks: Sequence[int], sizes: dict[str, int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of chunks joined along time, the last one of those without it, and the states."""
    program, start, count = Program(plan), 0, len(plan.outputs)
    carried = list(plan.start(sizes).values())
    rows: list[tuple[Tensor, ...]] = []
    for steps in chunks:
        taken = [part_of(value, plan.subject.inputs[name], start, steps) for name, value in inputs.items()]
        result = program(*taken, *carried)
        rows.append(result[:count])
        carried, start = list(result[count:]), start + steps
    axes = [axis_index(output.spec.shape, "time") for output in plan.outputs]
    return [
        rows[-1][place] if axis is None else torch.cat([row[place] for row in rows], axis)
        for place, axis in enumerate(axes)
    ], carried


def in_steps(plan: Plan, inputs: dict[str, Tensor], sizes: dict[str, int]) -> list[Tensor]:
    """Return the outputs of single steps, joined as a whole call gives them."""
    step, specs, count = step_program(plan), plan.subject.inputs, len(plan.outputs)
    carried = list(plan.start(sizes).values())
    rows: list[tuple[Tensor, ...]] = []
    for place in range(sizes["time"]):
        taken = [part_of(value, specs[name], place, 1) for name, value in inputs.items()]
        axes = [time_axis(spec.shape) for spec in specs.values()]
        taken = [x if axis is None else x.squeeze(axis) for x, axis in zip(taken, axes, strict=True)]
        result = step(*taken, *carried)
        rows.append(result[:count])
        carried = list(result[count:])
    return [join_steps([row[place] for row in rows], o.spec) for place, o in enumerate(plan.outputs)]


def part_of(value: Tensor, spec: TensorSpec, start: int, steps: int) -> Tensor:
    """Return an input's steps from `start` on, as a call of its own is given them."""
    if spec.is_length:
        return (value - start).clamp(0, steps)
    axis = axis_index(spec.shape, "time")
    if axis is None:
        return value.clone()
    factor = spec.axes()[axis].factor
    return value.narrow(axis, start * factor, steps * factor).clone()
