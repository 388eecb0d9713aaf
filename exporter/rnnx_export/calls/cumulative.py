"""Sums, products and extremes that run along time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls.helpers import named
from rnnx_export.calls.types import Call, Tracer


def cumulative(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """cumsum, cumprod, cummax, cummin, logcumsumexp along time: the last value runs on."""
    name = func.__name__
    x, dim, dtype = named(args, kwargs, ("input", "dim", "dtype"), (None, kwargs.get("axis", 0), None))
    axis = dim % x.dim() if x.dim() else 0
    if x.dim() and name in ("cumsum", "cumprod"):
        # What runs on has the dtype of the result: PyTorch converts before it sums.
        x = x.to(dtype or _sum_dtype(x))
        args, kwargs = (x, axis), {key: value for key, value in kwargs.items() if key == "out"}
    fill = _STARTS.get(name, 0.0)
    if x.dtype == torch.bool:
        fill = float(fill > 0)  # false is the least and true the largest
    lift = tracer.record(name, like=x, axes={axis: 0}, fill=fill) if x.dim() else None
    size = x.shape[axis] if x.dim() else None
    short = isinstance(size, int) and size <= _MOST_DECOMPOSED
    if lift is not None and size == 1 and name not in ("cummax", "cummin"):
        result: Any = x
    else:
        result = _SPELLED[name](x, axis) if short and name in _SPELLED else func(*args, **kwargs)
    if lift is None:
        return result
    past = tracer.states[lift.names[0]].unsqueeze(axis)
    if short and name != "cumsum":
        joined = _run_on(_RUNNING[name], x, axis, past)
    else:
        joined = _RUNNING[name](result if isinstance(result, Tensor) else result[0], past)
    tracer.next_states[lift.names[0]] = joined.select(axis, -1)
    return joined if isinstance(result, Tensor) else type(result)((joined, result[1]))


_STARTS = {"cumprod": 1.0, "cummax": -float("inf"), "cummin": float("inf"), "logcumsumexp": -float("inf")}


def _sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of a sum: whole numbers and truth values are summed in int64."""
    return x.dtype if x.is_floating_point() or x.is_complex() else torch.int64


_MOST_DECOMPOSED = 64  # elements of an axis, at most


def _run_on(
    join: Callable[[Tensor, Tensor], Tensor], x: Tensor, axis: int, past: Tensor | None = None
) -> Tensor:
    """Return what runs on from the past, element by element: each step says the same of the one before."""
    running = [] if past is None else [past]
    for part in x.split(1, axis):
        running.append(join(part, running[-1]) if running else part)
    return torch.cat(running if past is None else running[1:], axis)


def _products(x: Tensor, axis: int) -> Tensor:
    return _run_on(torch.mul, x, axis)


def _extremes(wins: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], Any]:
    def rule(x: Tensor, axis: int) -> Any:
        first, *rest = x.split(1, axis)
        values, places = [first], [torch.zeros_like(first, dtype=torch.int64)]
        for place, part in enumerate(rest, 1):
            won = wins(part, values[-1])
            values.append(torch.where(won, part, values[-1]))
            places.append(torch.where(won, place, places[-1]))
        return torch.return_types.cummax((torch.cat(values, axis), torch.cat(places, axis)))

    return rule


# What ONNX has no operator for, as what it is: (x, axis) -> the same.
_SPELLED: dict[str, Callable[[Tensor, int], Any]] = {
    "cumprod": _products,
    "cummax": _extremes(torch.ge),
    "cummin": _extremes(torch.le),
}


_RUNNING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cumsum": torch.add,
    "cumprod": torch.mul,
    "cummax": torch.maximum,
    "cummin": torch.minimum,
    "logcumsumexp": lambda x, past: _logaddexp(x, past),
}


def _logaddexp(left: Tensor, right: Tensor) -> Tensor:
    """Return log(exp(left) + exp(right)), which does not overflow where ONNX would spell it out."""
    return torch.maximum(left, right) + torch.log1p(torch.exp(-torch.abs(left - right)))
