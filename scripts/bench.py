"""Measures what steps cost and writes the page of it. Run it through scripts/bench."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rnnx
from rnnx.bench.candidates import Candidate, OrtCandidate, RnnxCandidate, Step, step_arrays
from rnnx.bench.measure import Timing, measure, take_turns
from rnnx.cli.source import Network
from rnnx.engines.environment import machine, package_versions
from rnnx.files import write_bytes
from rnnx_export.proof.bench_torch import TorchCandidate
from rnnx_models.networks import CharNetwork, NetworkConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

from cases import onnx_models  # noqa: E402

FEATURES, SYMBOLS = 24, 96
STEP_WIDTHS, POOL_WIDTHS, NETWORK_WIDTHS = (32, 64, 128, 256), (32, 256), (128, 512)
POOLED = 64
NETWORK_STREAMS = (1, 16, 64, 256)

HEADER = """# What steps cost on {kind}

<!-- Written by {script}. -->

{machine}; {versions}.

float32, one thread unless it says otherwise. Ways take turns in short rounds; a ratio is the median of the
ratios within rounds, and stands before the median in microseconds. Trust the ratios: microseconds differ
twofold between machines, and between hours on one.
"""
STEP = """## One stream

An LSTM with {features} inputs and batch 1, which is mostly the price of the call. *Bound by hand* is a loop
in Python over ONNX Runtime alone: buffers bound once, states swapped, inputs copied in and outputs out,
nothing checked. Written for one input and one output instead of any number, it saves another 5 %. *run() by
hand* is the ordinary way, with dictionaries. `step` checks everything and returns fresh arrays.
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
    parser.add_argument("--seconds", type=float, default=2.0, help="for each candidate and size")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="default: docs/benchmarks/PROVIDER.md")
    options = parser.parse_args()
    output = options.output or ROOT / "docs" / "benchmarks" / f"{options.provider}.md"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        page = Page(Path(folder), options.provider, options.seconds).text()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, page.encode())
    print(f"wrote {output}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Page:
    """What is measured for a page.

    Attributes:
        folder: where models are written.
        provider: what computes.
        seconds: for each candidate and size.
    """

    folder: Path
    provider: str
    seconds: float

    def text(self) -> str:
        """Measure everything; return the page."""
        parts = [
            self.header(),
            STEP.format(features=FEATURES),
            table("H", {width: self.step_timings(width) for width in STEP_WIDTHS}),
            POOL.format(count=POOLED),
            table("H", {width: self.pool_timings(width) for width in POOL_WIDTHS}),
            NETWORK.format(symbols=SYMBOLS),
        ]
        for width in NETWORK_WIDTHS:
            found = self.network_timings(width)
            by_count = {
                count: [timing for timing in found if timing.streams == count] for count in NETWORK_STREAMS
            }
            parts += [f"H={width}, by number of streams:\n", table("streams", by_count)]
        return "\n".join(parts)

    def header(self) -> str:
        """Return the title, and what it was measured on."""
        versions = package_versions()
        wheels = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in versions]
        named = [f"{name} {versions[name]}" for name in ("python", "rnnx", *wheels, "torch", "numpy")]
        if self.provider == "cpu":
            kind, script, where = "a CPU", "scripts/bench", machine()
        else:
            kind, script = "a GPU", "scripts/gpu"
            where = f"{torch.cuda.get_device_name()}; {machine()}"
        return HEADER.format(kind=kind, script=script, machine=where, versions=", ".join(named))

    def step_timings(self, width: int) -> list[Timing]:
        """Measure one stream."""
        path, provider = self.lstm_file(width), self.provider
        staged = [RnnxCandidate(path, "cuda", "`step`, pageable memory", options={"pinned": False})]
        candidates: list[Candidate] = [
            OrtCandidate(path, "bound by hand", bound=True, provider=provider),
            RnnxCandidate(path, provider, "`step`"),
            *(staged if provider == "cuda" else []),
            RnnxCandidate(path, provider, "`step(out=)`", keep=False),
            RnnxCandidate(path, provider, "`step`, `check=False`", check=False),
            RnnxCandidate(path, provider, "`step(out=)`, `check=False`", check=False, keep=False),
            OrtCandidate(path, "run() by hand", provider=provider),
        ]
        return self.take_turns(
            {candidate.name: candidate.load().steps(1) for candidate in candidates}, streams=1
        )

    def pool_timings(self, width: int) -> list[Timing]:
        """Measure a pool whose streams all step, or half of them; each beside a batch of as many rows."""
        path, half = self.lstm_file(width), POOLED // 2
        session = rnnx.load(path, self.provider)
        by_hand = OrtCandidate(path, bound=True, provider=self.provider).load()
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
        return self.take_turns(all_step, streams=POOLED) + self.take_turns(half_step, streams=POOLED)

    def network_timings(self, width: int) -> list[Timing]:
        """Measure the character network as `rnnx bench` does."""
        path, opened = self.folder / f"char{width}.onnx", functools.partial(network, width)
        made = opened()
        rnnx.export(made.module, path, **made.arguments)
        compiled = TorchCandidate(
            path, opened, "torch.compile", compiled=True, optional=True, device=self.provider
        )
        candidates: list[Any] = [
            RnnxCandidate(path, self.provider),
            OrtCandidate(path, "ONNX Runtime, run(), all cores", provider=self.provider),
            TorchCandidate(path, opened, "PyTorch", device=self.provider),
            compiled,
        ]
        return measure(path, candidates, streams=NETWORK_STREAMS, seconds=self.seconds).timings

    def lstm_file(self, width: int) -> Path:
        """Write an LSTM; return its path."""
        path = self.folder / f"lstm{width}.onnx"
        path.write_bytes(onnx_models.lstm(width, FEATURES))
        return path

    def take_turns(self, steps: dict[str, Step], *, streams: int) -> list[Timing]:
        """Time steps side by side, once they are warm."""
        for step in steps.values():
            for _ in range(100):
                step()
        return take_turns(steps, streams=streams, seconds=self.seconds)


def table(of: str, columns: dict[int, list[Timing]]) -> str:
    """Return a table with a row for each candidate: the ratio, and the median in us, at each size."""
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


if __name__ == "__main__":
    main()
