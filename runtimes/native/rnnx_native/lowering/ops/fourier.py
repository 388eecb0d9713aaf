"""Fourier transforms by their definition, X[k] = sum over n of x[n] exp(-2 pi i n k / N): N^2 products.

Angles are looked up in a table of one period, so that they are exact to the last bit whatever n k is.
"""

from __future__ import annotations

import math

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, known, need, op
from rnnx_native.lowering.ops.shapes import first
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import elementwise, strided, view
from rnnx_native.program.values import Value, contiguous, literal
from rnnx_native.refusals import refuse


def transform(
    low: Lowering, x: Value, length: int, *, rows: int, inner: int, inverse: bool, onesided: bool, name: str
) -> Value:
    """Emit a transform of x [rows, elements, inner, 1 or 2] along its second axis.

    Returns:
        [rows, bins, inner, 2]; of a one-sided inverse, which is real, [rows, length, inner, 1].
    """
    program, parts = low.program, x.shape[-1]
    elements = x.shape[1]
    real = inverse and onesided
    bins = length if real or not onesided else length // 2 + 1
    out = program.new(name, x.dtype, (rows, bins, inner, 1 if real else 2))
    angles = 2 * np.pi * np.arange(length) / length
    table = program.placed(constant("period", np.stack([np.cos(angles), np.sin(angles)], 1).astype(x.dtype)))
    kind, count = out.ctype, min(elements, length)
    place = f"((r * {elements} + n) * {inner} + j) * {parts}"
    a, b = program.at(x, place), program.at(x, f"{place} + 1") if parts == 2 else literal(0, x.dtype)
    sign = "" if inverse else "-"
    cos, sin = program.at(table, "2 * phase"), f"{sign}{program.at(table, '2 * phase + 1')}"
    # The bins that a one-sided spectrum leaves out are the conjugates of those it has.
    twice = f"(n == 0 || 2 * n == {length} ? 1 : 2) * " if real else ""
    scale = f" / {literal(length, x.dtype)}" if inverse else ""
    target = f"((r * {bins} + k) * {inner} + j) * {1 if real else 2}"
    lines = [
        f"for (int r = 0; r < {rows}; r++) {{",
        f"  for (int k = 0; k < {bins}; k++) {{",
        f"    for (int j = 0; j < {inner}; j++) {{",
        f"      {kind} re = 0{', im = 0' if not real else ''};",
        "      int phase = 0;",
        f"      for (int n = 0; n < {count}; n++) {{",
        f"        const {kind} a = {a}, b = {b}, c = {cos}, s = {sin};",
        f"        re += {twice}(a * c - b * s);",
        *([] if real else ["        im += a * s + b * c;"]),
        f"        phase = phase + k < {length} ? phase + k : phase + k - {length};",
        "      }",
        f"      {program.at(out, target)} = re{scale};",
        *([] if real else [f"      {program.at(out, f'{target} + 1')} = im{scale};"]),
        "    }",
        "  }",
        "}",
    ]
    program.emit(lines, [x, table], [out])
    return out


@op("DFT 17-20 axis inverse onesided")
def fourier(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a Fourier transform along an axis; the last axis is 1 (real) or 2 (real, imaginary)."""
    x = first(inputs)
    if len(inputs) > 2 and inputs[2] is not None:
        axis = int(need(node, inputs[2], "axis").reshape(-1)[0])
    else:
        axis = node.attributes.get("axis", 1)
    axis %= len(x.shape)
    inverse, onesided = bool(node.attributes.get("inverse", 0)), bool(node.attributes.get("onesided", 0))
    length = x.shape[axis]
    if inverse and onesided:
        length = 2 * (length - 1)
    if len(inputs) > 1 and inputs[1] is not None:
        length = int(need(node, inputs[1], "length").reshape(-1)[0])
    rows, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 : -1])
    flat = view(low.program.placed(x), (rows, x.shape[axis], inner, x.shape[-1]))
    out = transform(
        low, flat, length, rows=rows, inner=inner, inverse=inverse, onesided=onesided, name=node.outputs[0]
    )
    return [view(out, (*x.shape[:axis], out.shape[1], *x.shape[axis + 1 : -1], out.shape[-1]))]


@op("STFT 17 onesided")
def short_time_fourier(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write Fourier transforms of overlapping frames: [batch, length, 1] -> [batch, frames, bins, 2]."""
    signal, step, window, size = (*inputs, None, None)[:4]
    assert signal is not None
    shape = signal.shape
    if len(shape) == 3 and shape[2] != 1:
        raise refuse(node, "a complex signal")
    hop = int(need(node, step, "frame step").reshape(-1)[0])
    if known(size) is not None:
        length = int(need(node, size, "frame length").reshape(-1)[0])
    elif window is not None:
        length = window.shape[0]
    else:
        raise refuse(node, "neither a window nor a frame length")
    batch, extent = shape[:2]
    frames = (extent - length) // hop + 1
    own = contiguous((batch, extent))
    cut = strided(
        low.program, signal, (batch, frames, length), [own[0], hop, 1], 0, f"{node.outputs[0]}.frames"
    )
    if window is not None:
        windowed = low.program.new(f"{node.outputs[0]}.windowed", signal.dtype, cut.shape)
        elementwise(low.program, windowed, [cut, window], "{0} * {1}")
        cut = windowed
    rows, onesided = batch * frames, bool(node.attributes.get("onesided", 1))
    flat = view(cut, (rows, length, 1, 1))
    out = transform(
        low, flat, length, rows=rows, inner=1, inverse=False, onesided=onesided, name=node.outputs[0]
    )
    return [view(out, (batch, frames, out.shape[1], 2))]
