"""Shifting along time by cutting and filling: `y[:, 1:] = x[:, :-1]`, `roll`, `diff`, `mode="replicate"`.

A stream has no ends to cut at. In it, what begins later is the tensor itself; what ends earlier, or was
rolled, is the tensor delayed, whose last frames are a state; and what fills the front stands for the stream's
first steps, which a state counts. Between cut and fill a chunk so has all its frames, not some fewer.

All this only where the module cannot be stepped otherwise, for the same calls serve other ends too: cutting
off what a padded convolution gives too much, or something that stands in front of every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls import padding, positions
from rnnx_export.calls.helpers import advance, delayed, named
from rnnx_export.calls.types import Call, Lift, Tracer

_TAKE = Tensor.__getitem__


def index(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """x[:, k:] and x[:, :-k]."""
    x, index = args
    if isinstance(index, Tensor) and index.dim() == 1 and index.dtype == torch.int64:
        return tracer.packing.select(func(x, index), index)
    axis, start, stop = _frames(x, index)
    if axis is not None and stop is None and start > 0:
        if tracer.record("later", like=x, axes={axis: start}) is not None:
            return x
    elif axis is not None and stop is not None and start == 0:
        short = -stop if isinstance(stop, int) and stop < 0 else x.shape[axis] - stop
        lift = tracer.record("earlier", like=x, axes={axis: short})
        if lift is not None:
            result = delayed(tracer, lift, x)
            tracer.lates[id(result)] = (result, x)
            return result
    result = positions.index(tracer, func, args, kwargs)
    if axis is not None and start == 0 and isinstance(stop, int) and stop == 1:
        tracer.firsts[id(result)] = (result, x, axis)
    return result


def assign(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """y[:, k:] = what begins later; y[:, 0] = value and y[:, :k] = number, at the stream's first steps."""
    y, index, value = args
    axis, start, stop = _frames(y, index, numbers=True)
    if axis is None or 0 in y.shape:
        return func(*args, **kwargs)
    value = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=y.dtype)
    if stop is None and start > 0:
        lift = tracer.record(
            "front", start=(y.narrow(axis, 0, min(start, y.shape[axis])),), like=y, axes={axis: start}
        )
        if lift is not None and value.dim() == y.dim():
            y.copy_(torch.where(_is_first(tracer, lift, y, start), y, value))
            return None
    elif start == 0 and isinstance(stop, int) and stop > 0 and (value.dim() == 0 or stop == 1):
        lift = tracer.record("front", start=(value,), like=y, axes={axis: stop})
        if lift is not None:
            whole = value.dim() in (0, y.dim())
            frame = value if whole else value.expand(y.select(axis, 0).shape).unsqueeze(axis)
            y.copy_(torch.where(_is_first(tracer, lift, y, stop), frame, y))
            return None
    return func(*args, **kwargs)


def roll(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.roll(x, k, time): delayed; the frames that came round are of no use to a causal model."""
    x, shifts, dims = named(args, kwargs, ("input", "shifts", "dims"), (None, None, None))
    shift, axis = (
        value[0] if isinstance(value, tuple | list) and len(value) == 1 else value for value in (shifts, dims)
    )
    if not isinstance(shift, int) or not isinstance(axis, int) or shift < 1:
        return func(*args, **kwargs)
    lift = tracer.record("roll", like=x, axes={axis % x.dim(): shift})
    return func(*args, **kwargs) if lift is None else delayed(tracer, lift, x)


def diff(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.diff as what it is: the difference of what begins later and what ends earlier."""
    x, n, dim, prepend, append = named(
        args, kwargs, ("input", "n", "dim", "prepend", "append"), (None, 1, -1, None, None)
    )
    if append is not None:
        return func(*args, **kwargs)
    axis = dim % x.dim()
    if prepend is not None:
        parts: Call = ([prepend, x], axis)
        joined = join(tracer, torch.cat, parts, {})
        if joined is NotImplemented:
            joined = padding.cat(tracer, torch.cat, parts, {})
        return func(joined, n, axis)
    after, before = (
        tuple(part if place == axis else slice(None) for place in range(x.dim()))
        for part in (slice(1, None), slice(None, -1))
    )
    for _ in range(n):
        x = index(tracer, _TAKE, (x, after), {}) - index(tracer, _TAKE, (x, before), {})
    return x


def join(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.cat([constant, what begins later], time), or the first step of a tensor in front of it."""
    tensors, dim = named(args, kwargs, ("tensors", "dim"), (None, kwargs.get("axis", 0)))
    parts = list(tensors)
    if len(parts) == 2 and isinstance(dim, int) and parts[0].dim() == parts[1].dim() > 0:
        axis = dim % parts[1].dim()
        _, begins, along = tracer.firsts.get(id(parts[0]), (None, None, -1))
        _, late = tracer.lates.get(id(parts[1]), (None, tracer.uncut(parts[1])[0]))
        own = begins is late and along == axis  # its own first step, at the stream's first step
        if own and late is parts[1]:
            lift = tracer.record("repeat", like=late, axes={axis: 1})
            if lift is not None:
                return _repeated(tracer, lift, late)
        frames = parts[0].shape[axis]
        like = func(*args, **kwargs)
        lift = tracer.record("front", start=() if own else (parts[0],), like=like, axes={axis: frames})
        if lift is not None:
            return _filled(tracer, lift, parts[1], parts[0].narrow(axis, 0, 1), frames)
    return NotImplemented


def pad(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.pad(what begins later, (k, 0)), or with the first step again and again."""
    x, pad, mode, value = named(
        args, kwargs, ("input", "pad", "mode", "value"), (None, None, "constant", None)
    )
    sides = [(place, amount) for place, amount in enumerate(pad) if not isinstance(amount, int) or amount]
    if len(sides) == 1 and sides[0][0] % 2 == 0 and sides[0][1] > 0:
        place, frames = sides[0]
        axis = x.dim() - 1 - place // 2
    else:
        return NotImplemented
    if mode == "replicate":
        lift = tracer.record("repeat", like=x, axes={axis: frames})
        return func(*args, **kwargs) if lift is None else _repeated(tracer, lift, x)
    if mode == "constant":
        like = x if tracer.lifts else func(*args, **kwargs)  # only a run without lifts records its shape
        lift = tracer.record("front", like=like, axes={axis: frames})
        if lift is not None:
            return _filled(tracer, lift, x, torch.full((), float(value or 0.0), dtype=x.dtype), frames)
    return NotImplemented


def _repeated(tracer: Tracer, lift: Lift, x: Tensor) -> Tensor:
    """Return [past, x] along time, where before the stream's first step there is that one again and again."""
    past = tracer.states[lift.names[0]]
    first = x.narrow(lift.axis, 0, 1).expand(past.shape)
    start = torch.where(advance(tracer, lift, x.shape[lift.axis]) < 1, first, past)
    joined = torch.cat([start, x], lift.axis)
    frames = past.shape[lift.axis]
    tracer.next_states[lift.names[0]] = joined.narrow(lift.axis, joined.shape[lift.axis] - frames, frames)
    return joined


def _filled(tracer: Tracer, lift: Lift, x: Tensor, frame: Tensor, frames: int) -> Tensor:
    return torch.where(_is_first(tracer, lift, x, frames), frame, x)


def _is_first(tracer: Tracer, lift: Lift, like: Tensor, frames: int) -> Tensor:
    """Return which steps of a chunk are among the stream's first: bool, [.., time, ..] with ones around."""
    count = like.shape[lift.axis]
    place = advance(tracer, lift, count) + torch.arange(count)
    return (place < frames).reshape([-1 if axis == lift.axis else 1 for axis in range(like.dim())])


def _frames(x: Any, index: Any, *, numbers: bool = False) -> tuple[int | None, int, Any]:
    """Return (axis, start, stop) of an index that cuts one axis and no other, else (None, 0, None).

    With `numbers`, the element 0 counts as the cut from 0 to 1.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if not isinstance(x, Tensor) or any(
        part is None or isinstance(part, Tensor | list | bool) for part in parts
    ):
        return None, 0, None
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (x.dim() - len(parts) + 1)
    if numbers:
        parts = [slice(0, 1) if isinstance(part, int) and part == 0 else part for part in parts]
    cut = [axis for axis, part in enumerate(parts) if part != slice(None)]
    if len(cut) != 1 or not isinstance(parts[cut[0]], slice):
        return None, 0, None
    part = parts[cut[0]]
    start = part.start or 0
    return (
        (cut[0], start, part.stop)
        if isinstance(start, int) and start >= 0 and part.step in (None, 1)
        else (None, 0, None)
    )
