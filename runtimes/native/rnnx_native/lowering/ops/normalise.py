"""Normalisation: layer, instance, batch."""

from __future__ import annotations

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, op
from rnnx_native.lowering.ops.elementwise import typed
from rnnx_native.lowering.ops.reduce import reduce_axes
from rnnx_native.lowering.ops.shapes import first
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import elementwise, view
from rnnx_native.program.values import Value
from rnnx_native.refusals import refuse


@op("LayerNormalization 17 axis epsilon stash_type", "InstanceNormalization 6-22 epsilon")
def centred(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write (x - mean) / sqrt(variance + epsilon) * scale + bias; the variance is taken around the mean."""
    x, scale = first(inputs), inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    assert scale is not None
    rank, program, name = len(x.shape), low.program, node.outputs[0]
    if node.op == "LayerNormalization":
        axes = list(range(node.attributes.get("axis", -1) % rank, rank))
    else:
        axes = list(range(2, rank))
        spread = (-1, *[1] * (rank - 2))
        scale, bias = (
            view(value, np.zeros(value.shape).reshape(spread).shape) for value in (scale, bias or scale)
        )
    mean = reduce_axes(low, x, axes, f"{name}.mean", "ReduceMean")
    away = program.new(f"{name}.centred", x.dtype, x.shape)
    elementwise(program, away, [x, mean], "{0} - {1}")
    total = reduce_axes(low, away, axes, f"{name}.squares", "ReduceSumSquare")
    count = int(np.prod([x.shape[axis] for axis in axes]))
    factor = program.new(f"{name}.inverse", x.dtype, total.shape)
    numbers = [
        constant("count", np.array(count, x.dtype)),
        constant("epsilon", np.array(node.attributes.get("epsilon", 1e-5), x.dtype)),
    ]
    elementwise(program, factor, [total, *numbers], typed("1 / sqrt@({0} / {1} + {2})", x))
    out = program.new(name, x.dtype, x.shape)
    operands, text = [away, factor, scale], "{0} * {1} * {2}"
    if bias is not None:
        operands, text = [*operands, bias], f"{text} + {{3}}"
    elementwise(program, out, operands, text)
    return [out, mean, factor][: len(node.outputs)]


@op("BatchNormalization 9-15 epsilon momentum training_mode")
def batch_normal(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a normalisation by recorded statistics, one scale and one shift a channel."""
    x, *rest = [value for value in inputs if value is not None]
    if node.attributes.get("training_mode", 0):
        raise refuse(node, "it is in training mode")
    spread = (rest[0].size, *[1] * (len(x.shape) - 2))
    operands = [x, *(view(value, spread) for value in rest)]
    operands.append(constant("epsilon", np.array(node.attributes.get("epsilon", 1e-5), x.dtype)))
    out = low.program.new(node.outputs[0], x.dtype, x.shape)
    elementwise(low.program, out, operands, typed("({0} - {3}) / sqrt@({4} + {5}) * {1} + {2}", x))
    return [out]
