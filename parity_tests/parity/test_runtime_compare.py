"""Parity finds what is wrong, and says where; what is right it lets pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import rnnx
from cases import onnx_models
from rnnx.errors import ParityError, UsageError
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.parity.compare import Comparison, compare_steps
from rnnx.parity.random_inputs import random_inputs
from rnnx.tolerance import Bound, error_beyond, level_of, relative_error

Array = np.ndarray[Any, Any]


class SessionReference:
    """Another session as the reference, stepped from whatever states it is given."""

    name = "another session"
    resumes = True

    def __init__(self, session: rnnx.Session) -> None:
        self.session = session

    def start(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        return dict(self._stream(sizes).state)

    def steps(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        stream = self.session.stream(batch=next(iter(inputs.values())).shape[1])
        stream.state.update(states)
        for rows in zip(*inputs.values(), strict=True):
            yield stream.step(dict(zip(inputs, rows, strict=True))), dict(stream.state)

    def _stream(self, sizes: Mapping[str, int]) -> rnnx.Stream:
        return self.session.stream(batch=sizes["batch"])


def compare(model: bytes, reference: bytes | None = None, steps: int = 12) -> Comparison:
    session = rnnx.load(model)
    sizes = {"batch": 2}
    inputs = random_inputs(session.contract, steps=steps, sizes=sizes, seed=4)
    other = SessionReference(rnnx.load(reference or model))
    return compare_steps(session, other, inputs=inputs, sizes=sizes, seed=4)


def with_contract(data: bytes, **changes: Any) -> bytes:
    contract = read_contract(read_model(data))
    fields = {name: getattr(contract, name) for name in contract.__struct_fields__}
    return write_contract(data, Contract(**{**fields, **changes}))


def tampered_weight(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[1]).copy()
    weights.flat[3] += 0.05
    model.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(weights, model.graph.initializer[1].name)
    )
    return model.SerializeToString()


def swapped_states(data: bytes) -> bytes:
    first, second = read_contract(read_model(data)).states
    pairs = [(first, second.output), (second, first.output)]
    return with_contract(
        data,
        states=[
            type(state)(**{**{n: getattr(state, n) for n in state.__struct_fields__}, "output": output})
            for state, output in pairs
        ],
    )


def dropped_state(data: bytes) -> bytes:
    """The state comes out as it went in: carried on nowhere."""
    model = onnx.load_model_from_string(data)
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "c_out":
                node.output[index] = "c_lost"
    model.graph.node.append(onnx.helper.make_node("Identity", ["c_in"], ["c_out"]))
    return model.SerializeToString()


def wrong_start(data: bytes) -> bytes:
    first, second = read_contract(read_model(data)).states
    fields = {name: getattr(second, name) for name in second.__struct_fields__}
    return with_contract(data, states=[first, type(second)(**{**fields, "initial": 0.001})])


def test_a_model_agrees_with_itself() -> None:
    for make in (onnx_models.lstm, onnx_models.gru, onnx_models.symbols, onnx_models.running_max):
        result = compare(make())
        assert result.agrees, result.failure
        assert set(result.max_errors) == {"start", "fed", "free", "chunks"}
        result.require(reproduce="")


@pytest.mark.parametrize(
    ("spoil", "route", "step"),
    [
        (tampered_weight, "fed", 1),
        (swapped_states, "fed", 0),
        (dropped_state, "fed", 0),
        (wrong_start, "start", 0),
    ],
)
def test_what_is_wrong_is_found(spoil: Any, route: str, step: int) -> None:
    good = onnx_models.lstm()
    result = compare(spoil(good), good)
    assert result.failure is not None
    assert (result.failure.way, result.failure.step) == (route, step)
    assert result.failure.max_error > 1e-4
    with pytest.raises(ParityError, match="'rnnx parity x' shows it again") as caught:
        result.require(reproduce="rnnx parity x")
    assert caught.value.exit_code == 1
    assert f"step {step}" in str(caught.value)


def test_the_report_points_at_the_worst_value() -> None:
    good = onnx_models.lstm()

    class Odd(SessionReference):
        def steps(self, inputs: Any, states: Any) -> Any:
            for step, (outputs, after) in enumerate(super().steps(inputs, states)):
                if step == 7:
                    outputs["y"][1, 5] += 0.5
                yield outputs, after

    session = rnnx.load(good)
    inputs = random_inputs(session.contract, steps=12, sizes={"batch": 2})
    result = compare_steps(session, Odd(session), inputs=inputs, sizes={"batch": 2})
    failure = result.failure
    assert failure is not None
    assert (failure.way, failure.step, failure.tensor, failure.index) == ("fed", 7, "output.y", [1, 5])
    assert failure.expected - failure.got == pytest.approx(0.5)
    assert "step 7, output.y[1, 5] (fed)" in str(failure)
    document = json.loads(result.to_json())
    assert document["agrees"] is False
    assert document["failure"]["index"] == [1, 5]


def test_a_reference_of_another_length_is_refused() -> None:
    session = rnnx.load(onnx_models.lstm())

    class Short(SessionReference):
        def steps(self, inputs: Any, states: Any) -> Any:
            yield from list(super().steps(inputs, states))[:-1]

    inputs = random_inputs(session.contract, steps=4, sizes={"batch": 2})
    with pytest.raises(UsageError) as caught:
        compare_steps(session, Short(session), inputs=inputs, sizes={"batch": 2})
    assert caught.value.code == "reference-steps"


def test_a_reference_of_another_size_is_refused() -> None:
    session = rnnx.load(onnx_models.lstm())

    class Wide(SessionReference):
        def steps(self, inputs: Any, states: Any) -> Any:
            for outputs, after in super().steps(inputs, states):
                yield {"y": np.repeat(outputs["y"], 2, -1)}, after

    inputs = random_inputs(session.contract, steps=4, sizes={"batch": 2})
    with pytest.raises(UsageError, match=r"with output.y of shape \[2, 8\]; found .* size: \[2, 16\]"):
        compare_steps(session, Wide(session), inputs=inputs, sizes={"batch": 2})


@pytest.mark.parametrize("model", [onnx_models.gained, onnx_models.backwards])
def test_a_reference_may_know_whole_sequences_only(model: Any) -> None:
    session = rnnx.load(model())

    class Whole(SessionReference):
        def steps(self, inputs: Any, states: Any) -> Any:
            stream = self.session.stream(batch=2, initial=dict(states))
            chunk = {name: np.moveaxis(v, 0, 1) if name == "x" else v for name, v in inputs.items()}
            results = stream.run(chunk)
            last = inputs["x"].shape[0] - 1
            for step in range(last + 1):
                row = {"y": results["y"][:, step]}
                if step == last and "last" in results:
                    row["last"] = results["last"]
                yield row, dict(stream.state) if step == last else {}

    inputs = random_inputs(session.contract, steps=9, sizes={"batch": 2})
    result = compare_steps(session, Whole(session), inputs=inputs, sizes={"batch": 2})
    assert result.agrees, result.failure
    assert "fed" not in result.max_errors
    assert set(result.max_errors["chunks"]) >= {f"output.{spec.name}" for spec in session.contract.outputs}


def test_json_survives_infinities() -> None:
    result = compare(onnx_models.lstm())
    odd = dataclasses.replace(result, max_errors={"fed": {"output.y": float("inf")}})
    assert json.loads(odd.to_json())["max_errors"]["fed"]["output.y"] == "inf"


def test_errors_are_measured_relative_to_one_plus_expected() -> None:
    bound = Bound(1e-3, 1e-3)
    one = np.array([0.0, 10.0, np.inf, -np.inf, np.nan])
    assert (error_beyond(bound, one, one) <= 0).all()
    assert (error_beyond(bound, one, np.array([2e-3, 10.1, -np.inf, 0, 0])) > 0).all()
    assert (error_beyond(bound, one[:2], np.array([9e-4, 10.01])) <= 0).all()
    assert relative_error(one, one) == 0
    assert relative_error(one[:2], np.array([0, 11.0])) == pytest.approx(1 / 11)
    assert relative_error(one, np.zeros(5)) == np.inf
    whole = np.array([2**60], np.int64)
    assert (error_beyond(bound, whole, whole + 1) > 0).all()
    assert level_of("int64", "cuda").name == "exact"
    assert level_of("float32").step.absolute == 2e-5


def test_random_inputs_are_the_same_for_a_seed_and_fit_the_contract() -> None:
    for make in onnx_models.STREAMING.values():
        session = rnnx.load(make())
        sizes = {"batch": 2 if session.contract.has_batch else 1, "memory": 5}
        one = random_inputs(session.contract, steps=3, sizes=sizes, seed=9)
        two = random_inputs(session.contract, steps=3, sizes=sizes, seed=9)
        assert all((one[name] == two[name]).all() for name in one)
        other = random_inputs(session.contract, steps=3, sizes=sizes, seed=10)
        assert any((one[name] != other[name]).any() for name in one)
