"""What a stream promises where a network's values are not finite, and where rows have no valid step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import rnnx
from rnnx.formats.snapshot import Snapshot, encode_snapshot
from rnnx.formats.trace_file import read_trace
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.model.shapes import Array

KINDS = ["RNN", "GRU", "LSTM"]
PROVIDERS = ["cpu", "native"]


class Overflowing(nn.Module):
    """A layer over x + (x^2 - x^2): x itself, until x^2 overflows and the difference is no number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        square = x * x
        return self.layer(square - square.abs() + x)[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=KINDS)
def overflowing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    module = Overflowing(request.param)
    path = tmp_path_factory.mktemp(request.param) / "m.onnx"
    rnnx.export(module, path, inputs={"x": "float32[batch, time, 3]"})
    return request.param, module, path


def overflowing_input() -> Array:
    """Return x [3, 6, 3] whose row 1 overflows at step 2; the others stay as they are."""
    x = np.random.default_rng(0).standard_normal((3, 6, 3)).astype(np.float32)
    x[1, 2, 0] = 1e30
    return x


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nan_that_arises_inside_stays_in_its_row(overflowing: Any, provider: str) -> None:
    """Native and RNN keep it as PyTorch does; LSTM and GRU of ONNX Runtime may take it for a number."""
    kind, module, path = overflowing
    x = overflowing_input()
    with torch.no_grad():
        want = module(torch.tensor(x)).numpy()
    assert np.isnan(want[1, 2:]).all()
    assert np.isfinite(want[[0, 2]]).all()
    session = rnnx.load(path, provider=provider)
    stream = session.stream(batch=3)
    (got,) = stream.run(x).values()
    np.testing.assert_allclose(got[[0, 2]], want[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(got[1, :2], want[1, :2], atol=1e-6)
    if provider == "native" or kind == "RNN":
        assert np.isnan(got[1, 2:]).all()
        for state in session.contract.states:
            value = stream.state[state.name]
            assert np.isnan(value[0, 1]).all(), state.name
            assert np.isfinite(value[0, [0, 2]]).all(), state.name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reset_row_has_no_nan_left(overflowing: Any, provider: str) -> None:
    _, module, path = overflowing
    stream = rnnx.load(path, provider=provider).stream(batch=3)
    x = overflowing_input()
    stream.run(x)
    stream.reset(rows=[1])
    with torch.no_grad():
        want = module(torch.tensor(x[1:2, :2])).numpy()
    (got,) = stream.run(x[:, :2]).values()
    np.testing.assert_allclose(got[1:2], want, atol=1e-6)


def running_max(start: str) -> bytes:
    """Return a model whose state is the largest x so far, from `start` on."""

    def info(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])

    nodes = [helper.make_node("Max", ["x", "m.in"], ["m.out"]), helper.make_node("Neg", ["m.out"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x"), info("m.in")], [info("y"), info("m.out")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    shape: list[int | str] = ["batch", 2]
    state = StateSpec(name="m", input="m.in", output="m.out", dtype="float32", shape=shape, initial=start)
    contract = Contract(
        inputs=[InputSpec(name="x", dtype="float32", shape=shape)],
        outputs=[OutputSpec(name="y", dtype="float32", shape=shape)],
        states=[state],
    )
    return write_contract(model.SerializeToString(), contract)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_infinite_states_are_carried_set_and_restored(provider: str) -> None:
    session = rnnx.load(running_max("-inf"), provider=provider)
    stream = session.stream()
    assert np.isneginf(stream.state["m"]).all()
    stream.state["m"] = np.array([[np.inf, -np.inf]], np.float32)
    saved = stream.snapshot()
    other = session.stream()
    other.restore(saved)
    np.testing.assert_array_equal(other.step(np.ones((1, 2), np.float32))["y"], [[-np.inf, -1]])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nan_is_no_state_that_can_be_brought_in(provider: str) -> None:
    session = rnnx.load(running_max("-inf"), provider=provider)
    stream = session.stream()
    nan = np.array([[1, np.nan]], np.float32)
    saved = encode_snapshot(Snapshot(session.id, 3, {"m": nan}))
    calls = {
        "non-finite": lambda: stream.state.update({"m": nan}),
        "snapshot-invalid": lambda: stream.restore(saved),
    }
    for code, call in calls.items():
        with pytest.raises(rnnx.RnnxError, match=r"nan at index \[0, 1\]") as refusal:
            call()
        assert refusal.value.code == code
    with pytest.raises(rnnx.RnnxError, match="nan at index") as refusal:
        session.stream(initial={"m": nan})
    assert refusal.value.code == "non-finite"
    assert (stream.position, np.isneginf(stream.state["m"]).all()) == (0, True)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_state_that_starts_as_nan_is_restored(provider: str) -> None:
    session = rnnx.load(running_max("nan"), provider=provider)
    stream = session.stream()
    saved = stream.snapshot()
    other = session.stream()
    other.restore(saved)
    assert np.isnan(other.state["m"]).all()


class Counted(nn.Module):
    """A layer whose rows end at their lengths."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        found = nn.utils.rnn.pad_packed_sequence(
            self.layer(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return found[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=KINDS)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param) / "m.onnx"
    inputs = {"x": "float32[batch, time, 3]", "lengths": "int64[batch] in 1..time"}
    rnnx.export(Counted(request.param), path, inputs=inputs)
    return path


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_row_without_a_valid_step_keeps_its_state(counted: Path, provider: str) -> None:
    stream = rnnx.load(counted, provider=provider).stream(batch=2)
    x = np.random.default_rng(0).standard_normal((2, 2, 40, 3)).astype(np.float32)
    stream.run({"x": x[0]})
    before = dict(stream.state)
    stream.run({"x": x[1], "lengths": np.array([0, 40])})
    for name, value in before.items():
        np.testing.assert_array_equal(stream.state[name][:, 0], value[:, 0])
        assert (stream.state[name][:, 1] != value[:, 1]).any()


def test_the_trace_shows_an_engine_that_ignores_lengths(counted: Path) -> None:
    """onnx's own reference implementation is one: the trace agrees with cpu, and not with it."""
    file = read_model(counted)
    contract = read_contract(file)
    trace = read_trace(counted.with_name("m.trace.safetensors"), contract, model_id=file.id)
    lengths = trace.inputs["lengths"]
    assert (lengths < trace.steps).any(), "some row ends early"
    x = np.ascontiguousarray(np.moveaxis(trace.inputs["x"], 0, 1))
    feeds = {"x": x, "lengths": lengths} | {
        state.input: trace.states[state.name][0] for state in contract.states
    }
    outputs = [state.output for state in contract.states]
    stream = rnnx.load(counted, provider="cpu").stream(batch=len(lengths))
    stream.run({"x": x, "lengths": lengths})
    ignoring = ReferenceEvaluator(str(counted)).run(outputs, feeds)
    errors: dict[str, list[float]] = {"cpu": [], "reference": []}
    for state, other in zip(contract.states, ignoring, strict=True):
        bound, want = trace.tolerances[f"state.{state.name}"], trace.states[state.name][-1]
        room = bound.absolute + bound.relative * np.abs(want)
        errors["cpu"].append(float((np.abs(stream.state[state.name] - want) / room).max()))
        errors["reference"].append(float((np.abs(other - want) / room).max()))
    assert max(errors["cpu"]) <= 1
    assert min(errors["reference"]) > 100
