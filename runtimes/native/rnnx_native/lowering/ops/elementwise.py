"""Operators that compute each element from those at its place: arithmetic, activations, comparisons."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx

from rnnx_native.lowering.lower import Inputs, Lowering, known, need, op
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import elementwise, view
from rnnx_native.program.values import Value, literal
from rnnx_native.refusals import refuse

# {0} and {1} are elements; @ after a function's name becomes f in float and nothing in double.
_FLOAT = {
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Pow": "pow@({0}, {1})",
    "PRelu": "{0} < 0 ? {0} * {1} : {0}",
    "Neg": "-{0}",
    "Abs": "fabs@({0})",
    "Log": "log@({0})",
    "Sqrt": "sqrt@({0})",
    "Reciprocal": "1 / {0}",
    "Floor": "floor@({0})",
    "Ceil": "ceil@({0})",
    "Round": "rint@({0})",
    "Sin": "sin@({0})",
    "Cos": "cos@({0})",
    "Tan": "tan@({0})",
    "Asin": "asin@({0})",
    "Acos": "acos@({0})",
    "Atan": "atan@({0})",
    "Sinh": "sinh@({0})",
    "Cosh": "cosh@({0})",
    "Asinh": "asinh@({0})",
    "Acosh": "acosh@({0})",
    "Atanh": "atanh@({0})",
    "Erf": "erf@({0})",
    "Sign": "({0} > 0) - ({0} < 0)",
    "Relu": "{0} < 0 ? 0 : {0}",
    "Softsign": "{0} / (1 + fabs@({0}))",
    "Softplus": "({0} > 0 ? {0} : 0) + log1p@(exp@(-fabs@({0})))",
    "HardSwish": "{0} * (({0} + 3 < 0 ? 0 : {0} + 3 > 6 ? 6 : {0} + 3) / 6)",
    "Mish": "{0} * tanh@(({0} > 0 ? {0} : 0) + log1p@(exp@(-fabs@({0}))))",
    "IsNaN": "{0} != {0}",
    "Identity": "{0}",
}
_WHOLE = {
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{1} == 0 ? 0 : {0} / {1}",
    "Neg": "-{0}",
    "Abs": "{0} < 0 ? -{0} : {0}",
    "Sign": "({0} > 0) - ({0} < 0)",
    "Relu": "{0} < 0 ? 0 : {0}",
}
_COMPARE = {
    "Equal": "{0} == {1}",
    "Less": "{0} < {1}",
    "LessOrEqual": "{0} <= {1}",
    "Greater": "{0} > {1}",
    "GreaterOrEqual": "{0} >= {1}",
}
_LOGIC = {"And": "{0} && {1}", "Or": "{0} || {1}", "Xor": "!{0} != !{1}", "Not": "!{0}"}
_BITS = {"BitwiseAnd": "{0} & {1}", "BitwiseOr": "{0} | {1}", "BitwiseXor": "{0} ^ {1}", "BitwiseNot": "~{0}"}
_KERNELS = {"Exp": "exp", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def broadcast(values: Inputs) -> tuple[int, ...]:
    """Return the shape that the values have together."""
    return tuple(np.broadcast_shapes(*(value.shape for value in values if value is not None)))


def typed(expression: str, value: Value) -> str:
    """Fill in the precision of C's functions."""
    return expression.replace("@", "" if value.dtype.name == "float64" else "f")


def extreme_of(sign: str, one: str, other: str, dtype: np.dtype[Any]) -> str:
    """Return C for the larger (`>`) or the smaller (`<`) of two elements; NaN wins, as numpy has it."""
    nan = f" || {one} != {one}" if dtype.kind == "f" else ""  # of an integer compilers would warn
    return f"{one} {sign} {other}{nan} ? {one} : {other}"


def _simple(low: Lowering, node: Node, inputs: Inputs, expression: str, dtype: object = None) -> list[Value]:
    operands = [value for value in inputs if value is not None]
    kind = np.dtype(dtype) if dtype is not None else operands[0].dtype  # type: ignore[call-overload]
    out = low.program.new(node.outputs[0], kind, broadcast(operands))
    elementwise(low.program, out, operands, typed(expression, operands[0]))
    return [out]


@op(
    *("Add 7-14", "Sub 7-14", "Mul 7-14", "Div 7-14", "Pow 7-15", "PRelu 7-16"),
    *("Neg 6-13", "Abs 6-13", "Log 6-13", "Sqrt 6-13", "Reciprocal 6-13", "Floor 6-13"),
    *("Ceil 6-13", "Round 11-22", "Sin 7-22", "Cos 7-22", "Tan 7-22", "Asin 7-22"),
    *("Acos 7-22", "Atan 7-22", "Sinh 9-22", "Cosh 9-22", "Asinh 9-22", "Acosh 9-22"),
    *("Atanh 9-22", "Erf 9-13", "Sign 9-13", "Relu 6-14", "Softsign 1-22", "Softplus 1-22"),
    *("HardSwish 14-22", "Mish 18-22"),
)
def arithmetic(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write arithmetic, in floating point or whole numbers."""
    assert inputs[0] is not None
    table = _FLOAT if inputs[0].dtype.kind == "f" else _WHOLE
    if node.op not in table:
        raise refuse(node, f"not for {inputs[0].dtype}")
    return _simple(low, node, inputs, table[node.op])


@op("IsNaN 9-20")
def is_nan(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a test for NaN."""
    return _simple(low, node, inputs, _FLOAT[node.op], bool)


@op("IsInf 10-20 detect_negative detect_positive")
def is_infinite(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a test for infinities, of one sign or both."""
    up, down = node.attributes.get("detect_positive", 1), node.attributes.get("detect_negative", 1)
    text = " || ".join(
        part for part, wanted in (("{0} == INFINITY", up), ("{0} == -INFINITY", down)) if wanted
    )
    return _simple(low, node, inputs, text or "{0} != {0} && 0", bool)


@op("Equal 7-19", "Less 7-13", "LessOrEqual 12-16", "Greater 7-13", "GreaterOrEqual 12-16")
def compare(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a comparison; with 0, 1, 2, ... it makes the one-hot code of tokens."""
    results = _simple(low, node, inputs, _COMPARE[node.op], bool)
    token_ids = _compared_token_ids(inputs) if node.op == "Equal" else None
    return [dataclasses.replace(results[0], token_ids=token_ids)]


def _compared_token_ids(inputs: Inputs) -> Value | None:
    """Return ids [...] if these are ids [..., 1] and the constant 0, 1, ..., n - 1; else None."""
    for ids, counted in (inputs, inputs[::-1]):
        if ids is None or counted is None or counted.const is None or ids.const is not None:
            continue
        flat = counted.const.reshape(-1)
        is_count = counted.dtype.kind in "iu" and np.array_equal(flat, np.arange(flat.size))
        # One column of ids beside one row of numbers, so that their result is [..., n].
        is_row = flat.size > 1 and counted.shape[-1] == flat.size and len(counted.shape) <= len(ids.shape)
        if is_count and is_row and ids.shape[-1:] == (1,):
            return view(ids, ids.shape[:-1])
    return None


@op("And 7", "Or 7", "Xor 7", "Not 1")
def logic(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write logic on booleans."""
    return _simple(low, node, inputs, _LOGIC[node.op], bool)


@op("BitwiseAnd 18", "BitwiseOr 18", "BitwiseXor 18", "BitwiseNot 18")
def bits(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write logic on the bits of whole numbers."""
    return _simple(low, node, inputs, _BITS[node.op])


@op("BitShift 11 direction")
def shifted_bits(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a shift of unsigned numbers; of as many bits as they have, or more, nothing is left."""
    assert inputs[0] is not None
    sign = "<<" if node.attributes["direction"] == "LEFT" else ">>"
    return _simple(low, node, inputs, f"{{1}} < {8 * inputs[0].dtype.itemsize} ? {{0}} {sign} {{1}} : 0")


@op("Exp 6-13", "Sigmoid 6-13", "Tanh 6-13")
def kernel(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a call of a vectorised activation."""
    (value,) = inputs
    assert value is not None
    out = low.program.new(node.outputs[0], value.dtype, value.shape)
    name = f"rnnx_{_KERNELS[node.op]}_{value.real}"
    low.program.emit(
        [f"{name}({low.program.ref(out)}, {low.program.ref(value)}, {value.size});"], [value], [out]
    )
    return [out]


@op("Mod 10-13 fmod")
def modulo(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a remainder: of the divisor's sign, or C's fmod with `fmod=1`."""
    assert inputs[0] is not None
    if inputs[0].dtype.kind == "f" and not node.attributes.get("fmod", 0):
        raise refuse(node, "of floating numbers without fmod=1, which ONNX does not have")
    if node.attributes.get("fmod", 0):
        text = "fmod@({0}, {1})" if inputs[0].dtype.kind == "f" else "{1} == 0 ? 0 : {0} % {1}"
    else:
        text = "{1} == 0 ? 0 : ({0} % {1} + {1}) % {1}"
    return _simple(low, node, inputs, text)


@op("Min 6-13", "Max 6-13", "Sum 6-13", "Mean 6-13")
def several(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write an operator of any number of inputs; NaN wins, as numpy has it."""
    operands = [value for value in inputs if value is not None]
    places = [f"{{{index}}}" for index in range(len(operands))]
    if node.op in ("Sum", "Mean"):
        total = " + ".join(places)
        return _simple(low, node, inputs, total if node.op == "Sum" else f"({total}) / {len(operands)}")
    sign = "<" if node.op == "Min" else ">"
    out = low.program.new(node.outputs[0], operands[0].dtype, broadcast(operands))
    text = places[0]
    for place in places[1:]:
        text = f"({extreme_of(sign, text, place, out.dtype)})"
    elementwise(low.program, out, operands, text)
    return [out]


@op("Clip 11-13")
def clip(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write bounds from below and above."""
    value, low_end, high_end = (*inputs, None, None)[:3]
    operands, text = [value], "{0}"
    for bound, sign in ((low_end, "<"), (high_end, ">")):
        if bound is not None:
            place = f"{{{len(operands)}}}"
            text = f"({text} {sign} {place} ? {place} : {text})"
            operands.append(bound)
    return _simple(low, node, operands, text)


@op(
    "Elu 6-22 alpha",
    "Selu 6-22 alpha gamma",
    "Celu 12 alpha",
    "LeakyRelu 6-16 alpha",
    "HardSigmoid 6-22 alpha beta",
    "ThresholdedRelu 10-22 alpha",
    "Gelu 20 approximate",
    "Swish 24 alpha",
)
def with_attributes(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write an activation that has parameters."""
    assert inputs[0] is not None
    return _simple(low, node, inputs, activation(node.op, node.attributes, inputs[0].dtype))


def activation(name: str, attributes: dict[str, Any], dtype: np.dtype[Any]) -> str:
    """Return a parametrised activation as an expression of {0}, `@` for the precision."""

    def number(key: str, default: float) -> str:
        return literal(np.float32(attributes.get(key, default)).astype(dtype), dtype)

    if name == "Elu":
        return f"{{0}} < 0 ? {number('alpha', 1.0)} * expm1@({{0}}) : {{0}}"
    if name == "Celu":
        alpha = number("alpha", 1.0)
        return f"{{0}} < 0 ? {alpha} * expm1@({{0}} / {alpha}) : {{0}}"
    if name == "Selu":
        alpha, gamma = number("alpha", 1.67326319217681884765625), number("gamma", 1.05070102214813232421875)
        return f"{gamma} * ({{0}} < 0 ? {alpha} * expm1@({{0}}) : {{0}})"
    if name == "LeakyRelu":
        return f"{{0}} < 0 ? {number('alpha', 0.01)} * {{0}} : {{0}}"
    if name == "ThresholdedRelu":
        return f"{{0}} > {number('alpha', 1.0)} ? {{0}} : 0"
    if name == "Swish":
        return f"{{0}} / (1 + exp@(-{number('alpha', 1.0)} * {{0}}))"
    if name == "Gelu" and attributes.get("approximate", "none") == "tanh":
        inner = "{0} + 0.044715f * {0} * {0} * {0}".replace("5f", "5f" if dtype.name == "float32" else "5")
        root = literal(np.sqrt(2 / np.pi), dtype)
        return f"{literal(0.5, dtype)} * {{0}} * (1 + tanh@({root} * ({inner})))"
    if name == "Gelu":
        return f"{literal(0.5, dtype)} * {{0}} * (1 + erf@({{0}} * {literal(np.sqrt(0.5), dtype)}))"
    assert name == "HardSigmoid", name
    line = f"{number('alpha', 0.2)} * {{0}} + {number('beta', 0.5)}"
    return f"({line}) < 0 ? 0 : ({line}) > 1 ? 1 : {line}"


@op("Where 9-16")
def where(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a choice between two values by a condition."""
    assert inputs[1] is not None
    return _simple(low, node, inputs, "{0} ? {1} : {2}", inputs[1].dtype)


@op("Cast 6-25 round_mode saturate to", "CastLike 15-25 round_mode saturate")
def cast(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a change of type. float16 is computed in float32, rounded to it where a network casts to it."""
    value = inputs[0]
    assert value is not None
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    to = int(node.attributes.get("to", 0))
    if node.op == "CastLike":
        assert inputs[1] is not None
        kind = inputs[1].dtype
    else:
        kind = np.dtype(np.float32) if to in halves else onnx.helper.tensor_dtype_to_np_dtype(to)
    if kind == value.dtype:
        return [view(value, value.shape, name=node.outputs[0])]
    if kind.kind not in "fiub":
        raise refuse(node, f"no type {kind} in C")
    out = low.program.new(node.outputs[0], kind, value.shape)
    text = "{0} != 0" if kind.kind == "b" else f"({out.ctype}){{0}}"
    elementwise(low.program, out, [value], text)
    return [dataclasses.replace(out, token_ids=value.token_ids)]


@op("Identity 1-25", "Dropout 7-22 ratio seed")
def identity(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Pass a value on; Dropout does nothing outside training."""
    assert inputs[0] is not None
    training = inputs[2] if len(inputs) > 2 else None
    if training is not None and (known(training) is None or bool(need(node, training, "mode").any())):
        raise refuse(node, "it is in training mode")
    return [view(inputs[0], inputs[0].shape, name=node.outputs[0])]
