"""A graph that is wrong is never written, whatever is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from test_export_cases import assert_streams
from torch import nn

import rnnx
from rnnx.errors import RefusedError
from rnnx.model.onnx_file import read_contract, read_model
from rnnx_export import api, pipeline
from support import sabotage
from support.plain_torch import CASES, build

# One of each way: recurrent operators, a Scan over a captured step.
NETWORKS = {"direct": "lstm", "scan": "layer_norm_lstm"}
SPOILS = [
    sabotage.tampered_weight,
    sabotage.rounded_weights,
    sabotage.swapped_states,
    sabotage.dropped_state,
    sabotage.baked_start,
    sabotage.slow_drift,
    sabotage.look_ahead,
    sabotage.mixed_rows,
    sabotage.short_memory,
]


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


def spoil_graphs(monkeypatch: pytest.MonkeyPatch, spoil: sabotage.Spoil) -> list[bytes]:
    """Spoil each graph on its way to the proof; return the list that collects them."""
    honest, made = pipeline.to_bytes, []

    def to_bytes(model: Any) -> bytes:
        made.append(sabotage.spoiled(honest(model), spoil))
        return made[-1]

    monkeypatch.setattr(pipeline, "to_bytes", to_bytes)
    return made


def refuse(case: Any, folder: Path) -> RefusedError:
    """Export over a good file, see it refused and the file still there."""
    (folder / "model.onnx").write_bytes(b"good")
    with pytest.raises(RefusedError) as refusal:
        rnnx.export(build(case), folder / "model.onnx", **case.arguments)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == b"good"
    assert refusal.value.code == "not-exported"
    return refusal.value


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_wrong_graph_is_not_written(
    network: Any, spoil: sabotage.Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spoil_graphs(monkeypatch, spoil)
    refusal = refuse(network, tmp_path)
    assert made, "no graph came to the proof: nothing was tested"
    assert "step " in refusal.found or "later inputs" in refusal.found


def test_the_refusal_names_tensor_step_index_expected_and_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_graphs(monkeypatch, sabotage.dropped_state)
    found = refuse(CASES["lstm"], tmp_path).found
    assert re.search(r"batch \d+, \d+ steps, own precision: step \d+, (output|state)\.\S+\[[\d, ]+\]", found)
    assert re.search(r"expected \S+, got \S+, max error \S+, allowed", found), found


@pytest.mark.parametrize("error", [1e-3, float("inf")], ids=["a thousandth", "infinite"])
def test_a_wrong_start_is_not_written(
    network: Any, error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = api.state_specs

    def state_specs(plan: Any) -> list[Any]:
        specs = honest(plan)
        start = "inf" if error == float("inf") else error
        return [type(specs[0])(**{**_fields(specs[0]), "initial": start}), *specs[1:]]

    monkeypatch.setattr(api, "state_specs", state_specs)
    assert "state." in refuse(network, tmp_path).found


def test_a_wrong_trace_is_not_what_the_export_wrote(tmp_path: Path) -> None:
    """The trace is the module's: the same module with one other weight gives another."""
    case = CASES["lstm"]
    module = build(case)
    first = rnnx.export(module, tmp_path / "a.onnx", **case.arguments).trace.read_bytes()
    module.out.bias.data[0] += 1e-3
    second = rnnx.export(module, tmp_path / "b.onnx", **case.arguments).trace.read_bytes()
    assert first != second


def test_weights_changed_after_the_proof_show(tmp_path: Path) -> None:
    """The proof stands for the file with the id it names, and for no other."""
    case = CASES["lstm"]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments)
    changed = sabotage.spoiled(made.path.read_bytes(), sabotage.tampered_weight)
    contract = read_contract(read_model(changed))
    assert contract.proof is not None
    assert contract.proof.id == made.contract.id != read_model(changed).id


class Chaotic(nn.Module):
    """A network with two states that enlarges any rounding until nothing of a trajectory is left of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.RNN(6, 48, batch_first=True)
        self.lstm = nn.LSTM(6, 48, batch_first=True)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(6)
            self.lstm.weight_hh_l0.mul_(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.rnn(x)[0], self.lstm(x)[0]], -1)


INPUTS = {"x": "float32[batch, time, 6]"}
LASTING = [spoil for spoil in SPOILS if spoil is not sabotage.short_memory]  # chaos has begun by then


def test_a_chaotic_network_is_exported_and_said_to_be_one(tmp_path: Path) -> None:
    made = rnnx.export(Chaotic().eval(), tmp_path / "model.onnx", inputs=INPUTS)
    assert any("chaotic" in note for note in made.notes)


@pytest.mark.parametrize("spoil", LASTING, ids=lambda spoil: spoil.__name__)
def test_chaos_hides_no_wrong_graph(
    spoil: sabotage.Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_graphs(monkeypatch, spoil)
    with pytest.raises(RefusedError):
        rnnx.export(Chaotic().eval(), tmp_path / "model.onnx", inputs=INPUTS)


def _fields(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_the_spoils_themselves_change_what_a_model_gives(tmp_path: Path) -> None:
    """Else the tests above would pass for a proof that refuses everything."""
    case = CASES["lstm"]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments)
    x = np.random.default_rng(0).normal(size=(3, 120, 6)).astype("f4")
    good = rnnx.load(made.path)
    for spoil in SPOILS:
        bad = rnnx.load(sabotage.spoiled(made.path.read_bytes(), spoil))
        onnx.checker.check_model(onnx.load_model_from_string(sabotage.spoiled(made.path.read_bytes(), spoil)))
        streams = [session.stream(batch=3) for session in (good, bad)]
        halves = [[stream.run({"x": part})["y"] for part in (x[:, :110], x[:, 110:])] for stream in streams]
        assert any((a != b).any() for a, b in zip(*halves, strict=True)), spoil.__name__


def test_plain_pytorch_tells_the_spoiled_from_the_good(network: Any, tmp_path: Path) -> None:
    """The comparison that all cases go through can fail: each spoil that a tolerance can show is shown."""
    made = rnnx.export(build(network), tmp_path / "model.onnx", **network.arguments)
    assert_streams(network, build(network), rnnx.load(made.path))
    for spoil in set(SPOILS) - {sabotage.look_ahead, sabotage.short_memory}:  # a millionth; after 100 steps
        bad = rnnx.load(sabotage.spoiled(made.path.read_bytes(), spoil))
        with pytest.raises(AssertionError):
            assert_streams(network, build(network), bad)
