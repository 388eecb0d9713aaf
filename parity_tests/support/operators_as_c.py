"""Graphs of a few ONNX operators, run as C and as they should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import rnnx
from rnnx.model.contract import Contract, InputSpec, OutputSpec
from rnnx.model.onnx_file import write_contract

Array = np.ndarray[Any, Any]
KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
KINDS |= {np.dtype(np.float64): TensorProto.DOUBLE, np.dtype(bool): TensorProto.BOOL}
KINDS[np.dtype(np.uint8)] = TensorProto.UINT8


def node(operator: str, takes: Sequence[str], gives: str | Sequence[str] = "", **attributes: Any) -> Any:
    names = [gives or operator] if isinstance(gives, str) else list(gives)
    return helper.make_node(operator, takes, names, name=f"n/{names[0]}", **attributes)


def check(
    nodes: Sequence[Any],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array] | None = None,
    *,
    runtime: bool = False,
    tolerance: float = 2e-6,
) -> None:
    """Run a graph of these nodes as C and as it should be; each node's results are outputs."""
    names = [name for each in nodes for name in each.output if name]
    takes = [
        helper.make_tensor_value_info(name, KINDS[array.dtype], array.shape) for name, array in inputs.items()
    ]
    gives = [helper.make_empty_tensor_value_info(name) for name in names]
    weights = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]

    def made(outputs: list[Any]) -> Any:
        graph = helper.make_graph(nodes, "g", takes, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    if runtime:
        session = onnxruntime.InferenceSession(made(gives).SerializeToString())
        expected = session.run(names, dict(inputs))
    else:
        with np.errstate(all="ignore"):
            expected = ReferenceEvaluator(made(gives)).run(names, dict(inputs))
    arrays = [np.asarray(array) for array in expected]
    exact = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    contract = Contract(
        inputs=[InputSpec(name=n, dtype=a.dtype.name, shape=list(a.shape)) for n, a in inputs.items()],
        outputs=[
            OutputSpec(name=n, dtype=a.dtype.name, shape=list(a.shape))
            for n, a in zip(names, arrays, strict=True)
        ],
        states=[],
    )
    model = write_contract(made(exact).SerializeToString(), contract)
    got = rnnx.load(model, "native").stream().step(dict(inputs))
    for name, array in zip(names, arrays, strict=True):
        np.testing.assert_allclose(got[name], array, tolerance, tolerance, err_msg=name)


def real(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0, kind: str = "f4") -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(kind)
