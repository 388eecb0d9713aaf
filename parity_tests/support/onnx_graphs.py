"""Small ONNX graphs written as text, run before a pass over them and behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime

Arrays = Mapping[str, np.ndarray[Any, Any]]


def parsed(text: str, opset: int = 18) -> ir.Model:
    """Return the model of a graph, and of functions behind it, in ONNX's own notation."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}, "rnnx" : 1, "local" : 1]>\n'
    return ir.from_proto(onnx.parser.parse_model(head + text))


def weight(model: ir.Model, name: str, array: np.ndarray[Any, Any]) -> None:
    """Give a graph input a value: it is an initializer, and no input, from now on."""
    value = next(value for value in model.graph.inputs if value.name == name)
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(array, name=name)
    model.graph.register_initializer(value)


def results(model: ir.Model, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    """Return the outputs that ONNX Runtime computes, on one thread and without changing the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = ir.to_proto(model)
    for name in [entry.domain for entry in proto.opset_import if entry.domain == "rnnx"]:
        proto.opset_import.remove(next(entry for entry in proto.opset_import if entry.domain == name))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


def kinds(graph: ir.Graph) -> list[str]:
    """Return the operators of a graph in its order, without those inside of them."""
    return [node.op_type for node in graph]


def keeps_values(
    model: ir.Model, run: Callable[[], object], feeds: Arrays, names: Mapping[str, str] | None = None
) -> None:
    """Run a pass over a model, and assert that it computes what it did; inputs may have other names then."""
    before = results(model, feeds)
    run()
    renamed = {(names or {}).get(name, name): value for name, value in feeds.items()}
    after = results(model, renamed)
    assert len(after) == len(before)
    for got, expected in zip(after, before, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def normal(*sizes: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(sizes)).standard_normal(sizes).astype(np.float32)
