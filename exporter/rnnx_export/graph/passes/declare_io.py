"""Inputs and outputs declared as the contract has them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnnx.model.contract import Dimension


def declare(
    model: ir.Model,
    inputs: Sequence[tuple[str, Sequence[Dimension]]],
    outputs: Sequence[tuple[str, Sequence[Dimension]]],
) -> None:
    """Give graph inputs and outputs their names and shapes, in order; each output its own node."""
    graph = model.graph
    for value, (name, shape) in zip(graph.inputs, inputs, strict=True):
        value.name = name
        value.shape = ir.Shape(shape)
    used: set[int] = {id(value) for value in graph.inputs}
    for index, (_, shape) in enumerate(outputs):
        value = graph.outputs[index]
        if id(value) in used or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].type = value.type
            graph.append(node)
            graph.outputs[index] = value = node.outputs[0]
        used.add(id(value))
        value.shape = ir.Shape(shape)
    for index, (name, _) in enumerate(outputs):
        graph.outputs[index].name = name
