"""Operators that write elements to indexed places. An index from outside is held within bounds."""

from __future__ import annotations

import math

from rnnx_native.lowering.lower import Inputs, Lowering, op
from rnnx_native.lowering.ops.indexing import held
from rnnx_native.lowering.ops.shapes import first
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import copy_strided, index_of, nest
from rnnx_native.program.values import Value, contiguous
from rnnx_native.refusals import refuse

_UPDATES = {
    "none": "{0} = {1};",
    "add": "{0} += {1};",
    "mul": "{0} *= {1};",
    "max": "if ({1} > {0}) {0} = {1};",
    "min": "if ({1} < {0}) {0} = {1};",
}


def _copy(low: Lowering, value: Value, name: str) -> Value:
    out = low.program.new(name, value.dtype, value.shape)
    copy_strided(low.program, out, value, value.shape, contiguous(value.shape), 0)
    return out


def _update(node: Node) -> str:
    reduction = node.attributes.get("reduction", "none")
    if reduction not in _UPDATES:
        raise refuse(node, f"reduction {reduction!r}")
    return _UPDATES[reduction]


@op("ScatterElements 11-18 axis reduction")
def scatter_elements(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write one element for each index, along an axis."""
    value, indices, updates, program = first(inputs), inputs[1], inputs[2], low.program
    assert indices is not None
    assert updates is not None
    axis, update = node.attributes.get("axis", 0) % len(value.shape), _update(node)
    out = _copy(low, value, node.outputs[0])
    own = contiguous(value.shape)
    along = [0 if a == axis else step for a, step in enumerate(own)]

    def body(names: list[str]) -> list[str]:
        here = index_of(names, contiguous(indices.shape))
        target = program.at(out, f"{index_of(names, along)} + k * {own[axis]}")
        lines = held(program.at(indices, here), value.shape[axis])
        return ["{", *lines, f"  {update.format(target, program.at(updates, here))}", "}"]

    program.emit(nest(indices.shape, body), [indices, updates, out], [out])
    return [out]


def _places(low: Lowering, indices: Value, shape: tuple[int, ...], steps: list[int]) -> list[str]:
    """Return lines that put into `base` where the slice of index row `i0` begins."""
    depth = indices.shape[-1]
    lines = ["  int64_t base = 0;"]
    for axis in range(depth):
        element = low.program.at(indices, f"i0 * {depth} + {axis}" if axis else f"i0 * {depth}")
        lines += [
            "  {",
            *("  " + line for line in held(element, shape[axis])),
            f"    base += k * {steps[axis]};",
            "  }",
        ]
    return lines


@op("ScatterND 11-18 reduction")
def scatter_slices(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write whole slices at places given by rows of indices."""
    value, indices, updates, program = first(inputs), inputs[1], inputs[2], low.program
    assert indices is not None
    assert updates is not None
    update = _update(node)
    out = _copy(low, value, node.outputs[0])
    depth = indices.shape[-1]
    count, size = math.prod(indices.shape[:-1]), math.prod(value.shape[depth:])
    moved = update.format(program.at(out, "base + j"), program.at(updates, f"i0 * {size} + j"))
    lines = [
        f"for (int i0 = 0; i0 < {count}; i0++) {{",
        *_places(low, indices, value.shape, contiguous(value.shape)),
        f"  for (int j = 0; j < {size}; j++) {moved}",
        "}",
    ]
    program.emit(lines, [indices, updates, out], [out])
    return [out]


@op("GatherND 11-13 batch_dims")
def gather_slices(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Take whole slices at places given by rows of indices."""
    value, indices, program = first(inputs), inputs[1], low.program
    assert indices is not None
    if node.attributes.get("batch_dims", 0):
        raise refuse(node, "batch_dims")
    depth = indices.shape[-1]
    out = program.new(node.outputs[0], value.dtype, (*indices.shape[:-1], *value.shape[depth:]))
    count, size = math.prod(indices.shape[:-1]), math.prod(value.shape[depth:])
    copy = f"{program.at(out, f'i0 * {size} + j')} = {program.at(value, 'base + j')};"
    lines = [
        f"for (int i0 = 0; i0 < {count}; i0++) {{",
        *_places(low, indices, value.shape, contiguous(value.shape)),
        f"  for (int j = 0; j < {size}; j++) {copy}",
        "}",
    ]
    program.emit(lines, [value, indices], [out])
    return [out]
