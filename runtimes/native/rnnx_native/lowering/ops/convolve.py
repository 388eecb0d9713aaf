"""Convolutions over any number of axes: patches times weights that are known, else plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, known, op
from rnnx_native.lowering.ops.linear import contract, dense
from rnnx_native.lowering.ops.shapes import first, ints
from rnnx_native.lowering.ops.windows import Windows, read_pads, read_windows, shared_out, spans_of
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import (
    copy_strided,
    elementwise,
    index_of,
    joined,
    nest,
    permuted,
    strided,
    view,
)
from rnnx_native.program.pack_weights import LANES
from rnnx_native.program.values import Array, Value, contiguous

# Elements of patches that are copied at once: half of what fits into a cache of the second level.
_AT_ONCE = 1 << 17


@op("Conv 1-22 auto_pad dilations group kernel_shape pads strides")
def convolution(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a convolution: x [N, C, ...], weight [M, C / group, ...], bias [M]."""
    x, weight = first(inputs), inputs[1]
    assert weight is not None
    bias = inputs[2] if len(inputs) > 2 else None
    groups, name = node.attributes.get("group", 1), node.outputs[0]
    windows = read_windows(node, x.shape[2:], weight.shape[2:])
    x = windows.around(low, x, constant("zero", np.zeros((), x.dtype)))
    start = known(bias)
    is_known = weight.const is not None and (bias is None or start is not None)
    # Groups of few channels, as in depthwise convolutions, would leave most lanes empty.
    if not is_known or weight.shape[0] // groups < LANES // 2:
        return [_by_loops(low, x, weight, bias, groups, windows, name)]
    rows, count = x.shape[0], windows.places[0]
    size = rows * math.prod([*windows.places[1:], *weight.shape[1:]])  # elements of patches in one place
    most = max(_AT_ONCE // size, 1)
    if most >= count:
        whole = _products(low, x, weight, start, groups, windows, windows.places, name)
        return [
            permuted(low.program, whole, [0, len(whole.shape) - 1, *range(1, len(whole.shape) - 1)], name)
        ]
    out = low.program.new(name, x.dtype, (rows, weight.shape[0], *windows.places))
    own, step = contiguous(out.shape), windows.steps(x.shape)[0][0]

    def part(begin: str, extent: int) -> None:
        source = view(low.program.placed(x), x.shape, offset=f"{begin} * {step}")
        some = _products(low, source, weight, start, groups, windows, [extent, *windows.places[1:]], name)
        target = view(out, out.shape, offset=f"{begin} * {own[2]}")
        to = [own[0], *own[2:], own[1]]
        copy_strided(low.program, target, some, some.shape, contiguous(some.shape), 0, to=to)

    with low.program.loop(count // most) as iteration:
        part(f"{iteration} * {most}", most)
    if count % most:
        part(str(count - count % most), count % most)
    return [out]


def _products(
    low: Lowering,
    x: Value,
    weight: Value,
    bias: Array | None,
    groups: int,
    windows: Windows,
    places: Sequence[int],
    name: str,
) -> Value:
    """Return x in `places`, as patches in rows, times the weights: [N, places..., M]."""
    program, rows, own = low.program, x.shape[0], contiguous(x.shape)
    between, within = windows.steps(x.shape)
    assert weight.const is not None
    inner, parts = weight.shape[1], []
    for group, weights in enumerate(np.split(weight.const, groups)):
        shape, steps = [rows, *places, inner, *windows.kernel], [own[0], *between, own[1], *within]
        patches = strided(program, x, shape, steps, group * inner * own[1], f"{name}.patches")
        patches = view(patches, (rows * math.prod(places), inner * math.prod(windows.kernel)))
        start = None if bias is None else np.split(bias, groups)[group]
        label = weight.name if groups == 1 else f"{weight.name}.{group}"
        columns = weights.reshape(len(weights), -1).T  # [inner * kernel, M / groups]
        parts.append(dense(low, patches, columns, start, name, learned=weight.learned, label=label))
    return view(joined(program, parts, -1, name), (rows, *places, weight.shape[0]))


def _by_loops(
    low: Lowering, x: Value, weight: Value, bias: Value | None, groups: int, windows: Windows, name: str
) -> Value:
    """Emit a convolution as a sum over channels and taps for each element."""
    rows, maps, axes = x.shape[0], weight.shape[0], len(windows.kernel)
    out = low.program.new(name, x.dtype, (rows, maps, *windows.places))
    own, part, inner = contiguous(x.shape), maps // groups, weight.shape[1]
    between, within = windows.steps(x.shape)
    size = inner * math.prod(windows.kernel)
    shape = [rows, groups, part, *windows.places]
    start = None if bias is None else (bias, [0, part, 1, *([0] * axes)])
    over_x, over_weight = [own[0], inner * own[1], 0, *between], [0, part * size, size, *([0] * axes)]
    taps = contiguous((inner, *windows.kernel))
    operands = [(x, over_x, [own[1], *within], 0), (weight, over_weight, taps, 0)]
    contract(low, view(out, shape), shape, [inner, *windows.kernel], operands, start=start)
    return out


@op("ConvTranspose 1-22 auto_pad dilations group kernel_shape output_padding output_shape pads strides")
def transposed(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a transposed convolution: x [N, C, ...], weight [C, M / group, ...], bias [M].

    Each element of x times the weights is a patch of the result; patches that overlap are summed.
    """
    x, weight = first(inputs), inputs[1]
    assert weight is not None
    groups, kernel = node.attributes.get("group", 1), list(weight.shape[2:])
    rows, channels, *places = x.shape
    strides = node.attributes.get("strides", [1] * len(kernel))
    dilations = node.attributes.get("dilations", [1] * len(kernel))
    spans = spans_of(kernel, dilations)
    more = node.attributes.get("output_padding", [0] * len(kernel))
    whole = [(n - 1) * s + span + 1 + m for n, s, span, m in zip(places, strides, spans, more, strict=True)]
    wanted = node.attributes.get("output_shape", [n * s for n, s in zip(places, strides, strict=True)])
    before, after = _cut(node, [w - e for w, e in zip(whole, wanted, strict=True)])
    extents = [w - b - a for w, b, a in zip(whole, before, after, strict=True)]
    windows = Windows(kernel, list(dilations), list(strides), before, after, places)
    part, inner = weight.shape[1], channels // groups
    own, patches = contiguous(x.shape), []
    for group in range(groups):
        steps = [own[0], *own[2:], own[1]]
        columns = strided(
            low.program, x, [rows, *places, inner], steps, group * inner * own[1], f"{x.name}.rows"
        )
        patches.append(_patches(low, columns, weight, group, inner, node.outputs[0]))
    out = low.program.new(node.outputs[0], x.dtype, (rows, groups * part, *extents))
    bias = inputs[2] if len(inputs) > 2 and inputs[2] is not None else constant("zero", np.zeros((), x.dtype))
    elementwise(low.program, out, [view(bias, (bias.size, *([1] * len(kernel))))], "{0}")
    steps = contiguous((rows, *places, part, *kernel))
    for group, some in enumerate(patches):
        target = view(out, out.shape, offset=group * part * math.prod(extents))
        _overlap(low, target, some, steps, part, windows)
    return [out]


def _patches(low: Lowering, columns: Value, weight: Value, group: int, inner: int, name: str) -> Value:
    """Return rows [..., C / groups] times the weights of a group: [..., M / groups * kernel]."""
    size = weight.size // weight.shape[0]
    if weight.const is not None:
        weights = weight.const[group * inner : (group + 1) * inner].reshape(inner, size)
        label = f"{weight.name}.{group}"
        return dense(low, columns, weights, None, f"{name}.patches", learned=weight.learned, label=label)
    out = low.program.new(f"{name}.patches", columns.dtype, (*columns.shape[:-1], size))
    count = columns.size // inner
    operands = [(columns, [inner, 0], [1], 0), (weight, [0, 1], [size], group * inner * size)]
    contract(low, out, [count, size], [inner], operands)
    return out


def _cut(node: Node, total: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return how much of a transposed convolution's result is left out before and after each axis."""
    if "output_shape" not in node.attributes:
        return read_pads(node, total)
    return shared_out(total, more_after=node.attributes.get("auto_pad") == "SAME_UPPER")


@op("Col2Im 18 dilations pads strides")
def image_of_columns(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Sum overlapping patches [N, C * kernel, places] into an image [N, C, ...]."""
    x, extents, kernel = (
        first(inputs),
        ints(node, inputs, 1, "image_shape"),
        ints(node, inputs, 2, "block_shape"),
    )
    assert extents is not None
    assert kernel is not None
    windows = read_windows(node, extents, kernel)
    channels = x.shape[1] // math.prod(kernel)
    out = low.program.new(node.outputs[0], x.dtype, (x.shape[0], channels, *extents))
    elementwise(low.program, out, [constant("zero", np.zeros((), x.dtype))], "{0}")
    own, taps = contiguous((x.shape[0], channels, *kernel, *windows.places)), len(kernel)
    _overlap(low, out, x, [own[0], *own[2 + taps :], own[1], *own[2 : 2 + taps]], channels, windows)
    return [out]


def _overlap(
    low: Lowering, out: Value, patches: Value, steps: Sequence[int], channels: int, windows: Windows
) -> None:
    """Emit out [N, channels, ...] += patches, read along `steps` by row, place, channel and tap."""
    program, axes = low.program, len(windows.kernel)
    own, extents = contiguous(out.shape), out.shape[2:]
    sizes = [out.shape[0], channels, *windows.places, *windows.kernel]
    order = [steps[0], steps[1 + axes], *steps[1 : 1 + axes], *steps[2 + axes :]]

    def body(names: list[str]) -> list[str]:
        pairs = zip(names[2 : 2 + axes], names[2 + axes :], strict=True)
        lines, tests, spots = [], [], []
        for axis, (place, tap) in enumerate(pairs):
            spot = index_of([place, tap], [windows.strides[axis], windows.dilations[axis]])
            lines.append(f"  const int o{axis} = {spot} - {windows.before[axis]};")
            tests.append(f"o{axis} >= 0 && o{axis} < {extents[axis]}")
            spots.append(f"o{axis}")
        target = program.at(out, index_of([*names[:2], *spots], own))
        add = f"{target} += {program.at(patches, index_of(names, order))};"
        return ["{", *lines, f"  if ({' && '.join(tests)}) {add}", "}"]

    program.emit(nest(sizes, body), [patches, out], [out])
