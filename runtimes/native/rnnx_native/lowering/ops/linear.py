"""Products of tensors: dense layers over packed weights, and sums over any axes by plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, op
from rnnx_native.onnx_graph.fuse_bias import DENSE
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program import pack_weights
from rnnx_native.program.loop_nests import (
    broadcast_strides,
    elementwise,
    index_of,
    joined,
    merged,
    nest,
    view,
)
from rnnx_native.program.values import Array, Value, contiguous, shifted
from rnnx_native.refusals import refuse

_LARGEST_TABLE = 1 << 20  # bytes; what fits beside the weights in a processor's second cache


def dense(
    low: Lowering,
    x: Value,
    weight: Array,
    bias: Array | None,
    name: str,
    *,
    learned: bool = True,
    label: str = "",
) -> Value:
    """Emit y = x @ weight + bias.

    Args:
        x: [..., columns].
        weight: [columns, units].
        bias: [units], None for zeros.
        name: of the result, [..., units].
        learned: whether the weights are parameters.
        label: what the weights are called.
    """
    label = label or name
    rows = coded_rows(x, weight)
    if rows is not None and x.token_ids is not None:
        return looked_up(low, x.token_ids, rows, bias, name, learned=learned, label=label)
    if x.parts:
        apart = _tokens_apart(low, x.parts, weight, bias, name, learned=learned, label=label)
        if apart is not None:
            return apart
    columns, units = weight.shape
    rows = x.size // columns
    start = np.zeros(units, weight.dtype) if bias is None else np.broadcast_to(bias, (units,))
    tiles, kind = low.program.matrix(weight.T[None], f"{label}_tiles", learned=learned)
    begin = low.program.constant(
        pack_weights.starts(start[None].astype(weight.dtype)), f"{label}_start", learned=learned
    )
    out = low.program.new(name, x.dtype, (*x.shape[:-1], units))
    ref = low.program.ref
    if kind == "i8":
        x, columns = low.program.in_bytes(x, columns), pack_weights.padded_bytes(columns)
    arguments = f"{ref(out)}, {ref(x)}, {tiles.token}, {begin.token}, {columns}, {units}, {rows}"
    low.program.emit([f"rnnx_dense_{kind}({arguments});"], [x], [out])
    low.program.use(tiles, begin)
    return out


def _tokens_apart(
    low: Lowering,
    parts: Sequence[Value],
    weight: Array,
    bias: Array | None,
    name: str,
    *,
    learned: bool,
    label: str,
) -> Value | None:
    """Emit a dense layer over parts side by side, looking up those that are codes; None without any."""
    ends = np.cumsum([part.shape[-1] for part in parts])[:-1]
    pairs = list(zip(parts, np.split(weight, ends), strict=True))
    tables = [(part.token_ids, coded_rows(part, columns)) for part, columns in pairs]
    rest = [pair for pair, (_, rows) in zip(pairs, tables, strict=True) if rows is None]
    if len(rest) == len(pairs):
        return None
    terms = []
    if rest:
        x = joined(low.program, [part for part, _ in rest], -1, f"{name}.rest")
        columns = np.concatenate([columns for _, columns in rest])
        terms.append(dense(low, x, columns, bias, f"{name}.product", learned=learned, label=label))
    for ids, rows in tables:
        if ids is not None and rows is not None:
            begin = None if terms else bias
            row = looked_up(low, ids, rows, begin, f"{name}.row", learned=learned, label=label)
            terms.append(row)
    total = low.program.new(name, weight.dtype, terms[0].shape)
    text = " + ".join(f"{{{index}}}" for index in range(len(terms)))
    elementwise(low.program, total, terms, text)
    return total


def coded_rows(x: Value, weight: Array) -> Array | None:
    """Return the product of each token's code and `weight` [columns, units], if x is a code of tokens.

    A table is larger than codes and weights together where there are many tokens; then there is none.
    """
    if x.token_ids is None or x.token_ids.size * weight.shape[0] != x.size:
        return None
    if x.codes is None:
        return weight
    rows = x.codes.shape[0] * weight.shape[1]
    if rows * weight.itemsize > _LARGEST_TABLE and rows > x.codes.size + weight.size:
        return None
    return np.asarray((x.codes.astype(np.float64) @ weight.astype(np.float64)).astype(weight.dtype))


def looked_up(
    low: Lowering, ids: Value, weight: Array, bias: Array | None, name: str, *, learned: bool, label: str
) -> Value:
    """Emit y = the rows of `weight` [tokens, units] that ids [...] stand for, plus bias."""
    count, units = weight.shape
    start = np.zeros(units, weight.dtype) if bias is None else np.broadcast_to(bias, (units,))
    rows = np.concatenate([weight + start, start[None]]).astype(weight.dtype)
    table = low.program.constant(rows, f"{label}_rows", learned=learned)
    out = low.program.new(name, weight.dtype, (*ids.shape, units))
    ref = low.program.ref

    def body(names: list[str]) -> list[str]:
        row = names[0] if names else "0"
        source = f"{table.token} + rnnx_row({low.program.at(ids, row)}, {count}) * {units}"
        place = f"{row} * {units}" if names else "0"
        return [f"memcpy({ref(out, place)}, {source}, {units} * sizeof({out.ctype}));"]

    low.program.emit(nest([ids.size] if ids.size > 1 else [], body), [ids], [out])
    low.program.use(table)
    return out


def contract(
    low: Lowering,
    out: Value,
    shape: Sequence[int],
    summed: Sequence[int],
    operands: Sequence[tuple[Value, Sequence[int], Sequence[int], int]],
    *,
    start: tuple[Value, Sequence[int]] | None = None,
    scale: str = "",
) -> None:
    """Emit out = start + sum over the axes `summed` of the product of the operands.

    Args:
        out: contiguous, of as many elements as `shape`.
        operands: (value, strides along `shape`, strides along `summed`, offset).
        start: (value, strides along `shape`) that the sum begins with; None for zero.
        scale: C text behind the sum, such as " * 0.5f".
    """
    program = low.program
    outer = [contiguous(tuple(shape)), *(list(strides) for _, strides, _, _ in operands)]
    if start is not None:
        outer.append(list(start[1]))
    sizes, steps = merged(shape, outer)
    inner_sizes, inner = merged(summed, [list(strides) for _, _, strides, _ in operands])

    def term(index: int, names: list[str], sums: list[str]) -> str:
        place = shifted(index_of(names, steps[1 + index]), operands[index][3])
        return program.at(operands[index][0], shifted(place, index_of(sums, inner[index])))

    def body(names: list[str]) -> list[str]:
        begin = "0" if start is None else program.at(start[0], index_of(names, steps[-1]))

        def add(sums: list[str]) -> list[str]:
            return [f"sum += {' * '.join(term(index, names, sums) for index in range(len(operands)))};"]

        done = f"{program.at(out, index_of(names, steps[0]))} = sum{scale};"
        return [
            "{",
            f"  {out.ctype} sum = {begin};",
            *("  " + line for line in nest(inner_sizes, add, "k")),
            f"  {done}",
            "}",
        ]

    reads = [value for value, _, _, _ in operands] + ([start[0]] if start else [])
    program.emit(nest(sizes, body), reads, [out])


@op(DENSE)
def dense_layer(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a dense layer: a product and a bias, which `fuse` put together."""
    x, weight, bias = inputs
    assert x is not None
    assert weight is not None
    assert bias is not None
    assert weight.const is not None
    assert bias.const is not None
    if len(x.shape) == 1:
        x = view(x, (1, *x.shape))
        out = dense(
            low, x, weight.const, bias.const, node.outputs[0], learned=weight.learned, label=weight.name
        )
        return [view(out, out.shape[1:])]
    return [
        dense(low, x, weight.const, bias.const, node.outputs[0], learned=weight.learned, label=weight.name)
    ]


@op("MatMul 1-13")
def matmul(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a matrix product: a dense layer where the right side is known."""
    a, b = inputs[0], inputs[1]
    assert a is not None
    assert b is not None
    name = node.outputs[0]
    if b.const is not None and b.const.ndim == 2 and b.dtype.kind == "f" and len(a.shape) > 1:
        return [dense(low, a, b.const, None, name, learned=b.learned, label=b.name)]
    left = view(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = view(b, (*b.shape, 1)) if len(b.shape) == 1 else b
    (m, k), n = left.shape[-2:], right.shape[-1]
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    shape = [*lead, *([m] if len(a.shape) > 1 else []), *([n] if len(b.shape) > 1 else [])]
    out = low.program.new(name, a.dtype, shape)
    left_lead, right_lead = _lead_strides(left, lead), _lead_strides(right, lead)
    operands = [(left, [*left_lead, k, 0], [1], 0), (right, [*right_lead, 0, 1], [n], 0)]
    contract(low, out, [*lead, m, n], [k], operands)
    return [out]


def _lead_strides(value: Value, lead: Sequence[int]) -> list[int]:
    """Return strides along the broadcast leading axes of a stack of matrices."""
    own = broadcast_strides(value.shape[:-2], tuple(lead))
    return [stride * value.shape[-2] * value.shape[-1] for stride in own]


@op("Gemm 7-13 alpha beta transA transB")
def gemm(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write alpha * A @ B + beta * C."""
    a, b = inputs[0], inputs[1]
    assert a is not None
    assert b is not None
    c = inputs[2] if len(inputs) > 2 else None
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    turned_a, turned_b = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    name = node.outputs[0]
    weight = b.const
    if weight is not None and b.dtype.kind == "f" and not turned_a:
        weight = (weight.T if turned_b else weight) * weight.dtype.type(alpha)
        bias = None
        if c is not None and c.const is not None and c.const.size in (1, weight.shape[1]):
            bias, c = c.const.reshape(-1) * weight.dtype.type(beta), None
        out = dense(low, a, weight, bias, name, learned=b.learned, label=b.name)
        if c is None:
            return [out]
        total = low.program.new(name, a.dtype, out.shape)
        elementwise(
            low.program, total, [out, c, constant("beta", np.array(beta, a.dtype))], "{0} + {2} * {1}"
        )
        return [total]
    m, k = a.shape[::-1] if turned_a else a.shape
    n = b.shape[0] if turned_b else b.shape[1]
    out = low.program.new(name, a.dtype, (m, n))
    a_rows, a_columns = (1, m) if turned_a else (k, 1)
    b_rows, b_columns = (1, k) if turned_b else (n, 1)
    contract(low, out, [m, n], [k], [(a, [a_rows, 0], [a_columns], 0), (b, [0, b_columns], [b_rows], 0)])
    extra = constant("beta", np.array(beta, a.dtype))
    factor = constant("alpha", np.array(alpha, a.dtype))
    if c is None and alpha == 1.0:
        return [out]
    total = low.program.new(name, a.dtype, out.shape)
    operands, text = ([out, factor, c, extra], "{1} * {0} + {3} * {2}") if c else ([out, factor], "{1} * {0}")
    elementwise(low.program, total, operands, text)
    return [total]


@op("Einsum 12 equation")
def einsum(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a sum over named axes."""
    operands = [value for value in inputs if value is not None]
    equation = node.attributes["equation"].replace(" ", "")
    if "..." in equation:
        raise refuse(node, "an ellipsis in its equation")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    sizes = {
        letter: extent
        for term, value in zip(terms, operands, strict=True)
        for letter, extent in zip(term, value.shape, strict=True)
        if extent != 1
    }
    letters = sorted(set(left) - {","})
    result = right if arrow else "".join(x for x in letters if left.count(x) == 1)
    shape = [sizes.get(letter, 1) for letter in result]
    summed = [letter for letter in letters if letter not in result]
    parts = []
    for term, value in zip(terms, operands, strict=True):
        steps = dict.fromkeys(letters, 0)
        for letter, stride, extent in zip(term, contiguous(value.shape), value.shape, strict=True):
            steps[letter] += stride if extent != 1 else 0
        parts.append((value, [steps[x] for x in result], [steps[x] for x in summed], 0))
    out = low.program.new(node.outputs[0], operands[0].dtype, shape)
    contract(low, out, shape, [sizes.get(x, 1) for x in summed], parts)
    return [out]
