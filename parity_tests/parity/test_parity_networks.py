"""Every reference network, from checkpoint to running model: as PyTorch in any batch, length and chunking."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import Result

import rnnx
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.tolerance import error_beyond, level_of
from rnnx_models.checkpoint import save_checkpoint
from rnnx_models.generation import generate
from rnnx_models.networks import (
    CELLS,
    CELLS_WITH_NONLINEARITY,
    ENCODINGS,
    NONLINEARITIES,
    CharNetwork,
    NetworkConfig,
)
from support import sabotage

Command = Callable[..., Result]
Array = np.ndarray[Any, Any]
SYMBOLS = tuple("abcdefghij\n")
KINDS = [
    (cell, f) for cell in CELLS for f in (NONLINEARITIES if cell in CELLS_WITH_NONLINEARITY else ("tanh",))
]
GRID = list(itertools.product(KINDS, (1, 2), (True, False), ENCODINGS))
# Half of the grid, in which each two of layers, order and encoding meet, runs always; the rest with --slow.
HALF = [e for e in GRID if ((e[1] == 2) + e[2] + (e[3] == "one-hot")) % 2 == 0]
STATES = {"lstm": ["state.h", "state.c"], "gates": ["state.h", "state.c"]}


def config_of(
    kind: tuple[str, str], layers: int = 1, batch_first: bool = True, encoding: str = "one-hot"
) -> Any:
    return NetworkConfig(
        kind[0], len(SYMBOLS), 12, num_layers=layers, nonlinearity=kind[1], encoding=encoding,
        embedding_size=7, dropout=0.3, batch_first=batch_first,
    )  # fmt: skip


def name_of(entry: Any) -> str:
    kind, layers, batch_first, encoding = entry
    return f"{kind[0]}-{kind[1]}-{layers}-{'batch' if batch_first else 'time'}_first-{encoding}"


def train_free(folder: Path, config: NetworkConfig) -> CharNetwork:
    """Write a checkpoint of random weights, large enough for states that wander."""
    torch.manual_seed(1)
    network = CharNetwork(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    save_checkpoint(folder / "net.safetensors", network, SYMBOLS)
    return network


def exported(command: Command, folder: Path) -> Path:
    result = command("export", folder / "net.safetensors", "-o", folder / "net.onnx")
    assert result.exit_code == 0, result.output
    return folder / "net.onnx"


def torch_gives(network: CharNetwork, token: Array) -> tuple[Array, list[Array]]:
    """Return logits of one whole call, and the states after it."""
    with torch.no_grad():
        logits, states = network(torch.from_numpy(token))
    return logits.numpy(), [states[name].numpy() for name in network.recurrent.state_names]


def close(expected: Array, got: Array) -> bool:
    assert expected.shape == got.shape
    return bool((error_beyond(level_of("float32").step, expected, got) <= 0).all())


@pytest.mark.parametrize(
    "entry", [pytest.param(e, marks=() if e in HALF else pytest.mark.slow, id=name_of(e)) for e in GRID]
)
def test_a_network_is_itself_however_it_is_run(entry: Any, tmp_path: Path, command: Command) -> None:
    kind, layers, batch_first, encoding = entry
    network = train_free(tmp_path, config_of(kind, layers, batch_first, encoding))
    session = rnnx.load(exported(command, tmp_path), options={"threads": 1})
    contract = session.contract
    axes = ["batch", "time"] if batch_first else ["time", "batch"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in contract.inputs] == [("token", "int64", axes)]
    assert [state.name for state in contract.states] == STATES.get(kind[0], ["state.h"])
    assert contract.vocabulary is not None
    assert tuple(contract.vocabulary.symbols) == SYMBOLS
    assert contract.proof is not None
    assert contract.proof.way == ("direct" if kind[0] in ("rnn", "lstm", "gru") else "scan")
    time = axes.index("time")

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        batch, steps = data.draw(st.integers(1, 6), "batch"), data.draw(st.integers(1, 40), "steps")
        cuts = data.draw(st.lists(st.integers(1, steps), max_size=5), "cuts")
        random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
        token = random.integers(0, len(SYMBOLS), (batch, steps) if batch_first else (steps, batch))
        logits, states = torch_gives(network, token)
        whole = run_in_chunks(session, token, [], time)
        for got in (whole, run_in_chunks(session, token, cuts, time), run_in_steps(session, token, time)):
            assert close(logits, got[0])
            assert all(close(*pair) for pair in zip(states, got[1], strict=True))
        cut = data.draw(st.integers(1, steps), "cut")
        other = token.copy()
        later = np.moveaxis(other, time, 0)[cut:]
        later[...] = (later + 1) % len(SYMBOLS)
        past = [np.moveaxis(run_in_chunks(session, t, [], time)[0], time, 0)[:cut] for t in (token, other)]
        assert past[0].tobytes() == past[1].tobytes(), "an output looks ahead"

    holds()


def run_in_chunks(
    session: rnnx.Session, token: Array, cuts: Sequence[int], time: int
) -> tuple[Array, list[Array]]:
    with session.stream(batch=token.shape[1 - time]) as stream:
        parts = np.split(token, sorted(set(cuts) - {0, token.shape[time]}), time)
        logits = [stream.run({"token": part})["logits"] for part in parts]
        return np.concatenate(logits, time), [np.array(value) for value in stream.state.values()]


def run_in_steps(session: rnnx.Session, token: Array, time: int) -> tuple[Array, list[Array]]:
    with session.stream(batch=token.shape[1 - time]) as stream:
        logits = [stream.step({"token": row})["logits"] for row in np.moveaxis(token, time, 0)]
        return np.stack(logits, time), [np.array(value) for value in stream.state.values()]


# `rnnx parity` against the checkpoint, and what it must catch.


def other_states(data: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    contract = read_contract(read_model(data))
    fields = {name: getattr(contract, name) for name in contract.__struct_fields__}
    return write_contract(data, Contract(**{**fields, "states": change(list(contract.states))}))


def changed(state: Any, **changes: Any) -> Any:
    return type(state)(**{**{name: getattr(state, name) for name in state.__struct_fields__}, **changes})


def wrong_start(data: bytes) -> bytes:
    return other_states(data, lambda states: [changed(states[0], initial=0.01), *states[1:]])


def spoiler(spoil: sabotage.Spoil) -> Callable[[bytes], bytes]:
    return lambda data: sabotage.spoiled(data, spoil)


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "a tampered weight": spoiler(sabotage.tampered_weight),
    "a dropped state": spoiler(sabotage.dropped_state),
    "swapped states": spoiler(sabotage.swapped_states),
    "a wrong start": wrong_start,
    "a start that is baked in": spoiler(sabotage.baked_start),
    "a slow drift": spoiler(sabotage.slow_drift),
}


@pytest.fixture(scope="module", params=["lstm", "gates", "elman", "gru"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from rnnx.cli import app

    folder = tmp_path_factory.mktemp(request.param)
    train_free(folder, config_of((request.param, "tanh"), 2))
    exported(lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments]), folder)
    return folder


def test_parity_agrees_with_what_was_exported(pair: Path, command: Command) -> None:
    result = command(
        "parity", pair / "net.onnx", "--against", pair / "net.safetensors", "--steps", 30, "--batch", 2
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("spoil", SPOILS)
def test_parity_catches(spoil: str, pair: Path, command: Command, tmp_path: Path) -> None:
    good = (pair / "net.onnx").read_bytes()
    if spoil == "swapped states" and len(read_contract(read_model(good)).states) < 2:
        return  # nothing to swap
    (tmp_path / "bad.onnx").write_bytes(SPOILS[spoil](good))
    against = ("--against", pair / "net.safetensors")
    result = command("parity", tmp_path / "bad.onnx", *against, "--steps", 30, "--json")
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["agrees"] is False
    quiet = command("parity", tmp_path / "bad.onnx", *against, "--steps", 8, "-q")
    assert quiet.exit_code == 1
    assert quiet.stderr.count("\n") >= 1
    assert "Traceback" not in quiet.output


# Text.


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_run_and_pytorch_write_the_same_text(
    kind: tuple[str, str], batch_first: bool, tmp_path: Path, command: Command
) -> None:
    network = train_free(tmp_path, config_of(kind, 2, batch_first))
    model = exported(command, tmp_path)
    for seed, temperature in ((0, 1.0), (7, 0.6), (2**64 - 1, 1.3), (0, 0.0)):
        expected = "".join(generate(network, SYMBOLS, "cab", 120, temperature=temperature, seed=seed))
        result = command(
            "run", model, "--prompt", "cab", "--length", 120, "--temperature", temperature, "--seed", seed
        )
        assert result.exit_code == 0, result.output
        assert result.stdout == "cab" + expected


@pytest.mark.parametrize("kind", [("lstm", "tanh"), ("elman", "relu")], ids="-".join)
def test_a_saved_state_continues_exactly(kind: tuple[str, str], tmp_path: Path, command: Command) -> None:
    network = train_free(tmp_path, config_of(kind, 2))
    model, state = exported(command, tmp_path), tmp_path / "state.safetensors"
    expected = "".join(generate(network, SYMBOLS, "ab", 60, temperature=0.9, seed=4))
    first = command(
        "run",
        model,
        "--prompt",
        "ab",
        "--length",
        23,
        "--temperature",
        0.9,
        "--seed",
        4,
        "--save-state",
        state,
    )
    second = command("run", model, "--length", 20, "--load-state", state, "--save-state", state)
    third = command("run", model, "--length", 17, "--load-state", state)
    assert first.stdout + second.stdout + third.stdout == "ab" + expected


def test_a_saved_state_of_arrays_continues_bit_for_bit(tmp_path: Path, command: Command) -> None:
    train_free(tmp_path, config_of(("gates", "tanh"), 2))
    model, state = exported(command, tmp_path), tmp_path / "state.safetensors"
    token = np.random.default_rng(0).integers(0, len(SYMBOLS), (3, 50))
    for name, part in (("all", token), ("a", token[:, :21]), ("b", token[:, 21:])):
        np.save(tmp_path / f"{name}.npy", part)

    def run(name: str, *more: Any) -> Array:
        arguments = (
            "--input",
            tmp_path / f"{name}.npy",
            "--output",
            tmp_path / f"{name}.out.npy",
            "--chunk",
            1,
            "-q",
        )
        result = command("run", model, *arguments, *more)
        assert result.exit_code == 0, result.output
        return np.load(tmp_path / f"{name}.out.npy")

    parts = [run("a", "--save-state", state), run("b", "--load-state", state)]
    assert np.concatenate(parts, 1).tobytes() == run("all").tobytes()
