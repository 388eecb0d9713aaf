"""Measures compiled C beside ONNX Runtime and writes the page of it. Run it through scripts/bench_native."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import rnnx
from rnnx.engines.environment import machine, package_versions
from rnnx.files import write_bytes
from rnnx.model.contract import resolve
from rnnx.model.onnx_file import read_contract, read_model
from rnnx_models.checkpoint import Checkpoint, export_arguments
from rnnx_models.networks import CharNetwork, NetworkConfig
from rnnx_native.build_cache import compiler
from rnnx_native.compile import compile_model
from rnnx_native.roofline import RooflineBound

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = tuple(chr(32 + code) for code in range(96))
NETWORKS = (
    ("lstm", 32, 1), ("lstm", 64, 1), ("lstm", 128, 1), ("lstm", 256, 1), ("lstm", 512, 1), ("lstm", 512, 2),
    ("lstm", 1024, 1), ("gru", 128, 1), ("rnn", 128, 1),
)  # fmt: skip
BATCHES = (16, 64)
ROUNDS = 15

# What is measured: loops in C, so that Python's call does not count.
LOOPS = r"""
#include "net.c"
static net_weights weights;
static net_state states[64];
static net_input inputs[256];
static net_output outputs[256];
int prepare(int streams, const void *bytes, size_t size) {
  int i, row;
  if (net_weights_load(&weights, bytes, size)) return 1;
  for (i = 0; i < streams; i++) net_init(&states[i], &weights);
  for (i = 0; i < 256; i++) {
    for (row = 0; row < NET_BATCH; row++) inputs[i].token[row] = (i + 7 * row) % 96;
  }
  return 0;
}
void steps(int n) { while (n-- > 0) net_step(&states[0], &inputs[n % 256], &outputs[0]); }
void chunks(int n) { while (n-- > 0) net_run(&states[0], inputs, outputs, 256); }
void many(int streams, int n) {
#if NET_BATCH == 1
  static net_many room;
  while (n-- > 0) net_step_many(states, inputs, outputs, (size_t)streams, &room);
#endif
}
"""
PAGE = """# What a step costs as C

<!-- Written by scripts/bench_native. -->

{machine}; {versions}; {compiler} -O3, one thread, float32 unless it says otherwise.

Ways take turns in short rounds; each figure is the least of {rounds} rounds in microseconds, and a ratio is
the median of the ratios within rounds. Trust the ratios: microseconds differ twofold between machines.
*C* is `poet_step` called from C. *Portable* is the same file without vector instructions. *ONNX Runtime*
has its buffers bound, one thread, and is called from Python, which is 2 to 7 us of its figure. *Floor* reads
as many bytes as the weights of the hidden state and the readout have, in order, and does nothing else. Where
C takes less, it found more of its weights in the caches: it reads large ones to and fro.

## A step of a character network (96 symbols in, 96 scores out), batch 1

| network | C | f16 weights | int8 weights | portable | ONNX Runtime | ONNX Runtime / C | floor | C / floor |
|---|---|---|---|---|---|---|---|---|
{steps}

## Chunks of 256 steps, us a step

| network | C, stepped | C, `poet_run` |
|---|---|---|
{chunks}

## Many streams, LSTM of width 256, us for all

As so many structs that `poet_step_many` steps, and as one struct of so many rows (`--batch`). ONNX Runtime
has them as one batch; ratios are its time over the other.

| streams | `poet_step_many` | `--batch` | ONNX Runtime | over `poet_step_many` | over `--batch` |
|---|---|---|---|---|---|
{batches}

## Silence

60 s of an LSTM of width 64 at 100 steps a second, its input zero after the first second, beside 60 s of
noise: **{silence:.2f}** times the time.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench_native", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one round of one candidate")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "native.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Page(Path(folder), options.seconds).text()
    write_bytes(options.output, page.encode())
    print(f"wrote {options.output}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Page:
    """What is measured for a page.

    Attributes:
        folder: where models are written.
        seconds: of one round of one candidate.
        held: weights that the loops read.
    """

    folder: Path
    seconds: float
    held: list[object] = dataclasses.field(default_factory=list)

    def text(self) -> str:
        """Measure everything; return the page."""
        steps, chunks = [], []
        for cell, width, layers in NETWORKS:
            name = f"{cell} {layers}x{width}" if layers > 1 else f"{cell} {width}"
            print(name, file=sys.stderr)
            model = self.model(cell, width, layers)
            steps.append(self.step_row(name, model))
            chunks.append(self.chunk_row(name, model))
        versions = package_versions()
        command = compiler()
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        return PAGE.format(
            machine=machine(),
            versions=", ".join(f"{name} {versions[name]}" for name in ("python", "rnnx", "onnxruntime")),
            compiler=said.partition("\n")[0],
            rounds=ROUNDS,
            steps="\n".join(steps),
            chunks="\n".join(chunks),
            batches="\n".join(self.batch_row(count) for count in BATCHES),
            silence=silence(self.folder),
        )

    def model(self, cell: str, width: int, layers: int) -> Path:
        """Export a character network."""
        path = self.folder / f"{cell}{layers}x{width}.onnx"
        if not path.exists():
            config = NetworkConfig(cell, len(SYMBOLS), width, layers)
            torch.manual_seed(0)
            checkpoint = Checkpoint(config, SYMBOLS, CharNetwork(config).eval(), None)
            rnnx.export(checkpoint.module, path, **export_arguments(checkpoint))
        return path

    def library(self, model: Path, *flags: str, weights: str = "f32", batch: int = 1) -> ctypes.CDLL:
        """Compile a model and the loops around it."""
        folder = self.folder / f"{model.stem}-{weights}-{batch}{''.join(flags)}"
        if not folder.exists():
            compile_model(model, folder, name="net", weights=weights, batch=batch, accept=True)
            (folder / "loops.c").write_text(LOOPS)
            command = [
                *compiler(),
                "-O3",
                *flags,
                "-w",
                "-fPIC",
                "-shared",
                "loops.c",
                "-lm",
                "-o",
                "loops.so",
            ]
            subprocess.run(command, cwd=folder, check=True)
        found = ctypes.CDLL(str(folder / "loops.so"))
        found.prepare.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        data = np.memmap(folder / "net.weights", np.uint8, "r")
        assert found.prepare(max(BATCHES), data.ctypes.data, data.nbytes) == 0
        self.held.append(data)
        return found

    def step_row(self, name: str, model: Path) -> str:
        """Measure single steps."""
        plain = self.library(model)
        parts = model.stem.partition("x")
        width, layers = int(parts[2]), int(parts[0][-1])
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[parts[0][:-1]]
        count = width * width * gates * (2 * layers - 1) + 96 * width
        candidates: dict[str, Callable[[int], object]] = {
            "C": plain.steps,
            "f16": self.library(model, weights="f16").steps,
            "int8": self.library(model, weights="int8").steps,
            "portable": self.library(model, "-DRNNX_PORTABLE").steps,
            "ort": bound(model, 1),
            "floor": RooflineBound(count).read,
        }
        best, ratio = self.take_turns(candidates)
        figures = [f"{best[candidate]:.2f}" for candidate in ("C", "f16", "int8", "portable", "ort")]
        figures += [f"{ratio['ort']:.1f}", f"{best['floor']:.2f}", f"{1 / ratio['floor']:.2f}"]
        return f"| {name} | {' | '.join(figures)} |"

    def chunk_row(self, name: str, model: Path) -> str:
        """Measure chunks of 256 steps."""
        library = self.library(model)
        candidates = {"step": lambda n: library.steps(256 * n), "run": library.chunks}
        best, _ = self.take_turns(candidates)
        return f"| {name} | {best['step'] / 256:.2f} | {best['run'] / 256:.2f} |"

    def batch_row(self, count: int) -> str:
        """Measure streams that step together."""
        model = self.model("lstm", 256, 1)
        many = self.library(model).many
        candidates = {
            "ort": bound(model, count),
            "many": lambda n: many(count, n),
            "batch": self.library(model, batch=count).steps,
        }
        best, ratio = self.take_turns(candidates)
        times = " | ".join(f"{best[candidate]:.1f}" for candidate in ("many", "batch", "ort"))
        return f"| {count} | {times} | {1 / ratio['many']:.2f} | {1 / ratio['batch']:.2f} |"

    def take_turns(
        self, candidates: Mapping[str, Callable[[int], object]]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return by candidate the least time of one call, us, and the median ratio to the first one."""
        counts = {}
        for name, candidate in candidates.items():
            count = 1
            while timed(candidate, count) * count < self.seconds * 1e6 and count < 1 << 24:
                count *= 2
            counts[name] = count
        rounds = [
            {name: timed(candidate, counts[name]) for name, candidate in candidates.items()}
            for _ in range(ROUNDS)
        ]
        first = next(iter(candidates))
        best = {name: min(each[name] for each in rounds) for name in candidates}
        return best, {
            name: statistics.median(each[name] / each[first] for each in rounds) for name in candidates
        }


def timed(candidate: Callable[[int], object], count: int) -> float:
    """Return the time of one of `count` calls, us."""
    begin = time.perf_counter()
    candidate(count)
    return (time.perf_counter() - begin) / count * 1e6


def bound(model: Path, batch: int) -> Callable[[int], object]:
    """Return a loop over ONNX Runtime's raw call, everything bound, states swapped."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    contract = read_contract(read_model(model))
    sizes = {"batch": batch, "time": 1}

    def value(shape: list[int | str], dtype: str) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(resolve(shape, sizes), dtype))

    inputs = {spec.name: value(spec.shape, spec.dtype) for spec in contract.inputs}
    outputs = {spec.name: value(spec.shape, spec.dtype) for spec in contract.outputs}
    buffers = [{state.name: value(state.shape, state.dtype) for state in contract.states} for _ in range(2)]
    bindings = []
    for old, new in ((0, 1), (1, 0)):
        binding = session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_ortvalue_input(name, tensor)
        for name, tensor in outputs.items():
            binding.bind_ortvalue_output(name, tensor)
        for state in contract.states:
            binding.bind_ortvalue_input(state.input, buffers[old][state.name])
            binding.bind_ortvalue_output(state.output, buffers[new][state.name])
        bindings.append(binding._iobinding)
    run = session._sess.run_with_iobinding

    held = inputs, outputs, buffers  # the bindings know only where their memory is

    def loop(count: int) -> None:
        assert held
        for iteration in range(count):
            run(bindings[iteration & 1], None)

    return loop


class Filter(torch.nn.Module):
    """An LSTM over frames whose state fades to nothing in silence."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(24, 64, bias=False, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0]  # type: ignore[no-any-return]


def silence(folder: Path) -> float:
    """Return how much longer 60 s of silence take than 60 s of noise: tiny numbers can be slow."""
    torch.manual_seed(0)
    path = folder / "filter.onnx"
    rnnx.export(Filter(), path, inputs={"x": "float32[batch, time, 24]"})
    session = rnnx.load(path, "native")
    noise = np.random.default_rng(0).standard_normal((1, 6000, 24), np.float32)
    quiet = noise.copy()
    quiet[:, 100:] = 0
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for x in (noise, quiet):
            stream = session.stream()
            begin = time.perf_counter()
            stream.run(x)
            times.append(time.perf_counter() - begin)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
