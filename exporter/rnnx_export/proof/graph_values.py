"""Every value of a graph: in float64 by onnx's reference evaluator, or on an engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_conv import Conv
from onnx.reference.ops.op_rnn import CommonRNN

from rnnx.model.contract import Contract, default_array, resolve
from rnnx.parity.lockstep import chunk_inputs, step_inputs
from rnnx.parity.reference import Inputs, States

Values = dict[str, np.ndarray[Any, Any]]
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_FOLDED = 64
_FEW_BITS = 256.0  # a multiple of 1/256 is exact in every precision
_PROVIDERS = {"cuda": "CUDAExecutionProvider"}


def flat_graph(model: onnx.ModelProto, *, single: bool) -> onnx.ModelProto:
    """Return a copy of a model; for a single step, with the body of every Scan in its place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not single:
        return copy
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        nodes += _unrolled(node, copy.graph) if node.op_type == "Scan" else [node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _unrolled(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a Scan over one step."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    body, scanned = given["body"], given["num_scan_inputs"]
    carried = len(node.input) - scanned
    into = given.get("scan_input_axes") or [0] * scanned
    out_of = given.get("scan_output_axes") or [0] * (len(node.output) - carried)
    before, after = [], []
    for index, (outer, inner) in enumerate(zip(node.input, body.input, strict=True)):
        axis = into[index - carried] if index >= carried else None
        before.append(_moved("Squeeze", outer, inner.name, axis, graph, f"{node.name}/in{index}"))
    for index, (outer, inner) in enumerate(zip(node.output, body.output, strict=True)):
        axis = out_of[index - carried] if index >= carried else None
        after.append(_moved("Unsqueeze", inner.name, outer, axis, graph, f"{node.name}/out{index}"))
    graph.initializer.extend(body.initializer)
    return [*before, *body.node, *after]


def _moved(
    operator: str, source: str, target: str, axis: int | None, graph: onnx.GraphProto, name: str
) -> onnx.NodeProto:
    if axis is None:
        return helper.make_node("Identity", [source], [target], name=name)
    graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), f"{name}:axis"))
    return helper.make_node(operator, [source, f"{name}:axis"], [target], name=name)


class _RNN(CommonRNN):
    """RNN with ReLU too, which the evaluator does not have."""

    def choose_act(self, name: str, alpha: Any, beta: Any) -> Any:
        """Return an activation by its name."""
        return _relu if name.lower() == "relu" else CommonRNN.choose_act(self, name, alpha, beta)  # type: ignore[no-untyped-call]


_RNN.__name__ = "RNN"  # the evaluator takes the operator's name from the class


def _relu(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.maximum(value, 0))


class _Conv(Conv):
    """Conv over many rows as one product for each place of the kernel; the evaluator's takes row by row."""

    def _run(
        self,
        x: np.ndarray[Any, Any],
        weight: np.ndarray[Any, Any],
        bias: np.ndarray[Any, Any] | None = None,
        auto_pad: str | None = None,
        dilations: Sequence[int] | None = None,
        group: int | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[np.ndarray[Any, Any]]:
        if auto_pad not in (None, "NOTSET"):
            return super()._run(  # type: ignore[no-any-return, no-untyped-call]
                x, weight, bias, auto_pad, dilations, group, kernel_shape, pads, strides
            )
        axes, groups = x.ndim - 2, group or 1
        steps, apart = list(strides or [1] * axes), list(dilations or [1] * axes)
        before, after = (list(pads or [0] * 2 * axes)[part * axes : (part + 1) * axes] for part in (0, 1))
        x = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
        kernel = weight.shape[2:]
        sizes = [
            (size - (width - 1) * gap - 1) // step + 1
            for size, width, gap, step in zip(x.shape[2:], kernel, apart, steps, strict=True)
        ]
        rows, made, taken = len(x), weight.shape[0] // groups, weight.shape[1]
        result = np.zeros((rows, groups, made, int(np.prod(sizes))), x.dtype)
        for place in np.ndindex(*kernel):
            windows = tuple(
                slice(at * gap, at * gap + (size - 1) * step + 1, step)
                for at, gap, size, step in zip(place, apart, sizes, steps, strict=True)
            )
            values = x[(slice(None), slice(None), *windows)].reshape(rows, groups, taken, -1)
            result += weight[(..., *place)].reshape(groups, made, taken) @ values
        result = result.reshape(rows, -1, *sizes)
        return (result if bias is None else result + bias.reshape(-1, *(1 for _ in sizes)),)


_Conv.__name__ = "Conv"  # the evaluator takes the operator's name from the class


class Rounding:
    """Constants as they may be computed otherwise in their precision, each off by up to 64 of its epsilons.

    Those of the network itself are exact in the file, and so are those of a few bits, such as 1 and 0.5. What
    an exporter computes of them, such as a product, or a difference of two that are close, is not.

    Args:
        seed: of what they are off by.
        exact: values that the network holds, sorted.
    """

    def __init__(self, seed: int, exact: np.ndarray[Any, Any]) -> None:
        self._random = np.random.default_rng([seed, 0x726F756E])
        self._exact = exact

    def __call__(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a constant in float64, rounded otherwise."""
        wide = _wide(value)
        noise = self._random.uniform(-1, 1, wide.shape) * _FOLDED * np.finfo(value.dtype).eps
        known = (wide * _FEW_BITS == np.round(wide * _FEW_BITS)) | _among(wide, self._exact)
        return np.where(known, wide, wide * (1 + noise))


def _among(values: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not known.size:
        return np.zeros(values.shape, bool)
    places = np.minimum(np.searchsorted(known, values), known.size - 1)
    return np.asarray(known[places] == values)


class Evaluator:
    """A graph in float64, by onnx's reference evaluator.

    Args:
        model: the graph; its operators are those of the standard.
        other: what other value a constant may have; None leaves them as they are.
    """

    def __init__(self, model: onnx.ModelProto, other: Rounding | None = None) -> None:
        wide = onnx.ModelProto()
        wide.CopyFrom(model)
        _widen(wide.graph, other)
        self._evaluator = ReferenceEvaluator(wide, new_ops=[_RNN, _Conv])

    def __call__(self, feeds: Mapping[str, Any]) -> Values:
        """Return every value of the graph; the evaluator raises what it likes for what it cannot do."""
        given = {name: _wide(np.asarray(value)) for name, value in feeds.items()}
        with np.errstate(all="ignore"):
            found = self._evaluator.run(None, given, intermediate=True)
        return {name: np.asarray(value) for name, value in dict(found).items()}


def float64_values(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Values:
    """Return every value of a graph computed in float64; where the evaluator cannot, by the CPU engine."""
    try:
        return Evaluator(model)(feeds)
    except Exception:  # of whatever kind: it meets operators that it does not have
        return engine_values(model, feeds, "cpu")


def _wide(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _widen(graph: onnx.GraphProto, other: Rounding | None) -> None:
    """Make every float of a graph float64, in place, its constants as `other` rounds them."""
    for tensor in graph.initializer:
        if tensor.data_type in _FLOATS:
            tensor.CopyFrom(_wide_constant(tensor, other))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _FLOATS:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _FLOATS:
                attribute.t.CopyFrom(_wide_constant(attribute.t, other))
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _widen(attribute.g, other)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = onnx.TensorProto.DOUBLE


def _wide_constant(tensor: onnx.TensorProto, other: Rounding | None) -> onnx.TensorProto:
    value = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(_wide(value) if other is None else other(value), tensor.name)


def graph_inputs(
    contract: Contract, inputs: Inputs, sizes: Mapping[str, int], begin: int, end: int, states: States
) -> Values:
    """Return what a graph takes for the steps `begin` up to `end` from these states, by its inputs' names.

    Args:
        contract: of the graph; without time, `end` is `begin + 1`.
        inputs: by name, [step, ...]; those without time once. Optional ones may be missing.
        sizes: of batch and the free dimensions.
        begin, end: which steps.
        states: by name, in full shape.
    """
    if contract.has_time:
        feeds = chunk_inputs(contract, inputs, begin, end)
    else:
        feeds = step_inputs(contract, inputs, begin)
    sizes = {**sizes, "time": end - begin}
    for spec in contract.inputs:
        if spec.name not in feeds and spec.role == "length":
            feeds[spec.name] = np.full(resolve(spec.shape, sizes), sizes["time"], np.int64)
        elif spec.name not in feeds:
            feeds[spec.name] = default_array(spec, resolve(spec.shape, sizes))
    return feeds | {state.input: np.asarray(states[state.name]) for state in contract.states}


def engine_values(model: onnx.ModelProto, feeds: Mapping[str, Any], provider: str) -> Values:
    """Return every value of a graph as ONNX Runtime computes it.

    Args:
        model: the model.
        feeds: by graph input.
        provider: `cuda`, or anything else for the CPU.
    """
    runtime = importlib.import_module("onnxruntime")
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name and name not in have]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    wanted = [_PROVIDERS[provider]] if provider in _PROVIDERS else []
    session = runtime.InferenceSession(
        shown.SerializeToString(), settings, providers=[*wanted, "CPUExecutionProvider"]
    )
    known = {value.name for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    given = {name: np.asarray(value) for name, value in feeds.items() if name in known}
    return dict(zip(outputs, session.run(None, given), strict=True))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node, subgraphs left out."""
    return {
        attribute.name: _plain(helper.get_attribute_value(attribute))
        for attribute in node.attribute
        if attribute.type != onnx.AttributeProto.GRAPH
    }


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value).tolist()
    return list(value) if isinstance(value, (list, tuple)) else value


def constants(model: onnx.ModelProto) -> Values:
    """Return the initializers of a graph by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
