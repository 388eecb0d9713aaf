"""Operators that move elements and compute nothing; most become another view of the same memory."""

from __future__ import annotations

import itertools
import math

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, need, op
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import (
    broadcast_strides,
    copy_strided,
    elementwise,
    joined,
    permuted,
    strided,
    view,
)
from rnnx_native.program.values import Array, Value, contiguous
from rnnx_native.refusals import refuse


def ints(node: Node, inputs: Inputs, index: int, attribute: str) -> list[int] | None:
    """Return whole numbers given by an input, or by an attribute in older operator sets."""
    if len(inputs) > index and inputs[index] is not None:
        return [int(element) for element in need(node, inputs[index], attribute).reshape(-1)]
    found = node.attributes.get(attribute)
    return None if found is None else [int(element) for element in found]


def first(inputs: Inputs) -> Value:
    """Return the first input, which every operator has."""
    assert inputs[0] is not None
    return inputs[0]


@op("Reshape 5-25 allowzero", "Squeeze 1-25 axes", "Unsqueeze 1-25 axes", "Flatten 1-25 axis")
def reshape(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Give the same memory another shape."""
    value = first(inputs)
    old = list(value.shape)
    if node.op == "Reshape":
        shape = ints(node, inputs, 1, "shape") or []
        if not node.attributes.get("allowzero", 0):
            shape = [old[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]
        rest = math.prod(extent for extent in shape if extent != -1)
        shape = [value.size // max(rest, 1) if extent == -1 else extent for extent in shape]
    elif node.op == "Flatten":
        axis = node.attributes.get("axis", 1)
        shape = [math.prod(old[:axis]), math.prod(old[axis:])]
    elif node.op == "Squeeze":
        axes = ints(node, inputs, 1, "axes")
        dropped = {axis % len(old) for axis in axes} if axes else {a for a, e in enumerate(old) if e == 1}
        shape = [extent for axis, extent in enumerate(old) if axis not in dropped]
    else:
        axes = ints(node, inputs, 1, "axes") or []
        rank = len(old) + len(axes)
        placed, left = {axis % rank for axis in axes}, iter(old)
        shape = [1 if axis in placed else next(left) for axis in range(rank)]
    return [view(value, shape, name=node.outputs[0])]


@op("Transpose 1-25 perm")
def transpose(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Reorder axes."""
    value = first(inputs)
    order = node.attributes.get("perm", list(reversed(range(len(value.shape)))))
    return [permuted(low.program, value, order, node.outputs[0])]


@op("DepthToSpace 1-13 blocksize mode", "SpaceToDepth 1-13 blocksize")
def rearrange(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Move channels into blocks of an image, or back."""
    value, side = first(inputs), node.attributes["blocksize"]
    rows, channels, height, width = value.shape
    if node.op == "SpaceToDepth":
        parts, order = [rows, channels, height // side, side, width // side, side], [0, 3, 5, 1, 2, 4]
        shape = [rows, channels * side * side, height // side, width // side]
    else:
        depth = channels // side**2
        if node.attributes.get("mode", "DCR") == "DCR":
            parts, order = [rows, side, side, depth, height, width], [0, 3, 4, 1, 5, 2]
        else:
            parts, order = [rows, depth, side, side, height, width], [0, 1, 4, 2, 5, 3]
        shape = [rows, depth, height * side, width * side]
    return [view(permuted(low.program, view(value, parts), order, node.outputs[0]), shape)]


@op("Expand 8-13", "Tile 6-13")
def expand(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Repeat elements: by broadcasting, or whole tiles."""
    value = first(inputs)
    sizes = ints(node, inputs, 1, "shape") or []
    if node.op == "Expand":
        shape = np.broadcast_shapes(value.shape, tuple(sizes))
        strides = broadcast_strides(value.shape, shape)
        return [strided(low.program, value, shape, strides, 0, node.outputs[0])]
    # A tiled axis is two: the repeat, which stays in place, and the elements.
    pairs = list(zip(sizes, value.shape, contiguous(value.shape), strict=True))
    shape = tuple(itertools.chain.from_iterable((count, extent) for count, extent, _ in pairs))
    strides = list(itertools.chain.from_iterable((0, step) for _, _, step in pairs))
    tiled = strided(low.program, value, shape, strides, 0, node.outputs[0])
    return [view(tiled, [count * extent for count, extent, _ in pairs])]


@op("Slice 1-13 axes ends starts")
def take_slice(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Take ranges along axes."""
    value = first(inputs)
    starts, ends = ints(node, inputs, 1, "starts") or [], ints(node, inputs, 2, "ends") or []
    axes = ints(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = ints(node, inputs, 4, "steps") or [1] * len(starts)
    shape, strides, offset = list(value.shape), contiguous(value.shape), 0
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picked = range(
            *slice(start, end if step > 0 or end >= -value.shape[axis] else None, step).indices(shape[axis])
        )
        axis %= len(shape)
        offset += (picked[0] if len(picked) else 0) * strides[axis]
        shape[axis] = len(picked)
        strides[axis] *= step
    if not math.prod(shape):
        return [constant(node.outputs[0], np.zeros(shape, value.dtype))]
    return [strided(low.program, value, shape, strides, offset, node.outputs[0])]


@op("Split 2-18 axis num_outputs split")
def split(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Cut along an axis."""
    value = first(inputs)
    axis = node.attributes.get("axis", 0) % len(value.shape)
    extent, count = value.shape[axis], len(node.outputs)
    sizes = ints(node, inputs, 1, "split")
    if sizes is None:
        part = -(-extent // count)
        sizes = [min(part, extent - index * part) for index in range(count)]
    strides, results, begin = contiguous(value.shape), [], 0
    for name, size in zip(node.outputs, sizes, strict=True):
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        results.append(strided(low.program, value, shape, strides, begin * strides[axis], name))
        begin += size
    return results


@op("Concat 4-13 axis")
def concat(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Join along an axis. Where nothing lies before that axis, parts are computed in their place."""
    parts = [value for value in inputs if value is not None and value.size]
    return [joined(low.program, parts, node.attributes["axis"], node.outputs[0])]


@op("Pad 11-25 mode")
def pad(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Put elements around a tensor: a constant, its edge, or its mirror image."""
    value = first(inputs)
    pads = ints(node, inputs, 1, "pads") or []
    axes = ints(node, inputs, 3, "axes") or list(range(len(value.shape)))
    before, after = [0] * len(value.shape), [0] * len(value.shape)
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[len(axes) + index]
    shape = [extent + b + a for extent, b, a in zip(value.shape, before, after, strict=True)]
    mode = node.attributes.get("mode", "constant")
    if mode == "constant":
        fill = inputs[2] if len(inputs) > 2 and inputs[2] is not None else None
        fill = fill or constant("zero", np.zeros((), value.dtype))
        return [padded(low, node.outputs[0], value, shape, before, fill)]
    if mode not in ("edge", "reflect", "wrap"):
        raise refuse(node, f"mode {mode!r}")
    for axis in range(len(shape)):
        places = np.arange(-before[axis], value.shape[axis] + after[axis])
        extent = value.shape[axis]
        if mode == "edge":
            places = places.clip(0, extent - 1)
        elif mode == "wrap":
            places = places % extent
        else:
            places = np.abs((places + extent - 1) % max(2 * (extent - 1), 1) - (extent - 1))
        if before[axis] or after[axis]:
            value = take(low, value, places, axis, node.outputs[0])
    return [value]


def padded(low: Lowering, name: str, value: Value, shape: list[int], before: list[int], fill: Value) -> Value:
    """Return `value` in a tensor of `shape` full of `fill`, `before` elements from its start."""
    own, begin = list(contiguous(value.shape)), 0
    inside = list(value.shape)
    for axis, count in enumerate(before):
        if count < 0:
            begin -= count * own[axis]
        inside[axis] = min(value.shape[axis] - max(-count, 0), shape[axis] - max(count, 0))
    out = low.program.new(name, value.dtype, shape)
    elementwise(low.program, out, [fill], "{0}")
    strides = contiguous(tuple(shape))
    offset = sum(max(count, 0) * step for count, step in zip(before, strides, strict=True))
    copy_strided(low.program, out, value, inside, own, begin, to=strides, to_offset=offset)
    return out


def take(low: Lowering, value: Value, places: Array, axis: int, name: str) -> Value:
    """Return elements at known places along an axis, one copy for each run of equal distance."""
    own = contiguous(value.shape)
    runs = _runs([int(place) for place in places])
    shape = [*value.shape[:axis], len(places), *value.shape[axis + 1 :]]
    if len(runs) == 1:
        start, _, step = runs[0]
        strides = [*own[:axis], own[axis] * step, *own[axis + 1 :]]
        return strided(low.program, value, shape, strides, start * own[axis], name)
    out = low.program.new(name, value.dtype, shape)
    target, begin = contiguous(tuple(shape)), 0
    for start, count, step in runs:
        part = [*value.shape[:axis], count, *value.shape[axis + 1 :]]
        strides = [*own[:axis], own[axis] * step, *own[axis + 1 :]]
        copy_strided(
            low.program,
            out,
            value,
            part,
            strides,
            start * own[axis],
            to=target,
            to_offset=begin * target[axis],
        )
        begin += count
    return out


def _runs(places: list[int]) -> list[tuple[int, int, int]]:
    """Cut a list of places into (start, count, step)."""
    runs: list[tuple[int, int, int]] = []
    index = 0
    while index < len(places):
        count, step = 1, 1
        if index + 1 < len(places):
            step = places[index + 1] - places[index]
            while index + count < len(places) and places[index + count] - places[index + count - 1] == step:
                count += 1
        runs.append((places[index], count, step if count > 1 else 1))
        index += count
    return runs


@op("Trilu 14 upper")
def triangle(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Keep the upper or lower triangle of matrices."""
    value = first(inputs)
    diagonal = int(need(node, inputs[1], "diagonal").reshape(-1)[0]) if len(inputs) > 1 and inputs[1] else 0
    ones = np.ones(value.shape[-2:], bool)
    mask = np.triu(ones, diagonal) if node.attributes.get("upper", 1) else np.tril(ones, diagonal)
    out = low.program.new(node.outputs[0], value.dtype, value.shape)
    elementwise(low.program, out, [constant("mask", mask), value], "{0} ? {1} : 0")
    return [out]
