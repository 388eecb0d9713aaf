"""Models for pools, inputs for one stream of any model, and when a stream in a pool agrees with one alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

import rnnx
from cases import onnx_models
from cases.onnx_models import build
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.shapes import chunk_shape, from_steps, has_steps
from rnnx.parity.random_inputs import random_inputs
from rnnx.tolerance import error_beyond, pooled_level_of

Array = np.ndarray[Any, Any]


def two_layers(width: int = 6, features: int = 3) -> bytes:
    """x [time, batch, features] -> y [time, batch, width]; states h and c [2, batch, width]."""
    random = np.random.default_rng(0)
    nodes = []
    constants = {"one": np.array([1], np.int64)}
    source = "x"
    for letter in "hc":
        nodes.append(helper.make_node("Split", [f"{letter}_in"], [f"{letter}0", f"{letter}1"], axis=0))
    for layer in range(2):
        size = features if layer == 0 else width
        for name, shape in (("w", (1, 4 * width, size)), ("r", (1, 4 * width, width)), ("b", (1, 8 * width))):
            constants[f"{name}{layer}"] = random.normal(0, 0.4, shape).astype(np.float32)
        nodes.append(
            helper.make_node(
                "LSTM",
                [source, f"w{layer}", f"r{layer}", f"b{layer}", "", f"h{layer}", f"c{layer}"],
                [f"y{layer}", f"h{layer}_out", f"c{layer}_out"],
                hidden_size=width,
            )
        )
        source = f"z{layer}" if layer == 0 else "y"
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "one"], [source]))
    for letter in "hc":
        parts = [f"{letter}0_out", f"{letter}1_out"]
        nodes.append(helper.make_node("Concat", parts, [f"{letter}_out"], axis=0))
    contract = Contract(
        name="two layers",
        inputs=[InputSpec(name="x", dtype="float32", shape=["time", "batch", features])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["time", "batch", width])],
        states=[
            StateSpec(
                name=letter,
                input=f"{letter}_in",
                output=f"{letter}_out",
                dtype="float32",
                shape=[2, "batch", width],
                initial=[[[0.25]], [[-0.5]]],
            )
            for letter in "hc"
        ],
    )
    return build(nodes, contract, constants)


def counted_steps() -> bytes:
    """A step model: x [batch], lengths [batch], scale [] (default 1) -> y [batch], sum of valid x * scale.

    State total [batch] float32, state count int32 [batch]: the steps so far. `scale` is shared by all rows.
    """
    nodes = [
        helper.make_node("Cast", ["lengths"], ["mask"], to=1),
        helper.make_node("Mul", ["x", "mask"], ["valid"]),
        helper.make_node("Mul", ["valid", "scale"], ["scaled"]),
        helper.make_node("Add", ["total", "scaled"], ["total_out"]),
        helper.make_node("Identity", ["total_out"], ["y"]),
        helper.make_node("Add", ["count", "one"], ["count_out"]),
        helper.make_node("Identity", ["count_out"], ["steps"]),
    ]
    contract = Contract(
        name="counted steps",
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch"]),
            InputSpec(name="lengths", dtype="int64", shape=["batch"], role="length"),
            InputSpec(name="scale", dtype="float32", shape=[], default=1.0),
        ],
        outputs=[
            OutputSpec(name="y", dtype="float32", shape=["batch"]),
            OutputSpec(name="steps", dtype="int32", shape=["batch"]),
        ],
        states=[
            StateSpec(name="total", input="total", output="total_out", dtype="float32", shape=["batch"]),
            StateSpec(
                name="count", input="count", output="count_out", dtype="int32", shape=["batch"], initial=0
            ),
        ],
    )
    return build(nodes, contract, {"one": np.array(1, np.int32)})


MODELS = {
    **{
        name: onnx_models.STREAMING[name]
        for name in (
            "lstm",
            "lstm_half",
            "gru",
            "accumulator",
            "gained",
            "running_max",
            "hops",
            "attention",
            "attention_stateless",
            "symbols",
        )
    },
    "two_layers": two_layers,
    "counted_steps": counted_steps,
}
SESSIONS = {name: rnnx.load(make()) for name, make in MODELS.items()}
MEMORY = 5


def dims_of(name: str) -> dict[str, int]:
    """Return what a pool or stream of this model is opened with."""
    return {"memory": MEMORY} if name == "attention" else {}


def inputs_of(
    contract: Contract, random: np.random.Generator, steps: int | None, *, shared: float = 1.0
) -> dict[str, Array]:
    """Return inputs of one stream: of a step, or of a chunk of so many steps; optional ones are there or not.

    Args:
        contract: of the model.
        random: what to draw from.
        steps: None for a step.
        shared: the value of inputs without a batch axis.
    """
    count = 1 if steps is None else steps
    sizes = {"batch": 1, "memory": MEMORY}
    rows = random_inputs(contract, steps=count, sizes=sizes, seed=int(random.integers(1 << 30)))
    found = {}
    for spec in contract.inputs:
        optional = spec.default is not None or spec.role is not None
        if optional and random.random() < 0.5 and "batch" in spec.shape:
            continue
        if spec.role == "length":
            found[spec.name] = random.integers(0, count + 1, (1,))
        elif "batch" not in spec.shape:
            value = np.full((count,) if has_steps(contract, spec) else (), shared, spec.dtype)
            found[spec.name] = value if steps is not None or not has_steps(contract, spec) else value[0]
        elif has_steps(contract, spec):
            chunk = from_steps(rows[spec.name], chunk_shape(contract, spec))
            found[spec.name] = chunk if steps is not None else np.asarray(rows[spec.name][0])
        else:
            found[spec.name] = rows[spec.name]
    return found


def agree(got: dict[str, Array], expected: dict[str, Array]) -> None:
    """Check that a stream of a pool gives what it gives alone: names, shapes, dtypes and values."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert (got[name].shape, got[name].dtype) == (value.shape, value.dtype)
        assert (error_beyond(pooled_level_of(value.dtype).drift, value, got[name]) <= 0).all(), name
