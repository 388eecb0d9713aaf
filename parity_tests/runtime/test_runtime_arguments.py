"""Public functions given what makes no sense: an error with a code, or a TypeError that says what to give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rnnx
from cases import onnx_models
from rnnx.errors import InputError, RnnxError
from rnnx.parity.check import make_request
from rnnx.sequences import run_sequences
from rnnx.testing import assert_parity

LSTM, POET = rnnx.load(onnx_models.lstm()), rnnx.load(onnx_models.symbols())
FRAME = np.ones((1, 3), np.float32)
HUGE = 10**12
# None of these is a number, a name, a dict or bytes.
STRANGE: list[Any] = [3.5, True, [1], object(), np.zeros(3), torch.zeros(3), np.array(None), ...]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(3, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    rnnx.export(Net(), path, inputs={"x": "float32[batch, time, 3]"})
    return path


NUMBERS: dict[str, tuple[Callable[[Any], object], str]] = {
    "batch": (lambda n: LSTM.stream(batch=n), "empty-batch"),
    "capacity": (lambda n: LSTM.pool(capacity=n), "wrong-capacity"),
    "dimension": (lambda n: rnnx.load(onnx_models.attention()).stream(dims={"memory": n}), "wrong-dimension"),
    "row": (lambda n: LSTM.stream(batch=4).reset([n]), "row-range"),
    "length": (lambda n: rnnx.generate(POET, "a", n), "length-invalid"),
    "seed": (lambda n: rnnx.generate(POET, "a", 1, seed=n), "seed-invalid"),
    "chunk": (lambda n: run_sequences(LSTM, [], chunk=n), "chunk-invalid"),
    "sequences at a time": (lambda n: run_sequences(LSTM, [], capacity=n), "wrong-capacity"),
    "stream of a pool": (lambda n: LSTM.pool().reset(n), "stream-closed"),
}


@pytest.mark.parametrize("value", [-1, "3", *STRANGE], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_such_number_is_refused_by_code(name: str, value: Any) -> None:
    call, code = NUMBERS[name]
    with pytest.raises(RnnxError) as caught:
        call(value)
    assert caught.value.code == code
    assert len(str(caught.value)) < 200


def test_numbers_of_numpy_and_pytorch_are_numbers() -> None:
    for two in (np.int64(2), np.uint8(2), torch.tensor(2)):
        stream = LSTM.stream(batch=two)  # type: ignore[arg-type]
        assert (type(stream.batch), stream.batch) == (int, 2)
        stream.reset([two - 1])
    pool = LSTM.pool()
    for stale in (-1, 10**9):  # closing what is closed, or never was there, is fine
        pool.close(stale)
    for strange in ("3", None, [1]):
        with pytest.raises(rnnx.StreamError, match="streams that are open"):
            pool.close(strange)  # type: ignore[arg-type]
    mask = np.array([True, False])  # which rows, perhaps: as numbers it would mean rows 1 and 0
    with pytest.raises(rnnx.InputError, match=r"rows in 0\.\.1; found a bool"):
        LSTM.stream(batch=2).reset(mask)  # type: ignore[arg-type]


def test_providers_settings_and_temperatures_are_refused_by_code() -> None:
    for value in (None, *STRANGE):
        with pytest.raises(rnnx.ProviderError, match="a provider out of cpu"):
            rnnx.load(onnx_models.lstm(), value)
        if value is not None and not isinstance(value, float):
            with pytest.raises(rnnx.UsageError, match="a finite temperature"):
                rnnx.generate(POET, "a", 1, temperature=value)
        with pytest.raises(rnnx.InputError) as caught:
            LSTM.stream().step(FRAME, out=value if value is not None else 3)
        assert caught.value.code == "wrong-out"


DICTS: dict[str, Callable[[Any], object]] = {
    "options": lambda value: rnnx.load(onnx_models.lstm(), options=value),
    "dims": lambda value: LSTM.stream(dims=value),
    "dims of a pool": lambda value: LSTM.pool(dims=value),
    "initial": lambda value: LSTM.stream(initial=value),
    "initial of a pool": lambda value: LSTM.pool(initial=value),
    "initial of a pool's stream": lambda value: LSTM.pool().open(initial=value),
}


@pytest.mark.parametrize("value", [0, "", b"", [], *STRANGE], ids=lambda value: type(value).__name__)
def test_what_is_no_dict_is_a_type_error_that_says_so(value: Any, model: Path) -> None:
    for name, call in DICTS.items():
        with pytest.raises(TypeError, match=f"^{name.split()[0]} must be a dict of "):
            call(value)
    for name in ("dims", "inputs_spec", "state", "constants"):
        with pytest.raises(TypeError, match=f"^{name} must be a dict of "):
            assert_parity(model, Net(), **{name: value})


@pytest.mark.parametrize("value", [0, "text", *STRANGE], ids=lambda value: type(value).__name__)
def test_other_things_of_the_wrong_kind_are_type_errors_that_say_so(value: Any) -> None:
    stream, pool = LSTM.stream(), LSTM.pool()
    a = pool.open()
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: stream.restore(value), "a snapshot must be the bytes"),
        (lambda: pool.restore(a, value), "a snapshot must be the bytes"),
        (lambda: pool.open(snapshot=value), "a snapshot must be the bytes"),
        (lambda: stream.snapshot(sampling=value), "sampling must be a rnnx.formats.snapshot.Sampling"),
        (lambda: rnnx.generate(value, "a", 1), "session must be what rnnx.load returns"),
        (lambda: run_sequences(value, []), "session must be what rnnx.load returns"),
        (lambda: run_sequences(LSTM, 3), "sequences must be pairs"),  # type: ignore[arg-type]
        (lambda: list(run_sequences(LSTM, [value])), "each of sequences must be a name and inputs"),
    ]
    if not isinstance(value, str):
        calls.append((lambda: rnnx.generate(POET, value, 1), "the prompt must be text"))
    for call, told in calls:
        with pytest.raises(TypeError, match=f"^{told}"):
            call()
    assert (stream.position, pool.streams) == (0, (a,))
    for empty in (bytearray(stream.snapshot()), memoryview(stream.snapshot())):
        stream.restore(empty)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [HUGE, 1 << 70])
def test_sizes_that_no_memory_has_are_refused(size: int, model: Path) -> None:
    attention = rnnx.load(onnx_models.attention())
    calls: dict[str, Callable[[], object]] = {
        f"batch {size}": lambda: LSTM.stream(batch=size),
        f"memory {size}": lambda: attention.stream(dims={"memory": size}),
        f"capacity {size}": lambda: LSTM.pool(capacity=size),
        f"memory {size}, batch 1, capacity 64": lambda: attention.pool(dims={"memory": size}),
        f"batch {size} ": lambda: assert_parity(model, Net(), steps=2, batch=size),
    }
    for told, call in calls.items():
        with pytest.raises(rnnx.InputError, match=told.strip()) as caught:
            call()
        assert caught.value.code == "out-of-memory"


def test_parity_is_asserted_of_arguments_that_make_sense(model: Path) -> None:
    for wrong, code in (
        ({"steps": 0}, "empty-time"),
        ({"steps": 1.5}, "empty-time"),
        ({"batch": -1}, "empty-batch"),
        ({"batch": 0}, "empty-batch"),
        ({"seed": -1}, "seed-invalid"),
        ({"dims": {"memory": 3}}, "unknown-dimension"),
        ({"inputs": "x"}, "wrong-dtype"),
        ({"inputs": {"z": FRAME}}, "unknown-input"),
        ({"inputs": FRAME}, "wrong-shape"),
        ({"method": 3}, "unknown-method"),
        ({"method": "training"}, "unknown-method"),
    ):
        with pytest.raises(RnnxError) as caught:
            assert_parity(model, Net(), **{"steps": 2, **wrong})  # type: ignore[arg-type]
        assert caught.value.code == code
    for network in (None, Net, "net.py:Net"):
        with pytest.raises(RnnxError) as caught:
            assert_parity(model, network, steps=2)
        assert caught.value.code == "not-a-module"


def test_recorded_inputs_may_be_arrays_tensors_and_lists(model: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    kept: list[Any] = [x, torch.from_numpy(x), x.tolist(), {"x": x}, {"x": torch.from_numpy(x)}]
    for inputs in kept:
        found = assert_parity(model, Net(), inputs=inputs)
        assert (found.steps, found.batch, found.inputs) == (5, 2, "recorded")
    first = LSTM.stream(batch=2).run(x)["y"]
    for inputs in kept[1:3]:
        assert (LSTM.stream(batch=2).run(inputs)["y"] == first).all()


def test_recorded_inputs_hold_what_a_stream_takes(model: Path) -> None:
    """Else a trace would be recorded that nothing can replay."""
    x = np.zeros((2, 5, 3), np.float32)
    x[1, 2, 0] = np.inf
    masked = np.ma.masked_invalid(x)
    for inputs, code, found in (
        (x, "non-finite", "inf at index [1, 2, 0]"),
        (masked, "wrong-dtype", "an array with masked elements"),
    ):
        with pytest.raises(InputError) as caught:
            assert_parity(model, Net(), inputs=inputs)
        assert (caught.value.code, caught.value.found) == (code, found)
        with pytest.raises(InputError) as caught:
            LSTM.stream(batch=2).run(inputs)
        assert (caught.value.code, caught.value.found) == (code, found)
    ids = len(POET.contract.vocabulary.symbols)  # type: ignore[union-attr]
    with pytest.raises(InputError) as caught:
        make_request(POET.contract, steps=1, recorded=np.array([[0, 1, ids, 0]]))
    assert (caught.value.code, caught.value.found) == ("symbol-range", f"{ids} at index [0, 2]")
    whole = np.ma.array(np.zeros((2, 5, 3), np.float32), mask=False)
    assert_parity(model, Net(), inputs=whole)


def test_an_export_is_asked_for_with_arguments_that_make_sense(tmp_path: Path) -> None:
    def export(**wrong: Any) -> None:
        rnnx.export(Net(), tmp_path / "n.onnx", **{"inputs": {"x": "float32[batch, time, 3]"}, **wrong})

    for name, code in (
        ("opset", "bad-opset"),
        ("steps_per_second", "bad-rate"),
        ("vocabulary", "bad-vocabulary"),
    ):
        for value in ("12", True, object(), np.zeros(3), torch.zeros(3), []):
            with pytest.raises(rnnx.UsageError) as caught:
                export(**{name: value})
            assert caught.value.code == code
    for symbols, told in (
        (["a"] * 2, "each once"),
        (["ab", "c"], "each once"),
        (["a", "b"], "'x' as float32"),
    ):
        with pytest.raises(rnnx.UsageError, match=told):
            export(vocabulary=symbols)
    for name in ("inputs", "state", "constants", "user"):
        with pytest.raises(TypeError, match=f"^{name} must be a dict of "):
            export(**{name: 3})
    with pytest.raises(TypeError, match=r"^name must be text"):
        export(name=3)
    assert list(tmp_path.iterdir()) == []
