"""`rnnx parity` against PyTorch: a good model passes; a spoiled one is caught, whatever was spoiled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import Result

from rnnx.contract import Contract
from rnnx.model_file import read_contract, read_model, write_contract
from rnnx_models.checkpoint import save_checkpoint
from rnnx_models.networks import CharNetwork, NetworkConfig

Command = Callable[..., Result]
SYMBOLS = tuple("abcdefgh")


@dataclasses.dataclass(frozen=True)
class Pair:
    model: Path
    checkpoint: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from rnnx.cli.source import open_network
    from rnnx_export.api import export

    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig("lstm", len(SYMBOLS), 16, num_layers=2))
    save_checkpoint(folder / "poet.safetensors", network, SYMBOLS)
    found = open_network(str(folder / "poet.safetensors"))
    export(found.module, folder / "poet.onnx", **found.arguments)
    return Pair(folder / "poet.onnx", folder / "poet.safetensors")


def spoil_contract(data: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    contract = read_contract(read_model(data))
    fields = {name: getattr(contract, name) for name in contract.__struct_fields__}
    return write_contract(data, Contract(**{**fields, "states": change(list(contract.states))}))


def replaced(state: Any, **changes: Any) -> Any:
    return type(state)(**{**{name: getattr(state, name) for name in state.__struct_fields__}, **changes})


def tampered_weight(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights = onnx.numpy_helper.to_array(largest).copy()
    weights.flat[weights.size // 2] += 0.2
    largest.CopyFrom(onnx.numpy_helper.from_array(weights, largest.name))
    return model.SerializeToString()


def swapped_states(data: bytes) -> bytes:
    def swap(states: list[Any]) -> list[Any]:
        outputs = [states[1].output, states[0].output]
        return [replaced(s, output=o) for s, o in zip(states[:2], outputs, strict=True)] + states[2:]

    return spoil_contract(data, swap)


def dropped_state(data: bytes) -> bytes:
    """A state comes out as it went in: nothing is carried on."""
    state = read_contract(read_model(data)).states[-1]
    model = onnx.load_model_from_string(data)
    for node in model.graph.node:
        node.output[:] = ["lost" if name == state.output else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Identity", [state.input], [state.output]))
    return model.SerializeToString()


def wrong_start(data: bytes) -> bytes:
    return spoil_contract(data, lambda states: [*states[:-1], replaced(states[-1], initial=0.001)])


def test_a_good_model_agrees(pair: Pair, command: Command) -> None:
    result = command("parity", pair.model, "--against", pair.checkpoint, "--steps", 20, "--batch", 3)
    assert result.exit_code == 0, result.stderr
    assert "agrees with torch" in result.stdout
    assert "20 steps, batch 3, on cpu" in result.stdout
    told = json.loads(command("parity", pair.model, "--against", pair.checkpoint, "--json").stdout)
    assert told["agrees"] is True
    assert set(told["max_errors"]) == {"start", "fed", "free", "chunks"}
    quiet = command("parity", pair.model, "--against", pair.checkpoint, "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize("spoil", [tampered_weight, swapped_states, dropped_state, wrong_start])
def test_a_spoiled_model_is_caught(
    pair: Pair, command: Command, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    model = tmp_path / "spoiled.onnx"
    model.write_bytes(spoil(pair.model.read_bytes()))
    result = command("parity", model, "--against", pair.checkpoint, "--steps", 20, "--seed", 5)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("rnnx: error[parity]: ")
    again = f"rnnx parity {model} --against {pair.checkpoint} --steps 20 --seed 5"
    assert again in result.stderr
    told = command("parity", model, "--against", pair.checkpoint, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["agrees"] is False
    assert "Traceback" not in result.output


def test_the_trace_beside_the_model_replays(pair: Pair, command: Command) -> None:
    trace = pair.model.with_name("poet.trace.safetensors")
    result = command("parity", pair.model, "--trace", trace)
    assert result.exit_code == 0, result.stderr


def test_another_network_is_no_reference(pair: Pair, command: Command, tmp_path: Path) -> None:
    network = CharNetwork(NetworkConfig("gru", len(SYMBOLS), 16))
    save_checkpoint(tmp_path / "other.safetensors", network, SYMBOLS)
    for source in (tmp_path / "other.safetensors", tmp_path / "absent.safetensors", pair.model):
        result = command("parity", pair.model, "--against", source)
        assert result.exit_code == 2, result.output
