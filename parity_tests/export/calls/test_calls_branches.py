"""Decisions on a tensor's value are noted by their place, and are what is settled where that is asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import branches
from rnnx_export.calls.tracer import CallTracer
from support.chunks import FEW, calls_of, some_of


class Sides(nn.Module):
    """Two decisions on one line, and one in a loop."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1 if x.sum() > 0 and x.max() > 1 else x - 1
        for row in x:
            if row[0] > 0:
                y = y * 2
        return y


def test_every_call_of_the_module_has_a_row() -> None:
    """Nothing is carried by a decision: the module's own values are what there is to keep."""
    assert {"__bool__"} == calls_of(branches)


@FEW
@given(st.data())
def test_a_decision_is_what_pytorch_takes_and_its_place_is_the_same_in_every_run(data: st.DataObject) -> None:
    some = some_of(data)
    torch.manual_seed(some(0, 1000))
    x = torch.randn(some(1, 4), 3)
    module = Sides()
    with CallTracer(module) as tracer:
        got = module(x)
    assert torch.equal(got, module(x))
    values = [bool(x.sum() > 0)] + ([bool(x.max() > 1)] if x.sum() > 0 else [])
    values += [bool(row[0] > 0) for row in x]
    assert [decision.value for decision in tracer.decisions] == values
    first, *rest = [decision.key for decision in tracer.decisions]
    assert len(set(rest[-len(x) :])) == 1, "a decision in a loop has one place"
    assert len({first, *rest}) == (3 if x.sum() > 0 else 2)
    lines = {decision.line for decision in tracer.decisions}
    start = Sides.forward.__code__.co_firstlineno
    assert lines == {start + 1, start + 3}
    assert {decision.file for decision in tracer.decisions} == {__file__}
    with CallTracer(module) as again:
        module(x)
    assert [decision.key for decision in again.decisions] == [first, *rest]


def decided(
    x: Tensor, sides: dict[str, bool] | None = None, *, forced: bool = False
) -> tuple[bool, CallTracer]:
    with CallTracer(nn.Identity(), sides=sides, forced=forced) as tracer:
        result = bool(x > 0)
    return result, tracer


@pytest.mark.parametrize("value", [-1.0, 1.0])
@pytest.mark.parametrize("side", [False, True])
def test_a_settled_side_is_taken_where_it_is_forced_and_only_there(value: float, side: bool) -> None:
    x = torch.tensor(value)
    result, tracer = decided(x)
    assert result == (value > 0)
    (decision,) = tracer.decisions
    sides = {decision.key: side}
    assert decided(x, sides)[0] == (value > 0)
    result, tracer = decided(x, sides, forced=True)
    assert result == side
    assert [(other.key, other.value) for other in tracer.decisions] == [(decision.key, value > 0)]
    assert decided(x, {"elsewhere:1:0": side}, forced=True)[0] == (value > 0)


def test_in_a_capture_the_settled_side_is_taken_and_what_decides_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.tensor(1.0)
    (decision,) = decided(x)[1].decisions
    monkeypatch.setattr("torch.compiler.is_exporting", lambda: True)
    result, tracer = decided(x, {decision.key: False})
    assert result is False
    assert {key: bool(value) for key, value in tracer.conditions.items()} == {decision.key: True}
    assert not tracer.decisions
    result, tracer = decided(x)
    assert result is True
    assert list(tracer.conditions) == [decision.key]
