"""`rnnx run` and `rnnx parity`, and the functions behind them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from typer.testing import Result

import rnnx
from cases import onnx_models
from rnnx.errors import FileError, InputError, UsageError
from rnnx.formats.array_files import write_arrays
from rnnx.formats.trace_file import Trace, write_trace
from rnnx.runtime.chunks import join_chunks, run_chunks
from rnnx.text.generation import TextStream, generate
from rnnx.text.sampling import Sampler
from rnnx.tolerance import Bound
from support.interrupts import interrupt_everywhere
from support.recorded import record
from support.results import refused

Command = Callable[..., Result]
Process = Callable[..., Any]
RAW = np.random.default_rng(2).normal(size=(1, 40, 3)).astype("f4")


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """Run `rnnx ARGUMENTS` as a process of its own, in the test's folder."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[Any]:
        line = [sys.executable, "-m", "rnnx.cli", *map(str, arguments)]
        settings = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 120, **options}
        return subprocess.run(line, **settings)

    return run


@pytest.fixture
def poet(tmp_path: Path) -> Path:
    path = tmp_path / "poet.onnx"
    path.write_bytes(onnx_models.symbols())
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(onnx_models.lstm())
    np.save(tmp_path / "x.npy", RAW)
    return path


def loaded(path: Path) -> Any:
    """Read with NumPy itself, so that what others will read is tested."""
    found = np.load(path)
    if isinstance(found, np.ndarray):
        return found
    with found:
        return dict(found)


def whole(network: Path) -> Any:
    return rnnx.load(network).stream().run(RAW)["y"]


def test_text_is_what_the_sampler_draws_from_the_model(poet: Path, command: Command) -> None:
    session = rnnx.load(poet)
    symbols = session.contract.vocabulary.symbols  # type: ignore[union-attr]
    stream, sampler = session.stream(), Sampler(5, 0.8)
    for symbol in "abc":
        scores = stream.step([symbols.index(symbol)])["logits"]
    expected = ""
    for _ in range(30):
        drawn = sampler.sample(scores[0])
        expected += symbols[drawn]
        scores = stream.step([drawn])["logits"]
    assert "".join(rnnx.generate(session, "abc", 30, temperature=0.8, seed=5)) == expected
    arguments = ["run", poet, "--prompt", "abc", "--length", 30, "--temperature", 0.8, "--seed", 5]
    assert command(*arguments).stdout == "abc" + expected


@pytest.mark.parametrize("cut", [0, 1, 17, 30])
def test_text_continues_exactly_where_it_stopped(
    poet: Path, command: Command, tmp_path: Path, cut: int
) -> None:
    state = tmp_path / "state.safetensors"
    one = command("run", poet, "--prompt", "ab", "--length", 30, "--temperature", 1.5, "--seed", 9)
    first = command(
        "run",
        poet,
        "--prompt",
        "ab",
        "--length",
        cut,
        "--temperature",
        1.5,
        "--seed",
        9,
        "--save-state",
        state,
    )
    rest = command("run", poet, "--length", 30 - cut, "--load-state", state, "--save-state", state)
    assert first.stdout + rest.stdout == one.stdout
    # Named again, seed and temperature win over what was saved.
    again = command("run", poet, "--length", 9, "--load-state", state, "--temperature", 0)
    calm = command("run", poet, "--length", 9, "--load-state", state, "--temperature", 0, "--seed", 1)
    assert again.stdout == calm.stdout


@pytest.mark.parametrize("method", ["read", "write"])
def test_an_interrupt_loses_no_symbol(poet: Path, method: str) -> None:
    session = rnnx.load(poet)
    expected = "".join(generate(session, "abcba", 9, seed=3))

    def make() -> TextStream:
        text = TextStream(session, seed=3)
        text.read("abc" if method == "read" else "abcba")
        return text

    def check(text: TextStream) -> None:
        if text._stream.position == 3:
            text.read("ba")
        # A symbol was given out where the interrupt came as Python threw something away: it is ignored there.
        given = text._stream.position - 5
        assert "".join(text.write(9 - given)) == expected[given:]

    interrupted = interrupt_everywhere(
        make,
        (lambda text: text.read("ba")) if method == "read" else (lambda text: next(text.write(1))),
        check,
    )
    assert interrupted > 20


def test_text_is_utf8_whatever_the_terminal_says(poet: Path, process: Process) -> None:
    result = process(
        "run",
        poet,
        "--prompt",
        "é",
        "--length",
        "0",
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        text=False,
    )
    assert result.stdout == "é".encode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--prompt", "xyz"], "character-outside-vocabulary"),
        (["--prompt", ""], "prompt-empty"),
        ([], "prompt-empty"),
        (["--prompt", "a", "--temperature", "-1"], "temperature-invalid"),
        (["--prompt", "a", "--temperature", "nan"], "temperature-invalid"),
        (["--prompt", "a", "--seed", "-1"], "seed-invalid"),
        (["--prompt", "a", "--output", "y.npy"], "arguments"),
        (["--prompt", "a", "--input", "x.npy"], "arguments"),
        (["--prompt", "a", "--provider", "gpu"], "provider-unknown"),
        (["--prompt", "a", "--load-state", "none.safetensors"], "file-missing"),
        (["--prompt", "a", "--save-state", "/nowhere/s"], "output-folder-missing"),
        (["--input", "x.npy"], "arguments"),
    ],
)
def test_text_that_cannot_be_made_is_refused(
    poet: Path, command: Command, arguments: list[str], code: str
) -> None:
    result = command("run", poet, *arguments)
    refused(result, code)
    assert result.stdout == ""


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_arrays_in_any_chunks_and_formats(
    network: Path, command: Command, tmp_path: Path, chunk: int, ending: str
) -> None:
    output = tmp_path / f"y.{ending}"
    source = tmp_path / f"in.{ending}"
    write_arrays(source, {"x": RAW})
    result = command("run", network, "--input", source, "--output", output, "--chunk", chunk)
    assert result.exit_code == 0, result.stderr
    assert "40/40 steps" in result.stderr
    assert result.stdout == ""
    if ending == "safetensors":
        found = safetensors.numpy.load_file(output)["y"]
    else:
        found = loaded(output) if ending == "npy" else loaded(output)["y"]
    np.testing.assert_allclose(found, whole(network), rtol=1e-6, atol=1e-6)


def test_raw_values_and_npy_through_pipes(network: Path, process: Process, tmp_path: Path) -> None:
    expected = whole(network)[0]
    arguments = ("run", network, "-i", "-", "-o", "-", "--chunk", "7", "-q")
    for data in (RAW.tobytes(), (tmp_path / "x.npy").read_bytes()):
        result = process(*arguments, input=data, text=False)
        assert result.returncode == 0, result.stderr
        assert result.stderr == b""
        found = np.frombuffer(result.stdout, "<f4").reshape(40, 8)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    short = process(*arguments, input=RAW.tobytes()[:-5], text=False)
    assert short.returncode == 2
    assert b"error[raw-input]" in short.stderr
    assert process(*arguments, input=b"", text=False).returncode == 2
    named = process(*arguments, input=safetensors.numpy.save({"x": RAW}), text=False)
    assert named.returncode == 2
    assert b"begins like a .safetensors" in named.stderr


def test_a_live_source_is_answered_step_by_step(network: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "rnnx.cli", "run", str(network), "-i", "-", "-o", "-", "-q"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        assert process.stdout
        for step in range(4):
            process.stdin.write(RAW[0, step].tobytes())
            process.stdin.flush()
            found = np.frombuffer(process.stdout.read(32), "f4")
            np.testing.assert_allclose(found, whole(network)[0, step], rtol=1e-6, atol=1e-6)
        process.stdin.close()
        assert process.wait(30) == 0


def test_arrays_continue_exactly_where_they_stopped(network: Path, command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RAW[:, :15])
    np.save(tmp_path / "b.npy", RAW[:, 15:])
    state, one = tmp_path / "s.safetensors", ("--chunk", 1, "-q")
    command("run", network, "-i", tmp_path / "x.npy", "-o", tmp_path / "y.npy", *one)
    command("run", network, "-i", tmp_path / "a.npy", "-o", tmp_path / "ya.npy", "--save-state", state, *one)
    command("run", network, "-i", tmp_path / "b.npy", "-o", tmp_path / "yb.npy", "--load-state", state, *one)
    parts = [np.load(tmp_path / name) for name in ("ya.npy", "yb.npy")]
    assert (np.concatenate(parts, axis=1) == np.load(tmp_path / "y.npy")).all()


def damaged_header() -> bytes:
    """A .npy with an axis of True entries."""
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, True, 4)}".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


def test_arrays_that_do_not_fit_are_refused_and_leave_old_results(
    network: Path, command: Command, tmp_path: Path
) -> None:
    output = tmp_path / "y.npy"
    output.write_text("old")
    cases: dict[str, tuple[Any, str]] = {
        "a.npy": (RAW.astype("f8"), "wrong-dtype"),
        "b.npy": (RAW[0], "wrong-shape"),
        "c.npy": (RAW[:, :0], "empty-time"),
        "d.npy": (RAW[:0], "empty-batch"),
        "e.npy": (np.where(RAW[0, 39, 2] == RAW, np.nan, RAW), "non-finite"),
        "f.npz": ({"z": RAW}, "unknown-input"),
        "g.npy": (b"\x93NUMPY no", "not-an-array"),
        "true.npy": (damaged_header(), "not-an-array"),
        "h.npz": (b"PK no", "not-an-array"),
        "i.safetensors": (b"no", "not-safetensors"),
        "j.txt": (b"no", "array-format"),
        "k.npy": (np.array([{}]), "not-an-array"),
    }
    for name, (content, code) in cases.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            np.save(path, content)
        refused(command("run", network, "-i", path, "-o", output, "-q"), code)
    source = tmp_path / "x.npy"
    refused(command("run", network, "-i", source, "-o", source, "-q"), "output-is-input")
    refused(command("run", network, "-i", source, "-o", network, "-q"), "output-is-input")
    refused(command("run", network, "-i", source, "-o", output, "--save-state", source), "output-is-input")
    refused(command("run", network, "-i", source, "-o", output, "--save-state", output), "arguments")
    refused(command("run", network, "-i", source, "-o", tmp_path / "y.txt", "-q"), "array-format")
    refused(command("run", network, "-i", source, "-o", tmp_path, "-q"), "output-is-folder")
    refused(command("run", network, "--prompt", "a"), "not-symbols")
    refused(
        command("run", network, "-i", source, "-o", output, "--load-state", source, "-q"), "not-safetensors"
    )
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_the_old_result(network: Path, process: Process, tmp_path: Path) -> None:
    output = tmp_path / "y.npy"
    output.write_text("old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    result = process("run", network, "-i", "x.npy", "-o", output, "-q", preexec_fn=limit)
    assert result.returncode == 2
    assert "error[disk-full]" in result.stderr
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_several_outputs_need_a_format_with_names(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "gained.onnx"
    path.write_bytes(onnx_models.gained())
    np.savez(tmp_path / "x.npz", x=RAW, gain=np.array([2.0], "f4"))
    for output in (tmp_path / "y.npy", "-"):
        result = command("run", path, "-i", tmp_path / "x.npz", "-o", output, "-q")
        assert result.exit_code == 2
    output = tmp_path / "y.npz"
    assert command("run", path, "-i", tmp_path / "x.npz", "-o", output, "-q", "--chunk", 9).exit_code == 0
    np.testing.assert_allclose(loaded(output)["last"], 2 * RAW.sum(1), rtol=1e-4, atol=1e-5)
    assert loaded(output)["y"].shape == (1, 40, 3)


def test_chunks_of_lengths_hops_and_step_models() -> None:
    gained = rnnx.load(onnx_models.gained())
    feed = {"x": np.ones((2, 9, 3), "f4"), "lengths": np.array([4, 9])}
    parts = [part for _, part in run_chunks(gained.stream(batch=2), feed, chunk=2)]
    assert join_chunks(gained.contract, parts)["last"][:, 0].tolist() == [4, 9]
    hops = rnnx.load(onnx_models.hops())
    source = np.arange(40, dtype="f4")[None]
    joined = join_chunks(hops.contract, [part for _, part in run_chunks(hops.stream(), source, chunk=3)])
    assert (joined["y"] == hops.stream().run(source)["y"]).all()
    scalar = rnnx.load(onnx_models.step_scalar())
    assert [done for done, _ in run_chunks(scalar.stream(), np.ones(5), chunk=2)] == [2, 4, 5]
    back = rnnx.load(onnx_models.backwards())
    assert [done for done, _ in run_chunks(back.stream(), np.ones((1, 5), "f4"), chunk=2)] == [5]
    with pytest.raises(UsageError):
        next(run_chunks(hops.stream(), source, chunk=0))
    with pytest.raises(InputError):
        next(run_chunks(hops.stream(), source[:, :-1], chunk=2))


def test_parity_against_a_trace(command: Command, tmp_path: Path) -> None:
    session, trace = record()
    model, path = tmp_path / "m.onnx", tmp_path / "m.trace.safetensors"
    model.write_bytes(onnx_models.lstm())
    write_trace(path, trace)
    good = command("parity", model, "--trace", path)
    assert good.exit_code == 0, good.stderr
    assert "agrees with itself: 6 steps, batch 2, on cpu" in good.stdout
    assert json.loads(command("parity", model, "--trace", path, "--json").stdout)["agrees"] is True
    assert session.id == trace.model_id
    trace.outputs["y"][3, 1, 2] += 1
    write_trace(path, trace)
    bad = command("parity", model, "--trace", path)
    assert bad.exit_code == 1
    assert "step 3, output.y[1, 2] (fed)" in bad.stderr
    assert f"rnnx parity {model} --trace {path}" in bad.stderr
    told = command("parity", model, "--trace", path, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["runtimes"][0]["failure"]["step"] == 3
    refused(command("parity", model), "arguments")
    refused(command("parity", model, "--trace", path, "--against", "x"), "arguments")
    refused(command("parity", model, "--trace", path, "--dim", "memory"), "arguments")
    refused(command("parity", model, "--trace", tmp_path / "no"), "file-missing")
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_models.gru())
    refused(command("parity", other, "--trace", path), "trace-of-another-model")


def test_parity_of_a_whole_only_model_against_a_trace(command: Command, tmp_path: Path) -> None:
    model, path = tmp_path / "back.onnx", tmp_path / "back.trace.safetensors"
    model.write_bytes(onnx_models.backwards())
    x = np.arange(10, dtype="f4").reshape(2, 5)
    counts = np.full((6, 2), 77, "f4")  # between the first and the last row anything may stand
    counts[0], counts[-1] = 0, 1
    bounds = dict.fromkeys(["output.y", "state.count"], Bound(1e-5, 1e-5))
    y = np.flip(np.cumsum(np.flip(x, 1), 1), 1).T.copy()
    trace = Trace(rnnx.load(model).id, "by hand", bounds, {"x": x.T.copy()}, {"y": y}, {"count": counts})
    write_trace(path, trace)
    good = command("parity", model, "--trace", path)
    assert good.exit_code == 0, good.stderr
    for wrong in (y[2], counts[-1]):
        wrong += 1
        write_trace(path, trace)
        assert command("parity", model, "--trace", path).exit_code == 1
        wrong -= 1


def test_a_snapshot_without_sampling_needs_a_prompt(poet: Path) -> None:
    text = TextStream(rnnx.load(poet))
    text.restore(rnnx.load(poet).stream().snapshot())
    with pytest.raises(InputError, match="at least one character"):
        text.write(3)
    with pytest.raises(UsageError):
        text.write(-1)
    assert list(text.write(0)) == []
    with pytest.raises(FileError):
        text.restore(b"")
