"""What an export costs beside `torch.onnx.export` of the same network, the first and the second in a process.

Each export runs in a fresh process, after importing; the two take turns, and ratios are taken within rounds.
rnnx proves its file against the network; torch does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch.onnx
from torch import Tensor, nn

import rnnx
from rnnx.engines.environment import machine

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/benchmarks/export.md"


class Recurrent(nn.Module):
    """An LSTM and a readout."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(24, width, layers, batch_first=True)
        self.out = nn.Linear(width, 24)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.out(self.rnn(x)[0]))


class Denoiser(nn.Module):
    """A mask for 257 bands."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(257, 128), nn.Linear(128, 257)
        self.rnn = nn.GRU(128, 128, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.out(self.rnn(torch.relu(self.into(x)))[0]))


class Convolutions(nn.Module):
    """Eight causal convolutions, each twice as far apart, around sums."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(24, 48, 1)
        self.layers = nn.ModuleList([nn.Conv1d(48, 48, 3, dilation=2**k) for k in range(8)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x.transpose(1, 2))
        for layer in self.layers:
            y = y + torch.relu(layer(F.pad(y, (2 * layer.dilation[0], 0))))
        return y.transpose(1, 2)


class Normalised(nn.Module):
    """An LSTM with layer norms as a loop over time, which torch.onnx.export does not take with time free."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.into, self.back = nn.Linear(24, 4 * width), nn.Linear(width, 4 * width)
        self.gates, self.cell = nn.LayerNorm(4 * width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.width)
        rows = []
        for frame in x.unbind(1):
            i, f, g, o = self.gates(self.into(frame) + self.back(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.cell(c))
            rows.append(h)
        return torch.stack(rows, 1)


NETWORKS: dict[str, tuple[Any, int, str]] = {  # by name: what makes it, its inputs, what it is
    "lstm": (lambda: Recurrent(128, 1), 24, "LSTM 128"),
    "stack": (lambda: Recurrent(1024, 2), 24, "LSTM 2 x 1024"),
    "denoiser": (Denoiser, 257, "GRU denoiser 257-128 x 2"),
    "tcn": (Convolutions, 24, "TCN of eight convolutions"),
    "loop": (Normalised, 24, "layer-norm LSTM as a loop"),
}
RIVAL_OF = {"loop": "tcn"}  # torch does not take it: it is held to what torch takes for another


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--once", nargs=2, metavar=("EXPORTER", "NETWORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(measured(*arguments.once)))
        return
    rows = []
    for name in arguments.only or NETWORKS:
        rounds = [
            {exporter: in_fresh_process(exporter, name) for exporter in ("rnnx", "torch")}
            for _ in range(arguments.rounds)
        ]
        rows.append(row(name, rounds))
        print(rows[-1], flush=True)
    if not arguments.only:
        arguments.output.write_text(page(rows, arguments.rounds))


def in_fresh_process(exporter: str, network: str) -> dict[str, list[float]]:
    """Return seconds of the first and the second export: `wall`, and `processor` of all threads."""
    name = network if exporter == "rnnx" else RIVAL_OF.get(network, network)
    command = [sys.executable, __file__, "--once", exporter, name]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(result.stdout.splitlines()[-1])
    return found


def measured(exporter: str, network: str) -> dict[str, list[float]]:
    make, width, _ = NETWORKS[network]
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    assert rnnx.export, "it is imported before the clock starts, with what it needs"
    found: dict[str, list[float]] = {"wall": [], "processor": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for _ in range(2):
            module = make().eval()
            wall, processor = time.perf_counter(), time.process_time()
            if exporter == "rnnx":
                rnnx.export(module, path, inputs={"x": f"float32[batch, time, {width}]"})
            else:
                free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
                torch.onnx.export(
                    module,
                    (torch.randn(2, 11, width),),
                    path,
                    dynamo=True,
                    dynamic_shapes=(free,),
                    verbose=False,
                )
            found["wall"].append(time.perf_counter() - wall)
            found["processor"].append(time.process_time() - processor)
    return found


def row(name: str, rounds: list[dict[str, dict[str, list[float]]]]) -> str:
    """Return a row: for the first and the second export, the ratio of processor time and both in seconds."""
    cells = []
    for place in (0, 1):
        for clock in ("wall", "processor"):
            ours, theirs = ([found[who][clock][place] for found in rounds] for who in ("rnnx", "torch"))
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            cells.append(f"{ratio:.2f} ({statistics.median(ours):.1f} / {statistics.median(theirs):.1f})")
    return f"| {NETWORKS[name][2]} | {' | '.join(cells)} |"


def page(rows: list[str], rounds: int) -> str:
    table = "\n".join(rows)
    return f"""# What an export costs

<!-- Written by scripts/bench_export. -->

{machine()}; torch {torch.__version__}.

`rnnx.export` over `torch.onnx.export(dynamo=True)` of the same network, batch and time free, each
in fresh processes after importing: the median of the ratios of {rounds} rounds, and the medians in
seconds. rnnx proves its file against the network; torch does not, and does not take the loop with
its time free, which is held to its time for the TCN. Processor time is that of all threads.

| network | first: wall | processor | second: wall | processor |
|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    main()
