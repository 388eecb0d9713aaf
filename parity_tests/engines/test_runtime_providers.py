"""Every provider gives what `cpu` gives: streams, chunks, states, snapshots and pools.

`device` is no provider: it is the code for a device that keeps its buffers apart from the host's arrays, with
the CPU as that device, so that all of it but CUDA itself is tested anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnx
from rnnx.engines.ort_staging import Pinned
from rnnx.errors import InputError
from rnnx.model.contract import Contract, InputSpec
from rnnx.runtime import input_buffers
from rnnx.tolerance import error_beyond, level_of
from support.fake_cuda import FakeCuda, apart
from support.pool_models import MODELS, SESSIONS, dims_of, inputs_of

Array = np.ndarray[Any, Any]
# "cpu" beside itself shows that the tests themselves are right.
PROVIDERS = ["cpu", "device", "native", pytest.param("cuda", marks=pytest.mark.cuda)]
STEPS = 20


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(name: str, provider: str, **options: Any) -> rnnx.Session:
    if provider != "device":
        return rnnx.load(MODELS[name](), provider, options=options)
    return apart(rnnx.load(MODELS[name](), options=options), Pinned(FakeCuda(), 0))


@pytest.fixture(params=sorted(MODELS))
def pair(request: pytest.FixtureRequest, provider: str) -> tuple[rnnx.Stream, rnnx.Stream]:
    """A stream on the CPU and one on the other provider."""
    name = request.param
    session = load(name, provider)
    return SESSIONS[name].stream(dims=dims_of(name)), session.stream(dims=dims_of(name))


def agree(contract: Contract, provider: str, expected: dict[str, Array], got: dict[str, Array]) -> None:
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape
        assert got[name].dtype == value.dtype
        bound = level_of(value.dtype, "cpu" if provider == "device" else provider).drift
        assert (error_beyond(bound, value, got[name]) <= 0).all(), name


def test_steps_chunks_and_states_agree(pair: tuple[rnnx.Stream, rnnx.Stream], provider: str) -> None:
    cpu, other = pair
    contract, random = cpu.session.contract, np.random.default_rng(0)
    assert other.session.provider == ("cpu" if provider == "device" else provider)
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
    session = load(name, provider)
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


DEVICES = ["device", pytest.param("cuda", marks=pytest.mark.cuda)]


def there(provider: str, array: Array) -> Any:
    """Return an array as a tensor that lies where `provider` computes."""
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array.copy()).to("cuda" if provider == "cuda" else "cpu")


@pytest.mark.parametrize("provider", DEVICES)
def test_inputs_are_taken_where_they_lie(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, other = SESSIONS["lstm"].stream(batch=2), load("lstm", provider).stream(batch=2)
    convert = input_buffers.to_array

    def host_only(spec: InputSpec, value: Any) -> Array:
        assert type(value) is np.ndarray, "a tensor was brought to the host"
        return convert(spec, value)

    monkeypatch.setattr(input_buffers, "to_array", host_only)
    random = np.random.default_rng(3)
    for steps in (None, 4, 4, None, 1):
        frame = random.normal(size=(2, 3) if steps is None else (2, steps, 3)).astype(np.float32)
        given = there(provider, frame)
        if steps is None:
            agree(cpu.session.contract, provider, cpu.step(frame), other.step({"x": given}))
            agree(cpu.session.contract, provider, cpu.step(frame), other.step(given))
        else:
            agree(cpu.session.contract, provider, cpu.run(frame), other.run(given))


@pytest.mark.parametrize("provider", DEVICES)
def test_host_arrays_count_again_after_tensors(provider: str) -> None:
    """Whatever became of the call before: a step, a refusal halfway, or a step that left the input out."""
    cpu, other = (session.stream() for session in (SESSIONS["gained"], load("gained", provider)))
    contract, random = cpu.session.contract, np.random.default_rng(4)
    names = {spec.name: spec for spec in contract.inputs}
    assert names["gain"].default is not None
    for _ in range(4):
        x, gain = random.normal(size=(2, 1, *names["x"].shape[2:])).astype(np.float32)  # type: ignore[misc]
        gain = np.float32([random.normal()])
        for feed in ({"x": x, "gain": gain}, {"x": x}):
            tensors = {name: there(provider, value) for name, value in feed.items()}
            agree(contract, provider, cpu.step(feed), other.step(tensors))
            with pytest.raises(InputError):
                other.step({**tensors, "lengths": np.array([7])})
            agree(contract, provider, cpu.step(feed), other.step(feed))
            agree(contract, provider, cpu.step({"x": x}), other.step({"x": tensors["x"]}))


@pytest.mark.parametrize("provider", DEVICES)
def test_tensors_that_do_not_fit_are_refused(provider: str) -> None:
    stream = load("lstm", provider).stream(batch=2)
    frame = np.ones((2, 3), np.float32)
    before = stream.snapshot()
    for value, code in (
        (there(provider, np.ones((2, 4), np.float32)), "wrong-shape"),
        (there(provider, np.ones((1, 3), np.float32)), "wrong-shape"),
        (there(provider, np.ones((2, 3))), "wrong-dtype"),
        (there(provider, np.ones((3, 2), np.float32)).T, "not-contiguous"),
    ):
        for _ in range(2):  # as the first call, and after a good one
            with pytest.raises(InputError) as caught:
                stream.step(value)
            assert caught.value.code == code
            assert stream.snapshot() == before
            stream.step(there(provider, frame))
            stream.restore(before)


@pytest.mark.cuda
def test_ids_are_looked_at_on_the_host() -> None:
    stream = load("symbols", "cuda").stream()
    with pytest.raises(InputError, match="convert it to a NumPy array first"):
        stream.step(there("cuda", np.array([1])))


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["lstm", "gru", "two_layers"])
def test_a_step_recorded_as_a_cuda_graph_gives_the_same(name: str) -> None:
    cpu, other = SESSIONS[name].stream(batch=2), load(name, "cuda", cuda_graph=True).stream(batch=2)
    contract, random = cpu.session.contract, np.random.default_rng(5)
    for _ in range(STEPS):
        feed = {"x": random.normal(size=(2, contract.inputs[0].shape[-1])).astype(np.float32)}
        agree(contract, "cuda", cpu.step(feed), other.step(feed))
