"""Nodes whose inputs are all known are computed while compiling, by ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from rnnx_native.onnx_graph.read import Node, widened
from rnnx_native.program.values import Array

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def fold(node: Node, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """Return the outputs of `node` for these inputs, None for one left out.

    Raises:
        NotImplementedError, RuntimeError: where the reference implementation cannot.
    """
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    for attribute in proto.attribute:
        if attribute.name in ("to", "dtype") and attribute.i in _HALVES:
            attribute.i = onnx.TensorProto.FLOAT
    # One value may be passed twice: names by place, so that each input is declared once.
    names = [f"in{index}" if array is not None else "" for index, array in enumerate(inputs)]
    del proto.input[:]
    proto.input.extend(names)
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    wanted = [name for name in proto.output if name]
    graph = helper.make_graph([proto], "fold", declared, [onnx.ValueInfoProto(name=name) for name in wanted])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    results = dict(zip(wanted, ReferenceEvaluator(model).run(None, feeds), strict=True))
    return [widened(np.asarray(results[name])) if name else np.empty(0) for name in proto.output]
