"""Streams under threads, interrupts, failures and long use: old states or new ones, no growth."""

from __future__ import annotations

import gc
import resource
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnx
from cases import onnx_models
from rnnx.errors import ModelError, StreamError
from support.interrupts import interrupt_everywhere

Array = np.ndarray[Any, Any]
SESSIONS = {name: rnnx.load(make()) for name, make in onnx_models.STREAMING.items()}


def states_of(stream: rnnx.Stream) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in stream.state.items()}


def test_an_interrupt_while_states_are_replaced_leaves_all_of_the_old_ones() -> None:
    stream = SESSIONS["lstm"].stream()
    saved = stream.snapshot()
    stream.step(np.ones((1, 3), "f4"))
    before, buffers = states_of(stream), stream._buffers
    write = buffers.write

    def interrupted(index: int, name: str, value: Array) -> None:
        write(index, name, value)
        raise KeyboardInterrupt

    calls: list[Callable[[], object]] = [
        stream.reset,
        lambda: stream.reset(rows=[0]),
        lambda: stream.restore(saved),
        lambda: stream.state.update(dict.fromkeys(stream.state, 5.0)),
    ]
    for call in calls:
        buffers.write = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            call()
        buffers.write = write  # type: ignore[method-assign]
        assert states_of(stream) == before
        assert stream.position == 1


def test_many_threads_share_a_session() -> None:
    session = rnnx.load(onnx_models.lstm())
    rows = np.random.default_rng(0).normal(size=(8, 60, 1, 3)).astype("f4")
    results: list[Any] = [None] * 8

    def work(index: int) -> None:
        stream = session.stream()
        results[index] = np.stack([stream.step(row)["y"] for row in rows[index]])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(8):
        stream = session.stream()
        assert (results[index] == np.stack([stream.step(row)["y"] for row in rows[index]])).all()


def test_two_threads_on_one_stream_are_an_error() -> None:
    stream = SESSIONS["lstm"].stream()
    frame = np.ones((1, 3), "f4")
    stream.step(frame)
    plan: Any = stream._step_plan
    inside, go = threading.Event(), threading.Event()
    run = plan.run

    def slow(index: int) -> None:
        inside.set()
        assert go.wait(10)
        run(index)

    plan.run = slow
    thread = threading.Thread(target=stream.step, args=(frame,))
    thread.start()
    assert inside.wait(10)
    calls: list[Callable[[], object]] = [
        lambda: stream.step(frame),
        lambda: stream.run(frame[:, None]),
        lambda: stream.state["lstm.h"],
        stream.reset,
        stream.snapshot,
        stream.close,
    ]
    for call in calls:
        with pytest.raises(StreamError) as caught:
            call()
        assert caught.value.code == "stream-busy"
    go.set()
    thread.join()
    plan.run = run
    stream.step(frame)
    assert stream.position == 3


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_the_old_state(moment: str, kind: type[BaseException]) -> None:
    stream = SESSIONS["lstm"].stream()
    frame = np.ones((1, 3), "f4")
    stream.step(frame)
    before = states_of(stream)
    plan: Any = stream._step_plan
    run = plan.run

    def interrupted(index: int) -> None:
        if moment == "after":
            run(index)
        raise kind

    plan.run = interrupted
    with pytest.raises(kind):
        stream.step(frame)
    plan.run = run
    assert states_of(stream) == before
    assert stream.position == 1
    twin = SESSIONS["lstm"].stream()
    twin.step(frame)
    assert (stream.step(frame)["y"] == twin.step(frame)["y"]).all()


def test_interrupts_in_a_chunk_of_a_step_model_leave_the_old_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the first is being dealt with, as from a user in a hurry."""
    stream = SESSIONS["running_max"].stream()
    chunk = np.full((1, 6, 3), 9, "f4")
    stream.run(chunk)
    stream.reset()
    stream.step([[1, 2, 3]])
    plan: Any = stream._chunk_plan
    run, calls = plan.run, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) >= 4:
            raise KeyboardInterrupt
        run(*arguments)

    plan.run = interrupted
    monkeypatch.setattr(stream._buffers, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.run(chunk)
    monkeypatch.undo()
    plan.run = run
    assert len(calls) >= 4
    assert stream.state["top"].tolist() == [[1, 2, 3]]
    assert stream.position == 1


@pytest.mark.parametrize("name", ["lstm", "running_max"])
@pytest.mark.parametrize("operation", ["step", "run", "reset", "rows", "snapshot", "restore", "update"])
def test_a_stream_is_of_use_while_an_interrupt_is_dealt_with(name: str, operation: str) -> None:
    session = SESSIONS[name]
    frames = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("f4")  # [batch, time, features]
    saved = session.stream(batch=2).snapshot()
    calls: dict[str, Callable[[rnnx.Stream], object]] = {
        "step": lambda stream: stream.step(frames[:, 0]),
        "run": lambda stream: stream.run(frames),
        "reset": lambda stream: stream.reset(),
        "rows": lambda stream: stream.reset(rows=[1]),
        "snapshot": lambda stream: stream.snapshot(),
        "restore": lambda stream: stream.restore(saved),
        "update": lambda stream: stream.state.update(dict.fromkeys(stream.state, 0.5)),
    }
    call = calls[operation]

    def make() -> rnnx.Stream:
        stream = session.stream(batch=2)
        stream.step(frames[:, 1])
        return stream

    moved = make()
    old = moved.snapshot()
    call(moved)
    new = moved.snapshot()

    def check(stream: rnnx.Stream) -> None:
        assert stream.snapshot() in (old, new)

    assert interrupt_everywhere(make, call, check) > 5


def test_a_closed_stream_holds_no_buffers() -> None:
    stream = SESSIONS["running_max"].stream()
    stream.run(np.ones((1, 2, 3), "f4"))
    assert stream._chunk_buffers is not None
    buffers = [weakref.ref(stream._buffers), weakref.ref(stream._chunk_buffers)]
    stream.close()
    gc.collect()
    assert [buffer() for buffer in buffers] == [None, None]


def test_an_engine_that_fails_leaves_the_old_state() -> None:
    stream = SESSIONS["lstm"].stream()
    frame = np.ones((1, 3), "f4")
    stream.step(frame)
    before = states_of(stream)
    call: Any = stream._step_plan._call  # type: ignore[union-attr]
    raw, call._raw = call._raw, [None, None]
    with pytest.raises(ModelError) as caught:
        stream.step(frame)
    assert caught.value.code == "engine-failed"
    call._raw = raw
    assert states_of(stream) == before
    stream.step(frame)


def test_reused_buffers_give_what_fresh_ones_give() -> None:
    session = SESSIONS["lstm"]
    stream = session.stream()
    h = c = np.zeros((1, 1, 8), "f4")
    for row in np.random.default_rng(0).normal(size=(2000, 1, 3)).astype("f4"):
        y, h, c = session.engine.session.run(
            ["y", "h_out", "c_out"], {"x": row[:, None], "h_in": h, "c_in": c}
        )
        assert (stream.step(row)["y"] == y[:, 0]).all()
    assert (stream.state["lstm.c"] == c).all()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="not run: timers of POSIX")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("operation", ["step", "run", "loop", "reset"])
def test_interrupts_at_any_moment_leave_a_stream_that_works(
    operation: str, kind: type[BaseException]
) -> None:
    """Each step adds one to the state, so that states and position agree or the stream is broken."""
    name = "step_scalar" if operation == "loop" else "unbatched"
    key = "s" if operation == "loop" else "total"
    initial = {"s": 0.0} if operation == "loop" else None
    stream = SESSIONS[name].stream(initial=initial)
    one, many, scalars = np.ones(2, "f4"), np.ones((3, 2), "f4"), {"x": np.ones(3), "decay": np.ones(3)}
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: stream.step(one),
        "run": lambda: stream.run(many),
        "loop": lambda: stream.run(scalars),
        "reset": lambda: (stream.step(one), stream.reset(rows=[])),
    }
    call = calls[operation]
    call()

    def interrupt(number: int, frame: object) -> None:
        raise kind

    random = np.random.default_rng(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    gc.disable()  # an interrupt inside a callback of the collector would be swallowed there
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 4e-4))
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    call()
            except kind:
                interrupted += 1
            assert (stream.state[key] == stream.position).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted == 300


@pytest.mark.slow
def test_a_million_steps_need_no_more_memory() -> None:
    stream = SESSIONS["lstm"].stream()
    frame, chunks = np.ones((1, 3), "f4"), [np.ones((1, size, 3), "f4") for size in (1, 50, 7)]
    sizes = []
    for _ in range(10):
        for _ in range(100_000):
            stream.step(frame)
        for chunk in chunks * 50:
            stream.run(chunk)
        # Field 1 of statm is the resident set, in pages.
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    assert sizes[-1] - sizes[1] < 1 << 20
