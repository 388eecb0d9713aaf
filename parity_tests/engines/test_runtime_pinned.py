"""Pinned memory between the host and a device, with a CUDA runtime that the host's memory stands in for."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rnnx
from rnnx.engines.ort_staging import Pageable, Pinned, Staging, pinned
from rnnx.engines.registry import availability
from rnnx.errors import ProviderError, UsageError
from support.fake_cuda import FakeCuda, apart
from support.pool_models import MODELS, SESSIONS


def load(staging: Staging) -> rnnx.Session:
    """Return the LSTM on a device, the CPU in its place."""
    return apart(rnnx.load(MODELS["lstm"]()), staging)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 3), "float32"), ((), "int64"), ((0, 4), "float64"), ((5,), "bool")]
)
def test_arrays_are_given_back_when_nothing_looks_into_them(shape: tuple[int, ...], dtype: str) -> None:
    cuda = FakeCuda()
    array: Any = Pinned(cuda, 3).empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.ctypes.data in cuda.held or not array.size
    view = array[..., :1] if array.ndim else array[None]
    array[...] = 1
    del array
    gc.collect()
    assert len(cuda.held) == 1, "a view looks into it"
    assert (view == 1).all()
    del view
    gc.collect()
    assert not cuda.held


def test_memory_is_asked_for_on_its_device_and_the_current_one_stays() -> None:
    cuda = FakeCuda(capacity=100)
    memory = Pinned(cuda, 3)
    kept = memory.empty((4,), "uint8")
    with pytest.raises(ProviderError) as caught:
        memory.empty((97,), "uint8")
    assert caught.value.code == "no-pinned-memory"
    assert caught.value.found == "cudaHostAlloc: out of memory"
    assert cuda.devices == [3, 3]
    assert cuda.current == 5
    assert cuda.used() == kept.nbytes


def test_inputs_and_outputs_go_through_it_and_states_do_not() -> None:
    cuda = FakeCuda()
    stream, alone = load(Pinned(cuda, 0)).stream(batch=2), SESSIONS["lstm"].stream(batch=2)
    assert not cuda.held, "states stay on the device"
    random = np.random.default_rng(0)
    for _ in range(3):
        frame = random.normal(size=(2, 3)).astype(np.float32)
        expected, got = alone.step(frame), stream.step(frame)
        through = sorted(block.raw for block in cuda.held.values())
        assert through == sorted(value.tobytes() for value in (frame, *got.values()))
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)
            assert got[name].ctypes.data not in cuda.held, "what is returned is the caller's to keep"
    ended = weakref.ref(stream)
    del stream
    gc.collect()
    assert ended() is None
    assert not cuda.held


def test_a_step_without_memory_left_leaves_the_stream_as_it_was() -> None:
    cuda = FakeCuda(capacity=200)
    stream = load(Pinned(cuda, 0)).stream(batch=1)
    before = stream.snapshot()
    with pytest.raises(ProviderError) as caught:
        stream.run(np.zeros((1, 200, 3), np.float32))
    assert caught.value.code == "no-pinned-memory"
    assert stream.snapshot() == before
    stream.step(np.zeros((1, 3), np.float32))
    assert stream.position == 1


def test_ordinary_memory_gives_the_same() -> None:
    streams = [load(staging).stream() for staging in (Pageable(), Pinned(FakeCuda(), 0))]
    for frame in np.random.default_rng(1).normal(size=(4, 1, 3)).astype(np.float32):
        left, right = (stream.step(frame) for stream in streams)
        assert {name: value.tobytes() for name, value in left.items()} == {
            name: value.tobytes() for name, value in right.items()
        }


@pytest.mark.parametrize("version", ["13.0", "1.0", ""])
def test_a_cuda_runtime_that_is_missing_or_refuses_is_named(version: str) -> None:
    """One of them is the real library, which is installed with PyTorch and finds no driver here."""
    if not version.startswith("13") or availability()["cuda"] is not None:
        with pytest.raises(ProviderError) as caught:
            pinned(SimpleNamespace(cuda_version=version), 0)
        assert caught.value.code == "no-pinned-memory"
        assert caught.value.fix.endswith("pinned=False")
    else:
        assert pinned(SimpleNamespace(cuda_version=version), 0).empty((2,), "float32").shape == (2,)


@pytest.mark.parametrize("option", [{"device": 0}, {"tf32": False}, {"cuda_graph": False}, {"pinned": True}])
def test_what_only_cuda_takes_is_unknown_to_the_cpu_and_left_out_by_auto(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        rnnx.load(MODELS["lstm"](), options=option)
    assert caught.value.code == "unknown-option"
    assert caught.value.expected.endswith("memory_pattern of provider cpu")
    assert rnnx.load(MODELS["lstm"](), "auto", options={"threads": 2, **option}).provider in ("cpu", "cuda")
    with pytest.raises(UsageError):
        rnnx.load(MODELS["lstm"](), "auto", options={next(iter(option)): "x"})


@pytest.mark.cuda
def test_cuda_gives_the_same_with_and_without() -> None:
    random = np.random.default_rng(2)
    streams = [rnnx.load(MODELS["lstm"](), "cuda", options={"pinned": on}).stream() for on in (True, False)]
    for frame in random.normal(size=(4, 1, 3)).astype(np.float32):
        left, right = (stream.step(frame) for stream in streams)
        np.testing.assert_array_equal(left["y"], right["y"])
