"""Every value of a graph: in float64 by onnx's reference evaluator, or on an engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Values = dict[str, np.ndarray[Any, Any]]
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
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


def float64_values(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Values:
    """Return every value of a graph computed in float64; where the evaluator cannot, by the CPU engine."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    given = {name: _wide(np.asarray(value)) for name, value in feeds.items()}
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(wide).run(None, given, intermediate=True)
        return {name: np.asarray(value) for name, value in dict(found).items()}
    except Exception:  # the evaluator raises what it likes for operators it cannot do
        return engine_values(model, feeds, "cpu")


def _wide(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _widen(graph: onnx.GraphProto) -> None:
    """Make every float of a graph float64, in place."""
    for tensor in graph.initializer:
        if tensor.data_type in _FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(_wide(numpy_helper.to_array(tensor)), tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _FLOATS:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _FLOATS:
                wide = _wide(numpy_helper.to_array(attribute.t))
                attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _widen(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = onnx.TensorProto.DOUBLE


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
