"""Pooling: the largest element or the mean of windows over the last axes."""

from __future__ import annotations

import math

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, op
from rnnx_native.lowering.ops.reduce import reduce_axes, reduce_windows
from rnnx_native.lowering.ops.shapes import first
from rnnx_native.lowering.ops.windows import Windows, read_windows
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import elementwise
from rnnx_native.program.values import Array, Value
from rnnx_native.refusals import refuse


@op("GlobalAveragePool 1-22", "GlobalMaxPool 1-22")
def pooling_of_all(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write the mean or the largest element of each channel."""
    x = first(inputs)
    kind = "ReduceMax" if node.op == "GlobalMaxPool" else "ReduceMean"
    return [reduce_axes(low, x, list(range(2, len(x.shape))), node.outputs[0], kind)]


@op("MaxPool 1-22 auto_pad ceil_mode dilations kernel_shape pads storage_order strides")
def largest(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write the largest element of each window."""
    x = first(inputs)
    if len(node.outputs) > 1 and node.outputs[1]:
        raise refuse(node, "the places of the largest elements, its second output")
    windows = read_windows(node, x.shape[2:], node.attributes["kernel_shape"])
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    x = windows.around(low, x, constant("lowest", np.array(lowest, x.dtype)))
    return [_reduced(low, x, windows, node.outputs[0], "ReduceMax")]


@op("AveragePool 7-22 auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides")
def mean(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write the mean of each window; elements around the tensor count if `count_include_pad` says so."""
    x = first(inputs)
    windows = read_windows(node, x.shape[2:], node.attributes["kernel_shape"])
    counts = _counts(windows, list(x.shape[2:]), bool(node.attributes.get("count_include_pad", 0)))
    x = windows.around(low, x, constant("zero", np.zeros((), x.dtype)))
    total = _reduced(low, x, windows, f"{node.outputs[0]}.sum", "ReduceSum")
    out = low.program.new(node.outputs[0], x.dtype, total.shape)
    elementwise(low.program, out, [total, constant("counts", counts.astype(x.dtype))], "{0} / {1}")
    return [out]


def _reduced(low: Lowering, x: Value, windows: Windows, name: str, kind: str) -> Value:
    between, within = windows.steps(x.shape)
    out = low.program.new(name, x.dtype, (*x.shape[:2], *windows.places))
    outer = [x.size // x.shape[0], math.prod(x.shape[2:]), *between]
    reduce_windows(low, out, x, outer, windows.kernel, within, kind)
    return out


def _counts(windows: Windows, extents: list[int], padded: bool) -> Array:
    """Return how many elements each window counts, [places...], or one number if all count as many."""
    counts = np.ones((), np.int64)
    for axis, extent in enumerate(extents):
        taps = np.arange(windows.kernel[axis]) * windows.dilations[axis] - windows.before[axis]
        spots = np.arange(windows.places[axis])[:, None] * windows.strides[axis] + taps
        low, high = (-windows.before[axis], extent + windows.after[axis]) if padded else (0, extent)
        counts = counts[..., None] * ((spots >= low) & (spots < high)).sum(1)
    return counts.reshape(-1)[:1].reshape(()) if (counts == counts.flat[0]).all() else counts
