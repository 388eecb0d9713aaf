"""Pools: rows that move, batches and results that are kept, and no more memory than these take."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_pool import F4, FRAME

import rnnx
from rnnx.engines.ort_moving import GraphMover, gather_model, scatter_model
from rnnx.pool import batch as batches
from support.pool_models import MODELS, SESSIONS, inputs_of


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


def test_room_for_many_streams_takes_no_memory_before_they_come() -> None:
    """A list of a hundred million free rows alone would take gigabytes."""
    before = resident()
    pool = SESSIONS["running_max"].pool(capacity=100_000_000)
    a, b = pool.open(), pool.open()
    assert pool.step({b: FRAME, a: 2 * FRAME})[a]["y"].tolist() == [[2, 2, 2]]
    assert resident() - before < 100 << 20


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
