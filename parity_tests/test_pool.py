"""Pools: what is refused, what callers may keep, and what interrupts, threads and long use leave behind."""

from __future__ import annotations

import gc
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnx
from cases import onnx_models
from pool_models import MODELS, SESSIONS, dims_of, inputs_of
from rnnx import batch as batches
from rnnx.errors import FileError, InputError, ModelError, RnnxError, StreamError
from rnnx.ort_moving import GraphMover, gather_model, scatter_model
from rnnx.snapshot import Sampling

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

    from rnnx.contract import Contract, InputSpec, OutputSpec

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


def test_results_are_the_callers_to_keep() -> None:
    pool = SESSIONS["two_layers"].pool(capacity=2)
    streams = [pool.open() for _ in range(2)]
    rows = np.random.default_rng(0).normal(size=(40, 1, 3)).astype(F4)
    kept = [pool.step(dict.fromkeys(streams, row)) for row in rows]
    copies = [{stream: result[stream]["y"].copy() for stream in streams} for result in kept]
    pool.run(dict.fromkeys(streams, rows))
    for result, copy in zip(kept, copies, strict=True):
        for stream in streams:
            assert (result[stream]["y"] == copy[stream]).all()
            assert result[stream]["y"].flags.writeable


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


def test_two_threads_on_one_pool_are_an_error() -> None:
    pool = SESSIONS["lstm"].pool()
    a = pool.open()
    pool.step({a: FRAME})
    plan: Any = pool._batches.step(1).plan  # type: ignore[union-attr]
    inside, go, run = threading.Event(), threading.Event(), plan.run

    def slow(side: int) -> None:
        inside.set()
        assert go.wait(10)
        run(side)

    plan.run = slow
    thread = threading.Thread(target=pool.step, args=({a: FRAME},))
    thread.start()
    assert inside.wait(10)
    calls: list[Callable[[], object]] = [
        lambda: pool.step({a: FRAME}),
        lambda: pool.run({a: FRAME[None]}),
        pool.open,
        lambda: pool.close(a),
        lambda: pool.snapshot(a),
        lambda: pool.reset(a),
        pool.close_all,
    ]
    for call in calls:
        refused(call, StreamError, "stream-busy")
    go.set()
    thread.join()
    plan.run = run
    assert pool.position(a) == 2


def test_an_engine_that_fails_leaves_the_old_states() -> None:
    pool = SESSIONS["lstm"].pool()
    a, b, c = (pool.open() for _ in range(3))
    chunk = np.ones((1, 5, 3), F4)
    for feeds in ({a: FRAME, b: FRAME}, {a: FRAME, b: FRAME, c: FRAME}):
        pool.step(feeds)
    pool.run({a: chunk, b: chunk[:, :2], c: chunk})
    before = [pool.snapshot(stream) for stream in (a, b, c)]
    broken = [batch for batch in pool._batches._kept.values() if batch.plan.key[1][0] != ("batch", 3)]
    assert broken
    raws = [batch.plan._call._raw for batch in broken]  # type: ignore[attr-defined]
    for batch in broken:
        batch.plan._call._raw = [None, None]  # type: ignore[attr-defined]
    refused(lambda: pool.step({a: FRAME, b: FRAME}), ModelError, "engine-failed")
    # The first part of this call runs three streams, the second one fails.
    refused(lambda: pool.run({a: chunk, b: chunk[:, :2], c: chunk}), ModelError, "engine-failed")
    assert [pool.snapshot(stream) for stream in (a, b, c)] == before
    for batch, raw in zip(broken, raws, strict=True):
        batch.plan._call._raw = raw  # type: ignore[attr-defined]
    pool.run({a: chunk, b: chunk[:, :2], c: chunk})
    assert pool.position(b) == 2 + 2 + 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="not run: timers of POSIX")
@pytest.mark.parametrize("way", ["step", "run", "churn"])
def test_interrupts_at_any_moment_leave_all_streams_together(way: str) -> None:
    """Each step adds one to the states of all, so that states and positions agree or the pool is broken."""
    pool = SESSIONS["counted_steps"].pool(capacity=2)
    streams = [pool.open() for _ in range(5)]
    one, random = np.ones(1, F4), np.random.default_rng(0)
    long = {s: {"x": np.ones((1, 1 + i % 3), F4)} for i, s in enumerate(streams)}

    def churn() -> None:
        extra = pool.open(initial={"total": 5.0})
        pool.step({streams[0]: one, streams[3]: one})
        pool.restore(streams[1], pool.snapshot(streams[2]))
        pool.reset(streams[4])
        pool.step(dict.fromkeys((*streams, extra), one))
        pool.close(extra)

    calls: dict[str, Callable[[], object]] = {
        "step": lambda: pool.step(dict.fromkeys(streams, one)),
        "run": lambda: pool.run(long),
        "churn": churn,
    }
    call = calls[way]
    call()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    gc.disable()  # an interrupt inside a callback of the collector would be swallowed there
    try:
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 1e-3))
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    call()
            except KeyboardInterrupt:
                interrupted += 1
            positions = [pool.position(stream) for stream in streams]
            for stream, position in zip(streams, positions, strict=True):
                state = pool.state(stream)
                assert state["total"] == state["count"] == position
            if way == "step":
                assert len(set(positions)) == 1
            if way == "run":
                assert positions == [positions[0] * (1 + index % 3) for index in range(5)]
            for stream in set(pool.streams) - set(streams):
                pool.close(stream)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted == 200


@pytest.mark.parametrize("name", ["lstm", "lstm_half", "accumulator", "two_layers", "counted_steps"])
def test_rows_move_on_a_device_as_on_the_host(name: str) -> None:
    host = SESSIONS[name].pool(capacity=2)
    session = rnnx.load(MODELS[name]())
    engine: Any = session.engine
    engine._mover = engine.graph_mover()  # as for a device, but on the CPU
    device, random = session.pool(capacity=2), np.random.default_rng(0)
    twins = {host.open(): device.open() for _ in range(5)}
    for _ in range(30):
        chosen = [stream for stream in twins if random.random() < 0.6]
        feeds = {stream: inputs_of(session.contract, random, None) for stream in chosen}
        expected = host.step(feeds)
        got = device.step({twins[stream]: feed for stream, feed in feeds.items()})
        for stream in chosen:
            for output, value in expected[stream].items():
                assert (got[twins[stream]][output] == value).all()
    assert isinstance(engine.mover, GraphMover)
    assert [device.snapshot(twin) for twin in twins.values()] == [host.snapshot(stream) for stream in twins]


def test_the_graphs_that_move_rows_are_valid() -> None:
    onnx = pytest.importorskip("onnx")
    states = [(0, 1, 1), (1, 3, 7), (2, 3, 10)]
    for model in (gather_model(states), scatter_model(states)):
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)


def test_few_batches_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SESSIONS["lstm"].pool(capacity=100)
    streams = [pool.open() for _ in range(100)]
    for count in range(1, 101):
        pool.step(dict.fromkeys(streams[:count], FRAME))
    assert len(pool._batches._kept) == batches._KEPT_BATCHES
    monkeypatch.setattr(batches, "_KEPT_BYTES", 20_000)
    for count in range(1, 101):
        pool.step(dict.fromkeys(streams[:count], FRAME))
        kept = pool._batches._kept.values()
        assert len(kept) == 1 or sum(batch.nbytes for batch in kept) <= 20_000
    assert pool.position(streams[0]) == 200


def test_batches_that_are_used_are_kept() -> None:
    pool = SESSIONS["lstm"].pool()
    a, b = pool.open(), pool.open()
    pool.run({a: FRAME[None]})
    pool.step({a: FRAME, b: FRAME})
    kept = dict(pool._batches._kept)
    assert kept.keys() == {(1, 1, 1), (0, 1, 2)}
    for steps in range(2, 2 * batches._KEPT_BATCHES):
        pool.run({a: np.ones((1, steps, 3), F4)})
        pool.run({a: FRAME[None]})
        pool.step({a: FRAME, b: FRAME})
    assert all(pool._batches._kept.get(key) is batch for key, batch in kept.items())


def resident() -> int:
    # Field 1 of statm is the resident set, in pages.
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def use(pool: rnnx.Pool, streams: list[int], steps: int) -> None:
    random = np.random.default_rng(0)
    chunks = {stream: np.ones((1, 1 + index % 4, 3), F4) for index, stream in enumerate(streams)}
    for step in range(steps):
        chosen = streams if step % 3 else [stream for stream in streams if random.random() < 0.5]
        pool.step(dict.fromkeys(chosen, FRAME))
        if step % 100 == 0:
            pool.run(chunks)
            passing = pool.open(snapshot=pool.snapshot(streams[0]))
            pool.step({passing: FRAME})
            pool.close(passing)


@pytest.mark.parametrize("steps", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_steps_need_no_more_memory(steps: int) -> None:
    pool = SESSIONS["lstm"].pool(capacity=8)
    streams = [pool.open() for _ in range(8)]
    sizes = []
    for _ in range(10):
        use(pool, streams, steps)
        sizes.append(resident())
    assert sizes[-1] - sizes[1] < 1 << 20
    assert pool.capacity in (8, 16)
