"""A node held to the standard before it is lowered: how many inputs, which attributes, types and shapes.

Writers of operators rely on it. All sizes are known here, so that the standard's own inference says of each
node what its results must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from rnnx.engines.node_rules import broken_rule
from rnnx.errors import ModelError, first_line
from rnnx.limits import check_bytes
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.values import Shape, Value
from rnnx_native.refusals import refuse

WITH_GRAPHS = ("Scan", "Loop", "If")  # whose nodes are checked one by one, inside
# Inputs that are shapes, axes and the like are told to the inference; weights say nothing to it.
_TOLD = 64  # elements
_FLOATING = {"tensor(float16)", "tensor(float)", "tensor(double)"}
_WORDS = {"float32": "float", "float64": "double"}  # what the standard calls them


def check_node(node: Node, inputs: Sequence[Value | None], opset: int) -> Mapping[str, Shape]:
    """Return the shapes that a node's results must have by the standard, as far as it says.

    Args:
        node: of ONNX's own operators; of others nothing is known.
        inputs: its values, None for one left out.
        opset: version of the operator set.

    Raises:
        ModelError: `cannot-compile` for a node that breaks a rule.
        InputError: `out-of-memory` for results that are too large.
    """
    proto = node.proto
    if not node.version or node.op in WITH_GRAPHS:
        return {}
    _require_rules(node)
    schema = onnx.defs.get_schema(proto.op_type, opset)
    present = {name: value for name, value in zip(proto.input, inputs, strict=False) if value is not None}
    try:
        onnx.checker.check_node(proto, _context(opset))
        _check_types(schema, proto, present)
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            {
                name: helper.make_tensor_type_proto(_code(value), value.shape)
                for name, value in present.items()
            },
            input_data={
                name: numpy_helper.from_array(value.const)
                for name, value in present.items()
                if value.const is not None and value.const.dtype.kind == "i" and value.size <= _TOLD
            },
            opset_imports=[helper.make_opsetid("", opset)],
        )
    except ModelError:
        raise
    except Exception as error:  # of onnx, and of protobuf for what it cannot hold
        raise refuse(node, f"it breaks a rule of the standard ({first_line(error)})") from error
    shapes = {name: shape for name, kind in found.items() if (shape := _shape(kind)) is not None}
    for name, shape in shapes.items():
        check_entries(name, shape)
    return shapes


def _require_rules(node: Node) -> None:
    """Refuse what ends ONNX Runtime: onnx's inference ends on some of it too, and C need not know it."""
    numbers = {name: value for name, value in node.attributes.items() if isinstance(value, int | float)}
    broken = broken_rule(node.op, node.inputs, node.outputs, numbers)
    if broken is not None:
        raise refuse(node, f"its {broken[1]}")


def check_entries(name: str, shape: Shape) -> None:
    """Refuse a value that takes more than `rnnx.limits` allows. Raises InputError `out-of-memory`."""
    size = 4
    for extent in shape:
        size *= extent
    check_bytes(f"the value {name!r} of shape {list(shape)}", size)


def check_results(node: Node, results: Sequence[Value], expected: Mapping[str, Shape]) -> None:
    """Refuse results of other shapes than the standard says. Raises ModelError `cannot-compile`."""
    for name, value in zip(node.outputs, results, strict=False):
        if name in expected and value.shape != expected[name]:
            said, got = list(expected[name]), list(value.shape)
            raise refuse(
                node, f"its inputs and attributes disagree: {name!r} is {said} by the standard, {got} by them"
            )


def _context(opset: int) -> Any:
    context = onnx.checker.DEFAULT_CONTEXT.__class__()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {"": opset}
    return context


def _code(value: Value) -> int:
    """Return the type to tell the inference: float32 for all floats, since only shapes are asked for."""
    if value.dtype.kind == "f":
        return int(onnx.TensorProto.FLOAT)
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def _check_types(schema: Any, proto: Any, present: Mapping[str, Value]) -> None:
    """Raise ValueError for a type that an input may not have, or that differs where two must be one."""
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    bound: dict[str, str] = {}
    for index, name in enumerate(proto.input):
        if name not in present or not schema.inputs:
            continue
        parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
        dtype = present[name].dtype.name
        word = f"tensor({_WORDS.get(dtype, dtype)})"
        kinds = allowed.get(parameter.type_str, [parameter.type_str])
        floating = present[name].dtype.kind == "f" and _FLOATING & set(kinds)  # float16 is read as float32
        if word not in kinds and not floating:
            raise ValueError(f"input {index} is {word}")
        if parameter.is_homogeneous and bound.setdefault(parameter.type_str, word) != word:
            raise ValueError(f"input {index} is {word}, another is {bound[parameter.type_str]}")


def _shape(kind: Any) -> Shape | None:
    """Return a shape if all of it is known."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    if not all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    return tuple(int(dimension.dim_value) for dimension in tensor.shape.dim)
