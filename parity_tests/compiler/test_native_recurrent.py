"""Recurrent nodes that are not as an exporter writes them: refused, or the same in native and cpu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import rnnx
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.onnx_file import write_contract
from rnnx_native.compile import compile_model

UNITS, FEATURES = 3, 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
GUARDS = ["none", "where", "moved"]


def weights(kind: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    gates = GATES[kind]
    shapes = {
        "W": (1, gates * UNITS, FEATURES),
        "R": (1, gates * UNITS, UNITS),
        "B": (1, 2 * gates * UNITS),
    }
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def model(
    kind: str, *, guard: str = "none", lengths: str = "length", constants: dict[str, np.ndarray] | None = None
) -> bytes:
    """Return a layer with lengths as a model: x [time, batch, features] -> y, states h and c.

    Args:
        kind: operator.
        guard: what stands between final state and next state: "none", "where", or "moved" for moves alone.
        lengths: "length" for an input with that role, "plain" for one without, "" for none.
        constants: instead of the weights, and `start` instead of the state's input.
    """
    held = {"axis": np.array([1]), "zero": np.array(0, np.int32), **weights(kind), **(constants or {})}
    cells = ["h", "c"][: 2 if kind == "LSTM" else 1]
    starts = ["start" if "start" in held else f"{name}.in" for name in cells]
    nodes = []
    if lengths:
        nodes.append(helper.make_node("Cast", ["lengths"], ["count"], to=TensorProto.INT32))
    ends = [f"{name}.end" for name in cells]
    inputs = ["x", "W", "R", "B", "count" if lengths else "", *starts]
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes.append(helper.make_node(kind, inputs, ["all", *ends], hidden_size=UNITS, **attributes))
    nodes.append(helper.make_node("Squeeze", ["all", "axis"], ["y"]))
    if guard == "where":
        nodes.append(helper.make_node("Equal", ["count", "zero"], ["empty"]))
        nodes.append(helper.make_node("Unsqueeze", ["empty", "axis"], ["column"]))
    for name in cells:
        given = [f"{name}.end"]
        if guard == "where":
            nodes.append(helper.make_node("Where", ["column", f"{name}.in", f"{name}.end"], [f"{name}.out"]))
            continue
        if guard == "moved":
            nodes.append(helper.make_node("Transpose", given, [f"{name}.turned"], perm=[1, 0, 2]))
            nodes.append(helper.make_node("Transpose", [f"{name}.turned"], [f"{name}.back"], perm=[1, 0, 2]))
            given = [f"{name}.back"]
        nodes.append(helper.make_node("Identity", given, [f"{name}.out"]))

    def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    takes = [info("x", ["time", "batch", FEATURES])]
    takes += [info("lengths", ["batch"], TensorProto.INT64)] if lengths else []
    takes += [info(f"{name}.in", [1, "batch", UNITS]) for name in cells]
    gives = [info("y", ["time", "batch", UNITS])]
    gives += [info(f"{name}.out", [1, "batch", UNITS]) for name in cells]
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "g", takes, gives, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    role = "length" if lengths == "length" else None
    specs = [InputSpec(name="x", dtype="float32", shape=["time", "batch", FEATURES])]
    if lengths:
        specs.append(InputSpec(name="lengths", dtype="int64", shape=["batch"], role=role))
    contract = Contract(
        inputs=specs,
        outputs=[OutputSpec(name="y", dtype="float32", shape=["time", "batch", UNITS])],
        states=[
            StateSpec(
                name=name,
                input=f"{name}.in",
                output=f"{name}.out",
                dtype="float32",
                shape=[1, "batch", UNITS],
                initial=0.25,
            )
            for name in cells
        ],
    )
    return write_contract(made.SerializeToString(), contract)


def given(time: int, batch: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((time, batch, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("provider", ["cpu", "native"])
def test_a_row_of_length_0_keeps_its_states(kind: str, provider: str) -> None:
    """Also where other rows go on for longer than native computes at once."""
    session = rnnx.load(model(kind, guard="where"), provider=provider)
    names = [state.name for state in session.contract.states]
    stream = session.stream(batch=4)
    lengths = np.array([0, 40, 3, 20])
    x = given(40, 4)
    stream.run({"x": x, "lengths": lengths})
    for name in names:
        assert (stream.state[name][0, 0] == 0.25).all(), "bit for bit"
    for row in (1, 2, 3):
        alone = session.stream()
        for step in range(lengths[row]):
            alone.step({"x": x[step, row : row + 1]})
        for name in names:
            np.testing.assert_allclose(stream.state[name][0, row], alone.state[name][0, 0], atol=1e-6)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("guard", ["none", "moved"])
@pytest.mark.parametrize("provider", ["cpu", "native"])
def test_a_graph_that_loses_those_states_is_refused_where_it_is_read(
    kind: str, guard: str, provider: str
) -> None:
    with pytest.raises(rnnx.RnnxError, match="a row of length 0 keeps state 'h'") as refusal:
        rnnx.load(model(kind, guard=guard), provider=provider)
    assert refusal.value.code == "contract-graph"


@pytest.mark.parametrize("kind", GATES)
def test_lengths_that_are_no_lengths_are_left_to_cpu(kind: str, tmp_path: Path) -> None:
    data = model(kind, lengths="plain")
    assert rnnx.load(data, provider="cpu").contract.inputs[1].role is None
    (tmp_path / "m.onnx").write_bytes(data)
    for call in (
        lambda: rnnx.load(data, provider="native"),
        lambda: compile_model(tmp_path / "m.onnx", tmp_path / "c"),
    ):
        with pytest.raises(rnnx.RnnxError, match="no input with the role of a length") as refusal:
            call()
        assert refusal.value.code == "cannot-compile"


SHAPES = {
    "initial_h": {"start": np.zeros((1, 1, UNITS), np.float32)},
    "W": {"W": np.zeros((1, 12, FEATURES - 1), np.float32)},
    "R": {"R": np.zeros((1, 16, UNITS), np.float32)},
    "R ": {"R": np.zeros((12, UNITS), np.float32)},
    "B": {"B": np.zeros((1, 12), np.float32)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_the_operator_does_not_take_are_refused(name: str) -> None:
    """A start for one row would be read beyond its end by a call of four."""
    data = model("LSTM", lengths="", constants=SHAPES[name])
    with pytest.raises(rnnx.RnnxError, match=f"LSTM in node .*: {name.strip()} of shape") as refusal:
        rnnx.load(data, provider="native")
    assert refusal.value.code == "cannot-compile"


def test_a_start_of_one_row_is_refused_by_cpu_too() -> None:
    session = rnnx.load(model("LSTM", lengths="", constants=SHAPES["initial_h"]), provider="cpu")
    with pytest.raises(rnnx.RnnxError) as refusal:
        session.stream(batch=4).run({"x": given(2, 4)})
    assert refusal.value.code == "engine-failed"
