"""An ONNX file as the compiler sees it: nodes, constants, subgraphs; float16 read as float32."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from rnnx.errors import ModelError, first_line
from rnnx_native.program.values import Array


@dataclasses.dataclass(frozen=True)
class Node:
    """One ONNX node.

    Attributes:
        op: operator, with its domain where that is not ONNX's own.
        name: of the node; the exporter names nodes after modules.
        module: path of the PyTorch module that it came from, "" if unknown.
        inputs, outputs: names of values, "" for one left out.
        attributes: numbers, texts, arrays; subgraphs as `Graph`.
        version: of the operator: the last operator set in which it changed; 0 for one that is not ONNX's own.
        proto: the node as onnx has it, for folding.
    """

    op: str
    name: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    version: int
    proto: Any


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph, or the body of a Scan.

    Attributes:
        nodes: in an order in which they can run.
        constants: initializers by name.
        learned: names of those that are parameters of the network.
        inputs, outputs: names.
        opset: version of ONNX's own operators.
    """

    nodes: list[Node]
    constants: dict[str, Array]
    learned: frozenset[str]
    inputs: list[str]
    outputs: list[str]
    opset: int


def read_graph(model: Any) -> Graph:
    """Return the graph of an onnx.ModelProto whose weights are all inside.

    Raises:
        ModelError: `cannot-compile` for an operator set that nobody here knows, and a damaged graph.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < 1:
        found = f"operator set {opset}" if opset else "a model that imports none"
        raise _wrong("a version of ONNX's own operators", found)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            "cannot-compile",
            expected=f"an operator set that the package onnx {onnx.__version__} knows, up to {newest}",
            found=f"operator set {opset}",
            fix="install a newer onnx, or run this model with provider cpu",
        )
    return _graph(model.graph, opset)


def _graph(proto: Any, opset: int) -> Graph:
    _require_single_names(proto)
    constants = {tensor.name: _array(tensor) for tensor in proto.initializer}
    learned = frozenset(name for name, array in constants.items() if _is_learned(name, array))
    nodes = [_node(node, index, opset) for index, node in enumerate(proto.node)]
    inputs = [value.name for value in proto.input if value.name not in constants]
    return Graph(nodes, constants, learned, inputs, [value.name for value in proto.output], opset)


def _require_single_names(proto: Any) -> None:
    """Refuse a graph in which two things give one value: which of them is read would be chance."""
    inputs = {value.name for value in proto.input}  # an initializer may be the default of one
    defined = [tensor.name for tensor in proto.initializer if tensor.name not in inputs]
    defined += [value.name for value in proto.input]
    defined += [name for node in proto.node for name in node.output if name]
    twice = next((name for name, count in Counter(defined).items() if count > 1), None)
    if twice is not None:
        raise _wrong("a graph in which each value is defined once", f"{twice!r} twice")


def _array(tensor: Any) -> Array:
    """Return the values of a tensor. Raises ModelError `cannot-compile` where they are none of its shape."""
    try:
        return widened(numpy_helper.to_array(tensor))
    except Exception as error:  # of onnx, ml_dtypes and numpy: ValueError, TypeError, KeyError, ...
        raise _wrong(
            "tensors whose values fit their type and shape", f"{tensor.name!r}: {first_line(error)}"
        ) from error


def _wrong(expected: str, found: str) -> ModelError:
    return ModelError("cannot-compile", expected=expected, found=found, fix="export the model again")


def widened(array: Array) -> Array:
    """Return float16 and bfloat16 as float32, everything else as it is."""
    if array.dtype.name in ("float16", "bfloat16"):
        return array.astype(np.float32)
    return array


def _is_learned(name: str, array: Array) -> bool:
    """Whether a constant is a parameter: floating, and no nameless number like the 1 in `1 - x`."""
    return array.dtype.kind == "f" and (array.ndim > 0 or not name.startswith(("val_", "const_")))


def _node(proto: Any, index: int, opset: int) -> Node:
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}:"
    attributes = {entry.name: _attribute(entry, opset) for entry in proto.attribute}
    name = proto.name or f"{proto.op_type}_{index}"
    module = name.rpartition("/")[0]
    return Node(
        domain + proto.op_type,
        name,
        module,
        tuple(proto.input),
        tuple(proto.output),
        attributes,
        0 if domain else _version(proto.op_type, opset),
        proto,
    )


def _version(operator: str, opset: int) -> int:
    """Return the operator set in which an operator was last changed up to `opset`, 0 where it is unknown."""
    try:
        return int(onnx.defs.get_schema(operator, opset).since_version)
    except (onnx.defs.SchemaError, TypeError):  # a name that is no text
        return 0


def _attribute(entry: Any, opset: int) -> Any:
    try:
        return _attribute_value(entry, opset)
    except (ValueError, TypeError) as error:  # text that is no UTF-8, a type that does not exist
        raise _wrong(
            "attributes with a value of their type", f"{entry.name!r}: {first_line(error)}"
        ) from error


def _attribute_value(entry: Any, opset: int) -> Any:
    value = onnx.helper.get_attribute_value(entry)
    if entry.type == onnx.AttributeProto.GRAPH:
        return _graph(value, opset)
    if entry.type == onnx.AttributeProto.TENSOR:
        return _array(value)
    if entry.type == onnx.AttributeProto.STRING:
        return value.decode()
    if entry.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    if entry.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value
