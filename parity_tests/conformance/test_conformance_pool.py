"""Every runtime with many streams as one batch: each gives what it gives alone, and a fault moves none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import rnnx
from rnnx.formats.safetensors_file import encode_tensors
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec, resolve, step_shape
from rnnx.model.onnx_file import write_contract
from rnnx.model.shapes import Array
from support.replay_programs import GOLDEN, TOOLS, run

LANGUAGES = list(TOOLS)
MODELS = ("gru", "half", "counter", "truth", "several", "late", "hops", "ids")
ROUNDS = 7

each_language = pytest.mark.parametrize("language", LANGUAGES)


def rounds_of(place: int) -> int:
    """Return how many rounds the stream at a place takes part in, as docs/conformance.md says."""
    return sum(turn >= place and (turn + place) % 3 != 2 for turn in range(ROUNDS))


def feeds(contract: Contract, count: int) -> list[dict[str, Array]]:
    """Return inputs of one step for each stream; those without a batch axis are the same in all."""
    rng, shared = np.random.default_rng(0), {}
    found = []
    for _ in range(count):
        inputs = {}
        for spec in contract.inputs:
            shape = resolve(step_shape(spec), {"batch": 1, "time": 1, "memory": 5})
            low, high = spec.range or (0, 2)
            if spec.dtype.startswith("float"):
                value = rng.uniform(low, high, shape).astype(spec.dtype)
            else:
                value = rng.integers(int(low), int(high), shape).astype(spec.dtype)
            inputs[spec.name] = value if "batch" in spec.shape else shared.setdefault(spec.name, value)
        found.append(inputs)
    return found


def written(inputs: list[dict[str, Array]], folder: Path) -> str:
    """Write the inputs of each stream to a file; return the names with commas between them."""
    paths = [folder / f"{place}.safetensors" for place in range(len(inputs))]
    for path, tensors in zip(paths, inputs, strict=True):
        path.write_bytes(encode_tensors(tensors, {}))
    return ",".join(map(str, paths))


@each_language
@pytest.mark.parametrize("model", MODELS)
def test_streams_together_give_what_each_gives_alone(language: str, model: str, tmp_path: Path) -> None:
    session = rnnx.load(GOLDEN / f"{model}.onnx")
    inputs = feeds(session.contract, 4)
    said = run(language, f"{model}.onnx", "--together", written(inputs, tmp_path), "--times", str(ROUNDS))
    assert said.code == 0, said.value
    assert len(said.value["streams"]) == 4
    for place, found in enumerate(said.value["streams"]):
        stream = session.stream()
        for _ in range(rounds_of(place)):
            alone = stream.step(inputs[place])
        assert found["outputs"].keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(found["outputs"][name], value.ravel(), rtol=1e-3, atol=1e-3)


def with_gain(path: Path) -> None:
    """Write a model with an input that holds for all rows: sum' = sum + gain x, y = sum'."""
    rows, one = ["batch", 3], TensorProto.FLOAT
    values = {"x": rows, "gain": [], "sum": rows, "y": rows, "sum_out": rows}
    infos = {name: helper.make_tensor_value_info(name, one, shape) for name, shape in values.items()}
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["louder"]),
        helper.make_node("Add", ["sum", "louder"], ["sum_out"]),
        helper.make_node("Identity", ["sum_out"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "gain", [infos[name] for name in ("x", "gain", "sum")], [infos["y"], infos["sum_out"]]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    contract = Contract(
        inputs=[
            InputSpec(name="x", dtype="float32", shape=rows),
            InputSpec(name="gain", dtype="float32", shape=[], default=2.0),
        ],
        outputs=[OutputSpec(name="y", dtype="float32", shape=rows)],
        states=[StateSpec(name="sum", input="sum", output="sum_out", dtype="float32", shape=rows)],
    )
    path.write_bytes(write_contract(model.SerializeToString(), contract))


@each_language
@pytest.mark.parametrize(
    ("gains", "agree"), [((3.0, 3.0), True), ((2.0, None), True), ((3.0, None), False), ((3.0, 4.0), False)]
)
def test_what_holds_for_all_rows_is_the_same_in_all_streams(
    language: str, gains: tuple[float | None, ...], agree: bool, tmp_path: Path
) -> None:
    with_gain(tmp_path / "gain.onnx")
    x = np.ones((1, 3), np.float32)
    inputs = [{"x": x} if gain is None else {"x": x, "gain": np.float32(gain)} for gain in gains]
    inputs = [{name: np.asarray(value) for name, value in each.items()} for each in inputs]
    said = run(language, tmp_path / "gain.onnx", "--together", written(inputs, tmp_path), "--times", "4")
    if agree:  # the first takes part in rounds 0, 1 and 3, the second in 2 and 3
        assert [each["outputs"]["y"][0] for each in said.value["streams"]] == [3 * gains[0], 2 * gains[0]]
    else:
        assert said.value["error"]["code"] == "streams-disagree"
        assert "'gain', which has no batch axis, in all streams of a call" in said.value["error"]["text"]
