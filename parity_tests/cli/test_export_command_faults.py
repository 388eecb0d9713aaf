"""`rnnx export` with something wrong: one line that says what, exit 2 (1 if refused), and no file harmed."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

Command = Callable[..., Result]
NETS = """
import torch
from torch import nn

NUMBER = 3

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = nn.GRU(6, width, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]

class Grows(nn.Module):
    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x):
        self.cache = x[:, None] if self.cache is None else torch.cat([self.cache, x[:, None]], 1)
        return self.cache.mean(1)

class Fails(nn.Module):
    def forward(self, x):
        raise ValueError("my own\\ntrouble")

class Shapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        return self.out(x)

class Text(nn.Module):
    def forward(self, x):
        return "text"

class Nothing(nn.Module):
    def forward(self, x):
        return None

def make():
    return 3

def broken():
    raise RuntimeError("no such\\ndevice")
"""
X = ("--inputs", "x=float32[batch, time, 6]")
NET = ("nets.py:Net", "--inputs")
WEIGHTS = ("nets.py:Net", *X, "--weights")
STEP = ("--inputs", "x=float32[batch, 6]")
WIDTH = 8


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules, weights of all kinds, and a good model of another day."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "broken.py").write_text("import torch\ndef f(:\n")
    (tmp_path / "imports.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    (tmp_path / "folder.py").mkdir()
    weights = torch.nn.GRU(6, WIDTH, batch_first=True).state_dict()
    named = {f"rnn.{name}": value for name, value in weights.items()}
    save_file(
        {name: value[:, :5].contiguous() if value.ndim == 2 else value for name, value in named.items()},
        "wrong.safetensors",
    )
    save_file({**named, "extra": torch.zeros(2)}, "extra.safetensors")
    save_file(
        {name: torch.full_like(value, float("nan")) for name, value in named.items()}, "nan.safetensors"
    )
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"rnn": [1, 2]}))
    torch.save(named, "torch.safetensors")
    torch.save({"model": object}, "object.pt")
    torch.save([1, 2], "list.pt")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "extra.safetensors").read_bytes()[:100])
    (tmp_path / "half.pt").write_bytes((tmp_path / "list.pt").read_bytes()[:50])
    (tmp_path / "empty.pt").touch()
    save_file({name: value for name, value in named.items() if "bias" not in name}, "missing.safetensors")
    (tmp_path / "out.onnx").write_bytes(b"a good model")
    (tmp_path / "out.trace.safetensors").write_bytes(b"its trace")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def fails(folder: Path, command: Command, *arguments: Any, exit_code: int, says: tuple[str, ...]) -> None:
    before = files(folder)
    result = command("export", *arguments)
    assert result.exit_code == exit_code, f"exit {result.exit_code}\n{result.output}\n{result.exception!r}"
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("exporting ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in says:
        assert part in lines[0], lines[0]
    assert files(folder) == before


# fmt: off
FAULTS = {
    "no such file": (["absent.py:Net", *X], "file-missing", "absent.py"),
    "no such package": (["no_such_package.nets:Net", *X], "source-failed", "no_such_package"),
    "no such name": (["nets.py:Nett", *X], "source-not-found", "Net, Wide"),
    "no such method": (["nets.py:Net.walk", *X], "unknown-method", "walk"),
    "no name at all": (["nets.py:", *X], "bad-source", "file.py:Name"),
    "an expression": (["nets.py:Net(3)", *X], "bad-source", "Net(3)"),
    "a syntax error": (["broken.py:Net", *X], "source-failed", "SyntaxError"),
    "an import that fails": (["imports.py:Net", *X], "source-failed", "no_such_package_anywhere"),
    "a file that exits": (["leaves.py:Net", *X], "source-failed", "SystemExit"),
    "a file of bytes": (["binary.py:Net", *X], "source-failed", "binary.py"),
    "a folder for a file": (["folder.py:Net", *X], "cannot-read", "a folder"),
    "a number": (["nets.py:NUMBER", *X], "", "NUMBER"),
    "a factory of numbers": (["nets.py:make()", *X], "not-a-module", "int"),
    "a factory that fails": (["nets.py:broken()", *X], "source-failed", "no such"),
    "arguments that are needed": (["nets.py:Wide", *X], "source-failed", "--kwargs"),
    "arguments that are unknown": (["nets.py:Net", *X, "--kwargs", "depth=3"], "source-failed", "depth"),
    "arguments of no form": (["nets.py:Wide", *X, "--kwargs", "12"], "bad-value", "12"),
    "JSON that is none": (["nets.py:Wide", *X, "--kwargs", "{width: "], "bad-value", "{width: "),
    "no inputs": (["nets.py:Net"], "", "x"),
    "an unknown input": (["nets.py:Net", *X, "--inputs", "z=float32[batch]"], "unknown-parameter", "'z'"),
    "an input without a name": ([*NET, "float32[batch, time, 6]"], "bad-spec", "--inputs"),
    "an input without a dtype": ([*NET, "x=[batch, time, 6]"], "bad-spec", "[batch, time, 6]"),
    "an unknown dtype": ([*NET, "x=float31[batch, time, 6]"], "bad-spec", "float31"),
    "an impossible axis": ([*NET, "x=float32[batch, ti me, 6]"], "bad-spec", "ti me"),
    "an axis of zero": ([*NET, "x=float32[batch, time, 0]"], "bad-spec", "0"),
    "a range backwards": ([*NET, "x=float32[batch, time, 6] in 3..1"], "bad-spec", "3..1"),
    "an input twice": (["nets.py:Net", *X, *X], "arguments", "'x' twice"),
    "an argument twice": (["nets.py:Wide", *X, *("--kwargs", "width=3") * 2], "arguments", "'width' twice"),
    "an ONNX file": (["net.onnx"], "arguments", "the ONNX file net.onnx"),
    "an unknown state": (["nets.py:Net", *X, "--state", "h=float32[batch, 8]"], "unknown-parameter", "'h'"),
    "an input as a constant": (["nets.py:Net", *X, "--constants", "x=1"], "parameter-given-twice", "'x' in"),
    "an unknown constant": (["nets.py:Net", *X, "--constants", "k=1"], "unknown-parameter", "'k'"),
    "names that are none": (["nets.py:Net", *X, "--returns", "y,("], "bad-returns", "y,("),
    "too many names": (["nets.py:Net", *X, "--returns", "y, h, c"], "bad-returns", "c"),
    "weights that are missing": ([*WEIGHTS, "absent.pt"], "file-missing", "absent.pt"),
    "weights that do not fit": ([*WEIGHTS, "wrong.safetensors"], "weights-mismatch", "rnn."),
    "weights with others": ([*WEIGHTS, "extra.safetensors"], "weights-mismatch", "extra"),
    "weights that lack some": ([*WEIGHTS, "missing.safetensors"], "weights-mismatch", "bias"),
    "weights of NaN": ([*WEIGHTS, "nan.safetensors"], "weights-not-finite", "NaN"),
    "a pickle as safetensors": ([*WEIGHTS, "pickle.safetensors"], "", "pickle.safetensors"),
    "torch.save as safetensors": ([*WEIGHTS, "torch.safetensors"], "", "torch.safetensors"),
    "half a safetensors": ([*WEIGHTS, "half.safetensors"], "not-safetensors", "half"),
    "a pickled class": ([*WEIGHTS, "object.pt"], "not-weights", "object.pt"),
    "a list": ([*WEIGHTS, "list.pt"], "not-weights", "list"),
    "half a file": ([*WEIGHTS, "half.pt"], "not-weights", "half.pt"),
    "an empty file": ([*WEIGHTS, "empty.pt"], "not-weights", "empty.pt"),
    "a folder of weights": ([*WEIGHTS, "folder.py"], "cannot-read", "folder"),
}
# fmt: on


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_a_line(fault: str, folder: Path, command: Command) -> None:
    arguments, *says = FAULTS[fault]
    code = f"error[{says[0]}]" if says[0] else "error["
    fails(folder, command, *arguments, "-o", "out.onnx", exit_code=2, says=(code, *says[1:], "fix"))


OUTPUTS = {
    "a missing folder": ("nowhere/out.onnx", "output-folder-missing"),
    "a folder": ("folder.py", "output-is-folder"),
    "a file for a folder": ("nets.py/out.onnx", "output-folder-missing"),
    "the source": ("nets.py", "output-is-input"),
    "the weights": ("weights.safetensors", "output-is-input"),
    "a device": ("/dev/null", "output-not-a-file"),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_cannot_be_is_told(output: str, folder: Path, command: Command) -> None:
    net = torch.nn.GRU(6, WIDTH, batch_first=True).state_dict()
    save_file({f"rnn.{name}": value for name, value in net.items()}, "weights.safetensors")
    name, code = OUTPUTS[output]
    arguments = ("nets.py:Net", *X, "--weights", "weights.safetensors", "-o", name)
    fails(folder, command, *arguments, exit_code=2, says=(f"error[{code}]",))


def test_a_trace_that_would_overwrite_an_input_is_told(folder: Path, command: Command) -> None:
    """The trace has a name of its own making: it must not fall on the weights."""
    net = torch.nn.GRU(6, WIDTH, batch_first=True).state_dict()
    save_file({f"rnn.{name}": value for name, value in net.items()}, "net.trace.safetensors")
    arguments = ("nets.py:Net", *X, "--weights", "net.trace.safetensors", "-o", "net.onnx")
    fails(folder, command, *arguments, exit_code=2, says=("error[output-is-input]",))


REFUSALS = {
    "a cache that grows": ("nets.py:Grows", "growing-state", ("nets.py:", "torch.cat")),
    "a forward that fails": ("nets.py:Fails", "", ("nets.py:", "my own")),
    "a forward of other sizes": ("nets.py:Shapes", "", ("nets.py:",)),
    "a layer of another width": ("nets.py:Net", "forward-failed", ("for inputs of 6 elements got 5",)),
    "a result of text": ("nets.py:Text", "", ("Text",)),
    "a result of nothing": ("nets.py:Nothing", "", ("Nothing",)),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_told_in_a_line_and_exits_with_1(refusal: str, folder: Path, command: Command) -> None:
    source, code, says = REFUSALS[refusal]
    wanted = f"error[{code}]" if code else "error["
    spec = ("--inputs", "x=float32[batch, time, 5]") if source == "nets.py:Net" else STEP
    fails(folder, command, source, *spec, "-o", "out.onnx", exit_code=1, says=(wanted, *says))


@pytest.mark.parametrize(
    "arguments", [[], ["nets.py:Net"], ["nets.py:Net", "-o"], ["nets.py:Net", "--depth", "3", "-o", "a"]]
)
def test_wrong_flags_exit_with_2(arguments: list[str], folder: Path, command: Command) -> None:
    before = files(folder)
    result = command("export", *arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.output
    assert files(folder) == before


def test_an_interrupt_leaves_no_file(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnx_export import pipeline

    def prove(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "prove", prove)
    before = files(folder)
    result = command("export", "nets.py:Net", *X, "-o", "out.onnx")
    assert result.exit_code not in (0, 1)
    assert files(folder) == before


def test_a_full_disk_leaves_the_old_pair(folder: Path) -> None:
    """A trace that does not fit leaves no new model beside the old trace."""
    (folder / "wide.py").write_text(
        "from torch import nn\nclass Wide(nn.Module):\n"
        "    def forward(self, x):\n        return x.cumsum(1)[..., :2]\n"
    )
    line = [
        sys.executable,
        "-m",
        "rnnx.cli",
        "export",
        "wide.py:Wide",
        "--inputs",
        "x=float32[batch, time, 4000]",
    ]
    limit = 100_000  # more than the model takes, less than the trace
    before = files(folder)
    done = subprocess.run(
        [*line, "-o", "out.onnx"],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "error[disk-full]" in done.stderr
    assert files(folder) == before
