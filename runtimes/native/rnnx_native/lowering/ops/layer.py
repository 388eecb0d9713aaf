"""One direction of an RNN, GRU or LSTM node: its weights and functions, read out of the node."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, need
from rnnx_native.lowering.ops.elementwise import activation, typed
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import view
from rnnx_native.program.values import Array, Value, literal
from rnnx_native.refusals import refuse

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_USUAL = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}
_SIMPLE = {
    "relu": "{0} < 0 ? 0 : {0}",
    "softsign": "{0} / (1 + fabs@({0}))",
    "softplus": "({0} > 0 ? {0} : 0) + log1p@(exp@(-fabs@({0})))",
}
# Functions with parameters, and their defaults.
_ALPHA = {
    "affine": 1.0,
    "leakyrelu": 0.01,
    "thresholdedrelu": 1.0,
    "scaledtanh": 1.0,
    "hardsigmoid": 0.2,
    "elu": 1.0,
}
_BETA = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
_NAMED = {
    "leakyrelu": "LeakyRelu",
    "thresholdedrelu": "ThresholdedRelu",
    "hardsigmoid": "HardSigmoid",
    "elu": "Elu",
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One direction of a recurrent node.

    Attributes:
        x: [time, batch, features].
        lengths: [batch], None where all rows are whole.
        w, r: [gates, units, features] and [gates, units, units].
        wb, rb: biases [gates, units] beside them.
        p: peepholes [3, units], gates i, o, f; None without.
        h, c: start [batch, units]; c is None but for an LSTM.
        functions: as C expressions of {0}.
        fused: whether a kernel computes the whole cell.
    """

    node: Node
    x: Value
    lengths: Value | None
    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array | None
    h: Value
    c: Value | None
    backwards: bool
    functions: list[str]
    fused: bool
    relu: bool
    learned: bool
    label: str

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return int(self.r.shape[1])


def read_layer(low: Lowering, node: Node, inputs: Inputs, index: int) -> Layer:
    """Return direction `index` of a node. Raises ModelError `cannot-compile`."""
    x, weight, recurrence, bias, lengths, h, c, peepholes = (*inputs, *[None] * 8)[:8]
    assert x is not None
    assert weight is not None
    assert recurrence is not None
    if node.attributes.get("layout", 0):
        raise refuse(node, "layout=1, the batch first")
    gates = GATES[node.op]
    _require_shapes(node, inputs)
    w, r = need(node, weight, "weight W")[index], need(node, recurrence, "weight R")[index]
    units = r.shape[1]
    if bias is None:
        biases = np.zeros((2, gates, units), w.dtype)
    else:
        biases = need(node, bias, "bias B")[index].reshape(2, gates, units)
    p = None if peepholes is None else need(node, peepholes, "peepholes P")[index].reshape(3, units)
    names = _functions(node, index)
    alone = "clip" not in node.attributes and p is None and not node.attributes.get("input_forget", 0)
    usual = names == _USUAL[node.op] or (node.op == "RNN" and names == ["relu"])
    after = node.op != "GRU" or bool(node.attributes.get("linear_before_reset", 0))
    direction = node.attributes.get("direction", "forward")
    return Layer(
        node,
        x,
        lengths,
        w.reshape(gates, units, -1),
        r.reshape(gates, units, units),
        biases[0],
        biases[1],
        p,
        _start(low, h, index, x, units),
        _start(low, c, index, x, units) if node.op == "LSTM" else None,
        direction == "reverse" or index == 1,
        _expressions(node, names, index, x.dtype),
        alone and usual and after,
        names == ["relu"],
        weight.learned,
        weight.name.rpartition(".")[0] or node.name,
    )


def _require_shapes(node: Node, inputs: Inputs) -> None:
    """Refuse inputs of other shapes than the operator takes: C would read beyond them."""
    x, weight, recurrence = inputs[:3]
    assert x is not None
    assert weight is not None
    assert recurrence is not None
    count = 2 if node.attributes.get("direction", "forward") == "bidirectional" else 1
    for name, value in (("X", x), ("R", recurrence)):
        if len(value.shape) != 3:
            raise refuse(node, f"{name} of shape {list(value.shape)}, where it has three axes")
    _, batch, features = x.shape
    gates, units = GATES[node.op], recurrence.shape[2]
    wanted = {
        "W": (1, (count, gates * units, features)),
        "R": (2, (count, gates * units, units)),
        "B": (3, (count, 2 * gates * units)),
        "sequence_lens": (4, (batch,)),
        "initial_h": (5, (count, batch, units)),
        "initial_c": (6, (count, batch, units)),
        "P": (7, (count, 3 * units)),
    }
    for name, (place, shape) in wanted.items():
        tensor = inputs[place] if place < len(inputs) else None
        if tensor is not None and tensor.shape != shape:
            raise refuse(node, f"{name} of shape {list(tensor.shape)}, where it is {list(shape)}")
    if node.attributes.get("hidden_size", units) != units:
        raise refuse(node, f"hidden_size {node.attributes['hidden_size']} beside R for {units}")


def _functions(node: Node, index: int) -> list[str]:
    usual = _USUAL[node.op]
    named = [name.lower() for name in node.attributes.get("activations", [])] or usual * 2
    return named[index * len(usual) : (index + 1) * len(usual)]


def _expressions(node: Node, names: list[str], index: int, dtype: np.dtype[Any]) -> list[str]:
    """Return the functions of one direction in C; parameters are handed out in order of need."""
    every = [name.lower() for name in node.attributes.get("activations", [])]
    alphas, betas = (iter(node.attributes.get(f"activation_{key}", [])) for key in ("alpha", "beta"))
    found = []
    for name in every or names:
        alpha = next(alphas, _ALPHA[name]) if name in _ALPHA else 0.0
        beta = next(betas, _BETA[name]) if name in _BETA else 0.0
        found.append(_expression(node, name, alpha, beta, dtype))
    return found[index * len(names) : (index + 1) * len(names)] if every else found


def _expression(node: Node, name: str, alpha: float, beta: float, dtype: np.dtype[Any]) -> str:
    suffix = "f64" if dtype.name == "float64" else "f32"
    sample = Value("", dtype, ())
    if name in ("sigmoid", "tanh"):
        return f"rnnx_{name}1_{suffix}({{0}})"
    if name in _SIMPLE:
        return typed(_SIMPLE[name], sample)
    a, b = literal(alpha, dtype), literal(beta, dtype)
    if name == "affine":
        return f"{a} * {{0}} + {b}"
    if name == "scaledtanh":
        return f"{a} * rnnx_tanh1_{suffix}({b} * {{0}})"
    if name in _NAMED:
        return typed(activation(_NAMED[name], {"alpha": alpha, "beta": beta}, dtype), sample)
    raise refuse(node, f"activation {name!r}")


def _start(low: Lowering, value: Value | None, index: int, x: Value, units: int) -> Value:
    """Return the start of one direction, [batch, units]."""
    batch = x.shape[1]
    if value is None:
        return constant("zeros", np.zeros((batch, units), x.dtype))
    if value.const is not None:
        return constant(value.name, value.const[index], learned=value.learned)
    return view(value, (batch, units), offset=index * batch * units)
