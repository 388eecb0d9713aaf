"""Paddings, joins and padded convolutions: what stands in front of time is the stream's last frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from rnnx_export.calls.helpers import each, named, slices, windowed, with_past
from rnnx_export.calls.types import Call, Tracer

# What else a pooling is given, by whether it takes the largest, and has to be.
_POOLING: dict[bool, dict[str, Any]] = {
    True: {"dilation": 1, "ceil_mode": False, "return_indices": False},
    False: {"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
}


def pad(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.pad(x, pad, mode, value): frames added in front of time are the stream's last frames."""
    x, pad, mode, value = named(
        args, kwargs, ("input", "pad", "mode", "value"), (None, None, "constant", None)
    )
    if mode != "constant" or not isinstance(x, Tensor):
        return func(*args, **kwargs)
    fill = float(value or 0.0)
    axes = {x.dim() - 1 - pair: (pad[2 * pair], pad[2 * pair + 1]) for pair in range(len(pad) // 2)}
    source, cut_axis, cut = tracer.uncut(x)
    after = {axis: right - (cut if axis == cut_axis else 0) for axis, (_, right) in axes.items()}
    before = {axis: left for axis, (left, _) in axes.items() if left > 0 or after[axis] > 0}
    lift = tracer.record("pad", like=source, axes=before, fill=fill, after=after) if before else None
    if lift is None:
        return func(*args, **kwargs)
    left, right = axes[lift.axis]
    rest = [
        0 if axis == lift.axis else side
        for axis in reversed(range(x.dim()))
        for side in axes.get(axis, (0, 0))
    ]
    if cut_axis == lift.axis:
        x, right = source, right - cut
    joined = windowed(tracer, lift, x, left, fill)
    if any(rest):
        joined = F.pad(joined, rest, "constant", fill)
    if lift.ahead is not None:
        return joined
    if right < 0:
        return joined[slices(joined, lift.axis, None, right)]
    return joined if right == 0 else F.pad(joined, _one_sided(joined, lift.axis, right), "constant", fill)


def cat(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.cat([constant, x], time): the constant stands where the stream's last frames belong."""
    tensors, dim = named(args, kwargs, ("tensors", "dim"), (None, kwargs.get("axis", 0)))
    parts = list(tensors)
    if not isinstance(dim, int) or len(parts) != 2 or any(part.dim() < 1 for part in parts):
        return func(*args, **kwargs)
    first, x = parts
    axis = dim % x.dim()
    source, cut_axis, cut = tracer.uncut(x)
    if cut_axis != axis:
        source, cut = x, 0
    frames = first.shape[axis] if first.dim() == x.dim() else 0
    lift = tracer.record("cat", start=(first,), like=source, axes={axis: frames})
    if lift is None:
        return func(*args, **kwargs)
    frames = tracer.states[lift.names[0]].shape[axis]  # in short calls a constant like `x[:, :2]` has fewer
    joined = with_past(tracer, lift, source, frames)
    return joined if cut == 0 else joined[slices(joined, axis, None, -cut)]


def convolution(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.conv*(x, weight, bias, stride, padding, dilation, groups) padded with zeros on both sides."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    x, weight, bias, stride, padding, dilation, groups = named(
        args, kwargs, names, (None, None, None, 1, 0, 1, 1)
    )
    spatial = weight.dim() - 2
    first = x.dim() - spatial
    steps, rates = each(stride, spatial), each(dilation, spatial)
    spans = [(size - 1) * rate for size, rate in zip(weight.shape[2:], rates, strict=True)]
    if padding == "same" and all(span % 2 == 0 for span in spans):
        padding = [span // 2 for span in spans]
    if isinstance(padding, str):
        return func(*args, **kwargs)
    sides = each(padding, spatial)
    amount = {first + index: side for index, side in enumerate(sides) if side > 0}
    after = {
        first + index: min(span - side - step + 1, side)
        for index, (span, side, step) in enumerate(zip(spans, sides, steps, strict=True))
    }
    lift = tracer.record("conv", like=x, axes=amount, after=after) if amount else None
    if lift is None:
        return func(*args, **kwargs)
    frames = amount[lift.axis]
    sides[lift.axis - first] = 0
    joined = windowed(tracer, lift, x, frames, 0.0)
    # The frames after the end stay: the model cuts them off, or looks ahead, which the proof finds.
    more = frames if lift.ahead is None else frames - after[lift.axis]
    joined = F.pad(joined, _one_sided(joined, lift.axis, more))
    return func(joined, weight, bias, stride, sides, dilation, groups)


def pooling(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.avg_pool*, F.max_pool* padded on both sides: a window around each frame."""
    most = func.__name__.startswith("max")
    rest = _POOLING[most]
    x, size, stride, padding, *more = named(
        args,
        kwargs,
        ("input", "kernel_size", "stride", "padding", *rest),
        (None, None, None, 0, *rest.values()),
    )
    if not isinstance(x, Tensor) or tuple(more) != tuple(rest.values()):
        return func(*args, **kwargs)
    spatial = int(func.__name__[-2])
    first = x.dim() - spatial
    sizes, sides = each(size, spatial), each(padding, spatial)
    steps = sizes if stride in (None, (), []) else each(stride, spatial)
    amount = {first + index: side for index, side in enumerate(sides) if side > 0}
    after = {
        first + index: min(sizes[index] - sides[index] - steps[index], sides[index])
        for index in range(spatial)
    }
    fill = float("-inf") if most else 0.0
    lift = tracer.record("pool", like=x, axes=amount, fill=fill, after=after) if amount else None
    if lift is None:
        return func(*args, **kwargs)
    frames = amount[lift.axis]
    sides[lift.axis - first] = 0
    joined = windowed(tracer, lift, x, frames, fill)
    behind = frames if lift.ahead is None else frames - after[lift.axis]
    joined = F.pad(joined, _one_sided(joined, lift.axis, behind), "constant", fill)
    return func(joined, sizes, steps, sides)


def _one_sided(x: Tensor, axis: int, after: int) -> list[int]:
    """Return F.pad's list that adds `after` elements at the end of `axis`."""
    return [0, 0] * (x.dim() - 1 - axis) + [0, after]
