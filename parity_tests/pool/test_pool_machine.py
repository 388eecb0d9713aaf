"""Whatever is done to the streams of a pool, each is what it would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import rnnx
from rnnx.errors import InputError, StreamError
from support.pool_models import SESSIONS, agree, dims_of, inputs_of

SEEDS = st.integers(0, 1 << 20)


class Streams(RuleBasedStateMachine):
    """A pool beside a stream of batch 1 for each of its streams."""

    name = "lstm"

    @initialize(capacity=st.integers(1, 4))
    def begin(self, capacity: int) -> None:
        session = SESSIONS[self.name]
        self.contract = session.contract
        self.pool = session.pool(capacity=capacity, dims=dims_of(self.name))
        self.other = session.pool(capacity=1, dims=dims_of(self.name))
        self.alone: dict[int, rnnx.Stream] = {}
        self.closed: list[int] = []
        self.saved: list[bytes] = []

    def single(self, **arguments: Any) -> rnnx.Stream:
        return SESSIONS[self.name].stream(dims=dims_of(self.name), **arguments)

    @rule(seed=SEEDS, own=st.booleans())
    def open(self, seed: int, own: bool) -> None:
        initial = None
        if own and self.contract.states:
            state = self.contract.states[seed % len(self.contract.states)]
            initial = {state.name: seed % 5 if "int" in state.dtype else seed % 7 / 4}
        self.alone[self.pool.open(initial=initial)] = self.single(initial=initial)

    @precondition(lambda self: self.saved)
    @rule(seed=SEEDS)
    def open_from_snapshot(self, seed: int) -> None:
        saved = self.saved[seed % len(self.saved)]
        stream = self.single()
        stream.restore(saved)
        self.alone[self.pool.open(snapshot=saved)] = stream

    def chosen(self, random: np.random.Generator, share: float) -> list[int]:
        streams = [stream for stream in self.alone if random.random() < share]
        return [streams[place] for place in random.permutation(len(streams))]

    @rule(seed=SEEDS, share=st.sampled_from([0.5, 1.0]), times=st.integers(1, 3))
    def step(self, seed: int, share: float, times: int) -> None:
        random = np.random.default_rng(seed)
        chosen = self.chosen(random, share)
        for _ in range(times):
            feeds = {stream: inputs_of(self.contract, random, None, shared=2.0) for stream in chosen}
            results = self.pool.step(feeds)
            assert results.keys() == feeds.keys()
            for stream, feed in feeds.items():
                agree(results[stream], self.alone[stream].step(feed))

    @rule(seed=SEEDS, share=st.sampled_from([0.5, 1.0]))
    def run(self, seed: int, share: float) -> None:
        random = np.random.default_rng(seed)
        feeds = {}
        step_model = not self.contract.has_time
        same = int(random.integers(1, 6))
        for stream in self.chosen(random, share):
            # An input of a step model that all rows share has an entry for each step: the same ones in all.
            shared = step_model and any("batch" not in spec.shape for spec in self.contract.inputs)
            steps = same if shared else int(random.integers(1, 6))
            feeds[stream] = inputs_of(self.contract, random, steps, shared=0.5)
        results = self.pool.run(feeds)
        assert results.keys() == feeds.keys()
        for stream, feed in feeds.items():
            agree(results[stream], self.alone[stream].run(feed))

    @precondition(lambda self: self.alone)
    @rule(seed=SEEDS)
    def reset(self, seed: int) -> None:
        stream = list(self.alone)[seed % len(self.alone)]
        self.pool.reset(stream)
        self.alone[stream].reset()

    @precondition(lambda self: self.alone)
    @rule(seed=SEEDS)
    def snapshot(self, seed: int) -> None:
        stream = list(self.alone)[seed % len(self.alone)]
        data = self.pool.snapshot(stream)
        single = self.single()
        single.restore(data)
        assert single.snapshot() == data
        there = self.other.open(snapshot=data)
        assert self.other.snapshot(there) == data
        self.other.close(there)
        self.saved = [*self.saved[-3:], data]

    @precondition(lambda self: self.alone and self.saved)
    @rule(seed=SEEDS)
    def restore(self, seed: int) -> None:
        stream = list(self.alone)[seed % len(self.alone)]
        saved = self.saved[seed % len(self.saved)]
        self.pool.restore(stream, saved)
        self.alone[stream].restore(saved)

    @precondition(lambda self: self.alone)
    @rule(seed=SEEDS)
    def close(self, seed: int) -> None:
        stream = list(self.alone)[seed % len(self.alone)]
        self.pool.close(stream)
        self.pool.close(stream)
        self.closed.append(stream)
        del self.alone[stream]

    @precondition(lambda self: len(self.alone) > 1)
    @rule(seed=SEEDS, chunk=st.booleans())
    def refused(self, seed: int, chunk: bool) -> None:
        random = np.random.default_rng(seed)
        steps = 3 if chunk else None
        feeds: dict[int, Any] = {
            stream: inputs_of(self.contract, random, steps, shared=2.0) for stream in self.alone
        }
        wrong = list(feeds)[seed % len(feeds)]
        feeds[wrong] = {**feeds[wrong], "nonsense": 1.0}
        call = self.pool.run if chunk else self.pool.step
        with pytest.raises(InputError, match=f"stream {wrong}$|stream {wrong};"):
            call(feeds)
        if self.closed:
            with pytest.raises(StreamError) as caught:
                call({**feeds, wrong: inputs_of(self.contract, random, steps), self.closed[-1]: {}})
            assert caught.value.code == "stream-closed"

    @invariant()
    def every_stream_is_what_it_would_be_alone(self) -> None:
        if not hasattr(self, "pool"):
            return
        assert set(self.pool.streams) == set(self.alone)
        assert self.pool.capacity >= len(self.alone)
        # Looking brings all states into the table: only now and then, so that they stay in batches too.
        if len(self.saved) % 2:
            for stream, single in self.alone.items():
                assert self.pool.position(stream) == single.position
                agree(self.pool.state(stream), dict(single.state))

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for stream, single in self.alone.items():
            assert self.pool.position(stream) == single.position
            agree(self.pool.state(stream), dict(single.state))


def machine(name: str) -> Any:
    kind = type(f"Streams_{name}", (Streams,), {"name": name})
    kind.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)  # type: ignore[attr-defined]
    return kind.TestCase  # type: ignore[attr-defined]


for _name in SESSIONS:
    globals()[f"Test_{_name}"] = machine(_name)
del _name
