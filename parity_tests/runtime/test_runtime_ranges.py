"""Integers outside the range of their input are refused everywhere; what is drawn for tests lies in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import Result

import rnnx
from cases import onnx_models
from rnnx.engines.registry import availability
from rnnx.errors import InputError, ModelError
from rnnx.model.contract import Contract, InputSpec, OutputSpec, check, from_json, to_json
from rnnx.model.index_ranges import bounds_of
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.model.shapes import Array
from rnnx.parity.lazy_inputs import KINDS, drawn_inputs
from rnnx.parity.random_inputs import random_inputs
from rnnx.runtime.input_buffers import is_within, wrong_value
from rnnx_native.program.ports import signature
from support.replay_programs import GOLDEN

PROVIDERS = [name for name in ("cpu", "native") if availability()[name] is None]
MODEL = GOLDEN / "ids.onnx"  # token int64 in 0..36, shift int8 in -3..3, level float32 in 0.25..1
# What is given, and how the text begins after "expected ": the index has one number more in a chunk.
BAD = [
    ({"token": [0, 37]}, "values in 0..36 in 'token'; found 37 at index [1"),
    ({"token": [-1, 0]}, "values in 0..36 in 'token'; found -1 at index [0"),
    ({"token": [0, 2**62]}, "values in 0..36 in 'token'; found 4611686018427387904 at index [1"),
    ({"shift": [3, 4]}, "values in -3..3 in 'shift'; found 4 at index [1"),
    ({"shift": [-4, 0]}, "values in -3..3 in 'shift'; found -4 at index [0"),
]


def feed(**changes: Any) -> dict[str, Array]:
    values = {"token": [0, 36], "shift": [-3, 3], "level": [0.5, 9]} | changes
    dtypes = {"token": np.int64, "shift": np.int8, "level": np.float32}
    return {name: np.asarray(value, dtypes[name]) for name, value in values.items()}


def row(values: dict[str, Array], index: int) -> dict[str, Array]:
    return {name: value[index : index + 1] for name, value in values.items()}


def refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.code == "value-range"
    assert str(caught.value).startswith(f"expected {text}")
    assert caught.value.fix == "give values in the range that the model was exported for"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("changes", "text"), BAD)
def test_streams_refuse_it_in_steps_and_chunks(
    provider: str, check: bool, changes: dict[str, Any], text: str
) -> None:
    stream = rnnx.load(MODEL, provider).stream(batch=2, check=check)
    for _ in range(2):  # the second time goes a shorter way
        refused(lambda: stream.step(feed(**changes)), text)
        assert stream.position == 0
        y = stream.step(feed())["y"]
        assert np.isfinite(y).all()
        stream.reset()
    chunk = feed(**changes)
    chunk["token"] = np.repeat(chunk["token"][:, None], 3, 1)
    refused(lambda: stream.run(chunk), text)
    assert stream.position == 0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("changes", "text"), BAD)
def test_pools_refuse_it_and_say_of_which_stream(provider: str, changes: dict[str, Any], text: str) -> None:
    pool = rnnx.load(MODEL, provider).pool()
    streams, values = [pool.open(), pool.open()], feed(**changes)
    good = {stream: row(feed(), index) for index, stream in enumerate(streams)}
    bad = {stream: row(values, index) for index, stream in enumerate(streams)}
    wrong = streams["[1" in text]
    whole = {stream: part | {"token": part["token"][:, None]} for stream, part in bad.items()}
    for call, given in ((pool.step, bad), (pool.step, bad), (pool.run, whole)):
        with pytest.raises(InputError, match=f"in the input of stream {wrong};") as caught:
            call(given)
        assert caught.value.code == "value-range"
        assert str(caught.value).startswith(f"expected {text.split(' at index')[0]} at index [0")
        pool.step(good)


def test_the_bounds_of_every_integer_dtype_hold() -> None:
    for dtype, bounds in (
        ("int8", (-128, 127)),
        ("uint8", (0, 255)),
        ("uint8", (3, 255)),
        ("int16", (-5, 5)),
        ("uint64", (0, 2**53 - 1)),
        ("int64", (-(2**53) + 1, 2**53 - 1)),
    ):
        spec = InputSpec(name="x", dtype=dtype, shape=["batch"], range=bounds)
        contract = Contract(inputs=[spec], outputs=[], states=[])
        check(contract)
        found = bounds_of(contract, spec)
        assert found is not None
        holds, limits = is_within(found), np.iinfo(dtype)
        for values in ([bounds[0]], [bounds[1]], list(bounds)):
            assert holds(np.array(values, dtype))
        for value in (bounds[0] - 1, bounds[1] + 1, limits.min, limits.max):
            if limits.min <= value <= limits.max and not bounds[0] <= value <= bounds[1]:
                for values in ([value], [bounds[0], value]):
                    assert not holds(np.array(values, dtype)), (dtype, bounds, value)
                    assert f"found {value} " in str(wrong_value(spec, np.array(values, dtype), found))


def with_ranges(data: bytes, **changes: dict[str, Any]) -> bytes:
    """Return a model with fields of inputs replaced in its contract."""
    contract = read_contract(read_model(data))
    inputs = [msgspec.structs.replace(spec, **changes.get(spec.name, {})) for spec in contract.inputs]
    return write_contract(data, msgspec.structs.replace(contract, inputs=inputs))


def test_a_step_model_refuses_it_in_the_middle_of_a_chunk() -> None:
    session = rnnx.load(with_ranges(onnx_models.accumulator(), x={"range": (-2, 5)}))
    stream = session.stream(batch=2)
    refused(lambda: stream.run([[1, 5, -3], [0, 0, 0]]), "values in -2..5 in 'x'; found -3 at index [0, 2]")
    assert stream.position == 0
    stream.run([[1, 5, -2], [0, 0, 0]])
    assert stream.position == 3


def test_what_is_drawn_lies_in_the_range_and_fills_it() -> None:
    contract = read_contract(read_model(MODEL))
    for kind in KINDS:
        drawn = drawn_inputs(contract, steps=600, sizes={"batch": 3}, seed=1, kind=kind)
        token = np.asarray(drawn["token"])
        assert set(np.unique(token)) == set(range(37))
        assert np.bincount(token.reshape(-1)).max() < 2 * token.size / 37
        assert -3 <= drawn["shift"].min() <= drawn["shift"].max() <= 3
        assert 0.25 <= drawn["level"].min() < drawn["level"].max() <= 1
    shifts = random_inputs(contract, steps=1, sizes={"batch": 500})["shift"]
    assert set(np.unique(shifts)) == set(range(-3, 4))
    levels = random_inputs(contract, steps=1, sizes={"batch": 500})["level"]
    assert 0.25 <= levels.min() < 0.3 < 0.95 < levels.max() <= 1


def test_optional_inputs_stay_near_their_default_and_in_their_range() -> None:
    def drawn(dtype: Any, default: float, bounds: Any) -> Array:
        spec = InputSpec(name="x", dtype=dtype, shape=["batch"], default=default, range=bounds)
        contract = Contract(inputs=[spec], outputs=[], states=[])
        check(contract)
        return random_inputs(contract, steps=1, sizes={"batch": 300})["x"]

    assert set(np.unique(drawn("int64", 2, (2, 90)))) == {2, 3}
    assert set(np.unique(drawn("int64", 7, (2, 90)))) == {6, 7, 8}
    assert set(np.unique(drawn("int64", 7, None))) == {7}
    assert set(np.unique(drawn("uint8", 255, (0, 255)))) == {254, 255}
    levels = drawn("float32", 1, (0, 1))
    assert 0.5 < levels.min() < 0.99
    assert levels.max() == 1
    assert drawn("float32", 1, None).max() > 1


def test_wide_ranges_of_floats_do_not_overflow() -> None:
    spec = InputSpec(name="x", dtype="float64", shape=["batch"], range=(-1.7e308, 1.7e308))
    contract = Contract(inputs=[spec], outputs=[], states=[])
    drawn = random_inputs(contract, steps=1, sizes={"batch": 100})["x"]
    assert np.isfinite(drawn).all()
    assert drawn.min() < -1e307 < 1e307 < drawn.max()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"range": (1, 0)}, "a range of 'x' that is not the least and the largest of int64"),
        ({"range": (0, 10**400)}, "int64"),
        ({"range": (0, 2**53)}, "int64"),
        ({"dtype": "float32", "range": (0, 10**400)}, "float32"),
        ({"dtype": "float32", "range": (float("nan"), 1)}, "float32"),
        ({"dtype": "float32", "range": (0, float("inf"))}, "float32"),
        ({"dtype": "bool", "range": (0, 1)}, "a range of 'x', which takes truth values"),
        ({"role": "length", "range": (0, 1)}, "a range of 'x', which takes lengths"),
        ({"range": (0, 1), "default": 2}, r"initial or default of 'x' does not fit int64\[batch\]"),
        ({"range": (0, 1), "default": 1.4}, None),
        ({"dtype": "float32", "range": (0, 1), "default": 2}, None),
    ],
)
def test_a_range_that_means_nothing_makes_no_contract(changes: dict[str, Any], found: str | None) -> None:
    spec = InputSpec(**{"name": "x", "dtype": "int64", "shape": ["batch"]} | changes)
    contract = Contract(inputs=[spec], outputs=[OutputSpec(name="y", dtype="int64", shape=[])], states=[])
    if found is None:
        check(contract)
        return
    with pytest.raises(ModelError, match=found) as caught:
        check(contract)
    assert caught.value.code == "contract-invalid"


def test_a_contract_without_ranges_does_not_mention_them() -> None:
    contract = read_contract(read_model(GOLDEN / "gru.onnx"))
    assert "range" not in to_json(contract)
    contract = read_contract(read_model(MODEL))
    assert '"range":[0,36]' in to_json(contract)
    assert '"range":[0.25,1]' in to_json(contract)
    assert from_json(to_json(contract)) == contract


def test_inspect_shows_ranges_as_specs_have_them(command: Callable[..., Result]) -> None:
    shown = command("inspect", MODEL).stdout
    assert "token  int64[batch, time] in 0..36\n" in shown
    assert "shift  int8[batch] in -3..3\n" in shown
    assert "level  float32[batch] in 0.25..1\n" in shown


def test_the_header_of_compiled_c_shows_ranges_beside_the_inputs() -> None:
    contract = read_contract(read_model(MODEL))
    ports = signature(contract, {"batch": 1}, {}).inputs
    assert [port.remark for port in ports] == [" in 0..36", " in -3..3", " in 0.25..1"]
