"""Tiny ONNX models with contracts, built by hand: every shape a runtime has to handle, without torch.

Each function returns the bytes of one model. Shapes stand in the contracts; the graphs follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec, Vocabulary
from rnnx.model.onnx_file import model_id, write_contract

Nodes = Sequence[onnx.NodeProto]


def build(
    nodes: Nodes, contract: Contract, constants: dict[str, np.ndarray[Any, Any]] | None = None
) -> bytes:
    """Return a model of these nodes whose graph inputs and outputs are those of the contract."""

    def value(name: str, dtype: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    inputs = [value(spec.name, spec.dtype, spec.shape) for spec in contract.inputs]
    inputs += [value(state.input, state.dtype, state.shape) for state in contract.states]
    outputs = [value(spec.name, spec.dtype, spec.shape) for spec in contract.outputs]
    outputs += [value(state.output, state.dtype, state.shape) for state in contract.states]
    weights = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, contract.name, inputs, outputs, weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return seal(model.SerializeToString(), contract)


def seal(data: bytes, contract: Contract) -> bytes:
    """Return the model with `contract` inside, its id filled in."""
    fields = {name: getattr(contract, name) for name in contract.__struct_fields__}
    return write_contract(data, Contract(**{**fields, "id": model_id(data, None)}))


def _weights(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).normal(0, 0.4, shape).astype(dtype)


def lstm(width: int = 8, features: int = 3, dtype: Any = "float32", initial: Any = 0.0) -> bytes:
    """x [batch, time, features] -> y [batch, time, width]; states h and c [1, batch, width]."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["xt", "w", "r", "b", "", "h_in", "c_in"], ["yt", "h_out", "c_out"], hidden_size=width
        ),
        helper.make_node("Squeeze", ["yt", "one"], ["ys"]),
        helper.make_node("Transpose", ["ys"], ["y"], perm=[1, 0, 2]),
    ]
    contract = Contract(
        name="lstm",
        inputs=[InputSpec(name="x", dtype=dtype, shape=["batch", "time", features])],
        outputs=[OutputSpec(name="y", dtype=dtype, shape=["batch", "time", width])],
        states=[
            StateSpec(
                name=f"lstm.{letter}",
                input=f"{letter}_in",
                output=f"{letter}_out",
                dtype=dtype,
                shape=[1, "batch", width],
                initial=initial,
            )
            for letter in "hc"
        ],
    )
    constants = {
        "w": _weights(1, 4 * width, features, dtype=dtype),
        "r": _weights(1, 4 * width, width, dtype=dtype),
        "b": _weights(1, 8 * width, dtype=dtype),
        "one": np.array([1], np.int64),
    }
    return build(nodes, contract, constants)


def gru(width: int = 5, features: int = 2) -> bytes:
    """x [batch, time, features] -> y [batch, time, width]; state h [1, batch, width], start not zero."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(
            "GRU",
            ["xt", "w", "r", "b", "", "h_in"],
            ["yt", "h_out"],
            hidden_size=width,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["yt", "one"], ["ys"]),
        helper.make_node("Transpose", ["ys"], ["y"], perm=[1, 0, 2]),
    ]
    contract = Contract(
        name="gru",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", "time", features])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time", width])],
        states=[
            StateSpec(
                name="h",
                input="h_in",
                output="h_out",
                dtype="float32",
                shape=[1, "batch", width],
                initial=[[[0.1 * index for index in range(width)]]],
            )
        ],
    )
    constants = {
        "w": _weights(1, 3 * width, features),
        "r": _weights(1, 3 * width, width),
        "b": _weights(1, 6 * width),
        "one": np.array([1], np.int64),
    }
    return build(nodes, contract, constants)


def accumulator() -> bytes:
    """x int64[batch, time] -> y int64[batch, time], the running sum; state total int64[batch]."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"]),
        helper.make_node("Unsqueeze", ["total", "axes"], ["start"]),
        helper.make_node("Add", ["sums", "start"], ["y"]),
        helper.make_node("Gather", ["y", "last"], ["total_out"], axis=1),
    ]
    contract = Contract(
        name="accumulator",
        inputs=[InputSpec(name="x", dtype="int64", shape=["batch", "time"])],
        outputs=[OutputSpec(name="y", dtype="int64", shape=["batch", "time"])],
        states=[StateSpec(name="total", input="total", output="total_out", dtype="int64", shape=["batch"])],
    )
    constants = {
        "axis": np.array(1, np.int64),
        "axes": np.array([1], np.int64),
        "last": np.array(-1, np.int64),
    }
    return build(nodes, contract, constants)


def gained() -> bytes:
    """x [batch, time, 3], gain [batch] (default 1), lengths [batch] -> y = running sum of the valid gain * x.

    State total [batch, 3]. `last` [batch, 3] is an output without time: the total after the last step.
    """
    nodes = [
        helper.make_node("Shape", ["x"], ["t"], start=1, end=2),
        helper.make_node("Squeeze", ["t"], ["steps"]),
        helper.make_node("Range", ["zero", "steps", "one"], ["place"]),
        helper.make_node("Unsqueeze", ["lengths", "axes"], ["limit"]),
        helper.make_node("Less", ["place", "limit"], ["valid"]),
        helper.make_node("Cast", ["valid"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["gain", "axes"], ["factor"]),
        helper.make_node("Mul", ["mask", "factor"], ["scale"]),
        helper.make_node("Unsqueeze", ["scale", "two"], ["scale3"]),
        helper.make_node("Mul", ["x", "scale3"], ["scaled"]),
        helper.make_node("CumSum", ["scaled", "one"], ["sums"]),
        helper.make_node("Unsqueeze", ["total", "axes"], ["start"]),
        helper.make_node("Add", ["sums", "start"], ["y"]),
        helper.make_node("Gather", ["y", "minus"], ["total_out"], axis=1),
        helper.make_node("Identity", ["total_out"], ["last"]),
    ]
    contract = Contract(
        name="gained",
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch", "time", 3]),
            InputSpec(name="gain", dtype="float32", shape=["batch"], default=1.0),
            InputSpec(name="lengths", dtype="int64", shape=["batch"], role="length"),
        ],
        outputs=[
            OutputSpec(name="y", dtype="float32", shape=["batch", "time", 3]),
            OutputSpec(name="last", dtype="float32", shape=["batch", 3]),
        ],
        states=[
            StateSpec(name="total", input="total", output="total_out", dtype="float32", shape=["batch", 3])
        ],
    )
    constants = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "minus": np.array(-1, np.int64),
        "axes": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    return build(nodes, contract, constants)


def unbatched() -> bytes:
    """x [time, 2] -> y [time, 2], the running sum; state total [2]."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"]),
        helper.make_node("Add", ["sums", "total"], ["y"]),
        helper.make_node("Gather", ["y", "last"], ["total_out"], axis=0),
    ]
    contract = Contract(
        name="unbatched",
        inputs=[InputSpec(name="x", dtype="float32", shape=["time", 2])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["time", 2])],
        states=[StateSpec(name="total", input="total", output="total_out", dtype="float32", shape=[2])],
    )
    return build(nodes, contract, {"axis": np.array(0, np.int64), "last": np.array(-1, np.int64)})


def running_max() -> bytes:
    """A step model: x [batch, 3] -> y [batch, 3], the largest so far; state top [batch, 3] starts at -inf."""
    nodes = [
        helper.make_node("Max", ["x", "top"], ["top_out"]),
        helper.make_node("Identity", ["top_out"], ["y"]),
    ]
    contract = Contract(
        name="running_max",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", 3])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", 3])],
        states=[
            StateSpec(
                name="top",
                input="top",
                output="top_out",
                dtype="float32",
                shape=["batch", 3],
                initial="-inf",
            )
        ],
    )
    return build(nodes, contract)


def step_scalar() -> bytes:
    """A step model without batch: x [] and decay [] (default 0.5) -> y [] = decay * s + x; state s []."""
    nodes = [
        helper.make_node("Mul", ["decay", "s"], ["kept"]),
        helper.make_node("Add", ["kept", "x"], ["s_out"]),
        helper.make_node("Identity", ["s_out"], ["y"]),
    ]
    contract = Contract(
        name="step_scalar",
        inputs=[
            InputSpec(name="x", dtype="float64", shape=[]),
            InputSpec(name="decay", dtype="float64", shape=[], default=0.5),
        ],
        outputs=[OutputSpec(name="y", dtype="float64", shape=[])],
        states=[StateSpec(name="s", input="s", output="s_out", dtype="float64", shape=[], initial=2.0)],
    )
    return build(nodes, contract)


def hops() -> bytes:
    """x [batch, 4*time] -> y [batch, time] = sum of each hop plus the one before it; state last [batch]."""
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["frames"]),
        helper.make_node("ReduceSum", ["frames", "two"], ["sums"], keepdims=0),
        helper.make_node("Unsqueeze", ["last", "one"], ["first"]),
        helper.make_node("Concat", ["first", "sums"], ["all"], axis=1),
        helper.make_node("Slice", ["all", "zero", "minus", "one"], ["before"]),
        helper.make_node("Add", ["sums", "before"], ["y"]),
        helper.make_node("Gather", ["sums", "end"], ["last_out"], axis=1),
    ]
    contract = Contract(
        name="hops",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", "4*time"])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time"])],
        states=[StateSpec(name="last", input="last", output="last_out", dtype="float32", shape=["batch"])],
    )
    constants = {
        "split": np.array([0, -1, 4], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "minus": np.array([-1], np.int64),
        "end": np.array(-1, np.int64),
    }
    return build(nodes, contract, constants)


def attention(*, stateful: bool = True) -> bytes:
    """x [batch, time, 4], memory [batch, memory, 4] -> y [batch, time, memory].

    Stateful: y the running sums of the scores, state seen [batch, memory]. Else y the scores plus the running
    sum of their means, state seen [batch, 1], so that the memory may change its length from call to call.
    """
    nodes = [
        helper.make_node("Transpose", ["memory"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "keys"], ["scores"]),
        helper.make_node("ReduceMean", ["scores"], ["means"], axes=[2], keepdims=1),
        helper.make_node("CumSum", ["scores" if stateful else "means", "axis"], ["sums"]),
        helper.make_node("Unsqueeze", ["seen", "axes"], ["start"]),
        helper.make_node("Add", ["sums", "start"], ["running"]),
        helper.make_node("Add", ["running", "zero" if stateful else "scores"], ["y"]),
        helper.make_node("Gather", ["running", "last"], ["seen_out"], axis=1),
    ]
    width: int | str = "memory" if stateful else 1
    contract = Contract(
        name="attention",
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch", "time", 4]),
            InputSpec(name="memory", dtype="float32", shape=["batch", "memory", 4]),
        ],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time", "memory"])],
        states=[
            StateSpec(name="seen", input="seen", output="seen_out", dtype="float32", shape=["batch", width])
        ],
    )
    constants = {
        "zero": np.array(0, np.float32),
        "axis": np.array(1, np.int64),
        "axes": np.array([1], np.int64),
        "last": np.array(-1, np.int64),
    }
    return build(nodes, contract, constants)


def symbols(width: int = 16, alphabet: str = "\nabcdefgh é") -> bytes:
    """token int64[batch, time] -> logits [batch, time, n]; state h [1, batch, width]. A GRU over symbols."""
    count = len(alphabet)
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["x"]),
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["xt", "w", "r", "b", "", "h_in"], ["yt", "h_out"], hidden_size=width),
        helper.make_node("Squeeze", ["yt", "one"], ["ys"]),
        helper.make_node("Transpose", ["ys"], ["y"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["y", "v"], ["logits"]),
    ]
    contract = Contract(
        name="symbols",
        inputs=[InputSpec(name="token", dtype="int64", shape=["batch", "time"])],
        outputs=[OutputSpec(name="logits", dtype="float32", shape=["batch", "time", count])],
        states=[
            StateSpec(name="h", input="h_in", output="h_out", dtype="float32", shape=[1, "batch", width])
        ],
        vocabulary=Vocabulary(input="token", output="logits", symbols=list(alphabet)),
    )
    constants = {
        "table": np.eye(count, dtype=np.float32),
        "w": _weights(1, 3 * width, count) * 3,
        "r": _weights(1, 3 * width, width),
        "b": _weights(1, 6 * width),
        "v": _weights(width, count) * 3,
        "one": np.array([1], np.int64),
    }
    return build(nodes, contract, constants)


def masked_steps() -> bytes:
    """A step model with lengths: x [batch], lengths [batch] (0 or 1 a step) -> y [batch], the sum of valid x.

    State total [batch]; state calls [] counts the steps, shared by all rows.
    """
    nodes = [
        helper.make_node("Cast", ["lengths"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "mask"], ["valid"]),
        helper.make_node("Add", ["total", "valid"], ["total_out"]),
        helper.make_node("Identity", ["total_out"], ["y"]),
        helper.make_node("Add", ["calls", "one"], ["calls_out"]),
    ]
    contract = Contract(
        name="masked_steps",
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch"]),
            InputSpec(name="lengths", dtype="int64", shape=["batch"], role="length"),
        ],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch"])],
        states=[
            StateSpec(name="total", input="total", output="total_out", dtype="float32", shape=["batch"]),
            StateSpec(name="calls", input="calls", output="calls_out", dtype="int32", shape=[], initial=0),
        ],
    )
    return build(nodes, contract, {"one": np.array(1, np.int32)})


def backwards() -> bytes:
    """A whole-only model: x [batch, time] -> y [batch, time] = what is still to come; state count [batch]."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["y"], reverse=1),
        helper.make_node("Add", ["count", "one"], ["count_out"]),
    ]
    contract = Contract(
        name="backwards",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", "time"])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time"])],
        states=[StateSpec(name="count", input="count", output="count_out", dtype="float32", shape=["batch"])],
        whole_only="a sum that runs backwards in time",
    )
    return build(nodes, contract, {"axis": np.array(1, np.int64), "one": np.array(1, np.float32)})


STREAMING: dict[str, Callable[[], bytes]] = {
    "lstm": lstm,
    "lstm_half": lambda: lstm(dtype="float16"),
    "gru": gru,
    "accumulator": accumulator,
    "gained": gained,
    "unbatched": unbatched,
    "running_max": running_max,
    "step_scalar": step_scalar,
    "masked_steps": masked_steps,
    "hops": hops,
    "attention": attention,
    "attention_stateless": lambda: attention(stateful=False),
    "symbols": symbols,
}
