"""The provider `native`: built once, by whoever comes first; streams, pools and snapshots as elsewhere."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnnx
from cases import onnx_models
from rnnx.errors import ModelError, ProviderError, UsageError
from rnnx.tolerance import level_of
from rnnx_native import build_cache, caller
from rnnx_native.engine import NativeEngine

POOLED = level_of("float32").step


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 20, batch_first=True)
        self.out = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tagger.onnx"
    rnnx.export(Tagger(), path, inputs={"x": "float32[batch, time, 6]"})
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own for a test of builds; the caller that is kept for a process is forgotten."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    caller.extension.cache_clear()
    yield tmp_path / "cache" / "native"
    caller.extension.cache_clear()


def frames(steps: int, batch: int = 1, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((batch, steps, 6), np.float32)


@pytest.mark.parametrize("batch", [1, 2, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("chunk", [1, 7])
def test_any_batch_and_any_chunks_agree_with_the_cpu(model: Path, batch: int, chunk: int) -> None:
    """Batches are cut into groups of rows, chunks into blocks of steps; states pass through all of them."""
    session, other = rnnx.load(model, "native", options={"chunk": chunk}), rnnx.load(model)
    assert session.provider == "native"
    x, stream, expected = frames(50, batch), session.stream(batch=batch), other.stream(batch=batch)
    for begin, end in ((0, 1), (1, 8), (8, 9), (9, 36), (36, 50)):
        got, want = stream.run(x[:, begin:end])["y"], expected.run(x[:, begin:end])["y"]
        np.testing.assert_allclose(got, want, POOLED.relative, POOLED.absolute)
    for name, value in expected.state.items():
        np.testing.assert_allclose(stream.state[name], value, POOLED.relative, POOLED.absolute)


def test_pools_agree_with_single_streams(model: Path) -> None:
    session = rnnx.load(model, "native")
    pool, alone, x = session.pool(capacity=4), {}, frames(12, 12, 3)
    names = [pool.open() for _ in range(12)]
    alone = {name: session.stream() for name in names}
    for step in range(12):
        chosen = [name for index, name in enumerate(names) if (index + step) % 3]
        given = {name: {"x": x[names.index(name) : names.index(name) + 1, step]} for name in chosen}
        for name, got in pool.step(given).items():
            want = alone[name].step(given[name])["y"]
            np.testing.assert_allclose(got["y"].reshape(want.shape), want, 2e-6, 2e-6)


def test_snapshots_pass_between_providers(model: Path) -> None:
    native, cpu, x = rnnx.load(model, "native").stream(), rnnx.load(model).stream(), frames(20)
    native.run(x[:, :10])
    cpu.restore(native.snapshot())
    np.testing.assert_allclose(native.run(x[:, 10:])["y"], cpu.run(x[:, 10:])["y"], atol=2e-5)


def test_all_paths_agree_and_portable_code_has_no_vector_instructions(model: Path) -> None:
    results = [
        rnnx.load(model, "native", options={"instructions": name}).stream().run(frames(40))["y"]
        for name in ("auto", "avx512", "avx2", "portable")
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-6)
    with pytest.raises(UsageError, match="instructions"):
        rnnx.load(model, "native", options={"instructions": "fast"})


def test_models_without_states_inputs_with_defaults_and_free_dimensions_run() -> None:
    for name in ("lstm", "leak"):
        build = getattr(onnx_models, name, None)
        if build is not None:
            assert rnnx.load(build(), "native").contract.states


def test_it_is_built_once(model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rnnx.load(model, "native")
    built = sorted(home.iterdir())
    assert len(built) == 2, "the model, and what calls it"
    monkeypatch.setattr(build_cache, "_compile", lambda *_: pytest.fail("it was built again"))
    caller.extension.cache_clear()
    session = rnnx.load(model, "native")
    assert session.stream().step(frames(1)[:, 0])["y"].shape == (1, 3)
    assert sorted(home.iterdir()) == built


def test_other_options_compilers_and_code_of_ours_are_built_anew(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rnnx.load(model, "native")
    count = len(list(home.iterdir()))
    rnnx.load(model, "native", options={"chunk": 3})
    assert len(list(home.iterdir())) == count + 1
    monkeypatch.setattr(build_cache, "fingerprint", lambda: "newer")
    rnnx.load(model, "native")
    assert len(list(home.iterdir())) == count + 2


def test_many_processes_may_build_at_once(model: Path, home: Path) -> None:
    code = (
        "import sys, numpy, rnnx; s = rnnx.load(sys.argv[1], 'native').stream();"
        "print(s.step(numpy.ones((1, 6), 'f4'))['y'].tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(model)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    results = {process.communicate(timeout=300)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(results) == 1
    assert len(list(home.iterdir())) == 2, "nothing half done is left"


def test_a_build_that_fails_leaves_nothing(model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_cache, "FLAGS", (*build_cache.FLAGS, "-no-such-flag"))
    monkeypatch.setattr("rnnx_native.engine.extension", lambda: None)
    with pytest.raises(ProviderError) as caught:
        rnnx.load(model, "native")
    assert caught.value.code == "compiler-failed"
    assert "no-such-flag" in str(caught.value)
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("home")
def test_no_compiler_is_an_error_that_names_the_package(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ProviderError, match="apt install gcc") as caught:
        rnnx.load(model, "native")
    assert caught.value.code == "compiler-missing"
    monkeypatch.setenv("CC", "mycc --fast")
    with pytest.raises(ProviderError, match="'mycc'"):
        rnnx.load(model, "native")


@pytest.mark.usefixtures("home")
def test_a_cache_that_cannot_be_written_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("rnnx_native.engine.extension", lambda: None)
    with pytest.raises(ProviderError, match="RNNX_CACHE") as caught:
        rnnx.load(model, "native")
    assert caught.value.code == "cache-not-writeable"


@pytest.mark.usefixtures("home")
def test_the_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RNNX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert build_cache.cache_folder() == tmp_path / "rnnx"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert build_cache.cache_folder() == Path.home() / ".cache" / "rnnx"


@pytest.mark.usefixtures("home")
def test_it_works_through_ctypes_without_python_headers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = rnnx.load(model, "native").stream().run(frames(30))["y"]
    caller.extension.cache_clear()
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nonexistent"})
    assert caller.extension() is None
    session = rnnx.load(model, "native")
    assert (session.stream().run(frames(30))["y"] == want).all()


def test_threads_share_a_session_and_run_at_once(model: Path) -> None:
    """The GIL is released: while one thread is inside a long call, another one counts."""
    session = rnnx.load(model, "native")
    x = frames(200_000)
    stream, counted = session.stream(), []
    plan_ready = stream.run(x)
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            counted.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    run = stream._chunk_plan.run  # the C function alone
    begin = time.perf_counter()
    run(0)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert plan_ready["y"].shape == (1, 200_000, 3)
    assert end - begin > 0.02, "long enough to tell"
    assert sum(begin < moment < end for moment in counted) >= 3


def test_streams_in_threads_do_not_disturb_each_other(model: Path) -> None:
    session = rnnx.load(model, "native")
    want = {seed: session.stream().run(frames(300, seed=seed))["y"] for seed in range(4)}
    wrong = []

    def work(seed: int) -> None:
        for _ in range(20):
            if not (session.stream().run(frames(300, seed=seed))["y"] == want[seed]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in want]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.usefixtures("home")
def test_what_c_does_not_have_is_refused_when_loading(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    from rnnx_native.lowering.lower import OPS

    monkeypatch.delitem(OPS, "LSTM")
    with pytest.raises(ModelError, match="LSTM in node 'rnn/LSTM' of module rnn") as caught:
        rnnx.load(model, "native")
    assert caught.value.code == "cannot-compile"


def test_commands_take_it(command: Any, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(10))
    for provider in ("cpu", "native"):
        arguments = ("run", model, "--input", tmp_path / "x.npy", "--provider", provider)
        result = command(*arguments, "--output", tmp_path / f"{provider}.npy")
        assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "native.npy"), np.load(tmp_path / "cpu.npy"), atol=2e-5)
    trace = model.with_name("tagger.trace.safetensors")
    result = command("parity", model, "--trace", trace, "--runtimes", "native")
    assert result.exit_code == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_what_python_adds_to_the_c_function(model: Path) -> None:
    """At most 1 us with bound buffers, and `step` with all checks at most 4 us; the least of many rounds."""
    session = rnnx.load(model, "native")
    stream, x = session.stream(), frames(1)[:, 0]
    stream.step(x)
    plan = stream._step_plan
    engine = session.engine
    assert isinstance(engine, NativeEngine)
    function = engine.library({"batch": 1, "time": 1}).run
    address = ctypes.c_void_p(plan._call._call.ctypes.data)
    empty_run = _per_call(lambda: None)
    bound = _per_call(lambda: plan.run(0)) - empty_run
    through_ctypes = _per_call(lambda: function(address, 0)) - empty_run
    whole = _per_call(lambda: stream.step(x)) - empty_run
    assert bound < through_ctypes
    assert bound < 1.5, bound  # the step itself takes less than 0.5
    assert whole - bound < 4, (whole, bound)


def _per_call(function: Any, rounds: int = 30, calls: int = 2000) -> float:
    """Return the least time of a call, us."""
    best = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        best.append((time.perf_counter() - begin) / calls * 1e6)
    assert statistics.median(best) < 100 or os.cpu_count() == 1
    return min(best)


FILES = ["weights", "engine.so", "gives.json", "digests.json", "model.c", "kernels/lstm.h"]


@pytest.fixture
def kept(home: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a model, and the folder of the cache in which it lies compiled."""
    path = tmp_path / "lstm.onnx"
    path.write_bytes(onnx_models.lstm())
    step_in_a_process(path)
    (folder,) = (found.parent for found in home.glob("*/weights"))
    assert all((folder / name).is_file() for name in FILES)
    return path, folder


def step_in_a_process(path: Path) -> str:
    """Return what a new process says of a first step: a library that is loaded stays what it was."""
    code = "import sys, numpy, rnnx; s = rnnx.load(sys.argv[1], 'native').stream(); "
    code += "print(s.step(numpy.ones((1, 3), 'f4'))['y'].tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_model_is_made_again(name: str, kept: tuple[Path, Path]) -> None:
    path, folder = kept
    whole = (folder / name).read_bytes()
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 1
    replaced(folder / name, bytes(turned))
    assert np.isfinite(json.loads(step_in_a_process(path))).all()
    assert build_cache._is_whole(folder, {"engine.so": []})


@pytest.mark.parametrize("name", ["one.so", "one.c", "facts.json", "digests.json"])
def test_damage_of_any_kind_is_a_miss(name: str, home: Path) -> None:
    """Cut short, empty, gone, no JSON, or with one bit turned anywhere."""
    files = {"one.c": b"int one(void) { return 1; }", "facts.json": b'{"y": [1, 8]}'}
    made: list[int] = []

    def make() -> dict[str, bytes]:
        made.append(1)
        return files

    def keep() -> Path:
        return build_cache.kept(["one"], make, {"one.so": [*build_cache.FLAGS, "one.c"]})

    folder = keep()
    whole = (folder / name).read_bytes()
    random = np.random.default_rng(len(whole))
    changes: list[bytes | None] = [whole[:10], b"", None, b"{}", b"[" * 10_000, b"\xff"]
    for place in (0, len(whole) - 1, *random.integers(0, len(whole), 20)):
        turned = bytearray(whole)
        turned[place] ^= 1 << int(random.integers(8))
        changes.append(bytes(turned))
    assert (keep(), len(made)) == (folder, 1), "what is whole is used"
    for count, data in enumerate(changes, 2):
        (folder / name).unlink()
        if data is not None:
            (folder / name).write_bytes(data)
        assert (keep(), len(made)) == (folder, count), data
        assert all((folder / file).read_bytes() == content for file, content in files.items())


def test_one_file_too_many_is_a_miss(kept: tuple[Path, Path]) -> None:
    path, folder = kept
    (folder / "other.c").write_text("")
    step_in_a_process(path)
    assert not (folder / "other.c").exists()


def test_a_cache_that_cannot_be_written_says_so(
    kept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = kept
    replaced(folder / "gives.json", b"{}")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ProviderError, match="No space left on device; fix: set RNNX_CACHE") as refusal:
        rnnx.load(path, "native")
    assert refusal.value.code == "cache-not-writeable"


@pytest.mark.usefixtures("home")
def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RNNX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(ProviderError, match="fix: set RNNX_CACHE") as refusal:
        rnnx.load(onnx_models.lstm(), "native")
    assert refusal.value.code == "cache-not-writeable"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_open_sessions_hold_no_file_open(kept: tuple[Path, Path]) -> None:
    path, _ = kept
    sessions = [rnnx.load(path, "native")]
    before = len(os.listdir("/dev/fd"))
    sessions += [rnnx.load(path, "native") for _ in range(5)]
    for hidden in (4, 5, 6):
        sessions.append(rnnx.load(onnx_models.lstm(hidden), "native"))
    assert len(os.listdir("/dev/fd")) == before
    libraries = {id(next(iter(session.engine._libraries.values()))) for session in sessions[:6]}
    assert len(libraries) == 1, "one library for all sessions of a model"
