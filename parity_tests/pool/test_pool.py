"""Pools: what is refused, by name of the stream, and what is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnx
from cases import onnx_models
from rnnx.errors import FileError, InputError, RnnxError, StreamError
from rnnx.formats.snapshot import Sampling
from support.pool_models import SESSIONS, dims_of, inputs_of

Array = np.ndarray[Any, Any]
F4 = np.float32
FRAME = np.ones((1, 3), F4)


def refused(call: Callable[[], object], kind: type[RnnxError], code: str, text: str | None = None) -> None:
    with pytest.raises(kind, match=text) as caught:
        call()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "code"),
    [
        ("unbatched", {}, InputError, "no-batch"),
        ("masked_steps", {}, InputError, "shared-state"),
        ("attention", {}, InputError, "missing-dimension"),
        ("attention", {"dims": {"memory": 0}}, InputError, "wrong-dimension"),
        ("lstm", {"capacity": 0}, InputError, "wrong-capacity"),
        ("lstm", {"capacity": 2.0}, InputError, "wrong-capacity"),
        ("lstm", {"capacity": True}, InputError, "wrong-capacity"),
        ("lstm", {"initial": {"h": 0.0}}, InputError, "unknown-state"),
        ("lstm", {"initial": {"lstm.h": np.zeros((1, 2, 8), F4)}}, InputError, "wrong-shape"),
    ],
)
def test_pools_that_make_no_sense_are_refused(
    name: str, arguments: Any, kind: type[RnnxError], code: str
) -> None:
    session = rnnx.load(onnx_models.STREAMING[name]())
    refused(lambda: session.pool(**arguments), kind, code)


def test_a_whole_only_model_is_refused_with_its_reason() -> None:
    session = rnnx.load(onnx_models.backwards())
    refused(session.pool, StreamError, "whole-only", "a sum that runs backwards in time")


def test_an_output_that_rows_share_is_refused() -> None:
    from onnx import helper

    from rnnx.model.contract import Contract, InputSpec, OutputSpec

    contract = Contract(
        name="most",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch"])],
        outputs=[OutputSpec(name="most", dtype="float32", shape=[])],
        states=[],
    )
    model = onnx_models.build([helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0)], contract)
    refused(rnnx.load(model).pool, InputError, "shared-output", "'most'")


def spoiled(value: float) -> Array:
    frame = np.zeros((1, 3), F4)
    frame[0, 1] = value
    return frame


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("name", "feed", "code", "text"),
    [
        ("lstm", {"z": FRAME}, "unknown-input", "'z'"),
        ("lstm", {"x": FRAME, "z": FRAME}, "unknown-input", "'z'"),
        ("lstm", {}, "missing-input", "'x'"),
        ("lstm", None, "missing-input", "'x'"),
        ("lstm", FRAME.astype("f8"), "wrong-dtype", "float64"),
        ("lstm", np.ma.masked_equal(FRAME, FRAME[0, 0]), "wrong-dtype", "masked elements"),
        ("lstm", np.ones((2, 3), F4), "wrong-shape", r"\[2, 3\]"),
        ("lstm", np.ones((0, 3), F4), "empty-batch", r"\[0, 3\]"),
        ("lstm", np.ones((1, 4), F4), "wrong-shape", r"\[1, 4\]"),
        ("lstm", np.ones((1, 1, 3), F4), "wrong-shape", "one axis more"),
        ("lstm", spoiled(np.nan), "non-finite", r"nan at index \[0, 1\]"),
        ("lstm", spoiled(-np.inf), "non-finite", r"-inf at index \[0, 1\]"),
        ("symbols", [11], "symbol-range", r"11 at index \[0\]"),
        ("symbols", np.array([-1]), "symbol-range", r"-1 at index \[0\]"),
        ("gained", {"x": FRAME, "lengths": [2]}, "length-range", "2 at index"),
        ("gained", {"x": FRAME, "gain": [np.nan]}, "non-finite", "'gain'"),
        ("attention_stateless", {"x": np.ones((1, 4), F4)}, "missing-input", "'memory'"),
    ],
)
def test_one_wrong_input_refuses_the_step_and_changes_nothing(
    name: str, feed: Any, code: str, text: str, warm: bool
) -> None:
    pool, random = SESSIONS[name].pool(dims=dims_of(name)), np.random.default_rng(0)
    streams = [pool.open() for _ in range(3)]
    contract = SESSIONS[name].contract
    good = {stream: inputs_of(contract, random, None) for stream in streams}
    for _ in range(2 * warm):
        pool.step(good)
    before = [pool.snapshot(stream) for stream in streams]
    for wrong in streams:
        refused(lambda: pool.step({**good, wrong: feed}), InputError, code, f"{text}.*stream {wrong};")  # noqa: B023
    assert [pool.snapshot(stream) for stream in streams] == before
    pool.step(good)


def test_rows_cannot_make_up_for_each_other() -> None:
    pool = SESSIONS["lstm"].pool()
    a, b = pool.open(), pool.open()
    for _ in range(2):
        feeds = {a: np.ones((2, 3), F4), b: np.ones((0, 3), F4)}
        refused(lambda: pool.step(feeds), InputError, "wrong-shape", f"stream {a};")  # noqa: B023
        pool.step({a: FRAME, b: FRAME})


def test_chunks_are_checked_like_steps() -> None:
    pool = SESSIONS["lstm"].pool()
    a, b = pool.open(), pool.open()
    chunk, bad = np.ones((1, 4, 3), F4), np.ones((1, 2, 3), F4)
    bad[0, 1, 2] = np.nan
    refused(lambda: pool.run({a: chunk, b: bad}), InputError, "non-finite", rf"\[0, 1, 2\].*stream {b};")
    refused(lambda: pool.run({a: FRAME, b: chunk}), InputError, "wrong-shape", "use step")
    refused(lambda: pool.run({a: chunk[:, :0]}), InputError, "empty-time")
    assert pool.position(a) == pool.position(b) == 0
    assert (pool.run({a: chunk})[a]["y"].shape, pool.run({})) == ((1, 4, 8), {})


def test_inputs_for_no_stream_or_a_stale_one_are_refused() -> None:
    pool, other = SESSIONS["lstm"].pool(), SESSIONS["lstm"].pool()
    a, foreign = pool.open(), other.open()
    closed = pool.open()
    pool.step({a: FRAME, closed: FRAME})
    pool.close(closed)
    pool.close(closed)
    again = pool.open()
    assert again != closed
    for stale in (closed, foreign, 0, "a", None):
        calls: list[Callable[[], object]] = [
            lambda: pool.step({a: FRAME, stale: FRAME}),  # type: ignore[dict-item]  # noqa: B023
            lambda: pool.run({stale: FRAME[None]}),  # type: ignore[dict-item]  # noqa: B023
            lambda: pool.reset(stale),  # type: ignore[arg-type]  # noqa: B023
            lambda: pool.snapshot(stale),  # type: ignore[arg-type]  # noqa: B023
            lambda: pool.restore(stale, b""),  # type: ignore[arg-type]  # noqa: B023
            lambda: pool.position(stale),  # type: ignore[arg-type]  # noqa: B023
            lambda: pool.state(stale),  # type: ignore[arg-type]  # noqa: B023
        ]
        for call in calls:
            refused(call, StreamError, "stream-closed", repr(stale))
    refused(lambda: pool.step([FRAME]), InputError, "wrong-streams", "list")  # type: ignore[arg-type]
    assert pool.step({}) == {}
    assert pool.position(a) == 1


def test_streams_that_do_not_agree_are_refused() -> None:
    pool = SESSIONS["counted_steps"].pool()
    a, b = pool.open(), pool.open()
    one = np.ones(1, F4)
    for call, x, scale in ((pool.step, one, F4(2)), (pool.run, one[None], np.full(1, 2, F4))):
        refused(
            lambda: call({a: {"x": x}, b: {"x": x, "scale": scale}}),  # noqa: B023
            InputError,
            "streams-disagree",
            f"'scale'.*stream {b}",
        )
    assert pool.step({a: {"x": one}, b: {"x": one, "scale": F4(1)}})[b]["y"] == 1
    assert pool.step({a: {"x": one, "scale": F4(3)}, b: {"x": one, "scale": F4(3)}})[a]["y"] == 4
    two, three = (np.array(value, F4) for value in (2, 3))
    refused(
        lambda: pool.step({a: {"x": one, "scale": two}, b: {"x": one, "scale": three}}),
        InputError,
        "streams-disagree",
    )
    assert pool.step({a: {"x": one, "scale": two}, b: {"x": one, "scale": two.copy()}})[a]["y"] == 6
    free = SESSIONS["attention_stateless"].pool()
    c, d = free.open(), free.open()

    def feed(size: int) -> dict[str, Array]:
        return {"x": np.ones((1, 4), F4), "memory": np.ones((1, size, 4), F4)}

    refused(lambda: free.step({c: feed(3), d: feed(4)}), InputError, "streams-disagree", "'memory'.*4 in")
    for size in (3, 4, 3):
        assert free.step({c: feed(size), d: feed(size)})[d]["y"].shape == (1, size)


def test_without_checks_values_pass_but_not_what_an_engine_cannot_survive() -> None:
    pool = SESSIONS["running_max"].pool(check=False)
    a, b = pool.open(), pool.open()
    results = pool.step({a: spoiled(np.inf), b: FRAME})
    assert results[a]["y"].tolist() == [[0, np.inf, 0]]
    assert results[b]["y"].tolist() == [[1, 1, 1]]
    symbols = SESSIONS["symbols"].pool(check=False)
    c = symbols.open()
    refused(lambda: symbols.step({c: [11]}), InputError, "symbol-range")
    refused(lambda: symbols.run({c: [[0, 11]]}), InputError, "symbol-range")


def test_a_snapshot_keeps_where_sampling_stopped() -> None:
    pool = SESSIONS["symbols"].pool()
    a, b = pool.open(), pool.open()
    scores = pool.step({a: [3], b: [4]})[a]["logits"]
    sampling = Sampling(np.array([7], np.uint64), np.array([0.5]), scores)
    found = pool.restore(b, pool.snapshot(a, sampling=sampling))
    assert found is not None
    assert (found.generator, found.temperature) == (7, 0.5)
    assert (found.scores == scores).all()
    assert pool.snapshot(b) == pool.snapshot(a)
    assert pool.restore(b, pool.snapshot(a)) is None


def test_snapshots_that_do_not_fit_are_refused() -> None:
    pool, session = SESSIONS["lstm"].pool(), SESSIONS["lstm"]
    a = pool.open()
    pool.step({a: FRAME})
    before = pool.snapshot(a)
    for data, code in (
        (b"", "not-safetensors"),
        (SESSIONS["gru"].stream().snapshot(), "snapshot-of-another-model"),
        (session.stream(batch=2).snapshot(), "snapshot-invalid"),
    ):
        refused(lambda: pool.restore(a, data), FileError, code)  # noqa: B023
        refused(lambda: pool.open(snapshot=data), FileError, code)  # noqa: B023
    assert pool.snapshot(a) == before
    assert pool.streams == (a,)


def test_a_closed_pool_says_so() -> None:
    with SESSIONS["lstm"].pool() as pool:
        a = pool.open()
        pool.step({a: FRAME})
    pool.close_all()
    pool.close(a)
    calls: list[Callable[[], object]] = [pool.open, lambda: pool.step({a: FRAME}), lambda: pool.snapshot(a)]
    for call in calls:
        refused(call, StreamError, "stream-closed", "another pool of the session")
