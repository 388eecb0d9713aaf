"""What a hand-written loop carries is found by unrolling its first steps, few before many."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.diagnostics import CaptureError
from rnnx_export.loops import unroll
from rnnx_export.loops.prefixes import STEP_COUNTS
from rnnx_export.loops.unroll import lift_loop, lift_loops
from rnnx_export.module.subject import Subject
from rnnx_export.states.causality import why_not_stepped
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from support.chunks import FEW, in_steps, normal, some_of
from support.loop_modules import BehindFilter, Leak, OwnWeights, X


def plan_of(module: nn.Module, **inputs: str) -> Plan:
    return discover(Subject(module, inputs or X))


class Recurrence(nn.Module):
    """y = f(taps of the input and of itself), with random weights: a recursive filter."""

    def __init__(self, weights: Tensor, taps: int, order: int) -> None:
        super().__init__()
        self.weights, self.taps, self.order = nn.Parameter(weights), taps, order

    def forward(self, x: Tensor) -> Tensor:
        seen, made = [torch.zeros_like(x[:, 0])] * self.taps, [torch.zeros_like(x[:, 0])] * self.order
        rows = []
        for frame in x.unbind(1):
            y = frame
            for weight, value in zip(self.weights, [*seen, *made], strict=True):
                y = y + weight * value
            seen, made = [*seen, frame][1:], [*made, y][1:]
            rows.append(y)
        return torch.stack(rows, 1)


@pytest.mark.parametrize(("taps", "order"), [(1, 1), (2, 0)])
def test_a_filter_of_any_order_is_carried_by_as_many_values(taps: int, order: int) -> None:
    torch.manual_seed(taps + 3 * order)
    plan = plan_of(Recurrence(0.3 * normal(taps + order, 3), taps, order))
    found = lift_loops([plan], lambda other: why_not_stepped(other) is None)
    assert found is not None
    assert len(found.states) == taps + order
    for batch, steps in ((1, 1), (2, 12)):
        x = normal(batch, steps, 3)
        with torch.no_grad():
            (got,) = in_steps(found, {"x": x}, {"batch": batch, "time": steps})
            torch.testing.assert_close(got, found.subject.fresh()(x), rtol=1e-9, atol=1e-9)


def test_few_steps_are_tried_on_every_plan_before_more_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []
    first, second, third = (dataclasses.replace(plan_of(Leak()), hint=name) for name in ("a", "b", "c"))

    def look(plan: Plan, fits: Any, steps: int) -> Plan | None:
        tried.append((plan.hint or "", steps))
        if plan.hint == "b":
            raise CaptureError("not this one")
        return plan if (plan.hint, steps) == ("c", STEP_COUNTS[2]) else None

    monkeypatch.setattr(unroll, "_lifted", look)
    assert lift_loops([first, second, third], lambda plan: True) is third
    one, two, three = STEP_COUNTS[:3]
    assert tried == [("a", one), ("b", one), ("c", one), ("a", two), ("c", two), ("a", three), ("c", three)]
    assert lift_loops([first], lambda plan: True) is None


def test_what_does_not_fit_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unroll, "STEP_COUNTS", STEP_COUNTS[:1])
    seen: list[Plan] = []
    assert lift_loops([plan_of(Leak())], lambda plan: bool(seen.append(plan))) is None
    assert seen


def test_a_module_that_needs_nothing_more_stays_as_it_is() -> None:
    plan = plan_of(nn.Identity(), input="float64[batch, time, 3]")
    assert lift_loop(plan) is plan


def test_a_module_whose_steps_differ_stays_as_it_is() -> None:
    plan = plan_of(OwnWeights())
    assert lift_loop(plan) is plan


def test_what_calls_carry_stays_beside_what_the_loop_does() -> None:
    found = lift_loop(plan_of(BehindFilter()))
    assert [state.name for state in found.states] == ["past", "h"]
    assert [lift.kind for lift in found.lifts.values()] == ["pad"]


class SumBeforeLoop(nn.Module):
    """A running sum over the chunk, and a loop over what came of it."""

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), []
        for frame in torch.cumsum(x, 1).unbind(1):
            h = 0.9 * h + frame
            rows.append(h)
        return torch.stack(rows, 1)


def test_a_running_sum_is_found_as_part_of_the_loop_and_not_twice() -> None:
    plan = plan_of(SumBeforeLoop())
    assert [lift.kind for lift in plan.lifts.values()] == ["cumsum"]
    found = lift_loop(plan)
    assert not found.lifts
    assert [state.name for state in found.states] == ["h", "carried"]
    x = normal(2, 11, 3)
    (got,) = in_steps(found, {"x": x}, {"batch": 2, "time": 11})
    torch.testing.assert_close(got, found.subject.fresh()(x), rtol=1e-9, atol=1e-9)


def test_steps_of_several_frames_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(nn.Identity(), input="float64[batch, 3*time]")
    monkeypatch.setattr(unroll, "_captured", lambda *_: pytest.fail("it was unrolled"))
    assert lift_loop(plan) is plan
    assert lift_loops([plan], lambda found: True) is None


class Masked(nn.Module):
    """Rows of their own lengths: one that has ended keeps what it carries."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        rows = []
        for step in range(x.shape[1]):
            h = torch.where((step < lengths)[:, None], torch.tanh(h + x[:, step]), h)
            rows.append(h)
        return torch.stack(rows, 1)


@functools.cache
def masked() -> Plan:
    return lift_loop(plan_of(Masked(), x=X["x"], lengths="int64[batch] in 1..time"))


@FEW
@given(st.data())
def test_lengths_are_shared_out_over_the_steps(data: st.DataObject) -> None:
    some, found = some_of(data), masked()
    sizes = {"batch": some(1, 3), "time": some(1, 9)}
    inputs = {"x": normal(sizes["batch"], sizes["time"], 3)}
    inputs["lengths"] = torch.tensor([some(0, sizes["time"]) for _ in range(sizes["batch"])])
    assert found.step_graph is not None
    (got,) = in_steps(found, inputs, sizes)
    torch.testing.assert_close(got, found.subject.fresh()(**inputs), rtol=1e-9, atol=1e-9)
