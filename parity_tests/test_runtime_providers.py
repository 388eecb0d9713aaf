"""Every provider gives what `cpu` gives: streams, chunks, states, snapshots and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnx
from pool_models import MODELS, SESSIONS, dims_of, inputs_of
from rnnx.contract import Contract
from rnnx.tolerance import error_beyond, level_of

Array = np.ndarray[Any, Any]
# "cpu" beside itself shows that the tests themselves are right.
PROVIDERS = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
STEPS = 20


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=sorted(MODELS))
def pair(request: pytest.FixtureRequest, provider: str) -> tuple[rnnx.Stream, rnnx.Stream]:
    """A stream on the CPU and one on the other provider."""
    name = request.param
    session = rnnx.load(MODELS[name](), provider)
    return SESSIONS[name].stream(dims=dims_of(name)), session.stream(dims=dims_of(name))


def agree(contract: Contract, provider: str, expected: dict[str, Array], got: dict[str, Array]) -> None:
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape
        assert got[name].dtype == value.dtype
        bound = level_of(value.dtype, provider).drift
        assert (error_beyond(bound, value, got[name]) <= 0).all(), name


def test_steps_chunks_and_states_agree(pair: tuple[rnnx.Stream, rnnx.Stream], provider: str) -> None:
    cpu, other = pair
    contract, random = cpu.session.contract, np.random.default_rng(0)
    assert other.session.provider == provider
    for step in range(STEPS):
        chunk = None if step % 3 else 5
        feed = inputs_of(contract, random, chunk)
        if chunk is None:
            agree(contract, provider, cpu.step(feed), other.step(feed))
        else:
            agree(contract, provider, cpu.run(feed), other.run(feed))
    agree(contract, provider, dict(cpu.state), dict(other.state))
    assert other.position == cpu.position


def test_snapshots_go_from_one_provider_to_the_other(
    pair: tuple[rnnx.Stream, rnnx.Stream], provider: str
) -> None:
    cpu, other = pair
    contract, random = cpu.session.contract, np.random.default_rng(1)
    for _ in range(3):
        cpu.step(inputs_of(contract, random, None))
    other.restore(cpu.snapshot())
    assert other.snapshot() == cpu.snapshot()
    feed = inputs_of(contract, random, None)
    agree(contract, provider, cpu.step(feed), other.step(feed))
    other.reset()
    assert other.snapshot() == type(cpu)(cpu.session, dims=cpu.dims).snapshot()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_pool_gives_what_streams_give(name: str, provider: str) -> None:
    session = rnnx.load(MODELS[name](), provider)
    pool = session.pool(capacity=2, dims=dims_of(name))
    random = np.random.default_rng(2)
    alone = {pool.open(): session.stream(dims=dims_of(name)) for _ in range(5)}
    for _ in range(STEPS):
        chosen = [stream for stream in alone if random.random() < 0.6]
        common = inputs_of(session.contract, random, None)
        got = pool.step(dict.fromkeys(chosen, common))
        for stream in chosen:
            agree(session.contract, provider, alone[stream].step(common), got[stream])
    for stream, single in alone.items():
        agree(session.contract, provider, dict(single.state), pool.state(stream))
