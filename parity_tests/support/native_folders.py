"""Compiled models under test: exported, written as C, built and run."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import torch
from torch import nn

import rnnx
from rnnx.formats.trace_file import read_trace
from rnnx.model.contract import Contract, step_shape
from rnnx.model.onnx_file import read_contract, read_model
from rnnx_native.compile import Compiled, compile_model
from support import kept

STRICT = ("-pedantic", "-Wall", "-Wextra", "-Werror")
C99 = ("-std=c99", *STRICT)


def trace_sizes(model: Path) -> dict[str, int]:
    """Return batch and free dimensions of the trace beside a model."""
    found = read_model(model)
    contract = read_contract(found)
    trace = read_trace(model.with_name(f"{model.stem}.trace.safetensors"), contract, model_id=found.id)
    sizes: dict[str, int] = {"batch": 1}
    rows = [(spec, trace.inputs[spec.name]) for spec in contract.inputs if spec.name in trace.inputs]
    rows += [(spec, trace.states[spec.name]) for spec in contract.states]
    for spec, array in rows:
        shape = step_shape(spec)
        actual = array.shape[array.ndim - len(shape) :]
        sizes |= {name: size for name, size in zip(shape, actual, strict=True) if isinstance(name, str)}
    return sizes


def write(model: Path, folder: Path, **options: object) -> Compiled:
    """Compile a model for the sizes of its trace: at its batch where rows share a state, else at batch 1."""
    sizes = trace_sizes(model)
    contract = read_contract(read_model(model))
    options.setdefault("batch", sizes["batch"] if _share(contract) else 1)
    dims = {name: sizes[name] for name in contract.free_dimensions}
    return compile_model(model, folder, dims=dims, **options)  # type: ignore[arg-type]


def _share(contract: Contract) -> bool:
    return any("batch" not in spec.shape for spec in contract.states)


def build(made: Compiled, *command: str, program: str = "test") -> Path:
    """Build the test (or example) of a compiled model; return the program."""
    main = "example.c" if program == "example" else f"{made.name}_{program}.c"
    sources = [f"{made.name}.c", f"{made.name}_weights.c", main]
    target = made.folder / f"{program}_program"
    texts = sorted(path for path in made.folder.iterdir() if path.suffix in (".c", ".h"))
    parts = [
        *(word.encode() for word in (_version(command[0]), *command, main)),
        *map(Path.read_bytes, texts),
    ]
    return kept.program(target, parts, lambda: _built(made, target, [*command, *sources]))


def _built(made: Compiled, target: Path, words: list[str]) -> None:
    result = subprocess.run(
        [*words, "-lm", "-o", target.name],
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{' '.join(words)}: {result.stderr[:2000]}"


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


def replay(made: Compiled, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the test of a compiled model on its trace."""
    command = [str(program), str(made.folder / f"{made.name}.trace.safetensors"), *arguments]
    return subprocess.run(command, cwd=made.folder, capture_output=True, text=True, check=False)


class Network(nn.Module):
    """An LSTM, a GRU and a readout: enough for every kernel."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, width, batch_first=True)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.rnn = nn.RNN(width, width, batch_first=True)
        self.out = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.gru(self.lstm(x)[0])[0])[0]).sigmoid()


def exported(folder: Path, seed: int = 0, width: int = 20) -> Path:
    torch.manual_seed(seed)
    path = folder / f"net{seed}.onnx"
    rnnx.export(Network(width), path, inputs={"x": "float32[batch, time, 5]"})
    return path
