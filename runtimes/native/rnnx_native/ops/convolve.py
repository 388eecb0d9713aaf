"""Convolutions over any number of axes, by plain loops over an input that was padded first."""

from __future__ import annotations

import math

import numpy as np

from rnnx_native.loops import view
from rnnx_native.lower import Inputs, Lowering, constant, op
from rnnx_native.ops.linear import contract
from rnnx_native.ops.shapes import first, padded
from rnnx_native.read import Node
from rnnx_native.values import Value, contiguous


@op("Conv")
def convolution(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a convolution: x [N, C, ...], weight [M, C / group, ...], bias [M]."""
    x, weight = first(inputs), inputs[1]
    assert weight is not None
    bias = inputs[2] if len(inputs) > 2 else None
    groups = node.attributes.get("group", 1)
    kernel = list(weight.shape[2:])
    axes = len(kernel)
    dilations = node.attributes.get("dilations", [1] * axes)
    strides = node.attributes.get("strides", [1] * axes)
    before, after = _pads(node, x, kernel, dilations, strides)
    if any(before) or any(after):
        shape = [*x.shape[:2], *(e + b + a for e, b, a in zip(x.shape[2:], before, after, strict=True))]
        zero = constant("zero", np.zeros((), x.dtype))
        x = padded(low, f"{node.outputs[0]}.padded", x, shape, [0, 0, *before], zero)
    spans = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    places = [(e - span - 1) // step + 1 for e, span, step in zip(x.shape[2:], spans, strides, strict=True)]
    rows, maps = x.shape[0], weight.shape[0]
    out = low.program.new(node.outputs[0], x.dtype, (rows, maps, *places))
    own, part, inner = contiguous(x.shape), maps // groups, weight.shape[1]
    over_x = [own[0], inner * own[1], 0, *(s * o for s, o in zip(strides, own[2:], strict=True))]
    taps_x = [own[1], *(d * o for d, o in zip(dilations, own[2:], strict=True))]
    size = inner * math.prod(kernel)
    over_w = [0, part * size, size, *([0] * axes)]
    shape = [rows, groups, part, *places]
    start = None if bias is None else (bias, [0, part, 1, *([0] * axes)])
    operands = [(x, over_x, taps_x, 0), (weight, over_w, contiguous((inner, *kernel)), 0)]
    contract(low, view(out, shape), shape, [inner, *kernel], operands, start=start)
    return [out]


def _pads(
    node: Node, x: Value, kernel: list[int], dilations: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    """Return how many zeros stand before and after each axis."""
    axes = len(kernel)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = []
        for extent, size, dilation, step in zip(x.shape[2:], kernel, dilations, strides, strict=True):
            total.append(max((-(-extent // step) - 1) * step + (size - 1) * dilation + 1 - extent, 0))
        small, large = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        return (small, large) if mode == "SAME_UPPER" else (large, small)
    pads = [0] * (2 * axes) if mode == "VALID" else node.attributes.get("pads", [0] * (2 * axes))
    return list(pads[:axes]), list(pads[axes:])
