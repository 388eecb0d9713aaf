"""Operators over whole axes: sums, extremes, softmax, running sums, sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, need, op
from rnnx_native.lowering.ops.elementwise import extreme_of, typed
from rnnx_native.lowering.ops.shapes import first, ints
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import elementwise, index_of, merged, nest, view
from rnnx_native.program.values import Value, contiguous, literal
from rnnx_native.refusals import refuse

# start, step, end: {0} is the running result, {1} an element, {n} their number.
_REDUCTIONS = {
    "ReduceSum": ("0", "{0} + {1}", "{0}"),
    "ReduceMean": ("0", "{0} + {1}", "{0} / {n}"),
    "ReduceProd": ("1", "{0} * {1}", "{0}"),
    "ReduceL1": ("0", "{0} + fabs@({1})", "{0}"),
    "ReduceL2": ("0", "{0} + {1} * {1}", "sqrt@({0})"),
    "ReduceSumSquare": ("0", "{0} + {1} * {1}", "{0}"),
    "ReduceLogSum": ("0", "{0} + {1}", "log@({0})"),
}
_EXTREMES = {"ReduceMax": ">", "ReduceMin": "<"}
_SAME = (
    "ReduceSum",
    "ReduceMean",
    "ReduceProd",
    "ReduceMax",
    "ReduceMin",
)  # one element is its own result


def reduce_axes(
    low: Lowering, value: Value, axes: list[int], name: str, kind: str, *, keep: bool = True
) -> Value:
    """Emit a reduction over `axes`; they stay, with one element each, if `keep`."""
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    own = contiguous(value.shape)
    shape = [1 if axis in axes else extent for axis, extent in enumerate(value.shape)]
    out = low.program.new(name, value.dtype, shape)
    inner, within = [value.shape[axis] for axis in axes], [own[axis] for axis in axes]
    outer = [value.shape[axis] for axis in kept]
    reduce_windows(low, view(out, outer), value, [own[axis] for axis in kept], inner, within, kind)
    return out if keep else view(out, outer)


def reduce_windows(
    low: Lowering,
    out: Value,
    value: Value,
    between: Sequence[int],
    window: Sequence[int],
    within: Sequence[int],
    kind: str,
) -> None:
    """Emit each element of `out` as the reduction of a window of `value`.

    Args:
        out: contiguous.
        value: what is reduced.
        between: strides in `value` from window to window, along the axes of `out`.
        window, within: shape and strides of a window.
        kind: operator that says what is computed.
    """
    program = low.program
    if kind in _EXTREMES:
        start, step, end = "first", extreme_of(_EXTREMES[kind], "{1}", "{0}", value.dtype), "{0}"
    else:
        start, step, end = (typed(text, value) for text in _REDUCTIONS[kind])
    sizes, steps = merged(out.shape, [contiguous(out.shape), list(between)])
    inner, inner_steps = merged(window, [list(within)])

    def body(names: list[str]) -> list[str]:
        base = index_of(names, steps[1])
        begin = program.at(value, base) if start == "first" else start

        def add(sums: list[str]) -> list[str]:
            element = program.at(value, f"{base} + {index_of(sums, inner_steps[0])}")
            return [f"sum = {step.format('sum', element)};"]

        last = end.format("sum", n=literal(math.prod(window), value.dtype))
        done = f"{program.at(out, index_of(names, steps[0]))} = {last};"
        return [
            "{",
            f"  {out.ctype} sum = {begin};",
            *("  " + line for line in nest(inner, add, "k")),
            f"  {done}",
            "}",
        ]

    program.emit(nest(sizes, body), [value], [out])


@op(
    *(f"{name} 1-18 axes keepdims noop_with_empty_axes" for name in _REDUCTIONS if name != "ReduceSum"),
    *(f"{name} 1-20 axes keepdims noop_with_empty_axes" for name in _EXTREMES),
    "ReduceSum 1-13 axes keepdims noop_with_empty_axes",
)
def reduction(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a reduction over axes, all of them if none are given."""
    value = first(inputs)
    axes = ints(node, inputs, 1, "axes")
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        if node.op not in _SAME:
            raise refuse(node, "noop_with_empty_axes")
        return [view(value, value.shape, name=node.outputs[0])]
    rank = len(value.shape)
    chosen = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    keep = bool(node.attributes.get("keepdims", 1))
    return [reduce_axes(low, value, chosen, node.outputs[0], node.op, keep=keep)]


@op("ReduceLogSumExp 1-18 axes keepdims noop_with_empty_axes")
def log_sum_exp(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write log(sum(exp(x))), the largest element taken out first so that nothing overflows."""
    value, program, name = first(inputs), low.program, node.outputs[0]
    axes = ints(node, inputs, 1, "axes")
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        raise refuse(node, "noop_with_empty_axes")
    rank = len(value.shape)
    chosen = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    top = reduce_axes(low, value, chosen, f"{name}.max", "ReduceMax")
    finite = program.new(f"{name}.top", value.dtype, top.shape)
    elementwise(program, finite, [top], "{0} - {0} == 0 ? {0} : 0")
    powers = program.new(f"{name}.exp", value.dtype, value.shape)
    elementwise(program, powers, [value, finite], typed("exp@({0} - {1})", value))
    total = reduce_axes(low, powers, chosen, f"{name}.sum", "ReduceSum")
    out = program.new(name, value.dtype, top.shape)
    elementwise(program, out, [total, finite], typed("log@({0}) + {1}", value))
    kept = [extent for axis, extent in enumerate(value.shape) if axis not in chosen]
    return [out if node.attributes.get("keepdims", 1) else view(out, kept)]


@op("Softmax 1-13 axis", "LogSoftmax 1-13 axis")
def softmax(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a softmax along one axis, the largest element taken out first."""
    value, program, name = first(inputs), low.program, node.outputs[0]
    rank = len(value.shape)
    axis = node.attributes.get("axis", -1 if node.version >= 13 else 1) % rank
    if node.version < 13 and math.prod(value.shape[axis + 1 :]) != 1:
        raise refuse(node, "of all axes from one on, as before operator set 13")
    top = reduce_axes(low, value, [axis], f"{name}.max", "ReduceMax")
    shifted = program.new(f"{name}.shifted", value.dtype, value.shape)
    elementwise(program, shifted, [value, top], "{0} - {1}")
    powers = program.new(f"{name}.exp", value.dtype, value.shape)
    call = f"rnnx_exp_{value.real}({program.ref(powers)}, {program.ref(shifted)}, {value.size});"
    program.emit([call], [shifted], [powers])
    total = reduce_axes(low, powers, [axis], f"{name}.sum", "ReduceSum")
    out = program.new(name, value.dtype, value.shape)
    if node.op == "Softmax":
        elementwise(program, out, [powers, total], "{0} / {1}")
    else:
        elementwise(program, out, [shifted, total], typed("{0} - log@({1})", value))
    return [out]


@op("CumSum 11-14 exclusive reverse")
def running_sum(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a running sum along an axis."""
    value, program = first(inputs), low.program
    axis = int(need(node, inputs[1], "axis").reshape(-1)[0]) % len(value.shape)
    extent, own = value.shape[axis], contiguous(value.shape)
    backwards, exclusive = node.attributes.get("reverse", 0), node.attributes.get("exclusive", 0)
    out = program.new(node.outputs[0], value.dtype, value.shape)
    others = [e for a, e in enumerate(value.shape) if a != axis]
    sizes, steps = merged(others, [[s for a, s in enumerate(own) if a != axis]])

    def body(names: list[str]) -> list[str]:
        place = f"{extent} - 1 - k" if backwards else "k"
        index = f"{index_of(names, steps[0])} + ({place}) * {own[axis]}"
        add, store = f"sum += {program.at(value, index)};", f"{program.at(out, index)} = sum;"
        order = [store, add] if exclusive else [add, store]
        head = f"  for (int k = 0; k < {extent}; k++) {{"
        return ["{", f"  {out.ctype} sum = 0;", head, *("    " + line for line in order), "  }", "}"]

    program.emit(nest(sizes, body), [value], [out])
    return [out]


@op("ArgMax 1-13 axis keepdims select_last_index", "ArgMin 1-13 axis keepdims select_last_index")
def extreme(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write the place of the largest or smallest element along an axis."""
    value, program = first(inputs), low.program
    axis = node.attributes.get("axis", 0) % len(value.shape)
    own = contiguous(value.shape)
    shape = [1 if a == axis else e for a, e in enumerate(value.shape)]
    out = program.new(node.outputs[0], np.int64, shape)
    sizes, steps = merged(shape, [contiguous(tuple(shape)), own])
    sign = ">" if node.op == "ArgMax" else "<"
    sign += "=" if node.attributes.get("select_last_index", 0) else ""

    def body(names: list[str]) -> list[str]:
        base = index_of(names, steps[1])
        element, best = (program.at(value, f"{base} + {k} * {own[axis]}") for k in ("k", "best"))
        return [
            "{",
            "  int best = 0;",
            f"  for (int k = 1; k < {value.shape[axis]}; k++) {{",
            f"    if ({element} {sign} {best}) best = k;",
            "  }",
            f"  {program.at(out, index_of(names, steps[0]))} = best;",
            "}",
        ]

    program.emit(nest(sizes, body), [value], [out])
    kept = [e for a, e in enumerate(value.shape) if a != axis]
    return [out if node.attributes.get("keepdims", 1) else view(out, kept)]


@op("TopK 10-24 axis largest sorted")
def top_entries(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write the k largest or smallest elements along an axis in order, equal ones by their place."""
    value, program = first(inputs), low.program
    count = int(need(node, inputs[1], "k").reshape(-1)[0])
    axis = node.attributes.get("axis", -1) % len(value.shape)
    own, extent = contiguous(value.shape), value.shape[axis]
    shape = [count if a == axis else e for a, e in enumerate(value.shape)]
    best = program.new(node.outputs[0], value.dtype, shape)
    places = program.new(node.outputs[1] or f"{node.outputs[0]}.places", np.int64, shape)
    target, ones = contiguous(tuple(shape)), [1 if a == axis else e for a, e in enumerate(value.shape)]
    sizes, steps = merged(ones, [own, target])
    sign = ">" if node.attributes.get("largest", 1) else "<"

    def body(names: list[str]) -> list[str]:
        source, goal = index_of(names, steps[0]), index_of(names, steps[1])
        element = program.at(value, f"{source} + k * {own[axis]}")

        def kept(tensor: Value, place: str) -> str:
            return program.at(tensor, f"{goal} + {place} * {target[axis]}")

        return [
            f"for (int k = 0; k < {extent}; k++) {{ /* insert element k into the best so far */",
            f"  int j = k < {count} ? k : {count};",
            f"  while (j > 0 && {element} {sign} {kept(best, '(j - 1)')}) {{",
            f"    if (j < {count}) {{",
            f"      {kept(best, 'j')} = {kept(best, '(j - 1)')};",
            f"      {kept(places, 'j')} = {kept(places, '(j - 1)')};",
            "    }",
            "    j--;",
            "  }",
            f"  if (j < {count}) {{",
            f"    {kept(best, 'j')} = {element};",
            f"    {kept(places, 'j')} = k;",
            "  }",
            "}",
        ]

    program.emit(nest(sizes, body), [value], [best, places])
    return [best, places]
