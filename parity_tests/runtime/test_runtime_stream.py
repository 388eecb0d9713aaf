"""Streams: stepping, running and any chunking agree; states are old or new, never half; misuse is refused."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnx
from cases import onnx_models
from rnnx.errors import InputError, StreamError
from rnnx.model.contract import Contract, axis_index
from rnnx.model.shapes import chunk_shape, from_steps, has_steps, to_steps
from rnnx.parity.random_inputs import random_inputs

Array = np.ndarray[Any, Any]
SESSIONS = {name: rnnx.load(make()) for name, make in onnx_models.STREAMING.items()}


def sizes_for(contract: Contract, batch: int) -> dict[str, int]:
    return {"batch": batch if contract.has_batch else 1, "memory": 5}


def open_stream(name: str, batch: int) -> rnnx.Stream:
    contract = SESSIONS[name].contract
    dims = {"memory": 5} if name == "attention" else {}
    return SESSIONS[name].stream(batch=sizes_for(contract, batch)["batch"], dims=dims)


def chunk_of(contract: Contract, rows: Mapping[str, Array], begin: int, end: int) -> dict[str, Array]:
    return {
        spec.name: from_steps(rows[spec.name][begin:end], chunk_shape(contract, spec))
        if has_steps(contract, spec)
        else rows[spec.name]
        for spec in contract.inputs
        if spec.name in rows
    }


def step_of(contract: Contract, rows: Mapping[str, Array], step: int) -> dict[str, Array]:
    return {
        spec.name: np.asarray(rows[spec.name][step]) if has_steps(contract, spec) else rows[spec.name]
        for spec in contract.inputs
        if spec.name in rows
    }


def close(left: Array, right: Array, half: bool = False) -> None:
    np.testing.assert_allclose(left, right, rtol=1e-2 if half else 2e-6, atol=1e-3 if half else 2e-6)


@pytest.mark.parametrize("name", SESSIONS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_what_steps_give(name: str, data: st.DataObject) -> None:
    contract = SESSIONS[name].contract
    batch, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    cuts = sorted({0, steps, *data.draw(st.lists(st.integers(1, steps), max_size=4))})
    seed = data.draw(st.integers(0, 99))
    rows = random_inputs(contract, steps=steps, sizes=sizes_for(contract, batch), seed=seed)
    stepping, chunking = open_stream(name, batch), open_stream(name, batch)
    stepped = [stepping.step(step_of(contract, rows, step)) for step in range(steps)]
    chunks = [chunking.run(chunk_of(contract, rows, a, b)) for a, b in itertools.pairwise(cuts)]
    half = name == "lstm_half"
    for spec in contract.outputs:
        expected = np.stack([result[spec.name] for result in stepped])
        if has_steps(contract, spec):
            parts = [to_steps(chunk[spec.name], chunk_shape(contract, spec)) for chunk in chunks]
            close(np.concatenate(parts), expected, half)
        else:
            close(chunks[-1][spec.name], expected[-1], half)
    assert stepping.position == chunking.position == steps
    for state, value in stepping.state.items():
        close(chunking.state[state], value, half)


@pytest.mark.parametrize("name", SESSIONS)
def test_results_have_the_shape_of_the_contract(name: str) -> None:
    contract = SESSIONS[name].contract
    rows = random_inputs(contract, steps=3, sizes=sizes_for(contract, 2))
    stream = open_stream(name, 2)
    step, chunk = stream.step(step_of(contract, rows, 0)), stream.run(chunk_of(contract, rows, 0, 3))
    sizes = {**sizes_for(contract, 2), "time": 3}
    for spec in contract.outputs:
        shape = [sizes.get(str(d).split("*")[-1], d) for d in chunk_shape(contract, spec)]
        assert list(chunk[spec.name].shape) == shape
        assert chunk[spec.name].dtype == spec.dtype
        time = axis_index(chunk_shape(contract, spec), "time")
        if time is not None:
            del shape[time]
        assert list(step[spec.name].shape) == shape


def test_the_values_are_right() -> None:
    stream = SESSIONS["hops"].stream()
    assert stream.run(np.arange(8, dtype="f4")[None])["y"].tolist() == [[6, 28]]
    assert stream.step([[1, 2, 3, 4]])["y"].tolist() == [32]
    top = SESSIONS["running_max"].stream()
    assert np.isneginf(top.state["top"]).all()
    assert top.run([[[1, 5, 2], [3, 4, 1]]])["y"].tolist() == [[[1, 5, 2], [3, 5, 2]]]
    scalar = SESSIONS["step_scalar"].stream()
    assert scalar.step(1.0)["y"] == 2.0
    assert scalar.run([0.0, 4.0])["y"].tolist() == [1.0, 4.5]
    assert scalar.run({"x": [0.0, 0.0], "decay": [0.0, 1.0]})["y"].tolist() == [0.0, 0.0]


def test_optional_inputs_have_their_default_again_after_they_were_given() -> None:
    stream = SESSIONS["gained"].stream(batch=2)
    ones = np.ones((2, 3), "f4")
    assert stream.step(ones)["y"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert stream.step({"x": ones, "gain": [10, 100]})["y"].tolist() == [[11] * 3, [101] * 3]
    assert stream.step({"x": ones})["last"].tolist() == [[12] * 3, [102] * 3]
    assert stream.step({"x": ones, "gain": None})["y"].tolist() == [[13] * 3, [103] * 3]


def test_lengths_keep_the_state_of_rows_that_have_ended() -> None:
    stream = SESSIONS["gained"].stream(batch=3)
    chunk = np.ones((3, 4, 3), "f4")
    last = stream.run({"x": chunk, "lengths": [0, 2, 4]})["last"]
    assert last[:, 0].tolist() == [0, 2, 4]
    assert stream.step({"x": chunk[:, 0], "lengths": [1, 0, 1]})["last"][:, 0].tolist() == [1, 2, 5]


def test_lengths_of_a_step_model_count_the_steps_of_the_chunk() -> None:
    stream = SESSIONS["masked_steps"].stream(batch=3)
    result = stream.run({"x": np.ones((3, 4), "f4"), "lengths": [0, 2, 4]})
    assert result["y"].tolist() == [[0, 0, 0, 0], [1, 2, 2, 2], [1, 2, 3, 4]]
    assert stream.run(np.ones((3, 2), "f4"))["y"][:, -1].tolist() == [2, 4, 6]
    assert stream.state["calls"] == 6


def test_a_state_that_rows_share_is_reset_with_all_of_them_only() -> None:
    stream = SESSIONS["masked_steps"].stream(batch=2)
    stream.step([1, 1])
    with pytest.raises(InputError) as caught:
        stream.reset(rows=[1])
    assert caught.value.code == "shared-state"
    assert stream.state["total"].tolist() == [1, 1]
    stream.reset(rows=[0, 1])
    assert (stream.state["calls"], stream.state["total"].tolist()) == (0, [0, 0])


def test_dimensions_without_a_state_may_change_from_call_to_call() -> None:
    stream = SESSIONS["attention_stateless"].stream()
    for size in (3, 7, 3):
        result = stream.step({"x": np.ones((1, 4), "f4"), "memory": np.ones((1, size, 4), "f4")})
        assert result["y"].shape == (1, size)
    bound = SESSIONS["attention_stateless"].stream(dims={"memory": 3})
    with pytest.raises(InputError, match=r"memory=3.*found \[1, 4, 4\]"):
        bound.step({"x": np.ones((1, 4), "f4"), "memory": np.ones((1, 4, 4), "f4")})


def test_results_are_the_callers_to_keep() -> None:
    stream = SESSIONS["lstm"].stream()
    rows = np.random.default_rng(0).normal(size=(50, 1, 3)).astype("f4")
    kept = [stream.step(row)["y"] for row in rows]
    copies = [value.copy() for value in kept]
    stream.run(rows.swapaxes(0, 1))
    assert all((a == b).all() for a, b in zip(kept, copies, strict=True))
    assert len({value.ctypes.data for value in kept}) == 50


def test_out_receives_results() -> None:
    stream, twin = SESSIONS["gained"].stream(), SESSIONS["gained"].stream()
    frame, out = np.ones((1, 3), "f4"), {"last": np.empty((1, 3), "f4")}
    for _ in range(3):
        assert stream.step(frame, out=out) is out
        assert (out["last"] == twin.step(frame)["last"]).all()
    readonly = np.empty((1, 3), "f4")
    readonly.flags.writeable = False
    for wrong in (np.empty((1, 3)), np.empty((3,), "f4"), readonly, None, [0.0]):
        with pytest.raises(InputError) as caught:
            stream.step(frame, out={"last": wrong})  # type: ignore[dict-item]
        assert caught.value.code == "wrong-out"
    with pytest.raises(InputError, match="'z'"):
        stream.step(frame, out={"z": readonly})
    with pytest.raises(InputError, match="found a MaskedArray"):
        stream.step(frame, out={"last": np.ma.zeros((1, 3), "f4")})
    assert stream.position == 3


def test_strided_arrays_other_byte_orders_and_lists_are_taken() -> None:
    frame = np.random.default_rng(0).normal(size=(2, 3)).astype("f4")
    expected = SESSIONS["lstm"].stream(batch=2).step(frame)["y"]
    wide = np.zeros((2, 6), "f4")
    wide[:, ::2] = frame
    for same in (frame.astype(">f4"), np.asfortranarray(frame), wide[:, ::2], frame.tolist()):
        assert (SESSIONS["lstm"].stream(batch=2).step(same)["y"] == expected).all()


def test_torch_tensors_are_taken_unless_they_need_gradients() -> None:
    torch = pytest.importorskip("torch")
    stream = SESSIONS["lstm"].stream()
    expected = SESSIONS["lstm"].stream().step(np.ones((1, 3), "f4"))["y"]
    assert (stream.step(torch.ones(1, 3))["y"] == expected).all()
    for wrong in (torch.ones(1, 3, requires_grad=True), torch.ones(1, 3, dtype=torch.float64)):
        with pytest.raises(InputError) as caught:
            stream.step(wrong)
        assert caught.value.code == "wrong-dtype"


def test_large_finite_values_are_no_false_alarm() -> None:
    for name, value in (("unbatched", 3e38), ("lstm_half", 60000.0)):
        contract = SESSIONS[name].contract
        spec = contract.inputs[0]
        shape = (1, 3) if name == "lstm_half" else (2,)
        SESSIONS[name].stream().step(np.full(shape, value, spec.dtype))


def test_reset_puts_rows_or_all_back() -> None:
    stream = SESSIONS["gru"].stream(batch=3)
    start = stream.state["h"]
    frame = np.ones((3, 2), "f4")
    stream.step(frame)
    after = stream.state["h"]
    stream.reset(rows=[2, 0, 2])
    now = stream.state["h"]
    assert (now[:, [0, 2]] == start[:, [0, 2]]).all()
    assert (now[:, 1] == after[:, 1]).all()
    assert stream.position == 1
    stream.reset(rows=[])
    stream.reset()
    assert (stream.state["h"] == start).all()
    assert stream.position == 0
    for row in (3, -1):
        with pytest.raises(InputError) as caught:
            stream.reset(rows=[row])
        assert caught.value.code == "row-range"


def test_initial_replaces_the_start() -> None:
    start = np.arange(10, dtype="f4").reshape(1, 2, 5)
    stream = SESSIONS["gru"].stream(batch=2, initial={"h": start})
    stream.step(np.ones((2, 2), "f4"))
    stream.reset()
    assert (stream.state["h"] == start).all()
    assert (SESSIONS["gru"].stream(initial={"h": 3}).state["h"] == 3).all()


def test_states_can_be_read_and_set() -> None:
    stream = SESSIONS["lstm"].stream()
    assert list(stream.state) == ["lstm.h", "lstm.c"]
    assert len(stream.state) == 2
    stream.state["lstm.h"][...] = 7  # a copy
    assert (stream.state["lstm.h"] == 0).all()
    stream.state["lstm.h"] = np.full((1, 1, 8), np.inf, "f4")
    assert np.isinf(stream.state["lstm.h"]).all()
    good, bad = np.ones((1, 1, 8), "f4"), np.full((1, 1, 8), np.nan, "f4")
    with pytest.raises(InputError):
        stream.state.update({"lstm.c": good, "lstm.h": bad})
    assert (stream.state["lstm.c"] == 0).all()
    with pytest.raises(TypeError):
        del stream.state["lstm.h"]
    for name, value, code in (
        ("x", good, "unknown-state"),
        ("lstm.h", bad, "non-finite"),
        ("lstm.h", good.astype("f8"), "wrong-dtype"),
        ("lstm.h", good[0], "wrong-shape"),
    ):
        with pytest.raises(InputError) as caught:
            stream.state[name] = value
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        stream.state["x"]
    assert caught.value.code == "unknown-state"


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("lstm", {"batch": 0}, "empty-batch"),
        ("lstm", {"batch": 1.5}, "empty-batch"),
        ("unbatched", {"batch": 2}, "no-batch"),
        ("attention", {}, "missing-dimension"),
        ("attention", {"dims": {"memory": 0}}, "wrong-dimension"),
        ("attention", {"dims": {"memory": 3, "time": 4}}, "unknown-dimension"),
        ("lstm", {"initial": {"h": 0.0}}, "unknown-state"),
        ("lstm", {"initial": {"lstm.h": np.zeros((1, 2, 8), "f4")}}, "wrong-shape"),
    ],
)
def test_streams_that_make_no_sense_are_refused(name: str, arguments: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        SESSIONS[name].stream(**arguments)
    assert caught.value.code == code


def test_a_whole_only_model_runs_once_and_does_not_step() -> None:
    stream = rnnx.load(onnx_models.backwards()).stream()
    with pytest.raises(StreamError, match="a sum that runs backwards in time") as caught:
        stream.step([1.0])
    assert caught.value.code == "whole-only"
    assert stream.run([[1, 2, 3]])["y"].tolist() == [[6, 5, 3]]
    with pytest.raises(StreamError) as caught:
        stream.run([[1, 2, 3]])
    assert caught.value.code == "whole-only"
    stream.reset()
    stream.run([[1, 2, 3]])


def test_a_closed_stream_says_so() -> None:
    with SESSIONS["lstm"].stream() as stream:
        stream.step(np.ones((1, 3), "f4"))
    stream.close()
    calls: list[Callable[[], object]] = [
        lambda: stream.step(np.ones((1, 3), "f4")),
        lambda: stream.run(np.ones((1, 2, 3), "f4")),
        lambda: stream.state["lstm.h"],
        stream.reset,
        stream.snapshot,
    ]
    for call in calls:
        with pytest.raises(StreamError) as caught:
            call()
        assert caught.value.code == "stream-closed"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_holds_buffers_is_not_copied(copied: Callable[[object], object]) -> None:
    """A copy would share buffers with the original, and each would step the other's states."""
    session = SESSIONS["gru"]
    for each in (session, session.stream(), session.pool()):
        with pytest.raises(TypeError, match=r"found a copy or a pickle of one; fix: "):
            copied(each)


def test_everything_says_what_it_is() -> None:
    session = SESSIONS["gru"]
    stream, pool = session.stream(batch=2), session.pool()
    pool.open()
    assert repr(stream) == f"<rnnx.Stream of {session!r}, batch 2, at step 0>"
    assert repr(pool) == f"<rnnx.Pool of {session!r}, 1 streams open>"
    assert repr(stream.state) == f"<states {', '.join(stream.state)} of {stream!r}>"
