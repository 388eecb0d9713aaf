"""Every malformed feed is refused before it reaches the engine, by code, with what was expected and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnx
from cases import onnx_models
from rnnx.errors import InputError
from rnnx.runtime.chunks import input_sizes

SESSIONS = {name: rnnx.load(make()) for name, make in onnx_models.STREAMING.items()}
OPEN: dict[str, dict[str, Any]] = {
    "lstm": {"batch": 2},
    "gained": {"batch": 2},
    "attention": {"batch": 2, "dims": {"memory": 5}},
    "symbols": {"batch": 2},
    "hops": {"batch": 2},
    "accumulator": {"batch": 2},
    "running_max": {"batch": 2},
    "lstm_half": {"batch": 2},
}


def spoiled(shape: tuple[int, ...], value: float, dtype: str = "f4") -> np.ndarray[Any, Any]:
    array = np.zeros(shape, dtype)
    array[(-1,) * len(shape)] = value
    return array


F4 = np.float32
STEPS: list[tuple[str, Any, str, str]] = [
    ("lstm", {"z": np.zeros((2, 3), F4)}, "unknown-input", "inputs x; found 'z'"),
    ("lstm", {"x": np.zeros((2, 3), F4), "z": 1}, "unknown-input", "'z'"),
    ("lstm", {}, "missing-input", "none for 'x'"),
    ("lstm", None, "missing-input", "'x'"),
    ("lstm", object(), "wrong-dtype", "object"),
    ("lstm", {"x": None}, "missing-input", "'x'"),
    ("attention", np.zeros((2, 4), F4), "missing-input", "x, memory"),
    ("attention", {"x": np.zeros((2, 4), F4)}, "missing-input", "'memory'"),
    ("lstm", np.zeros((2, 3)), "wrong-dtype", "float64"),
    ("lstm", np.zeros((2, 3), "i4"), "wrong-dtype", "int32"),
    ("lstm", np.zeros((2, 3), "c8"), "wrong-dtype", "complex64"),
    ("lstm", np.array([["a"] * 3] * 2), "wrong-dtype", "U1"),
    ("lstm", "abc", "wrong-dtype", "U3"),
    ("lstm", [["a"] * 3] * 2, "wrong-dtype", "U1"),
    ("lstm", [[1, 2, 3], [1, 2]], "wrong-shape", "unequal"),
    ("lstm", [[True] * 3] * 2, "wrong-dtype", "bool"),
    ("accumulator", [1.5, 2.5], "wrong-dtype", "float64"),
    ("accumulator", [2**63, 1], "wrong-dtype", "int64"),
    ("lstm", np.zeros((2, 4), F4), "wrong-shape", r"batch=2, 3.*\[2, 4\]"),
    ("lstm", np.zeros((1, 3), F4), "wrong-shape", r"batch=2, 3.*\[1, 3\]"),
    ("lstm", np.zeros((3,), F4), "wrong-shape", r"\[3\]"),
    ("lstm", np.zeros((2, 1, 3), F4), "wrong-shape", "use run"),
    ("lstm", np.zeros((), F4), "wrong-shape", r"\[\]"),
    ("lstm", np.zeros((0, 3), F4), "empty-batch", r"\[0, 3\]"),
    ("hops", np.zeros((2, 3), F4), "wrong-shape", r"batch=2, 4.*\[2, 3\]"),
    ("hops", np.zeros((2, 8), F4), "wrong-shape", r"\[2, 8\]"),
    ("lstm", spoiled((2, 3), np.nan), "non-finite", r"nan at index \[1, 2\]"),
    ("lstm", spoiled((2, 3), -np.inf), "non-finite", r"-inf at index \[1, 2\]"),
    ("lstm_half", spoiled((2, 3), np.nan, "f2"), "non-finite", r"nan at index \[1, 2\]"),
    ("lstm", [[0, 0, 0], [0, 0, 1e300]], "non-finite", r"inf at index \[1, 2\]"),
    ("running_max", spoiled((2, 3), np.inf), "non-finite", r"inf at index \[1, 2\]"),
    ("symbols", [0, 11], "symbol-range", r"0\.\.10.*11 at index \[1\]"),
    ("symbols", [0, -1], "symbol-range", r"-1 at index \[1\]"),
    ("gained", {"x": np.zeros((2, 3), F4), "lengths": [0, 2]}, "length-range", r"0\.\.1 .*2 at index \[1\]"),
    ("gained", {"x": np.zeros((2, 3), F4), "lengths": [-1, 0]}, "length-range", r"-1 at index \[0\]"),
    ("gained", {"x": np.zeros((2, 3), F4), "gain": [1, np.nan]}, "non-finite", r"'gain'.*index \[1\]"),
    ("gained", {"x": np.zeros((2, 3), F4), "gain": np.zeros((2, 1), F4)}, "wrong-shape", "'gain'"),
    ("attention", {"x": np.zeros((2, 4), F4), "memory": np.zeros((2, 6, 4), F4)}, "wrong-shape", "memory=5"),
    ("attention", {"x": np.zeros((2, 4), F4), "memory": np.zeros((2, 0, 4), F4)}, "wrong-shape", "memory=5"),
]
ONE_ROW: list[tuple[str, Any, str, str]] = [
    ("symbols", [-1], "symbol-range", r"-1 at index \[0\]"),
    ("symbols", [11], "symbol-range", r"11 at index \[0\]"),
    ("lstm", [[0, np.nan, 0]], "non-finite", r"index \[0, 1\]"),
]
CHUNKS: list[tuple[str, Any, str, str]] = [
    ("lstm", np.zeros((2, 0, 3), F4), "empty-time", r"\[2, 0, 3\]"),
    ("lstm", np.zeros((0, 4, 3), F4), "empty-batch", r"\[0, 4, 3\]"),
    ("lstm", np.zeros((2, 3), F4), "wrong-shape", "use step"),
    ("lstm", np.zeros((2, 4, 2), F4), "wrong-shape", r"\[2, 4, 2\]"),
    ("lstm", spoiled((2, 4, 3), np.nan), "non-finite", r"index \[1, 3, 2\]"),
    ("hops", np.zeros((2, 7), F4), "wrong-shape", r"4\*time.*\[2, 7\]"),
    ("hops", np.zeros((2, 0), F4), "empty-time", r"\[2, 0\]"),
    ("symbols", [[0, 1], [2, 99]], "symbol-range", r"99 at index \[1, 1\]"),
    (
        "gained",
        {"x": np.zeros((2, 4, 3), F4), "lengths": [0, 5]},
        "length-range",
        r"0\.\.4 .*5 at index \[1\]",
    ),
    ("running_max", np.zeros((2, 0, 3), F4), "empty-time", r"\[2, 0, 3\]"),
    ("running_max", spoiled((2, 4, 3), np.nan), "non-finite", r"index \[1, 3, 2\]"),
    ("running_max", np.zeros((2, 3), F4), "wrong-shape", "use step"),
]


def refused(call: Callable[[], object], code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        call()
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "feed", "code", "text"), STEPS)
def test_a_malformed_step_is_refused_and_changes_nothing(name: str, feed: Any, code: str, text: str) -> None:
    stream = SESSIONS[name].stream(**OPEN[name])
    before = {key: value.tolist() for key, value in stream.state.items()}
    refused(lambda: stream.step(feed), code, text)
    assert stream.position == 0
    assert {key: value.tolist() for key, value in stream.state.items()} == before


@pytest.mark.parametrize(("name", "feed", "code", "text"), ONE_ROW)
def test_a_malformed_step_of_one_row_is_refused(name: str, feed: Any, code: str, text: str) -> None:
    refused(lambda: SESSIONS[name].stream().step(feed), code, text)


@pytest.mark.parametrize(("name", "feed", "code", "text"), STEPS)
def test_it_is_refused_after_good_steps_too(name: str, feed: Any, code: str, text: str) -> None:
    # The second step goes a shorter way through the checks than the first one.
    stream = SESSIONS[name].stream(**OPEN[name])
    good: dict[str, Any] = {
        "x": np.zeros({"hops": (2, 4), "attention": (2, 4), "accumulator": (2,)}.get(name, (2, 3)), F4)
    }
    if name == "attention":
        good["memory"] = np.zeros((2, 5, 4), F4)
    if name == "symbols":
        good = {"token": [0, 1]}
    if name in ("accumulator", "lstm_half"):
        good["x"] = good["x"].astype("i8" if name == "accumulator" else "f2")
    stream.step(good)
    stream.step(good)
    refused(lambda: stream.step(feed), code, text)
    stream.step(good)
    assert stream.position == 3


@pytest.mark.parametrize(("name", "feed", "code", "text"), CHUNKS)
def test_a_malformed_chunk_is_refused_and_changes_nothing(name: str, feed: Any, code: str, text: str) -> None:
    stream = SESSIONS[name].stream(**OPEN[name])
    before = {key: value.tolist() for key, value in stream.state.items()}
    refused(lambda: stream.run(feed), code, text)
    assert stream.position == 0
    assert {key: value.tolist() for key, value in stream.state.items()} == before


def test_inputs_of_different_times_are_refused() -> None:
    stream = SESSIONS["step_scalar"].stream()
    refused(
        lambda: stream.run({"x": np.zeros(4), "decay": np.zeros(3)}), "wrong-shape", r"time=4.*found \[3\]"
    )


def test_without_checks_values_pass_but_not_what_an_engine_cannot_survive() -> None:
    unchecked = SESSIONS["unbatched"].stream(check=False)
    assert np.isnan(unchecked.step([np.nan, 0])["y"]).tolist() == [True, False]
    refused(lambda: unchecked.step(np.zeros(4, F4)), "wrong-shape", "x")
    symbols = SESSIONS["symbols"].stream(check=False)
    refused(lambda: symbols.step([11]), "symbol-range", "11")
    refused(lambda: symbols.run([[0, 11]]), "symbol-range", "11")
    top = SESSIONS["running_max"].stream(check=False)
    top.run(np.full((1, 2, 3), np.inf, "f4"))
    lengths = SESSIONS["gained"].stream(check=False)
    refused(lambda: lengths.step({"x": np.zeros((1, 3), F4), "lengths": [2]}), "length-range", "2")


def test_an_axis_that_is_missing_is_named_and_the_shape_that_is_right() -> None:
    """Steps without a batch, one step of it, and a step of a batch where a chunk belongs."""
    stream = SESSIONS["lstm"].stream()
    for call, shape, found, fix in (
        (stream.run, (600, 3), "no batch axis", "reshape it to [1, 600, 3], a batch of one row"),
        (stream.step, (3,), "no batch axis", "reshape it to [1, 3], a batch of one row"),
        (stream.run, (1, 3), "one axis less than a chunk", "use step for one step"),
        (stream.run, (600, 4), "[600, 4]", "reshape it, or open the stream with the batch"),
        (SESSIONS["lstm"].stream(batch=2).run, (600, 3), "[600, 3]", "reshape it, or open the stream"),
    ):
        with pytest.raises(InputError) as caught:
            call(np.zeros(shape, F4))
        assert (caught.value.code, found in caught.value.found) == ("wrong-shape", True)
        assert caught.value.fix.startswith(fix)


def test_steps_without_a_batch_are_no_rows_where_the_batch_is_open() -> None:
    with pytest.raises(InputError) as caught:
        input_sizes(SESSIONS["lstm"].contract, {"x": np.zeros((600, 3), F4)})
    assert caught.value.fix == "reshape it to [1, 600, 3], a batch of one row"
