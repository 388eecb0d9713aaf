"""Positions: what counts the steps of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls.helpers import advance
from rnnx_export.calls.lengths import sized
from rnnx_export.calls.types import Call, Tracer


def index(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """x[..., :-n]: remember what was cut off, since a shift by padding needs it as its next past."""
    x, index = args
    if tracer.packing.is_batch_sizes(x):
        return tracer.packing.batch(x)
    result = func(x, index)
    parts = index if isinstance(index, tuple) else (index,)
    cuts = [
        (axis, -part.stop)
        for axis, part in enumerate(parts)
        if isinstance(part, slice) and part.start is None and part.step is None
        and isinstance(part.stop, int) and part.stop < 0
    ]  # fmt: skip
    whole = all(isinstance(part, slice) for part in parts)
    if not whole or sum(part != slice(None) for part in parts) != 1:
        return result
    if cuts:
        tracer.cuts[id(result)] = (result, x, *cuts[0])
        return result
    axis = next(axis for axis, part in enumerate(parts) if part != slice(None))
    part = parts[axis]
    return _first(tracer, x, axis, result) if part.start in (None, 0) and part.step is None else result


def _first(tracer: Tracer, x: Tensor, axis: int, result: Tensor) -> Tensor:
    """x[:n] of a table with n steps: the stream goes on in the table where it stopped."""
    lift = tracer.record("first", start=(x,), like=result, axes={axis: 0})
    if lift is None:
        return result
    count = result.shape[axis]
    return x.index_select(axis, torch.arange(count) + advance(tracer, lift, count))


def arange(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.arange over the steps of a call: the stream goes on counting."""
    args = tuple(sized(tracer, each) for each in args)
    result = func(*args, **kwargs)
    lift = tracer.record("arange", like=result, axes={0: 0})
    if lift is None:
        return result
    stride = kwargs.get("step", args[2] if len(args) > 2 else 1)
    return result + advance(tracer, lift, result.shape[0] * stride)
