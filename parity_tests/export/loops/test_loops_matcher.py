"""One step, found in the first steps of a loop, is what every step of it does."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.loops.matcher import Matcher
from rnnx_export.loops.unroll import _captured
from rnnx_export.loops.unstack import MismatchError
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from support.chunks import FEW, in_steps, some_of
from support.loop_modules import CARRIED, FALLBACKS, Leak, OwnWeights, TwoBack, TwoValues, X

STEPS = 4
FEWER = {TwoBack: 3}


@functools.cache
def captured(kind: type[nn.Module]) -> tuple[Plan, Any, list[Tensor]]:
    torch.manual_seed(0)
    plan = discover(Subject(kind(), X), fallbacks=FALLBACKS.get(kind, ()))
    return plan, *_captured(plan, FEWER.get(kind, STEPS))


@functools.cache
def matched(kind: type[nn.Module], descends: bool) -> tuple[Plan, Matcher]:
    """Return the plan of a loop with its step, and what matched it."""
    plan, exported, examples = captured(kind)
    matcher = Matcher(plan, exported, examples, descends=descends)
    matcher.match()
    states = [*plan.states, *matcher.new_states()]
    return dataclasses.replace(plan, states=states, step_graph=matcher.finish()), matcher


@pytest.mark.parametrize("kind", CARRIED)
def test_so_much_is_carried_and_no_more(kind: type[nn.Module]) -> None:
    plan, matcher = matched(kind, descends=True)
    carried = [state for state in plan.states if str(state.origin).startswith("loop:")]
    assert [state.name for state in carried] == CARRIED[kind]
    for state in carried:
        shape = () if state.name == "position" else ("batch", 3)
        assert state.spec.shape == shape
    assert len(matcher.slots) == len([state for state in carried if state.name != "position"])
    assert (matcher.position is not None) == ("position" in CARRIED[kind])


@pytest.mark.parametrize("descends", [False, True], ids=["as it is used", "as it is before"])
@pytest.mark.parametrize("kind", CARRIED)
@FEW
@given(st.data())
def test_the_step_over_a_sequence_of_any_length_gives_what_the_loop_does(
    kind: type[nn.Module], descends: bool, data: st.DataObject
) -> None:
    """Longer ones than it was found in, too."""
    some = some_of(data)
    plan, _ = matched(kind, descends)
    sizes = {"batch": some(1, 3), "time": some(1, 12)}
    torch.manual_seed(some(0, 1000))
    x = torch.randn(sizes["batch"], sizes["time"], 3, dtype=torch.float64)
    with torch.no_grad():
        (got,) = in_steps(plan, {"x": x}, sizes)
        torch.testing.assert_close(got, plan.subject.fresh()(x), rtol=1e-9, atol=1e-9)


def test_a_value_that_is_used_in_two_ways_is_carried_as_it_is_before_them() -> None:
    used, before = (len(matched(TwoValues, descends)[1].slots) for descends in (False, True))
    assert used > before == 2


def test_the_starts_are_what_the_loop_begins_with() -> None:
    plan, _ = matched(TwoValues, descends=True)
    torch.manual_seed(0)
    module = TwoValues()
    starts = [torch.from_numpy(state.initial).reshape(-1) for state in plan.states]
    for wanted in (module.first, module.second):
        assert any(torch.equal(start, wanted.detach()) for start in starts)


def test_steps_that_are_not_alike_are_a_mismatch() -> None:
    plan, exported, examples = captured(OwnWeights)
    with pytest.raises(MismatchError):
        Matcher(plan, exported, examples, descends=False).match()


class Named(nn.Module):
    """Its input has the name that a state would have."""

    def forward(self, h: Tensor) -> Tensor:
        return Leak.forward(self, h)


def test_names_that_others_have_are_not_taken_again() -> None:
    plan = discover(Subject(Named(), {"h": X["x"]}))
    matcher = Matcher(plan, *_captured(plan, STEPS), descends=False)
    matcher.match()
    assert [state.name for state in matcher.new_states()] == ["h_2"]
