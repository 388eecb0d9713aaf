"""The smallest model with memory, the example of docs/contract.md: sum' = 0.5 sum + x, y = sum'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import onnx
from onnx import TensorProto, helper

from rnnx.model.contract import Contract, InputSpec, OutputSpec, Proof, StateSpec
from rnnx.model.onnx_file import model_id, write_contract

Edit = Callable[[Any], object]


def leak_contract(**changes: Any) -> Contract:
    """Return the contract of the leak, with fields replaced."""
    contract = Contract(
        name="leak",
        producer={"rnnx": "0.1.0"},
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", "time", 1])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time", 1])],
        states=[
            StateSpec(
                name="sum", input="sum.in", output="sum.out", dtype="float32", shape=["batch", 1], initial=2.0
            )
        ],
        proof=Proof(reference="torch 2.15.0", tolerance="float32", batches=[1, 3], steps=200, way="scan"),
    )
    return msgspec.structs.replace(contract, **changes)


def leak_graph() -> bytes:
    """Return the ONNX model without a contract: a Scan over time (axis 1 of x and y)."""
    row = ["batch", 1]
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["sum", "half"], ["leaked"]),
            helper.make_node("Add", ["leaked", "x_t"], ["next"]),
            helper.make_node("Identity", ["next"], ["y_t"]),
        ],
        "step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, row) for name in ("sum", "x_t")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, row) for name in ("next", "y_t")],
    )
    scan = helper.make_node(
        "Scan",
        ["sum.in", "x"],
        ["sum.out", "y"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
    )
    graph = helper.make_graph(
        [scan],
        "leak",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 1]),
            helper.make_tensor_value_info("sum.in", TensorProto.FLOAT, row),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", 1]),
            helper.make_tensor_value_info("sum.out", TensorProto.FLOAT, row),
        ],
        [helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def leak_model(contract: Contract | None = None) -> bytes:
    """Return the ONNX model with a contract inside, that of `leak_contract` unless given."""
    graph = leak_graph()
    contract = leak_contract() if contract is None else contract
    if not contract.id:
        contract = msgspec.structs.replace(contract, id=model_id(graph, None))
    return write_contract(graph, contract)


def edited_leak(edit: Edit) -> bytes:
    """Return the example with its graph edited."""
    return edited(leak_model(), edit)


def edited(data: bytes, edit: Edit) -> bytes:
    """Return a model that was edited as protobuf."""
    model = onnx.load_model_from_string(data)
    edit(model)
    return bytes(model.SerializeToString())
