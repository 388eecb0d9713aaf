"""Good models must agree: random networks over many seeds, cells and sizes, some of them chaotic.

    scripts/false_alarms --seeds 1000

Each network is converted and compared with itself in PyTorch, thoroughly. Prints what disagreed, which
should be nothing, and the largest ratio of a runtime's drift over PyTorch's own, which is what the limit in
docs/tolerances.md rests on. Exits with 1 if anything disagreed.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

import rnnx
from rnnx.checking import check_parity, make_request
from rnnx.contract import Contract
from rnnx.model_file import model_id, write_contract
from rnnx.verdict import Parity, why
from rnnx_export.build import build, to_bytes
from rnnx_export.reference import open_reference
from rnnx_export.truth import open_truth

SIZES, LAYERS, GAINS = (3, 8, 32, 100), (1, 2), (1.0, 1.0, 2.0, 4.0)
CELLS = ("rnn", "lstm", "gru", "cell", "norm")
INPUTS = 5


class Network(nn.Module):
    """A recurrent layer and a readout."""

    def __init__(self, cell: str, size: int, layers: int) -> None:
        super().__init__()
        kinds = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "norm": nn.GRU}
        self.norm = nn.LayerNorm(INPUTS) if cell == "norm" else nn.Identity()
        self.layer = kinds[cell](INPUTS, size, layers, batch_first=True)
        self.out = nn.Linear(size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.layer(self.norm(x))[0])
        return result


class Cell(nn.Module):
    """A cell in a loop over time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(INPUTS, size), nn.Linear(size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, ys = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            ys.append(self.out(state[0]))
        return torch.stack(ys, 1)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What one seed stands for."""

    seed: int
    cell: str
    size: int
    layers: int
    gain: float

    @classmethod
    def of(cls, seed: int) -> Setup:
        draw = random.Random(seed)
        return cls(seed, draw.choice(CELLS), draw.choice(SIZES), draw.choice(LAYERS), draw.choice(GAINS))

    def network(self) -> nn.Module:
        """Return the network; a gain above 1 makes the recurrent weights larger, and it chaotic."""
        torch.manual_seed(self.seed)
        made = Cell(self.size) if self.cell == "cell" else Network(self.cell, self.size, self.layers)
        with torch.no_grad():
            for name, value in made.named_parameters():
                if "weight_hh" in name:
                    value.mul_(self.gain)
        return made


class Sample:
    """Compares networks; the contract of each kind is made once."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._steps = folder, steps
        self._contracts: dict[tuple[str, int, int], Contract] = {}

    def verdict(self, setup: Setup) -> Parity:
        """Return the verdict on the model of a seed."""
        module = setup.network()
        contract = self._contract(setup)
        reference = open_reference(module, contract, {})
        assert contract.proof is not None
        data = to_bytes(build(reference.plan, contract.proof.way or "direct"))
        contract = msgspec.structs.replace(contract, id=model_id(data, None))
        session = rnnx.load(write_contract(data, contract))
        request = make_request(contract, steps=self._steps, seed=setup.seed)
        truth = open_truth(reference, request.rows(contract), request.sizes)
        return check_parity([session], reference, request, truth=truth)

    def _contract(self, setup: Setup) -> Contract:
        key = (setup.cell, setup.size, setup.layers)
        if key not in self._contracts:
            tame = dataclasses.replace(setup, gain=1.0).network()
            inputs: dict[str, Any] = {"x": f"float32[batch, time, {INPUTS}]"}
            self._contracts[key] = rnnx.export(tame, self._folder / "model.onnx", inputs=inputs).contract
        return self._contracts[key]


def main() -> int:
    """Run all seeds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alarms, largest, chaotic, begun = 0, 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sample = Sample(Path(folder), options.steps)
        for seed in range(options.first, options.first + options.seeds):
            setup = Setup.of(seed)
            found = sample.verdict(setup)
            ratio = found.runtimes[0].ratio or 0.0
            left = [drift.left for drift in found.runtimes[0].drift.values() if drift.left is not None]
            chaotic += bool(left)
            largest = max(largest, ratio)
            if not found.agrees:
                alarms += 1
                print(f"{setup}: {why(found)} (ratio {ratio:.3g})", flush=True)
            if (seed + 1) % 50 == 0:
                spent = time.monotonic() - begun
                print(f"{seed + 1} seeds, {alarms} alarms, {spent:.0f} s", file=sys.stderr, flush=True)
    print(
        f"{options.seeds} networks, {alarms} false alarms, {chaotic} chaotic, "
        f"largest drift {largest:.3g} times PyTorch's own"
    )
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
