"""Arguments of calls, and a chunk behind its past."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rnnx_export.calls.helpers import advance, delayed, each, named, slices, with_past
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Lift
from support.chunks import FEW, some_of


def carrying(axis: int, **states: torch.Tensor) -> tuple[CallTracer, Lift]:
    return CallTracer(nn.Identity(), states=states), Lift("key", "pad", axis, tuple(states))


@FEW
@given(st.data())
def test_a_chunk_stands_behind_its_past_and_leaves_the_next_one(data: st.DataObject) -> None:
    """Chunk by chunk, each sees the frames before it; late by so many, it is the whole sequence shifted."""
    some = some_of(data)
    axis, frames, chunks = some(0, 2), some(1, 4), [some(1, 3) for _ in range(some(1, 4))]
    shape = [some(1, 3) for _ in range(3)]
    whole = torch.randn(*shape[:axis], frames + sum(chunks), *shape[axis + 1 :])
    past, start = whole.narrow(axis, 0, frames), frames
    for steps in chunks:
        x = whole.narrow(axis, start, steps)
        for function, wanted in ((with_past, steps + frames), (delayed, steps)):
            tracer, lift = carrying(axis, past=past)
            got = function(tracer, lift, x, frames) if function is with_past else function(tracer, lift, x)
            assert torch.equal(got, whole.narrow(axis, start - frames, wanted))
            after = tracer.next_states["past"]
            assert torch.equal(after, whole.narrow(axis, start + steps - frames, frames))
        past, start = after, start + steps


def test_a_position_goes_on_and_starts_at_0_where_there_is_none() -> None:
    tracer, lift = carrying(0, past=torch.zeros(2), position=torch.tensor(5))
    assert advance(tracer, lift, 3) == 5
    assert tracer.next_states == {"position": 8}
    nothing = CallTracer(nn.Identity())
    assert advance(nothing, lift, 3) == 0
    assert not nothing.next_states


@FEW
@given(st.data())
def test_an_index_cuts_one_axis_and_no_other(data: st.DataObject) -> None:
    some = some_of(data)
    x, axis = torch.randn([some(2, 4) for _ in range(3)]), some(0, 2)
    start, stop = some(0, 1), some(1, 4)
    got = x[slices(x, axis, start, stop)]
    assert torch.equal(got, x.movedim(axis, 0)[start:stop].movedim(0, axis))


def test_one_number_stands_for_each_axis() -> None:
    assert each(3, 2) == [3, 3]
    assert each((3,), 2) == [3, 3]
    assert each((3, 4), 2) == [3, 4]
    assert each([1, 2, 3], 3) == [1, 2, 3]


def test_arguments_come_in_order_however_they_were_passed() -> None:
    names, defaults = ("input", "dim", "keepdim"), (None, 0, False)
    assert named((1, 2), {"keepdim": True}, names, defaults) == (1, 2, True)
    assert named((1,), {"keepdim": True}, names, defaults) == (1, 0, True)
    assert named((), {"dim": 5, "input": 4, "out": 6}, names, defaults) == (4, 5, False)
