"""Cuts and fills along time: in a stream, what ends earlier is late, and what fills is its first steps."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnx_export.calls import shifts
from rnnx_export.calls.kinds import SHIFTS, SLOTS
from support.chunks import FEW, Calling, Made, Row, Some, agrees_in_chunks, calls_of, named, normal

X = {"x": "float64[batch, time, 2]"}


def made(function: Calling, kinds: list[str], shortest: int) -> Made:
    slots = [slot for kind in kinds for slot in SLOTS[kind]]
    counts = [slots[: place + 1].count(slot) for place, slot in enumerate(slots)]
    states = [slot if count == 1 else f"{slot}_{count}" for slot, count in zip(slots, counts, strict=True)]
    return Made(function, X, states, kinds, SHIFTS, shortest=shortest)


def assigned(way: str, some: Some) -> Made:
    """`y[:, k:] = x[:, :-k]`, the cut at the end written in either way, the tensor full of a number."""
    frames, fill = some(1, 4), float(some(-1, 1))
    cuts: dict[str, Callable[[Tensor], Tensor]] = {
        "by size": lambda x: x[:, : x.shape[1] - frames],
        "from the end": lambda x: x[:, :-frames],
        "all axes": lambda x: x[:, :-frames, :],
    }

    def function(x: Tensor) -> Tensor:
        y = torch.full_like(x, fill)
        y[:, frames:] = cuts[way](x)
        return x - y

    return made(Calling(function), ["earlier", "front"], frames + 1)


def first_assigned(way: str, some: Some) -> Made:
    """What came round by `roll` is overwritten: the first step by a learned value, or some by a number."""
    frames = some(1, 3) if way == "some steps" else 1

    def function(x: Tensor, value: Tensor) -> Tensor:
        y = torch.roll(x, frames, 1)
        if way == "a step":
            y[:, 0] = value
        elif way == "some steps":
            y[:, :frames] = 0.5
        else:
            y[..., 0, :] = 0
        return x - y

    return made(Calling(function, normal(2)), ["roll", "front"], frames + 1)


def indexed(some: Some) -> Made:
    """`x[:, 1:] - x[:, :-1]` behind a padding, once or twice, and with an ellipsis."""
    times, fill = some(1, 2), float(some(-1, 1))

    def function(x: Tensor) -> Tensor:
        for _ in range(times):
            x = F.pad(x[:, 1:] - x[..., :-1, :], (0, 0, 1, 0), value=fill)
        return x

    return made(Calling(function), ["later", "earlier", "front"] * times, times + 1)


def rolled(way: str, some: Some) -> Made:
    """The frames that came round are overwritten."""
    frames = some(1, 3)
    rolls: dict[str, Callable[[Tensor], Tensor]] = {
        "numbers": lambda x: torch.roll(x, frames, 1),
        "tuples": lambda x: torch.roll(x, shifts=(frames,), dims=(-2,)),
        "method": lambda x: x.roll(frames, 1),
    }

    def function(x: Tensor) -> Tensor:
        y = rolls[way](x)
        y[:, :frames] = 0
        return y

    return made(Calling(function), ["roll", "front"], frames + 1)


DIFFERENCES = {"padded": ["later", "earlier", "front"], "prepended": ["cat"], "first prepended": ["repeat"]}


def differences(way: str, some: Some) -> Made:
    """A start joined to them, or prepended to what they are taken of; time may be the last axis."""
    axis = some(1, 2)

    def function(x: Tensor) -> Tensor:
        y = x if axis == 1 else x.transpose(1, 2)
        start = torch.zeros_like(y.narrow(axis, 0, 1))
        if way == "padded":
            y = torch.cat([start, torch.diff(y, dim=axis)], axis)
        elif way == "prepended":
            y = torch.diff(y, dim=axis, prepend=start)
        else:
            y = torch.diff(y, dim=axis, prepend=y[:, :1] if axis == 1 else y[..., :1])
        return y if axis == 1 else y.transpose(1, 2)

    return made(Calling(function), DIFFERENCES[way], 2)


def repeated(some: Some) -> Made:
    """The first step again and again in front: a window of each step and those before it."""
    frames = some(1, 4)

    def function(x: Tensor) -> Tensor:
        y = F.pad(x.transpose(1, 2), (frames, 0), mode="replicate").transpose(1, 2)
        return y.unfold(1, frames + 1, 1).contiguous()

    return made(Calling(function), ["repeat"], 1)


def first_in_front(call: str, some: Some) -> Made:
    """`cat([x[:, :1], x[:, :-1]])`: what stands before the first step is that step."""
    cat, by_name = getattr(torch, call), some(0, 1)

    def function(x: Tensor) -> Tensor:
        parts = [x[:, :1], x[:, :-1]]
        return (cat(parts, dim=1) if by_name else cat(parts, 1)) - x

    return made(Calling(function), ["earlier", "front"], 2)


def constant_in_front(call: str, some: Some) -> Made:
    cat = getattr(torch, call)

    def function(x: Tensor, value: Tensor) -> Tensor:
        return cat([value.expand(x.shape[0], -1, -1), x[:, 1:] - x[:, :-1]], -2)

    return made(Calling(function, normal(1, 1, 2)), ["later", "earlier", "front"], 2)


JOINS = ("cat", "concat", "concatenate")
ROWS: list[Row] = [
    *(("__setitem__", functools.partial(assigned, way)) for way in ("by size", "from the end", "all axes")),
    *(
        ("__setitem__", functools.partial(first_assigned, way))
        for way in ("a step", "some steps", "an ellipsis")
    ),
    ("__getitem__", indexed),
    *(("roll", functools.partial(rolled, way)) for way in ("numbers", "tuples", "method")),
    *(("diff", functools.partial(differences, way)) for way in DIFFERENCES),
    ("pad", repeated),
    *((call, functools.partial(first_in_front, call)) for call in JOINS),
    *((call, functools.partial(constant_in_front, call)) for call in JOINS),
]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(shifts)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)
