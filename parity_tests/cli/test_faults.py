"""What bad input gets: each fault is put into each command it applies to.

Always one line on standard error that says what was expected, found, and how to fix it, exit code 2, and
a folder that holds exactly what it held before: nothing half-written, good results untouched, no remains.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import Result

from cases import onnx_models
from cases.leak import leak_contract, leak_graph
from rnnx.engines.registry import availability
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.formats.trace_file import encode_trace
from rnnx.model import protobuf
from rnnx.model.contract import METADATA_KEY, to_json
from rnnx_models.checkpoint import METADATA_KEY as CHECKPOINT_KEY
from rnnx_models.checkpoint import save_checkpoint
from rnnx_models.networks import CharNetwork, NetworkConfig
from support.recorded import record

Command = Callable[..., Result]
SYMBOLS = tuple("\nabcdefgh é")
OLD = b"a good result of an earlier run"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything the commands need, and earlier results where they would write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poet.onnx").write_bytes(onnx_models.symbols())
    (tmp_path / "lstm.onnx").write_bytes(onnx_models.lstm())
    (tmp_path / "lstm.trace.safetensors").write_bytes(encode_trace(record()[1]))
    (tmp_path / "text.txt").write_text("hello!" * 400)
    torch.manual_seed(0)
    save_checkpoint(
        tmp_path / "poet.safetensors", CharNetwork(NetworkConfig("gru", len(SYMBOLS), 4)), SYMBOLS
    )
    np.save(tmp_path / "x.npy", np.ones((1, 40, 3), np.float32))
    for name in ("made.onnx", "made.trace.safetensors", "made.safetensors", "y.npy", "state.safetensors"):
        (tmp_path / name).write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    return tmp_path


def held(folder: Path) -> dict[str, bytes | None]:
    """Return everything in a folder: content by path, None for folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(command: Command, code: str, *arguments: str) -> str:
    """Check that a command is refused as this file promises; return what it says."""
    before = held(Path.cwd())
    result = command(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith(f"rnnx: error[{code}]: expected "), result.stderr
    assert "; found " in result.stderr
    assert "; fix: " in result.stderr
    assert result.stderr.count("\n") == 1
    assert held(Path.cwd()) == before
    return result.stderr


# Model files, for everything that reads one.


def with_contract(**changes: Any) -> bytes:
    text = json.dumps({**json.loads(to_json(leak_contract())), **changes}).encode()
    pair = protobuf.encode_bytes(1, METADATA_KEY.encode()) + protobuf.encode_bytes(2, text)
    return leak_graph() + protobuf.encode_bytes(14, pair)


MODELS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "no ONNX": ("not-onnx", lambda: b"hello"),
    "empty": ("not-onnx", lambda: b""),
    "truncated": ("not-onnx", lambda: leak_graph()[:-20]),
    "no contract": ("no-contract", leak_graph),
    "later version": ("contract-newer", lambda: with_contract(version=2)),
    "later requirement": ("contract-requires", lambda: with_contract(requires=["telepathy"])),
    "no version": ("contract-invalid", lambda: with_contract(version=None)),
    "other inputs": ("contract-graph", lambda: with_contract(states=[])),
    "other dtype": (
        "contract-graph",
        lambda: with_contract(inputs=[{"name": "x", "dtype": "int64", "shape": ["batch", "time", 1]}]),
    ),
    "other shape": (
        "contract-graph",
        lambda: with_contract(inputs=[{"name": "x", "dtype": "float32", "shape": ["batch", "time", 9]}]),
    ),
}
READERS = {
    "inspect": ["inspect", "m.onnx"],
    "inspect --json": ["inspect", "m.onnx", "--json"],
    "run": ["run", "m.onnx", "--input", "x.npy", "--output", "y.npy", "--save-state", "state.safetensors"],
    "parity --trace": ["parity", "m.onnx", "--trace", "lstm.trace.safetensors"],
    "parity --against": ["parity", "m.onnx", "--against", "poet.safetensors"],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", MODELS)
def test_model_files(place: Path, command: Command, reader: str, fault: str) -> None:
    code, make = MODELS[fault]
    Path("m.onnx").write_bytes(make())
    refused(command, code, *READERS[reader])


# Checkpoints, for everything that reads one.


def rewritten(
    change: Callable[[dict[str, torch.Tensor]], Any], document: Callable[[Any], Any] = lambda _: None
) -> bytes:
    data = Path("poet.safetensors").read_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"][CHECKPOINT_KEY])
    change(tensors)
    document(content)
    return safetensors.torch.save(tensors, {CHECKPOINT_KEY: json.dumps(content)})


CHECKPOINTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "pickle": ("checkpoint-is-pickle", lambda: pickle.dumps({"weight": 1})),
    "truncated": ("not-safetensors", lambda: Path("poet.safetensors").read_bytes()[:-8]),
    "text": ("not-safetensors", lambda: b"hello " * 9),
    "missing weight": ("weights-missing", lambda: rewritten(lambda t: t.pop("readout.weight"))),
    "extra weight": ("weights-unexpected", lambda: rewritten(lambda t: t.update(more=torch.zeros(1)))),
    "NaN": ("weights-not-finite", lambda: rewritten(lambda t: t["readout.weight"].fill_(np.nan))),
    "infinity": ("weights-not-finite", lambda: rewritten(lambda t: t["readout.weight"].fill_(np.inf))),
    "other shape": (
        "weights-shape",
        lambda: rewritten(lambda t: t.update({"readout.weight": torch.zeros(1)})),
    ),
    "no configuration": ("not-a-checkpoint", lambda: safetensors.torch.save({"w": torch.zeros(1)})),
    "later version": ("checkpoint-newer", lambda: rewritten(lambda _: None, lambda c: c.update(version=2))),
}
LOADERS = {
    "export": ["export", "c.safetensors", "-o", "made.onnx"],
    "parity --against": ["parity", "poet.onnx", "--against", "c.safetensors"],
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_checkpoints(place: Path, command: Command, loader: str, fault: str) -> None:
    code, make = CHECKPOINTS[fault]
    Path("c.safetensors").write_bytes(make())
    refused(command, code, *LOADERS[loader])


# Traces and snapshots.


def changed(path: str, name: str, change: Callable[[Any], Any], **metadata: str) -> bytes:
    """Return the file with one tensor changed, left out where that gives None, and other metadata."""
    tensors, known = decode_tensors(Path(path).read_bytes(), what="")
    tensors[name] = change(tensors[name])
    kept = {key: value for key, value in tensors.items() if value is not None}
    return encode_tensors(kept, {**known, **metadata})


def trace(name: str, change: Callable[[Any], Any] = np.asarray, **metadata: str) -> Callable[[], bytes]:
    return lambda: changed("lstm.trace.safetensors", name, change, **metadata)


TRACES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "pickle": ("not-safetensors", lambda: pickle.dumps({"weight": 1})),
    "truncated": ("not-safetensors", lambda: Path("lstm.trace.safetensors").read_bytes()[:-3]),
    "a checkpoint": ("not-a-trace", lambda: Path("poet.safetensors").read_bytes()),
    "later version": ("trace-newer", trace("input.x", version="2")),
    "of another model": ("trace-of-another-model", trace("input.x", model="sha256:0")),
    "missing tensor": ("trace-invalid", trace("state.lstm.h", lambda _: None)),
    "wrong dtype": ("trace-invalid", trace("input.x", lambda rows: rows.astype("f8"))),
    "wrong shape": ("trace-invalid", trace("input.x", lambda rows: rows[..., :1])),
    "other batch": ("trace-invalid", trace("output.y", lambda rows: rows[:, :1])),
    "no steps": ("trace-invalid", trace("input.x", lambda rows: rows[:0])),
    "no tolerances": ("trace-invalid", trace("input.x", tolerances="{}")),
    "non-finite input": ("non-finite", trace("input.x", lambda rows: rows * np.float32(np.inf))),
}


@pytest.mark.parametrize("fault", TRACES)
def test_traces(place: Path, command: Command, fault: str) -> None:
    code, make = TRACES[fault]
    Path("t.safetensors").write_bytes(make())
    refused(command, code, "parity", "lstm.onnx", "--trace", "t.safetensors")


def snapshot(name: str, change: Callable[[Any], Any] = np.asarray, **metadata: str) -> Callable[[], bytes]:
    return lambda: changed("saved.safetensors", name, change, **metadata)


SNAPSHOTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "pickle": ("not-safetensors", lambda: pickle.dumps({"weight": 1})),
    "truncated": ("not-safetensors", lambda: Path("saved.safetensors").read_bytes()[:-3]),
    "a trace": ("not-a-snapshot", lambda: Path("lstm.trace.safetensors").read_bytes()),
    "later version": ("snapshot-newer", snapshot("sampling.scores", version="2")),
    "of another model": ("snapshot-of-another-model", snapshot("sampling.scores", model="sha256:0")),
    "no position": ("snapshot-invalid", snapshot("sampling.scores", position="-1")),
    "missing part": ("snapshot-invalid", snapshot("sampling.temperature", lambda _: None)),
    "wrong shape": ("snapshot-invalid", snapshot("sampling.scores", lambda rows: rows[:, :1])),
    "wrong dtype": ("snapshot-invalid", snapshot("sampling.generator", lambda row: row.astype("f4"))),
}


@pytest.mark.parametrize("fault", SNAPSHOTS)
def test_snapshots(place: Path, command: Command, fault: str) -> None:
    made = command(
        "run", "poet.onnx", "--prompt", "abc", "--length", "2", "--save-state", "saved.safetensors"
    )
    assert made.exit_code == 0, made.stderr
    code, make = SNAPSHOTS[fault]
    Path("s.safetensors").write_bytes(make())
    rest = ["--length", "3", "--load-state", "s.safetensors", "--save-state", "state.safetensors"]
    refused(command, code, "run", "poet.onnx", *rest)


# What is asked for: prompts, numbers, providers.


def test_character_outside_the_vocabulary_is_named_with_its_place(place: Path, command: Command) -> None:
    told = refused(command, "character-outside-vocabulary", "run", "poet.onnx", "--prompt", "ab🐍")
    assert "'🐍' (U+1F40D) at character 2" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "lstm.onnx", "--input", "x.npy", "--output", "y.npy"],
        ["run", "poet.onnx", "--prompt", "a", "--save-state", "state.safetensors"],
        ["parity", "lstm.onnx", "--trace", "lstm.trace.safetensors"],
        ["parity", "poet.onnx", "--against", "poet.safetensors"],
    ],
    ids=["run arrays", "run text", "parity --trace", "parity --against"],
)
def test_providers(
    place: Path,
    command: Command,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    refused(command, "provider-unknown", *arguments, "--provider", "abacus")
    reason = availability()["cuda"]
    if reason is not None:
        refused(command, reason.code, *arguments, "--provider", "cuda")
    wheels = tmp_path_factory.mktemp("wheels")
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = wheels / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    monkeypatch.syspath_prepend(wheels)
    for provider in ("cuda", "auto"):
        refused(command, "onnxruntime-conflict", *arguments, "--provider", provider)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "poet.safetensors", "--inputs", "x=float32[batch]", "-o", "made.onnx"], "arguments"),
        (["export", "poet.safetensors", "--returns", "a, b", "-o", "made.onnx"], "arguments"),
        (["parity", "poet.onnx", "--against", "poet.safetensors", "--weights", "text.txt"], "arguments"),
        (["export", "net.py", "-o", "made.onnx"], "arguments"),
        (["run", "lstm.onnx", "-i", "x.npy", "-o", "y.npy", "--seed", "1"], "arguments"),
        (["run", "lstm.onnx", "-i", "x.npy", "-o", "y.npy", "--temperature", "1"], "arguments"),
        (["run", "lstm.onnx", "-i", "x.npy"], "arguments"),
    ],
)
def test_flags_that_say_nothing_here(place: Path, command: Command, arguments: list[str], code: str) -> None:
    refused(command, code, *arguments)


# Where results go.

WRITERS: dict[str, list[str]] = {
    "train": ["train", "text.txt", "--steps", "1", "-o"],
    "export": ["export", "poet.safetensors", "-o"],
    "run --output": ["run", "lstm.onnx", "--input", "x.npy", "--output"],
    "run --save-state, arrays": ["run", "lstm.onnx", "-i", "x.npy", "-o", "y.npy", "--save-state"],
    "run --save-state, text": ["run", "poet.onnx", "--prompt", "a", "--save-state"],
}
INPUTS = {"train": "text.txt", "export": "poet.safetensors", "run --output": "x.npy"}


@pytest.mark.parametrize("writer", WRITERS)
def test_places_that_cannot_be_written(place: Path, command: Command, writer: str) -> None:
    line = WRITERS[writer]
    refused(command, "output-folder-missing", *line, "nowhere/y.npy")
    assert "a file in its place" in refused(command, "output-folder-missing", *line, "text.txt/y.npy")
    refused(command, "output-is-folder", *line, "folder")
    refused(command, "output-is-input", *line, INPUTS.get(writer, line[1]))
    if Path("/dev/null").exists():
        refused(command, "output-not-a-file", *line, "/dev/null")


@pytest.mark.parametrize(
    ("line", "in_the_way"),
    [
        (["train", "text.txt", "--steps", "1", "-o", "new.safetensors"], "new.resume.safetensors"),
        (["train", "text.txt", "--steps", "1", "-o", "new.safetensors"], "new.loss.png"),
        (["export", "poet.safetensors", "-o", "new.onnx"], "new.trace.safetensors"),
    ],
)
def test_a_folder_where_a_second_file_goes(
    place: Path, command: Command, line: list[str], in_the_way: str
) -> None:
    Path(in_the_way).mkdir()
    refused(command, "output-is-folder", *line)


def test_an_export_over_what_it_is_made_from(place: Path, command: Command) -> None:
    Path("net.py").write_text("import torch\nNet = torch.nn.Identity\n")
    Path("net.trace.safetensors").write_bytes(Path("poet.safetensors").read_bytes())
    spec = ["--inputs", "input=float32[batch, time, 3]"]
    refused(command, "output-is-input", "export", "net.py:Net", *spec, "-o", "net.py")
    weights = ["--weights", "poet.safetensors"]
    refused(command, "output-is-input", "export", "net.py:Net", *spec, *weights, "-o", "poet.safetensors")
    refused(command, "output-is-input", "export", "net.trace.safetensors", "-o", "net.onnx")


# A disk that fills up, and a process that is killed, in the middle of writing.

FULL = "raise OSError(errno.ENOSPC, 'No space left on device')"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
EXPORT = [*WRITERS["export"], "made.onnx", "-q"]
STATE = "state.safetensors"
# Each command, and the one of its files that is not finished.
UNFINISHED = {
    "train": ([*WRITERS["train"], "made.safetensors", "--hidden-size", "8", "-q"], "made.safetensors"),
    "export, the model": (EXPORT, "made.onnx"),
    "export, the trace": (EXPORT, "made.trace.safetensors"),
    "run --output": ([*WRITERS["run --output"], "y.npy", "-q"], "y.npy"),
    "run --save-state, arrays": ([*WRITERS["run --save-state, arrays"], STATE, "-q"], STATE),
    "run --save-state, text": ([*WRITERS["run --save-state, text"], STATE], STATE),
}


def started(line: list[str], prelude: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, after `prelude`."""
    call = [sys.executable, "-c", f"{textwrap.dedent(prelude)}\nfrom rnnx.cli import app\napp({line!r})\n"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(call, capture_output=True, text=True, timeout=60, env=environment, **options)


def stopping(name: str, event: str) -> str:
    """Return code after which writing the file `name` stops half-way by `event`."""
    return f"""
        import errno, os, pathlib, signal
        real = pathlib.Path.write_bytes

        def write_bytes(path, data):
            if not path.name.startswith(".{name}."):
                return real(path, data)
            real(path, bytes(data)[: len(data) // 2])
            {event}

        pathlib.Path.write_bytes = write_bytes
    """


@pytest.mark.parametrize("event", [FULL, KILLED], ids=["full", "killed"])
@pytest.mark.parametrize("writer", UNFINISHED)
def test_writing_that_stops_half_way(place: Path, writer: str, event: str) -> None:
    line, name = UNFINISHED[writer]
    before = held(place)
    ended = started(line, stopping(name, event))
    after = held(place)
    if event == FULL:
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith("rnnx: error[disk-full]: expected to write ")
        assert ended.stderr.count("\n") == 1
    else:
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        # What was being written has a name that nobody takes for a result; the next writer removes it.
        after = {path: data for path, data in after.items() if not Path(path).match(".*.tmp")}
    assert after == before


def test_an_export_on_a_full_disk(place: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    before = held(place)
    ended = started(EXPORT, preexec_fn=limit)
    assert ended.returncode == 2
    assert ended.stderr.startswith("rnnx: error[disk-full]: ")
    assert held(place) == before
