"""Calls that spread each frame over elements that frames behind it are added to: transposed convolutions and
overlap-add. Computed with the last frames in front, the elements of the call come out complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rnnx_export.calls.helpers import each, named, slices, with_past
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
    first, frames = x.dim() - spatial, {}
    for index in range(spatial):
        count = _earlier(weight.shape[2 + index], dilations[index], strides[index])
        # Padding cuts elements off the front as well: what comes out then waits for frames to come.
        if count and sides[index] == 0:
            frames[first + index] = count
    lift = tracer.record("conv_transpose", like=x, axes=frames) if frames else None
    if lift is None:
        return func(*args, **kwargs)
    count = frames[lift.axis]
    joined = with_past(tracer, lift, x, count)
    y = func(joined, weight, bias, stride, padding, extra, groups, dilation)
    # The elements behind the last frame stay: the model cuts them off, or adds them to what comes.
    return y[slices(y, lift.axis, count * strides[lift.axis - first], None)]


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
