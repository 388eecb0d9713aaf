"""Calls that spread each frame over elements that frames behind it are added to: transposed convolutions and
overlap-add. Computed with the last frames in front, the elements of the call come out complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rnnx_export.calls.helpers import each, named, slices, windowed, with_past
from rnnx_export.calls.types import Call, Tracer


def transposed_convolution(
    tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]
) -> Any:
    """F.conv_transpose*: each frame adds to the elements of those behind it, which need its last frames."""
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    x, weight, bias, stride, padding, extra, groups, dilation = named(
        args, kwargs, names, (None, None, None, 1, 0, 0, 1, 1)
    )
    spatial = weight.dim() - 2
    strides, sides, dilations = (each(value, spatial) for value in (stride, padding, dilation))
    first, frames, after = x.dim() - spatial, {}, {}
    for index in range(spatial):
        count = _earlier(weight.shape[2 + index], dilations[index], strides[index])
        if count:
            frames[first + index] = count
            # Padding cuts elements off the front as well: what comes out then waits for frames to come.
            after[first + index] = -(-sides[index] // strides[index])
    lift = tracer.record("conv_transpose", like=x, axes=frames, after=after) if frames else None
    if lift is None:
        return func(*args, **kwargs)
    count, place = frames[lift.axis], lift.axis - first
    size, cut = x.shape[lift.axis], sides[place]
    sides[place] = 0
    joined = windowed(tracer, lift, x, count, 0.0)
    y = func(joined, weight, bias, stride, sides, extra, groups, dilation)
    # The elements behind the last frame stay: the model cuts them off, or adds them to what comes.
    begin = count * strides[place] + cut
    if lift.ahead is None:
        return y[slices(y, lift.axis, begin, None)]
    behind = dilations[place] * (weight.shape[2 + place] - 1) + 1 - strides[place] - 2 * cut
    return y[
        slices(y, lift.axis, begin, begin + size * strides[place] + behind + each(extra, spatial)[place])
    ]


def _earlier(kernel: int, dilation: int, stride: int) -> int:
    """Return how many frames before one reach the elements that it begins with."""
    reach = dilation * (kernel - 1) + 1
    return max(0, -(-reach // stride) - 1)


def overlap_add(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.fold of frames [.., elements of one, time] into a line of samples."""
    names = ("input", "output_size", "kernel_size", "dilation", "padding", "stride")
    x, size, *rest = named(args, kwargs, names, (None, None, None, 1, 0, 1))
    kernels, dilations, sides, strides = (each(value, 2) for value in rest)
    sizes = each(size, 2)
    line = next((axis for axis in (0, 1) if sizes[1 - axis] == 1 and kernels[1 - axis] == 1), None)
    if line is None or not isinstance(x, Tensor) or any(sides):
        return func(*args, **kwargs)
    frames = _earlier(kernels[line], dilations[line], strides[line])
    lift = tracer.record("fold", like=x, axes={x.dim() - 1: frames}) if frames else None
    if lift is None:
        return func(*args, **kwargs)
    sizes[line] += frames * strides[line]
    y = func(with_past(tracer, lift, x, frames), tuple(sizes), *rest)
    return y[slices(y, y.dim() - 2 + line, frames * strides[line], None)]
