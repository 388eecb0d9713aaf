"""Blocks of any length through a stream: what is over waits, in step with other inputs, and is never lost."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import rnnx
from rnnx.errors import InputError, StreamError
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.model.shapes import Array
from support.replay_programs import GOLDEN

HOPS = rnnx.load(GOLDEN / "hops.onnx")
SEVERAL = rnnx.load(GOLDEN / "several.onnx")


def samples(count: int, batch: int = 2) -> Array:
    return np.random.default_rng(0).normal(size=(batch, count)).astype(np.float32)


def test_blocks_of_any_length_give_what_one_run_gives_and_the_rest_waits() -> None:
    audio = samples(160 * 7 + 50)
    stream = HOPS.stream(batch=2)
    parts, begin = [], 0
    for length, steps, waits in [(0, 0, 0), (1, 0, 1), (159, 1, 0), (33, 1, 33), (500, 4, 53), (999, 7, 50)]:
        parts.append(stream.feed(audio[:, begin : begin + length])["y"])
        begin += length
        assert (stream.position, stream.waiting) == (steps, {"audio": waits} if waits else {})
    parts.append(stream.flush()["y"])
    assert (stream.position, stream.waiting) == (8, {})
    whole = HOPS.stream(batch=2).run(np.pad(audio, ((0, 0), (0, 110))))["y"]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=2e-5, atol=2e-5)
    assert stream.flush()["y"].shape == (2, 0)


def test_each_input_has_a_queue_and_the_shortest_says_how_many_steps_run() -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=(1, 7, 4)).astype(np.float32),
        "kind": rng.integers(0, 5, (1, 7)),
        "speaker": rng.normal(size=(1, 3)).astype(np.float32),
    }
    stream = SEVERAL.stream()
    first = stream.feed({**inputs, "kind": inputs["kind"][:, :3]})
    assert (stream.position, stream.waiting) == (3, {"x": 4})
    second = stream.feed({"kind": inputs["kind"][:, 3:6]})  # the speaker stays
    assert (stream.position, stream.waiting) == (6, {"x": 1})
    whole = SEVERAL.stream().run({**inputs, "kind": np.pad(inputs["kind"][:, :6], ((0, 0), (0, 1)))})
    third = stream.flush()
    assert stream.position == 7
    for name in first:
        axis = 1 if first[name].shape[1:2] == (3,) and whole[name].shape[1:2] == (7,) else None
        parts = [first[name], second[name], third[name]]
        got = parts[-1] if axis is None else np.concatenate(parts, axis)
        np.testing.assert_allclose(got, whole[name], rtol=2e-5, atol=2e-5)


def test_flush_fills_with_what_is_nearest_to_zero_in_a_range() -> None:
    """A model of kinds from 2 on, which refuses a 0."""
    model = read_model(GOLDEN / "several.onnx")
    contract = read_contract(model)
    inputs = [
        msgspec.structs.replace(spec, range=(2, 4)) if spec.name == "kind" else spec
        for spec in contract.inputs
    ]
    data = write_contract(model.data, msgspec.structs.replace(contract, inputs=inputs))
    given = {
        "x": np.ones((1, 2, 4), np.float32),
        "kind": np.array([[3, 2]]),
        "speaker": np.ones((1, 3), np.float32),
    }
    stream = rnnx.load(data).stream()
    stream.feed({**given, "kind": given["kind"][:, :1]})
    assert stream.waiting == {"x": 1}
    last = stream.flush()
    whole = rnnx.load(data).stream()
    whole.run({**given, "x": given["x"][:, :1], "kind": given["kind"][:, :1]})
    expected = whole.run({**given, "x": given["x"][:, 1:], "kind": given["kind"][:, 1:]})
    for name, value in expected.items():
        np.testing.assert_array_equal(last[name], value)


def test_what_would_take_entries_out_of_their_order_is_refused() -> None:
    stream = HOPS.stream(batch=2)
    saved = stream.snapshot()
    stream.feed(samples(100))
    for call in (
        lambda: stream.step(samples(160)),
        lambda: stream.run(samples(320)),
        stream.snapshot,
        lambda: stream.reset([1]),
    ):
        with pytest.raises(StreamError, match="found 100 of 'audio'") as refused:
            call()
        assert refused.value.code == "entries-waiting"
    stream.restore(saved)
    assert stream.waiting == {}
    stream.feed(samples(100))
    stream.reset()
    assert stream.waiting == {}
    stream.step(samples(160))


@pytest.mark.parametrize("bad", [samples(9, 1), samples(9)[..., None], np.full((2, 9), np.nan, np.float32)])
def test_a_block_that_is_refused_leaves_what_waited(bad: Array) -> None:
    stream = HOPS.stream(batch=2)
    audio = samples(160)
    stream.feed(audio[:, :100])
    with pytest.raises(InputError):
        stream.feed(bad)
    assert stream.waiting == {"audio": 100}
    np.testing.assert_array_equal(stream.feed(audio[:, 100:])["y"], HOPS.stream(batch=2).run(audio)["y"])


def test_a_block_may_be_filled_again_once_it_was_fed() -> None:
    audio = samples(160)
    stream, block = HOPS.stream(batch=2), audio[:, :100].copy()
    stream.feed(block)
    block[...] = 0
    np.testing.assert_array_equal(stream.feed(audio[:, 100:])["y"], HOPS.stream(batch=2).run(audio)["y"])
