"""Arguments of calls, and a chunk behind its past."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls.types import Call, Lift, Tracer


def advance(tracer: Tracer, lift: Lift, count: Any) -> Tensor:
    """Return the position, [], and leave the next one."""
    position = tracer.states.get(lift.names[-1])
    if position is None:  # a call that starts where the stream does
        return torch.zeros((), dtype=torch.int64)
    tracer.next_states[lift.names[-1]] = position + count
    return position


def with_past(tracer: Tracer, lift: Lift, x: Tensor, frames: int) -> Tensor:
    """Return [past, x] along time and leave its last `frames` frames as the next past."""
    joined = torch.cat([tracer.states[lift.names[0]], x], dim=lift.axis)
    # Indexing would make a slice of each axis, which capture traces, converts and takes out again.
    tracer.next_states[lift.names[0]] = torch.ops.aten.slice.Tensor(joined, lift.axis, -frames, sys.maxsize)
    return joined


def windowed(tracer: Tracer, lift: Lift, x: Tensor, frames: int, fill: float) -> Tensor:
    """Return [past, x] along time; of a call that looks ahead, the frames around a step that is late."""
    if lift.ahead is None:
        return with_past(tracer, lift, x, frames)
    ahead = lift.ahead
    if tracer.delays is not None:
        late = tracer.delays.now or 0
        x = torch.where(tracer.delays.exists(late, ahead.batch, x.dim()), x, torch.full_like(x, fill))
        tracer.delays.now = late + ahead.steps
    if lift.names:
        x = with_past(tracer, lift, x, tracer.states[lift.names[0]].shape[lift.axis])
    return x.narrow(lift.axis, 0, x.shape[lift.axis] - ahead.spare)


def delayed(tracer: Tracer, lift: Lift, x: Tensor) -> Tensor:
    """Return a chunk that is late by as many frames as its state holds."""
    frames = tracer.states[lift.names[0]].shape[lift.axis]
    return with_past(tracer, lift, x, frames)[slices(x, lift.axis, None, -frames)]


def slices(x: Tensor, axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """Return an index of `start:stop` along one axis."""
    return tuple(slice(start, stop) if index == axis else slice(None) for index in range(x.dim()))


def each(value: Any, count: int) -> list[int]:
    """Return one number for each axis, of which a call may give but one."""
    return [value] * count if isinstance(value, int) else list(value) * (count // len(value))


def named(args: Call, kwargs: dict[str, Any], names: tuple[str, ...], defaults: Call) -> Call:
    """Return arguments in the order of `names`, however they were passed."""
    bound = dict(zip(names, args, strict=False)) | kwargs
    return tuple(bound.get(name, default) for name, default in zip(names, defaults, strict=True))
