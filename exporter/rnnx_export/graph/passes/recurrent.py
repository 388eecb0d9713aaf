"""Recurrent layers in ONNX: the native operator where it computes the same, else a Scan of the cell.

Gate orders. torch: LSTM i, f, g, o; GRU r, z, n. ONNX: LSTM i, o, f, c; GRU z, r, h.
Equations: torch.nn.RNN, LSTM, GRU; ONNX RNN, LSTM, GRU with `linear_before_reset` 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx_export.diagnostics import CaptureError
from rnnx_export.graph.convert import DOMAIN

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer, all directions: weights as torch has them, each a list by direction.

    w [gates * hidden, features], r [gates * hidden, size], biases [gates * hidden], p [size, hidden] or none;
    `size` is the width of h: the projection's where there is one.
    """

    kind: str
    name: str
    w: list[np.ndarray[Any, Any]]
    r: list[np.ndarray[Any, Any]]
    b_w: list[np.ndarray[Any, Any]]
    b_r: list[np.ndarray[Any, Any]]
    p: list[np.ndarray[Any, Any]]
    activation: str

    @property
    def hidden(self) -> int:
        """Width of one gate."""
        return int(self.w[0].shape[0]) // len(_GATES[self.kind])

    @property
    def native(self) -> bool:
        """Whether ONNX's own operator computes this layer, and ONNX Runtime has a kernel for it."""
        return not self.p and self.w[0].dtype != np.float64


def expand_recurrent(model: ir.Model) -> None:
    """Replace each recurrent placeholder in the graph by ONNX operators, in place.

    Raises:
        CaptureError: a layer's weights are computed from its input, or its biases are missing in part.
    """
    for node in list(model.graph):
        if node.domain == DOMAIN:
            _expand(model.graph, node)
    model.opset_imports.pop(DOMAIN, None)


def _expand(graph: ir.Graph, node: ir.Node) -> None:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    directions = 2 if attributes["bidirectional"] else 1
    states = 2 if node.op_type == "LSTM" else 1
    source, lengths, *rest = node.inputs
    assert source is not None
    x: ir.Value = source
    start, weights = [value for value in rest[:states] if value], rest[states:]
    layers = _layers(node, attributes, weights, directions)
    tape = Tape()
    half = layers[0].w[0].dtype == np.float16 and layers[0].native
    if half:
        # ONNX Runtime's kernels are float32; left to insert casts of its own, 1.32 crashes.
        x, *start = (tape.op("Cast", [value], {"to": ir.DataType.FLOAT}) for value in (x, *start))
    if attributes["batch_first"]:
        x = tape.op("Transpose", [x], {"perm": [1, 0, 2]})
    count = tape.op("Cast", [lengths], {"to": ir.DataType.INT32}) if lengths is not None else None
    parts = [_split(tape, value, len(layers), directions) for value in start]
    ends: list[list[ir.Value]] = [[] for _ in start]
    for index, layer in enumerate(layers):
        starts = [part[index] for part in parts]
        build = _native if layer.native else _scan
        x, finals = build(tape, graph, layer, x, starts, count)
        for slot, final in enumerate(finals):
            ends[slot].append(final)
    if attributes["batch_first"]:
        x = tape.op("Transpose", [x], {"perm": [1, 0, 2]})
    outputs = [x, *(end[0] if len(end) == 1 else tape.op("Concat", end, {"axis": 0}) for end in ends)]
    if half:
        outputs = [tape.op("Cast", [value], {"to": ir.DataType.FLOAT16}) for value in outputs]
    for new in tape.nodes:
        new.metadata_props.update(node.metadata_props)
    graph.insert_before(node, tape.nodes)
    for old, value in zip(node.outputs, outputs, strict=True):
        value.type, value.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(list(node.outputs), outputs, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _layers(
    node: ir.Node, attributes: dict[str, Any], weights: Sequence[ir.Value | None], directions: int
) -> list[Layer]:
    """Return the layers. torch's weights are w, r, biases, projection, by layer and direction."""
    each = len(weights) // (attributes["layers"] * directions)
    arrays = []
    for value in weights:
        if value is None or value.const_value is None:
            raise CaptureError(f"the weights of a {node.op_type} layer are computed while it runs")
        arrays.append(value.const_value.numpy())
    first = weights[0].name or "" if weights[0] is not None else ""
    path = first.rpartition(".")[0] or node.op_type.lower()
    layers = []
    for index in range(attributes["layers"]):
        parts: dict[str, list[np.ndarray[Any, Any]]] = {key: [] for key in ("w", "r", "b_w", "b_r", "p")}
        for direction in range(directions):
            offset = (index * directions + direction) * each
            own = arrays[offset : offset + each]
            keys = [
                "w",
                "r",
                *(["b_w", "b_r"] if attributes["bias"] else []),
                *(["p"] if each in (3, 5) else []),
            ]
            for key, array in zip(keys, own, strict=True):
                parts[key].append(array)
        activation = "Relu" if attributes["nonlinearity"] == "relu" else "Tanh"
        layers.append(Layer(node.op_type, f"{path}.l{index}", activation=activation, **parts))
    return layers


def _split(tape: Tape, value: ir.Value, layers: int, directions: int) -> list[ir.Value]:
    """Return a state [layers * directions, batch, size] as one [directions, batch, size] a layer."""
    if layers == 1:
        return [value]
    return list(tape.op_multi_out("Split", [value], {"axis": 0, "num_outputs": layers}, num_outputs=layers))


def _reorder(layer: Layer, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    gates = np.split(array, len(_GATES[layer.kind]))
    return np.concatenate([gates[gate] for gate in _GATES[layer.kind]])


def _native(
    tape: Tape, graph: ir.Graph, layer: Layer, x: ir.Value, start: list[ir.Value], count: ir.Value | None
) -> tuple[ir.Value, list[ir.Value]]:
    """One ONNX operator. x [time, batch, features], start [directions, batch, hidden] each."""
    w = constant(graph, f"{layer.name}.W", np.stack([_reorder(layer, a) for a in layer.w]))
    r = constant(graph, f"{layer.name}.R", np.stack([_reorder(layer, a) for a in layer.r]))
    b = None
    if layer.b_w:
        both = [
            np.concatenate([_reorder(layer, a), _reorder(layer, b)])
            for a, b in zip(layer.b_w, layer.b_r, strict=True)
        ]
        b = constant(graph, f"{layer.name}.B", np.stack(both))
    if layer.w[0].dtype == np.float16:
        w, r = (tape.op("Cast", [value], {"to": ir.DataType.FLOAT}) for value in (w, r))
        b = None if b is None else tape.op("Cast", [b], {"to": ir.DataType.FLOAT})
    directions = len(layer.w)
    attributes: dict[str, Any] = {"hidden_size": layer.hidden}
    if directions == 2:
        attributes["direction"] = "bidirectional"
    if layer.kind == "GRU":
        attributes["linear_before_reset"] = 1
    if layer.activation != "Tanh":
        attributes["activations"] = [layer.activation] * directions
    y, *ends = tape.op_multi_out(
        layer.kind, [x, w, r, b, count, *start], attributes, num_outputs=1 + len(start)
    )
    if count is not None:
        ends = [
            _keep_empty_rows(tape, graph, count, end, begin) for end, begin in zip(ends, start, strict=True)
        ]
    if directions == 1:
        return tape.op("Squeeze", [y, constant(graph, "axis_1", np.array([1]))]), ends
    turned = tape.op("Transpose", [y], {"perm": [0, 2, 1, 3]})
    shape = constant(graph, "keep_two_axes", np.array([0, 0, -1]))
    return tape.op("Reshape", [turned, shape]), ends


def _keep_empty_rows(
    tape: Tape, graph: ir.Graph, count: ir.Value, end: ir.Value, begin: ir.Value
) -> ir.Value:
    """ONNX Runtime gives zeros for a row of length 0; a row of length 0 keeps its state."""
    zero = constant(graph, "zero_i32", np.array(0, np.int32))
    empty = tape.op("Equal", [count, zero])
    column = tape.op("Unsqueeze", [empty, constant(graph, "axis_1", np.array([1]))])
    return tape.op("Where", [column, begin, end])


def _scan(
    tape: Tape, graph: ir.Graph, layer: Layer, x: ir.Value, start: list[ir.Value], count: ir.Value | None
) -> tuple[ir.Value, list[ir.Value]]:
    """One Scan of the cell a direction, the input's product taken for all steps before."""
    outputs, ends = [], []
    for direction in range(len(layer.w)):
        begin = [_direction(tape, graph, value, direction, len(layer.w)) for value in start]
        y, finals = _scan_direction(tape, graph, layer, direction, x, begin, count)
        outputs.append(y)
        ends.append(finals)
    axis = constant(graph, "axis_0", np.array([0]))
    stacked = [
        tape.op("Unsqueeze", [each[0], axis])
        if len(each) == 1
        else tape.op("Concat", [tape.op("Unsqueeze", [value, axis]) for value in each], {"axis": 0})
        for each in zip(*ends, strict=True)
    ]
    y = outputs[0] if len(outputs) == 1 else tape.op("Concat", outputs, {"axis": 2})
    return y, stacked


def _direction(tape: Tape, graph: ir.Graph, value: ir.Value, direction: int, directions: int) -> ir.Value:
    axis = constant(graph, "axis_0", np.array([0]))
    if directions == 1:
        return tape.op("Squeeze", [value, axis])
    return tape.op("Gather", [value, constant(graph, f"index_{direction}", np.array(direction))], {"axis": 0})


def _scan_direction(
    tape: Tape,
    graph: ir.Graph,
    layer: Layer,
    direction: int,
    x: ir.Value,
    start: list[ir.Value],
    count: ir.Value | None,
) -> tuple[ir.Value, list[ir.Value]]:
    suffix = "" if len(layer.w) == 1 else f".{direction}"
    w = constant(graph, f"{layer.name}{suffix}.W", np.ascontiguousarray(layer.w[direction].T))
    r = constant(graph, f"{layer.name}{suffix}.R", np.ascontiguousarray(layer.r[direction].T))
    p = (
        constant(graph, f"{layer.name}{suffix}.P", np.ascontiguousarray(layer.p[direction].T))
        if layer.p
        else None
    )
    b_r = None
    product = tape.op("MatMul", [x, w])
    if layer.b_w:
        outside, inside = layer.b_w[direction], layer.b_r[direction]
        if layer.kind == "GRU":  # its reset gate multiplies the recurrent product, bias included
            b_r = constant(graph, f"{layer.name}{suffix}.B_R", inside)
        else:
            outside = outside + inside
        product = tape.op("Add", [product, constant(graph, f"{layer.name}{suffix}.B", outside)])
    dtype = ir.DataType.from_numpy(layer.w[0].dtype)
    size = layer.r[direction].shape[1]
    widths = [size, layer.hidden][: len(start)]
    carried = [
        _value(f"{layer.name}{suffix}.{n}", dtype, ["batch", width])
        for n, width in zip("hc", widths, strict=False)
    ]
    step = _value(f"{layer.name}{suffix}.x", dtype, ["batch", layer.w[direction].shape[0]])
    body = Tape()
    after = _CELLS[layer.kind](body, graph, layer, step, carried, r, b_r, p)
    scanned, scan_inputs = [product], [step]
    y = after[0]
    if count is not None:
        valid = _value(f"{layer.name}{suffix}.valid", ir.DataType.BOOL, ["batch", 1])
        zeros = body.op("Sub", [y, y])
        y = body.op("Where", [valid, y, zeros])
        after = [body.op("Where", [valid, new, old]) for new, old in zip(after, carried, strict=True)]
        scanned, scan_inputs = [product, _valid_steps(tape, graph, x, count)], [step, valid]
    else:
        y = body.op("Identity", [y])
    for value, old in zip(after, carried, strict=True):
        value.dtype, value.shape = dtype, old.shape
    y.dtype, y.shape = dtype, ir.Shape(["batch", size])
    inner = ir.Graph(
        [*carried, *scan_inputs], [*after, y], nodes=body.nodes, name=f"{layer.name}{suffix}.cell"
    )
    attributes: dict[str, Any] = {"body": inner, "num_scan_inputs": len(scan_inputs)}
    if direction == 1:
        attributes |= {"scan_input_directions": [1] * len(scan_inputs), "scan_output_directions": [1]}
    *ends, out = tape.op_multi_out("Scan", [*start, *scanned], attributes, num_outputs=len(start) + 1)
    return out, ends


def _valid_steps(tape: Tape, graph: ir.Graph, x: ir.Value, count: ir.Value) -> ir.Value:
    """Return bool [time, batch, 1]: whether step t lies within the row's length."""
    steps = tape.op("Squeeze", [tape.op("Shape", [x], {"start": 0, "end": 1})])
    zero, one = constant(graph, "zero", np.array(0)), constant(graph, "one", np.array(1))
    numbers = tape.op("Range", [zero, steps, one])
    rows = tape.op(
        "Unsqueeze",
        [tape.op("Cast", [count], {"to": ir.DataType.INT64}), constant(graph, "axis_0", np.array([0]))],
    )
    column = tape.op("Unsqueeze", [numbers, constant(graph, "axis_1", np.array([1]))])
    return tape.op("Unsqueeze", [tape.op("Less", [column, rows]), constant(graph, "axis_2", np.array([2]))])


def _gates(body: Tape, value: ir.Value, count: int) -> list[ir.Value]:
    return list(body.op_multi_out("Split", [value], {"axis": 1, "num_outputs": count}, num_outputs=count))


def _lstm_cell(
    body: Tape, graph: ir.Graph, layer: Layer, x: ir.Value, state: list[ir.Value], r: ir.Value,
    b_r: ir.Value | None, p: ir.Value | None,
) -> list[ir.Value]:  # fmt: skip
    h, c = state
    i, f, g, o = _gates(body, body.op("Add", [x, body.op("MatMul", [h, r])]), 4)
    kept = body.op("Mul", [body.op("Sigmoid", [f]), c])
    new = body.op("Add", [kept, body.op("Mul", [body.op("Sigmoid", [i]), body.op("Tanh", [g])])])
    out = body.op("Mul", [body.op("Sigmoid", [o]), body.op("Tanh", [new])])
    return [out if p is None else body.op("MatMul", [out, p]), new]


def _gru_cell(
    body: Tape, graph: ir.Graph, layer: Layer, x: ir.Value, state: list[ir.Value], r: ir.Value,
    b_r: ir.Value | None, p: ir.Value | None,
) -> list[ir.Value]:  # fmt: skip
    h = state[0]
    product = body.op("MatMul", [h, r])
    if b_r is not None:
        product = body.op("Add", [product, b_r])
    x_r, x_z, x_n = _gates(body, x, 3)
    h_r, h_z, h_n = _gates(body, product, 3)
    reset = body.op("Sigmoid", [body.op("Add", [x_r, h_r])])
    update = body.op("Sigmoid", [body.op("Add", [x_z, h_z])])
    new = body.op("Tanh", [body.op("Add", [x_n, body.op("Mul", [reset, h_n])])])
    return [body.op("Add", [new, body.op("Mul", [update, body.op("Sub", [h, new])])])]


def _rnn_cell(
    body: Tape, graph: ir.Graph, layer: Layer, x: ir.Value, state: list[ir.Value], r: ir.Value,
    b_r: ir.Value | None, p: ir.Value | None,
) -> list[ir.Value]:  # fmt: skip
    return [body.op(layer.activation, [body.op("Add", [x, body.op("MatMul", [state[0], r])])])]


_CELLS = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN": _rnn_cell}


def constant(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    """Return the initializer of that name, made on first use; another array gets a numbered name."""
    candidate, count = name, 1
    while candidate in graph.initializers:
        held = graph.initializers[candidate]
        if held.const_value is not None and _equal(held.const_value.numpy(), array):
            return held
        count += 1
        candidate = f"{name}_{count}"
    value = ir.Value(name=candidate, const_value=ir.tensor(array, name=candidate))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _equal(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _value(name: str, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
