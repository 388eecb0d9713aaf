"""Snapshots, traces and arrays: whole, exact, tied to their model, refused with a reason otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnx
from cases import onnx_models
from rnnx.errors import FileError, InputError
from rnnx.formats.array_files import read_arrays
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.formats.snapshot import Sampling
from rnnx.formats.trace_file import encode_trace, read_trace, write_trace
from rnnx.limits import bounded
from rnnx.parity.compare import compare_trace
from rnnx.tolerance import render
from support.recorded import record

ROOT = Path(__file__).resolve().parents[2]
FRAMES = np.random.default_rng(1).normal(size=(20, 2, 3)).astype("f4")


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises((FileError, InputError)) as caught:
        call()
    assert caught.value.exit_code == 2
    return caught.value.code


def edited(data: bytes, **metadata: str) -> bytes:
    tensors, old = decode_tensors(data, what="it")
    return encode_tensors(tensors, {**old, **metadata})


def test_a_restored_stream_continues_bit_for_bit() -> None:
    session = rnnx.load(onnx_models.lstm())
    stream = session.stream(batch=2)
    for frame in FRAMES[:10]:
        stream.step(frame)
    saved = stream.snapshot()
    assert saved == stream.snapshot()
    rest = [stream.step(frame)["y"] for frame in FRAMES[10:]]
    other = rnnx.load(onnx_models.lstm()).stream(batch=2)
    other.step(FRAMES[3])
    assert other.restore(saved) is None
    assert other.position == 10
    again = [other.step(frame)["y"] for frame in FRAMES[10:]]
    assert all((a == b).all() for a, b in zip(rest, again, strict=True))


def test_a_snapshot_is_plain_safetensors(tmp_path: Path) -> None:
    stream = rnnx.load(onnx_models.lstm()).stream(batch=2)
    stream.step(FRAMES[0])
    path = tmp_path / "s.safetensors"
    path.write_bytes(stream.snapshot())
    with safetensors.safe_open(str(path), "np") as file:
        assert file.metadata() == {
            "format": "rnnx-snapshot",
            "version": "1",
            "model": stream.session.id,
            "position": "1",
        }
        assert (file.get_tensor("state.lstm.c") == stream.state["lstm.c"]).all()


def test_sampling_is_kept_with_the_states() -> None:
    stream = rnnx.load(onnx_models.symbols()).stream()
    scores = stream.step([3])["logits"]
    kept = Sampling(np.array([2**64 - 1], np.uint64), np.array([0.5]), scores)
    found = stream.restore(stream.snapshot(sampling=kept))
    assert found is not None
    assert int(found.generator[0]) == 2**64 - 1
    assert found.temperature.tolist() == [0.5]
    assert (found.scores == scores).all()


def test_snapshots_that_do_not_fit_are_refused_and_change_nothing() -> None:
    stream = rnnx.load(onnx_models.lstm()).stream(batch=2)
    stream.step(FRAMES[0])
    good, before = stream.snapshot(), stream.state["lstm.h"]
    tensors, metadata = decode_tensors(good, what="it")
    half = {name: value.astype("f2") for name, value in tensors.items()}
    lone = {"state.lstm.h": tensors["state.lstm.h"]}
    one = rnnx.load(onnx_models.lstm()).stream(batch=1).snapshot()
    bad = {
        rnnx.load(onnx_models.gru()).stream(batch=2).snapshot(): "snapshot-of-another-model",
        edited(good, model="sha256:0"): "snapshot-of-another-model",
        edited(good, version="2"): "snapshot-newer",
        edited(good, version="x"): "not-a-snapshot",
        edited(good, format="rnnx-trace"): "not-a-snapshot",
        edited(good, version="9" * 5000): "snapshot-newer",
        edited(good, version="\u0661"): "not-a-snapshot",
        edited(good, position="-1"): "snapshot-invalid",
        edited(good, position=f"{1 << 62}"): "snapshot-invalid",
        edited(good, position="9" * 5000): "snapshot-invalid",
        encode_tensors(half, metadata): "snapshot-invalid",
        encode_tensors(lone, metadata): "snapshot-invalid",
        one: "snapshot-invalid",
        good[:-1]: "not-safetensors",
        good[:40]: "not-safetensors",
        b"": "not-safetensors",
        good + b"x": "not-safetensors",
        b"\x80\x04\x95pickle..": "not-safetensors",
    }
    for data, code in bad.items():
        assert code_of(lambda data=data: stream.restore(data)) == code  # type: ignore[misc]
        assert (stream.state["lstm.h"] == before).all()
        assert stream.position == 1


dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.tuples(dtypes, st.lists(st.integers(0, 3), max_size=3))
    )
)
def test_tensor_files_are_what_safetensors_reads_and_writes(entries: dict[str, Any]) -> None:
    entries.pop("__metadata__", None)
    random = np.random.default_rng(0)
    arrays = {name: random.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in entries.items()}
    data = encode_tensors(arrays, {"k": "é"})
    for other, found in (
        ("theirs", safetensors.numpy.load(data)),
        ("ours", decode_tensors(data, what="it")[0]),
        ("back", decode_tensors(safetensors.numpy.save(arrays), what="it")[0]),
    ):
        assert set(found) == set(arrays), other
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2.9], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2, True], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [np.inf], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [0, 1 << 70], "data_offsets": [8, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        [],
    ],
)
def test_headers_that_lie_are_refused(entry: Any) -> None:
    assert code_of(lambda: decode_tensors(header_of({"a": entry}, 8), what="it")) == "not-safetensors"


def header_of(entries: dict[str, Any], length: int) -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(length)


def test_bodies_that_overlap_or_leave_holes_are_refused_before_anything_is_read() -> None:
    def entry(start: int, end: int) -> dict[str, Any]:
        return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}

    size = 1 << 20
    shared = {f"t{index}": entry(0, size) for index in range(2000)}  # 2 GB out of 1 MB
    for entries in (shared, {"a": entry(0, 8), "b": entry(4, 12)}, {"a": entry(0, 4), "b": entry(8, size)}):
        tracemalloc.start()
        assert code_of(lambda entries=entries: decode_tensors(header_of(entries, size), what="it")) == (  # type: ignore[misc]
            "not-safetensors"
        )
        assert tracemalloc.get_traced_memory()[1] < 8 * size
        tracemalloc.stop()


def test_a_compressed_array_is_held_to_what_it_may_take(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(1 << 22, "f4"))
    assert (tmp_path / "zeros.npz").stat().st_size < 1 << 16
    with bounded(1 << 20):
        assert code_of(lambda: read_arrays(tmp_path / "zeros.npz")) == "out-of-memory"
    with bounded(1 << 24):
        found = read_arrays(tmp_path / "zeros.npz")
    assert isinstance(found, dict)
    assert found["x"].shape == (1 << 22,)


def test_several_arrays_are_held_to_it_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(1000, "f4"), b=np.zeros(1000, "f4"))
    with bounded(6000):
        assert code_of(lambda: read_arrays(tmp_path / "two.npz")) == "out-of-memory"


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_archives_that_are_damaged_hold_no_arrays(kind: int, tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.arange(1000))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as archive:
        archive.writestr("x.npy", content.getvalue())
    data = bytearray(made.getvalue())
    for place in range(40, len(data) - 100, 7):
        data[place] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(data)
    assert code_of(lambda: read_arrays(tmp_path / "x.npz")) == "not-an-array"


def test_a_member_that_says_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(4, "f4"))
    for data in (content.getvalue()[:-1], content.getvalue() + b"x"):
        (tmp_path / "x.npy").write_bytes(data)
        assert code_of(lambda: read_arrays(tmp_path / "x.npy")) == "not-an-array"


def test_a_boolean_is_0_or_1() -> None:
    good = encode_tensors({"a": np.array([False, True])}, {})
    assert decode_tensors(good, what="it")[0]["a"].tolist() == [False, True]
    assert code_of(lambda: decode_tensors(good[:-1] + b"\x02", what="it")) == "not-safetensors"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_tensor_files_are_refused_or_read_but_never_worse(data: st.DataObject) -> None:
    good = bytearray(encode_tensors({"a": np.arange(6, dtype="f4").reshape(2, 3)}, {"format": "x"}))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FileError):  # anything else is a failure
        decode_tensors(bytes(good), what="it")


@pytest.mark.parametrize("name", onnx_models.STREAMING)
def test_a_trace_is_read_as_it_was_written_and_replays(name: str, tmp_path: Path) -> None:
    session, trace = record(name)
    write_trace(tmp_path / "t.safetensors", trace)
    assert (tmp_path / "t.safetensors").read_bytes() == encode_trace(trace)
    found = read_trace(tmp_path / "t.safetensors", session.contract, model_id=session.id)
    assert found.steps == 6
    assert found.tolerances == trace.tolerances
    for group in ("inputs", "outputs", "states"):
        ours, theirs = getattr(trace, group), getattr(found, group)
        assert set(ours) == set(theirs)
        assert all((ours[key] == theirs[key]).all() for key in ours)
    if name != "lstm_half":
        result = compare_trace(session, found)
        assert result.agrees, result.failure


def test_a_trace_with_lengths_replays() -> None:
    session, trace = record("gained")
    lengths = np.array([4, 6], np.int64)
    rows = {**trace.inputs, "lengths": lengths}
    stream = session.stream(batch=2)
    outputs, states = [], [dict(stream.state)]
    for step in range(6):
        feed = {"x": rows["x"][step], "gain": rows["gain"], "lengths": np.clip(lengths - step, 0, 1)}
        outputs.append(stream.step(feed))
        states.append(dict(stream.state))
    given_outputs = {key: np.stack([row[key] for row in outputs]) for key in outputs[0]}
    given_outputs["y"][4:, 0] = 99  # at and past its length a row holds what it likes
    given_states = {key: np.stack([row[key] for row in states]) for key in states[0]}
    trace = dataclasses.replace(trace, inputs=rows, outputs=given_outputs, states=given_states)
    result = compare_trace(session, read_trace(encode_trace(trace), session.contract))
    assert result.agrees, result.failure
    given_outputs["y"][3, 0] = 99
    assert not compare_trace(session, read_trace(encode_trace(trace), session.contract)).agrees


def test_traces_that_do_not_fit_are_refused() -> None:
    session, trace = record()
    contract, good = session.contract, encode_trace(trace)

    def read(data: bytes) -> object:
        return read_trace(data, contract, model_id=session.id)

    def changed(**arguments: Any) -> bytes:
        return encode_trace(dataclasses.replace(trace, **arguments))

    assert code_of(lambda: read(edited(good, model="sha256:0"))) == "trace-of-another-model"
    assert code_of(lambda: read(edited(good, version="2"))) == "trace-newer"
    assert code_of(lambda: read(edited(good, format="no"))) == "not-a-trace"
    assert code_of(lambda: read(good[:-3])) == "not-safetensors"
    y, h = trace.outputs["y"], trace.states["lstm.h"]
    for bad in (
        edited(good, tolerances=""),
        edited(good, tolerances="[1]"),
        edited(good, tolerances=json.dumps({"output.y": {"atol": 0, "rtol": 0}})),
        changed(inputs={}),
        changed(outputs={}),
        changed(states={"lstm.h": h}),
        changed(outputs={"y": y[:-1]}),
        changed(outputs={"y": y[:, :1]}),
        changed(outputs={"y": y.astype("f8")}),
        changed(states={**trace.states, "lstm.h": h[:-1]}),
        changed(
            inputs={"x": trace.inputs["x"][:0]},
            outputs={"y": y[:0]},
            states={name: value[:1] for name, value in trace.states.items()},
        ),
    ):
        assert code_of(lambda bad=bad: read(bad)) == "trace-invalid"  # type: ignore[misc]
    assert code_of(lambda: read_trace("/nowhere/t", contract)) == "file-missing"


def test_the_tolerance_page_is_current() -> None:
    assert (ROOT / "docs" / "tolerances.md").read_text() == render()


def test_files_that_hold_no_numbers_are_told_as_what_they_are(tmp_path: Path) -> None:
    def saved(array: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    whole = np.ones((2, 3), "f4")
    huge = saved(whole).replace(b"(2, 3), }", b"(%d,), }" % 10**13)
    cases = {
        b"": "an empty file",
        b"hello": "5 bytes that begin as nothing NumPy writes",
        b"x,y\n1,2\n": "8 bytes that begin as nothing NumPy writes",
        saved(np.array([{}])): "Python objects, which are no numbers",
        saved(whole)[:-9]: "bytes that break off or are damaged",
        b"PK\x03\x04 no": "7 bytes that break off or are damaged",
        huge: "bytes that break off or are damaged",
    }
    for content, told in cases.items():
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(FileError) as caught:
            read_arrays(tmp_path / "x.npy")
        assert told in caught.value.found
        assert "pickle" not in str(caught.value)
