"""Good models must agree, and wrong ones must not: what the verdict of `rnnx parity` is calibrated with.

    scripts/false_alarms --seeds 1000 --runtimes cpu,native
    scripts/false_alarms --faults 200
    scripts/false_alarms --seeds 1000 --stored

Random networks over many seeds, cells and sizes, some of them chaotic, are converted and compared with
themselves in PyTorch: none may disagree. With `--faults`, one recurrent weight of each model is off by a
little: how many disagree? With `--stored`, compiled C that stores weights in fewer bits is compared with the
same numbers in PyTorch, a step at a time. Prints, by cell and runtime, how many networks there were, the
largest error in units of PyTorch's own, and what disagreed:
docs/decisions/0012-verdict-in-units-of-rounding.md holds a run of each. Exits with 1 if a good model
disagreed.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from false_alarms_networks import CELLS, INPUTS, Layer, arguments
from torch import nn

import rnnx
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import model_id, write_contract
from rnnx.parity.check import check_parity, make_request
from rnnx.parity.verdict import Parity, why
from rnnx.tolerance import level_of
from rnnx_export.graph.build import build
from rnnx_export.graph.external_weights import to_bytes
from rnnx_export.proof.float64_file import hold_file
from rnnx_export.proof.float64_reference import open_reference64
from rnnx_export.proof.reference import open_reference

sys.path.insert(0, str(Path(__file__).parents[1] / "parity_tests"))
from support.stored_weights import compare_stored

SIZES, LAYERS, GAINS, BATCHES = (3, 8, 32, 100), (1, 2), (1.0, 1.0, 1.0, 2.0, 4.0), (1, 2, 2, 4)
STACKED = ("rnn", "lstm", "gru")
STORED = ("f16", "int8")
ALLOWED = level_of("float32", "native").rounding or 0.0
# Networks and what one recurrent weight is off by: size, share.
FAULTS = {
    "lstm": ((40, 2e-4), (256, 1e-3)),
    "gru": ((40, 2e-4), (256, 1e-3)),
    "rnn": ((40, 2e-4), (256, 1e-3)),
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """What one seed stands for."""

    seed: int
    cell: str
    size: int
    layers: int = 1
    gain: float = 1.0
    batch: int = 2
    dtype: str = "float32"

    @classmethod
    def of(cls, seed: int) -> Setup:
        """Return a network, most of them tame."""
        draw = random.Random(seed)
        cell = draw.choice(list(CELLS))
        stacked = cell in STACKED
        return cls(
            seed,
            cell,
            256 if stacked and draw.random() < 0.1 else draw.choice(SIZES),
            draw.choice(LAYERS) if stacked else 1,
            1.0 if cell == "relu" else draw.choice(GAINS),
            draw.choice(BATCHES),
            "float16" if stacked and draw.random() < 0.1 else "float32",
        )

    @property
    def kind(self) -> tuple[str, int, int, str]:
        """What networks have in common that differ in weights alone."""
        return self.cell, self.size, self.layers, self.dtype

    def network(self) -> nn.Module:
        """Return the network; a gain above 1 makes the recurrent weights larger, and it chaotic."""
        torch.manual_seed(self.seed)
        made = CELLS[self.cell](self.size, self.layers).eval()
        with torch.no_grad():
            for name, value in made.named_parameters():
                if "weight_hh" in name:
                    value.mul_(self.gain)
        return made.to(getattr(torch, self.dtype))


class Sample:
    """Compares networks; the contract of each kind is made once."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._steps = folder, steps
        self._contracts: dict[tuple[str, int, int, str], Contract] = {}

    def stored(self, setup: Setup, weights: str) -> float:
        """Return how far compiled C is from the numbers that it stores, in units of PyTorch's own error."""
        module = setup.network()
        assert isinstance(module, Layer)
        contract = self._contract(setup)
        reference = open_reference(module, contract, arguments(module, setup.size, setup.dtype))
        data = to_bytes(build(reference.plan, "direct"))
        contract = msgspec.structs.replace(contract, id=model_id(data, None))
        session = _load(write_contract(data, contract), f"native-{weights}")
        random = np.random.default_rng(setup.seed)
        x = random.standard_normal((self._steps, setup.batch, INPUTS)).astype(np.float32)
        return max(compare_stored(session, module.layer, module.out, x).values())

    def verdict(
        self, setup: Setup, runtimes: Sequence[str] = ("cpu",), *, share: float = 0.0, thorough: bool = True
    ) -> Parity:
        """Return the verdict on the model of a seed, one recurrent weight of which is off by a share."""
        module = setup.network()
        contract = self._contract(setup)
        reference = open_reference(module, contract, arguments(module, setup.size, setup.dtype))
        assert contract.proof is not None
        data = to_bytes(build(reference.plan, contract.proof.way or "direct"))
        data = _spoiled(data, setup, share) if share else data
        contract = msgspec.structs.replace(contract, id=model_id(data, None))
        sessions = [_load(write_contract(data, contract), name) for name in runtimes]
        request = make_request(contract, steps=self._steps, batch=setup.batch, seed=setup.seed)
        request = dataclasses.replace(request, invariants=thorough)
        reference64 = open_reference64(reference, request.rows(contract), request.sizes)
        found = check_parity(sessions, reference, request, reference64=reference64)
        return hold_file(found, data, reference, reference64, request)

    def _contract(self, setup: Setup) -> Contract:
        if setup.kind not in self._contracts:
            tame = dataclasses.replace(setup, gain=1.0).network()
            keywords = arguments(tame, setup.size, setup.dtype)
            found = rnnx.export(tame, self._folder / "model.onnx", **keywords)
            self._contracts[setup.kind] = found.contract
        return self._contracts[setup.kind]


def _load(data: bytes, runtime: str) -> rnnx.Session:
    provider, _, weights = runtime.partition("-")
    return rnnx.load(data, provider, options={"weights": weights} if weights else {})


def _spoiled(data: bytes, setup: Setup, share: float) -> bytes:
    """Return a model with a random recurrent weight, of the larger half of them, off by a share."""
    model = onnx.load_model_from_string(data)
    node = next(node for node in model.graph.node if node.op_type.lower() == setup.cell)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    weights = onnx.numpy_helper.to_array(tensor).copy()
    places = np.argwhere(np.abs(weights) >= np.median(np.abs(weights)))
    place = tuple(places[random.Random(setup.seed).randrange(len(places))])
    weights[place] *= np.float32(1 + share)
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    return model.SerializeToString()


class Tally:
    """What was found, by kind of network and runtime."""

    def __init__(self) -> None:
        self.ratios: dict[tuple[str, str], list[float]] = {}
        self.failed: dict[tuple[str, str], int] = {}
        self.chaotic = 0

    def add(self, setup: Setup, found: Parity, group: str) -> None:
        """Take a verdict."""
        for runtime in found.runtimes:
            key = (group, runtime.provider if not runtime.tolerance else runtime.tolerance[0])
            self.ratios.setdefault(key, []).append(runtime.ratio or 0.0)
            self.failed[key] = self.failed.get(key, 0) + (not runtime.agrees)
        self.chaotic += any(d.left is not None for r in found.runtimes for d in r.drift.values())

    def table(self) -> str:
        """Return it as a Markdown table."""
        lines = [
            "| network | level | models | disagree | median | 99 % | largest |",
            "|---|---|---|---|---|---|---|",
        ]
        for (group, level), ratios in sorted(self.ratios.items()):
            middle, high = np.percentile(ratios, [50, 99])
            lines.append(
                f"| {group} | `{level}` | {len(ratios)} | {self.failed[group, level]} | {middle:.2f} | "
                f"{high:.2f} | {max(ratios):.2f} |"
            )
        return "\n".join(lines)


def _honest(options: argparse.Namespace, sample: Sample, tally: Tally) -> int:
    """Compare good models; return how many disagreed."""
    alarms = 0
    for seed in range(options.first, options.first + options.seeds):
        setup = Setup.of(seed)
        # Compiling takes longer than comparing: every third network.
        runtimes = options.runtimes if setup.dtype == "float32" and seed % 3 == 0 else options.runtimes[:1]
        found = sample.verdict(setup, runtimes, thorough=options.thorough)
        tally.add(setup, found, setup.cell)
        if not found.agrees:
            alarms += 1
            print(f"{setup}: {why(found)}", flush=True)
        _progress(options, seed - options.first + 1, tally)
    return alarms


def _faults(options: argparse.Namespace, sample: Sample, tally: Tally) -> int:
    """Compare models in which a weight is a little off."""
    for seed in range(options.first, options.first + options.faults):
        for cell, kinds in FAULTS.items():
            for size, share in kinds:
                setup = Setup(seed, cell, size)
                found = sample.verdict(setup, options.runtimes, share=share, thorough=False)
                tally.add(setup, found, f"{cell} {size}, a weight off by {share:.2%}")
        _progress(options, seed - options.first + 1, tally)
    return 0


def _stored(options: argparse.Namespace, sample: Sample, tally: Tally) -> int:
    """Compare compiled C of fewer bits with what it stores; return how much disagreed."""
    alarms = 0
    for done, seed in enumerate(range(options.first, options.first + options.seeds), 1):
        drawn = dataclasses.replace(Setup.of(seed), layers=1, dtype="float32")
        setup = dataclasses.replace(drawn, cell=STACKED[seed % len(STACKED)])
        weights = STORED[seed // len(STACKED) % len(STORED)]
        ratio = sample.stored(setup, weights)
        key = (setup.cell, f"{weights} native")
        tally.ratios.setdefault(key, []).append(ratio)
        tally.failed[key] = tally.failed.get(key, 0) + (ratio > ALLOWED)
        if ratio > ALLOWED:
            alarms += 1
            print(f"{setup} {weights}: {ratio:.3g}", flush=True)
        _progress(options, done, tally)
    return alarms


def _progress(options: argparse.Namespace, done: int, tally: Tally) -> None:
    if done % options.every == 0:
        spent = time.monotonic() - options.begun
        print(f"{done} seeds, {spent:.0f} s\n{tally.table()}", file=sys.stderr, flush=True)


def main() -> int:
    """Run all seeds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="96; 500 with --faults")
    parser.add_argument("--faults", type=int, default=0, help="seeds of models with a fault, instead")
    parser.add_argument("--stored", action="store_true", help="compiled C of f16 and int8 weights, instead")
    parser.add_argument("--runtimes", type=lambda text: text.split(","), default=["cpu"])
    parser.add_argument("--thorough", action="store_true", help="invariants and extreme inputs too")
    parser.add_argument("--every", type=int, default=50)
    options = parser.parse_args()
    options.begun = time.monotonic()
    torch.set_num_threads(1)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        sample = Sample(Path(folder), options.steps or (500 if options.faults else 96))
        compare = _faults if options.faults else _stored if options.stored else _honest
        alarms = compare(options, sample, tally)
    print(tally.table())
    print(f"{alarms} false alarms, {tally.chaotic} chaotic")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
