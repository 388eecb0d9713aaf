"""Makes parity_tests/golden anew. Run it through scripts/golden.

Weights and inputs are drawn from fixed seeds, so that the same values come out wherever it runs; bytes and
ids may change with the version of PyTorch.
`parity_tests/conformance/test_conformance_golden.py` compares by value.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from golden_faults import errors, write_faults
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import rnnx
from cases import onnx_models
from rnnx.formats.trace_file import encode_trace
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec, initial_array, resolve, step_shape
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import Array, from_steps, has_steps, to_steps
from rnnx.parity.random_inputs import random_inputs
from rnnx.parity.record_trace import record_trace
from rnnx.text.sampling import Sampler
from rnnx_models.networks import CharNetwork, NetworkConfig, Recurrent
from support.plain_torch import CASES
from support.plain_torch import build as build_case

GOLDEN = Path(__file__).resolve().parents[1] / "parity_tests" / "golden"
STEPS = 12
# Code points of one to four bytes, and what JSON has to escape.
SYMBOLS = list("\n !'\",.\\abcdefghijklmnopqrstuvwxyzé€😀")
PROMPT, LENGTH, TEMPERATURE, SEED = "café ", 500, 1.0, 7
CLEAR = 1e-5  # how far every draw must be from the boundary between two symbols, in probability

Made = tuple[bytes, bytes]


def of_module(module: Callable[[], nn.Module], **arguments: Any) -> Callable[[str], Made]:
    """A model exported from PyTorch, with the trace that the exporter wrote beside it."""

    def make(name: str) -> Made:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            made = rnnx.export(module().eval(), Path(folder) / f"{name}.onnx", **arguments)
            return made.path.read_bytes(), made.trace.read_bytes()

    return make


def of_case(name: str) -> Callable[[str], Made]:
    """A model exported from a module in parity_tests/cases."""
    case = CASES[name]
    return of_module(lambda: build_case(case), **case.arguments)


def of_graph(
    build: Callable[[], bytes], *, lengths: list[int] | None = None, without: tuple[str, ...] = ()
) -> Callable[[str], Made]:
    """A model built by hand, with a trace of what onnx's own reference evaluator gives.

    Args:
        build: makes the model.
        lengths: of its rows, in the trace; None leaves them to their default.
        without: inputs that the trace leaves to their default.
    """

    def make(name: str) -> Made:
        data = build()
        contract, identity = read_contract(read_model(data)), read_model(data).id
        sizes = dict.fromkeys(contract.free_dimensions, 5) | {"batch": 2 if contract.has_batch else 1}
        inputs = random_inputs(contract, steps=STEPS, sizes=sizes, seed=1)
        for spec in contract.inputs:
            if spec.role == "length" and lengths is not None:
                inputs[spec.name] = np.array(lengths)
        inputs = {name: value for name, value in inputs.items() if name not in without}
        reference = GraphReference(data, contract)
        trace = record_trace(reference, contract, inputs, sizes=sizes, model_id=identity)
        return data, encode_trace(trace)

    return make


class GraphReference:
    """A graph run by onnx's reference evaluator, an implementation apart from ONNX Runtime."""

    def __init__(self, data: bytes, contract: Contract) -> None:
        self.name = f"onnx {onnx.__version__} reference evaluator"
        self._run = ReferenceEvaluator(data)
        self._contract = contract

    def start(self, sizes: Any) -> dict[str, Array]:
        """Return the start of every state."""
        return {state.name: initial_array(state, sizes) for state in self._contract.states}

    def steps(self, inputs: Any, states: Any) -> Any:
        """Yield outputs and states after each step; those of a whole-only model after the last one alone."""
        contract = self._contract
        stepped = [spec.name for spec in contract.inputs if has_steps(contract, spec)]
        steps = max(len(inputs[name]) for name in stepped if name in inputs)
        states = dict(states)
        each = steps if contract.whole_only else 1
        for begin in range(0, steps, each):
            outputs, states = self._call(inputs, states, begin, each)
            rows = {spec.name: self._rows(spec, outputs[spec.name]) for spec in contract.outputs}
            for step in range(each):
                yield {name: value[step] for name, value in rows.items()}, states

    def _rows(self, spec: OutputSpec, value: Array) -> Array:
        """Return an output as [step, ...]; without a time axis it is the one step's."""
        timed = self._contract.has_time and has_steps(self._contract, spec)
        return to_steps(value, spec.shape) if timed else value[None]

    def _call(self, inputs: Any, states: Any, begin: int, steps: int) -> tuple[dict[str, Array], Any]:
        contract = self._contract
        feeds = {state.input: states[state.name] for state in contract.states}
        sizes = {"batch": 2 if contract.has_batch else 1}
        for spec in contract.inputs:
            value = inputs.get(spec.name)
            if spec.role == "length":
                full = np.full(resolve(spec.shape, sizes), begin + steps) if value is None else value
                feeds[spec.name] = np.clip(full - begin, 0, steps)
            elif value is None:
                shape = resolve(step_shape(spec), sizes)
                feeds[spec.name] = np.full(shape, spec.default, spec.dtype)
            elif not has_steps(contract, spec):
                feeds[spec.name] = value
            elif contract.has_time:
                feeds[spec.name] = from_steps(value[begin : begin + steps], spec.shape)
            else:
                feeds[spec.name] = value[begin]
        names = [spec.name for spec in contract.outputs] + [state.output for state in contract.states]
        found = dict(zip(names, self._run.run(names, feeds), strict=True))
        return found, {state.name: np.asarray(found[state.output]) for state in contract.states}


class Hops(nn.Module):
    """160 samples in and out at each step: audio at 16 kHz in 100 hops a second."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(160, 6, batch_first=True), nn.Linear(6, 160)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        frames = audio.reshape(audio.shape[0], -1, 160)
        y, _ = self.rnn(frames)
        result: torch.Tensor = self.out(y).reshape(audio.shape[0], -1)
        return result


class Several(nn.Module):
    """Two inputs with time of different dtypes, one without; two outputs, one of them without time."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(5, 3), nn.LSTM(7, 6, batch_first=True)
        self.left, self.right = nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(
        self, x: torch.Tensor, kind: torch.Tensor, speaker: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y, _ = self.rnn(torch.cat([x, self.table(kind)], 2))
        return self.left(y), self.right(y) * speaker[:, None], y[:, -1]


class Ids(nn.Module):
    """Ids that are rows of a table, which the graph tells; a shift and a level in ranges that specs tell."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(37, 4), nn.GRU(4, 6, batch_first=True)

    def forward(self, token: torch.Tensor, shift: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        x = self.table(token) / level[:, None, None] + shift[:, None, None]
        y: torch.Tensor = self.rnn(x)[0]
        return y


class Late(nn.Module):
    """Windows that look two steps ahead, behind a bias, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.rnn = nn.Conv1d(3, 4, 5, padding=2), nn.GRU(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.rnn(self.filter(x.transpose(1, 2) + 0.5).transpose(1, 2))[0]
        return y


def characters() -> nn.Module:
    """A character network with larger weights than training starts from, so that its text has some shape."""
    network = CharNetwork(NetworkConfig("gru", vocabulary_size=len(SYMBOLS), hidden_size=24))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(0 if "bias" in name else 8 if name.startswith("readout") else 3)
    return network


def recurrent(cell: str, layers: int = 1) -> Callable[[str], Made]:
    """Layers of one cell over vectors; its states are inputs of forward."""
    shape = f"float32[{layers}, batch, 6]"
    states = dict.fromkeys(("h", "c") if cell in ("lstm", "gates") else ("h",), shape)
    return of_module(
        lambda: Recurrent(cell, 4, 6, num_layers=layers),
        inputs={"x": "float32[batch, time, 4]"},
        state={"state": states},
    )


def latch() -> bytes:
    """A step model of booleans: x float32[batch, 3] -> y bool[batch, 3], whether x was ever above 1."""
    nodes = [
        helper.make_node("Greater", ["x", "one"], ["above"]),
        helper.make_node("Or", ["above", "seen"], ["seen_out"]),
        helper.make_node("Identity", ["seen_out"], ["y"]),
    ]
    contract = Contract(
        name="latch",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", 3])],
        outputs=[OutputSpec(name="y", dtype="bool", shape=["batch", 3])],
        states=[
            StateSpec(
                name="seen",
                input="seen",
                output="seen_out",
                dtype="bool",
                shape=["batch", 3],
                initial=[False, False, True],
            )
        ],
    )
    return onnx_models.build(nodes, contract, {"one": np.array(1, np.float32)})


MODELS: dict[str, Callable[[str], Made]] = {
    "rnn": recurrent("rnn"),
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru"),
    "two_layers": recurrent("lstm", 2),
    "elman": recurrent("elman"),  # written out by hand: a Scan
    "learned_start": of_case("learned_start"),
    "minus_infinity": of_case("state_minus_infinity"),
    "step_only": of_case("gru_cell_step"),
    "nested": of_case("attribute_nested"),
    "counter": of_case("integer_counter"),
    "several": of_module(
        Several,
        inputs={
            "x": "float32[batch, time, 4]",
            "kind": "int64[batch, time] in 0..4",
            "speaker": "float32[batch, 3]",
        },
        returns=("left", "right", "last"),
    ),
    "ids": of_module(
        Ids,
        inputs={
            "token": "int64[batch, time]",
            "shift": "int8[batch] in -3..3",
            "level": "float32[batch] in 0.25..1",
        },
    ),
    "causal": of_case("causal_conv_pad"),
    "hops": of_module(Hops, inputs={"audio": "float32[batch, 160*time]"}, steps_per_second=100),
    "late": of_module(Late, inputs={"x": "float32[batch, time, 3]"}, delay="auto"),
    "no_batch": of_graph(onnx_models.unbatched),
    "scalars": of_graph(onnx_models.step_scalar, without=("decay",)),
    "integer": of_graph(onnx_models.accumulator),
    "default_and_length": of_graph(onnx_models.gained, lengths=[STEPS, 5]),
    "defaults": of_graph(onnx_models.gained, without=("gain",)),
    "step_length": of_graph(onnx_models.masked_steps, lengths=[7, STEPS]),
    "free_dimension": of_graph(onnx_models.attention),
    "loose_dimension": of_graph(lambda: onnx_models.attention(stateful=False)),
    "half": of_graph(lambda: onnx_models.lstm(width=4, dtype="float16")),
    "truth": of_graph(latch),
    "whole_only": of_graph(onnx_models.backwards),
    "characters": of_module(
        characters,
        inputs={"token": f"int64[batch, time] in 0..{len(SYMBOLS) - 1}"},
        state={"state": {"h": "float32[1, batch, 24]"}},
        returns=("logits", None),
        vocabulary=SYMBOLS,
    ),
}
DRAWS: list[dict[str, Any]] = [
    {"weights": [1, 2, 3, 4], "seed": 7, "count": 64},
    {"weights": [0, 5, 0, 1, 0], "seed": 0, "count": 64},
    {"weights": [1], "seed": 18446744073709551615, "count": 4},
    {"weights": [1, 9007199254740990, 1], "seed": 3, "count": 16},
    {"weights": list(range(97)), "seed": 12345678901234567890, "count": 64},
]


def write_models(folder: Path) -> None:
    """Write every model and its trace."""
    for name, make in MODELS.items():
        data, trace = make(name)
        (folder / f"{name}.onnx").write_bytes(data)
        (folder / f"{name}.trace.safetensors").write_bytes(trace)


def write_texts(folder: Path) -> None:
    """Write texts that the model over symbols makes, and draws from integer weights."""
    model = folder / "characters.onnx"
    texts = []
    for temperature in (TEMPERATURE, 0.0):
        text = generate_clear(model, temperature)
        texts.append(
            {
                "model": model.name,
                "prompt": PROMPT,
                "length": LENGTH,
                "temperature": temperature,
                "seed": SEED,
                "text": text,
            }
        )
    for entry in DRAWS:
        sampler = Sampler(entry["seed"])
        entry["draws"] = [sampler.sample_weights(entry["weights"]) for _ in range(entry["count"])]
    write_json(folder / "texts.json", texts)
    write_json(folder / "draws.json", DRAWS)


def generate_clear(model: Path, temperature: float) -> str:
    """Return text whose draws keep clear of the boundaries between symbols, so that rounding is harmless."""
    session = rnnx.load(model)
    stream, sampler, text = session.stream(), Sampler(SEED, temperature), ""
    scores = stream.run(np.array([[SYMBOLS.index(symbol) for symbol in PROMPT]]))["logits"][0, -1]
    for place in range(LENGTH):
        room = clearance(scores, temperature, Sampler(sampler.state).uniform())
        if room < CLEAR:
            raise SystemExit(f"symbol {place} is drawn {room:.1e} from a boundary: choose another seed")
        drawn = sampler.sample(scores)
        text += SYMBOLS[drawn]
        scores = stream.step(np.array([drawn]))["logits"][0]
    return text


def clearance(scores: Array, temperature: float, uniform: float) -> float:
    """Return how far a draw is from another symbol: in probability, or in scores at temperature 0."""
    values = np.sort(scores.astype(np.float64))
    if not temperature:
        return float(values[-1] - values[-2])
    weights = np.exp((scores.astype(np.float64) - values[-1]) / temperature)
    return float(np.abs(np.add.accumulate(weights) / weights.sum() - uniform).min())


def write_json(path: Path, value: Any) -> None:
    """Write JSON one entry a line, so that a change shows where it is."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/golden", description=__doc__)
    parser.add_argument("--folder", type=Path, default=GOLDEN, help="where to write")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_models(folder)
    write_texts(folder)
    write_faults(folder)
    write_json(folder / "errors.json", errors(folder))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(MODELS)} models, {size:,} bytes in {folder}")


if __name__ == "__main__":
    main()
