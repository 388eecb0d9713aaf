"""Measures what steps cost and writes the page of it. Run it through scripts/bench."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rnnx
from rnnx.bench import Timing, measure, take_turns
from rnnx.cli.source import Network
from rnnx.contenders import OrtContender, RnnxContender, Step, step_arrays
from rnnx.environment import machine, package_versions
from rnnx.files import write_bytes
from rnnx_export.contenders import TorchContender
from rnnx_models.networks import CharNetwork, NetworkConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

from cases import onnx_models  # noqa: E402

FEATURES, SYMBOLS = 24, 96
STEP_WIDTHS, POOL_WIDTHS, NETWORK_WIDTHS = (32, 64, 128, 256), (32, 256), (128, 512)
POOLED = 64
NETWORK_STREAMS = (1, 16, 64, 256)

HEADER = """# What steps cost on a CPU

<!-- Written by scripts/bench. -->

{machine}; {versions}.

float32, one thread unless it says otherwise. Ways take turns in short rounds; a ratio is the median of the
ratios within rounds, and stands before the median in microseconds. Trust the ratios: microseconds differ
twofold between machines, and between hours on one.
"""
STEP = """## One stream

An LSTM with {features} inputs and batch 1, which is mostly the price of the call. *Bound by hand* is the best
loop one can write in Python over ONNX Runtime alone: buffers bound once, states swapped, inputs copied in
and outputs out, nothing checked. *run() by hand* is the ordinary way, with dictionaries. `step` checks
everything and returns fresh arrays.
"""
POOL = """## Many streams

The same LSTM, {count} streams: `Pool.step` beside one batch of as many rows, bound by hand and fixed for
ever. *Half* is beside a batch of half as many; *another half* chooses anew at each step, so that rows move;
*about half* tosses a coin for each stream, so that the batch has another size at each step.
"""
NETWORK = """## A network, beside PyTorch

The character network of `rnnx train` (LSTM of width H, {symbols} symbols in and scores out), as `rnnx bench`
measures it. Many streams are a pool in rnnx and one batch elsewhere. PyTorch's step is traced
(`torch.export`), so that Python around its operators does not count.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way and size")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "cpu.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = package_versions()
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "rnnx", "onnxruntime", "torch", "numpy")
    )
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            HEADER.format(machine=machine(), versions=named),
            STEP.format(features=FEATURES),
            table("H", {width: step_timings(Path(folder), width, options.seconds) for width in STEP_WIDTHS}),
            POOL.format(count=POOLED),
            table("H", {width: pool_timings(Path(folder), width, options.seconds) for width in POOL_WIDTHS}),
            NETWORK.format(symbols=SYMBOLS),
        ]
        for width in NETWORK_WIDTHS:
            found = network_timings(Path(folder), width, options.seconds)
            by_count = {
                count: [timing for timing in found if timing.streams == count] for count in NETWORK_STREAMS
            }
            parts += [f"H={width}, by number of streams:\n", table("streams", by_count)]
    write_bytes(options.output, "\n".join(parts).encode())
    print(f"wrote {options.output}", file=sys.stderr)


def table(of: str, columns: dict[int, list[Timing]]) -> str:
    """Return a table with a row for each way: the ratio, and the median in us, at each size."""
    names = list(dict.fromkeys(timing.contender for timings in columns.values() for timing in timings))
    lines = [
        f"| ratio (us) | {' | '.join(f'{of} {size}' for size in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in names:
        cells = []
        for timings in columns.values():
            timing = next((timing for timing in timings if timing.contender == name), None)
            cells.append("not run" if timing is None else f"{timing.ratio:.2f} ({timing.median_us:,.1f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lstm_file(folder: Path, width: int) -> Path:
    path = folder / f"lstm{width}.onnx"
    path.write_bytes(onnx_models.lstm(width, FEATURES))
    return path


def step_timings(folder: Path, width: int, seconds: float) -> list[Timing]:
    """Measure one stream."""
    path = lstm_file(folder, width)
    ways = [
        OrtContender(path, "bound by hand", bound=True),
        RnnxContender(path, name="`step`"),
        RnnxContender(path, name="`step(out=)`", keep=False),
        RnnxContender(path, name="`step`, `check=False`", check=False),
        RnnxContender(path, name="`step(out=)`, `check=False`", check=False, keep=False),
        OrtContender(path, "run() by hand"),
    ]
    return take_turns({way.name: warm(way.load().steps(1)) for way in ways}, streams=1, seconds=seconds)


def pool_timings(folder: Path, width: int, seconds: float) -> list[Timing]:
    """Measure a pool whose streams all step, or half of them; each beside a batch of as many rows."""
    path = lstm_file(folder, width)
    session, half = rnnx.load(path), POOLED // 2
    by_hand = OrtContender(path, "bound by hand", bound=True).load()
    random = np.random.default_rng(0)
    halves = [random.permutation(POOLED)[:half].tolist() for _ in range(256)]
    some = [np.flatnonzero(random.random(POOLED) < 0.5).tolist() for _ in range(256)]
    everyone = list(range(POOLED))
    all_step: dict[str, Step] = {
        f"a batch of {POOLED}": by_hand.steps(POOLED),
        "`pool.step`, all": pooled(session, [everyone]),
        "`pool.step`, all, `check=False`": pooled(session, [everyone], check=False),
        "separate streams": separate(session),
    }
    half_step: dict[str, Step] = {
        f"a batch of {half}": by_hand.steps(half),
        "`pool.step`, a fixed half": pooled(session, halves[:1]),
        "`pool.step`, another half": pooled(session, halves),
        "`pool.step`, about half": pooled(session, some),
    }
    return [
        timing
        for steps in (all_step, half_step)
        for timing in take_turns(
            {name: warm(step) for name, step in steps.items()}, streams=POOLED, seconds=seconds
        )
    ]


def pooled(session: rnnx.Session, choices: list[list[int]], *, check: bool = True) -> Step:
    """Return a step of a pool in which those streams have input that the next choice names."""
    pool = session.pool(capacity=POOLED, check=check)
    streams = [pool.open() for _ in range(POOLED)]
    frame = step_arrays(session.contract, 1)
    feeds = itertools.cycle([{streams[index]: frame for index in chosen} for chosen in choices])
    return lambda: pool.step(next(feeds))


def separate(session: rnnx.Session) -> Step:
    """Return a step of as many streams, one after the other."""
    streams, frame = [session.stream() for _ in range(POOLED)], step_arrays(session.contract, 1)
    return lambda: [stream.step(frame) for stream in streams]


def network(width: int) -> Network:
    """Return an untrained character network: what it has learned makes no difference to the time."""
    torch.manual_seed(0)
    config = NetworkConfig("lstm", SYMBOLS, width)
    module: nn.Module = CharNetwork(config).eval()
    return Network(
        module,
        {"inputs": {"token": f"int64[batch, time] in 0..{SYMBOLS - 1}"}, "returns": ("logits", "state")},
    )


def network_timings(folder: Path, width: int, seconds: float) -> list[Timing]:
    """Measure the character network as `rnnx bench` does."""
    path, opened = folder / f"char{width}.onnx", functools.partial(network, width)
    made = opened()
    rnnx.export(made.module, path, **made.arguments)
    ways: list[Any] = [
        RnnxContender(path),
        OrtContender(path, "ONNX Runtime, run(), all cores"),
        TorchContender(path, opened, "PyTorch"),
        TorchContender(path, opened, "torch.compile", compiled=True, optional=True),
    ]
    return measure(path, ways, streams=NETWORK_STREAMS, seconds=seconds).timings


def warm(step: Callable[[], object]) -> Callable[[], object]:
    for _ in range(100):
        step()
    return step


if __name__ == "__main__":
    main()
