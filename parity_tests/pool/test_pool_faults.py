"""Pools: what interrupts, threads and a failing engine leave behind."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_pool import F4, FRAME, refused

from rnnx import Pool
from rnnx.errors import ModelError, StreamError
from support.interrupts import interrupt_everywhere
from support.pool_models import SESSIONS


class Streams(NamedTuple):
    """A pool with three streams."""

    pool: Pool
    a: int
    b: int
    c: int


def test_two_threads_on_one_pool_are_an_error() -> None:
    pool = SESSIONS["lstm"].pool()
    a = pool.open()
    pool.step({a: FRAME})
    plan: Any = pool._batches.step(1).plan  # type: ignore[union-attr]
    inside, go, run = threading.Event(), threading.Event(), plan.run

    def slow(index: int) -> None:
        inside.set()
        assert go.wait(10)
        run(index)

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
    with pytest.raises(StreamError) as told:
        pool.open()
    assert "take turns" in told.value.fix, "another pool has none of its streams"
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


@pytest.mark.parametrize("operation", ["step", "run", "open", "close", "reset", "restore", "snapshot"])
def test_a_pool_is_of_use_while_an_interrupt_is_dealt_with(operation: str) -> None:
    session = SESSIONS["lstm"]
    alone = session.stream()
    alone.step(2 * FRAME)
    saved, chunk = alone.snapshot(), np.ones((1, 3, 3), F4)
    calls: dict[str, Callable[[Streams], object]] = {
        "step": lambda at: at.pool.step({at.a: FRAME, at.c: FRAME}),
        "run": lambda at: at.pool.run({at.a: chunk, at.b: chunk[:, :2]}),
        "open": lambda at: at.pool.open(),
        "close": lambda at: at.pool.close(at.b),
        "reset": lambda at: at.pool.reset(at.b),
        "restore": lambda at: at.pool.restore(at.b, saved),
        "snapshot": lambda at: at.pool.snapshot(at.b),
    }
    call = calls[operation]

    def make() -> Streams:
        pool = session.pool(capacity=2)
        found = Streams(pool, pool.open(), pool.open(), pool.open())
        pool.step({found.a: FRAME, found.b: FRAME})
        return found

    def look(at: Streams) -> list[bytes | None]:
        return [at.pool.snapshot(each) if each in at.pool.streams else None for each in at[1:]]

    moved = make()
    old = look(moved)
    call(moved)
    new = look(moved)

    def check(at: Streams) -> None:
        assert look(at) in (old, new)

    assert interrupt_everywhere(make, call, check) > 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="not run: timers of POSIX")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("operation", ["step", "run", "churn"])
def test_interrupts_at_any_moment_leave_all_streams_together(
    operation: str, kind: type[BaseException]
) -> None:
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
    call = calls[operation]
    call()

    def interrupt(number: int, frame: object) -> None:
        raise kind

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
            except kind:
                interrupted += 1
            positions = [pool.position(stream) for stream in streams]
            for stream, position in zip(streams, positions, strict=True):
                state = pool.state(stream)
                assert state["total"] == state["count"] == position
            if operation == "step":
                assert len(set(positions)) == 1
            if operation == "run":
                assert positions == [positions[0] * (1 + index % 3) for index in range(5)]
            for stream in set(pool.streams) - set(streams):
                pool.close(stream)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted == 200
