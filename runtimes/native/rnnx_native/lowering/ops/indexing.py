"""Operators that look elements up by indices. An index from outside is held within bounds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, known, op
from rnnx_native.lowering.ops.shapes import first, take
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import broadcast_strides, elementwise, index_of, nest, view
from rnnx_native.program.values import Array, Value, contiguous


def held(element: str, extent: int) -> list[str]:
    """Return lines that put an index into `k`: from the end if negative, never out of bounds."""
    return [
        f"  int64_t k = {element};",
        f"  if (k < 0) k += {extent};",
        f"  k = k < 0 ? 0 : k >= {extent} ? {extent - 1} : k;",
    ]


@op("Gather 1-13 axis")
def gather(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Take slices along an axis, by indices that are known or computed."""
    value, indices, program = first(inputs), inputs[1], low.program
    assert indices is not None
    axis = node.attributes.get("axis", 0) % len(value.shape)
    extent, name = value.shape[axis], node.outputs[0]
    shape = (*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :])
    places = known(indices)
    if places is not None:
        return [view(take(low, value, places.reshape(-1) % extent, axis, name), shape)]
    out = program.new(name, value.dtype, shape)
    before, inner = math.prod(value.shape[:axis]), math.prod(value.shape[axis + 1 :])
    count = indices.size

    def body(names: list[str]) -> list[str]:
        target = f"({names[0]} * {count} + {names[1]}) * {inner} + j"
        source = f"(({names[0]} * {extent}) + k) * {inner} + j"
        copy = f"{program.at(out, target)} = {program.at(value, source)};"
        lines = held(program.at(indices, names[1]), extent)
        return ["{", *lines, f"  for (int j = 0; j < {inner}; j++) {copy}", "}"]

    program.emit(nest([before, count], body), [value, indices], [out])
    if value.const is not None and len(value.shape) == 2 and axis == 0 and value.dtype.kind == "f":
        return [_coded(low, out, indices, extent, value.const)]
    return [out]


@op("GatherElements 11-13 axis")
def gather_elements(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Take one element for each index, along an axis."""
    value, indices, program = first(inputs), inputs[1], low.program
    assert indices is not None
    axis = node.attributes.get("axis", 0) % len(value.shape)
    out = program.new(node.outputs[0], value.dtype, indices.shape)
    own = contiguous(value.shape)
    along = [0 if a == axis else step for a, step in enumerate(own)]

    def body(names: list[str]) -> list[str]:
        here = index_of(names, contiguous(indices.shape))
        source = f"{index_of(names, along)} + k * {own[axis]}"
        done = f"  {program.at(out, here)} = {program.at(value, source)};"
        return ["{", *held(program.at(indices, here), value.shape[axis]), done, "}"]

    program.emit(nest(indices.shape, body), [value, indices], [out])
    return [out]


@op("OneHot 9-11 axis")
def one_hot(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write vectors that are `on` at their index and `off` elsewhere."""
    indices, depth, values = inputs
    assert indices is not None
    assert values is not None
    assert depth is not None
    count = int(depth.const.reshape(-1)[0]) if depth.const is not None else 0
    axis = node.attributes.get("axis", -1) % (len(indices.shape) + 1)
    shape = [*indices.shape[:axis], count, *indices.shape[axis:]]
    program = low.program
    out = program.new(node.outputs[0], values.dtype, shape)
    lead = broadcast_strides((*indices.shape[:axis], 1, *indices.shape[axis:]), tuple(shape))

    def body(names: list[str]) -> list[str]:
        index = program.at(indices, index_of(names, lead))
        test = f"{index} == {names[axis]} || {index} + {count} == {names[axis]}"
        choice = f"({test}) ? {program.at(values, 1)} : {program.at(values, 0)}"
        return [f"{program.at(out, index_of(names, contiguous(tuple(shape))))} = {choice};"]

    program.emit(nest(shape, body), [indices, values], [out])
    plain = values.const is not None and values.const.tolist() == [0, 1] and axis == len(indices.shape)
    return [_coded(low, out, indices, count, None) if plain else out]


def _coded(low: Lowering, out: Value, indices: Value, count: int, codes: Array | None) -> Value:
    """Return `out` with the tokens that it is the code of; negative ones count from the end."""
    ids = low.program.new(f"{out.name}.ids", np.int64, indices.shape)
    elementwise(
        low.program, ids, [indices, constant("count", np.array(count, np.int64))], "{0} < 0 ? {0} + {1} : {0}"
    )
    return dataclasses.replace(out, token_ids=ids, codes=codes)
