"""The verdict is as sharp as rounding: a weight off by a ten-thousandth shows, honest rounding never does."""

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
from torch import nn
from typer.testing import Result

import rnnx
from cases import onnx_models
from rnnx.errors import RefusedError
from rnnx.parity import compare
from rnnx.parity.check import check_parity, make_request
from rnnx.parity.report import to_html
from rnnx.parity.rounding import LEAST, WINDOW, Excess, Meter
from rnnx.parity.verdict import Parity
from rnnx.testing import assert_parity
from rnnx.tolerance import level_of
from rnnx_export import pipeline
from rnnx_export.proof.float64_reference import open_reference64
from rnnx_export.proof.reference import open_reference
from support import sabotage

Array = np.ndarray[Any, Any]
Command = Callable[..., Result]
ALLOWED = level_of("float32").rounding
assert ALLOWED is not None, "there is no factor to test"

NETWORKS = """
import torch
from torch import nn


class Stack(nn.Module):
    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        make = getattr(nn, kind)
        self.first = make(6, size, batch_first=True)
        self.second = make(size, size, batch_first=True)
        self.out = nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.first(x)[0])[0])
"""
# Layer, units, the gate (in ONNX's order) and by how much one recurrent weight is off.
FAULTS = [
    ("LSTM", 40, 3, 2e-4),
    ("LSTM", 40, 2, 2e-4),
    ("LSTM", 256, 3, 1e-3),
    ("GRU", 40, 2, 2e-4),
    ("RNN", 40, 0, 2e-5),
]


def off(data: bytes, kind: str, size: int, gate: int, share: float) -> bytes:
    """Return a model of a `Stack` with the largest recurrent weight of a gate of `second` off by a share."""
    model = onnx.load_model_from_string(data)
    (node,) = [n for n in model.graph.node if n.op_type == kind and n.name.startswith("second")]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    weights = onnx.numpy_helper.to_array(tensor).copy()
    rows = np.abs(weights[0, gate * size : (gate + 1) * size])
    row, column = np.unravel_index(int(rows.argmax()), rows.shape)
    weights[0, gate * size + row, column] *= np.float32(1 + share)
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Return the models of every stack in `FAULTS`, in the folder that holds their networks."""
    folder = tmp_path_factory.mktemp("stacks")
    (folder / "net.py").write_text(NETWORKS)
    space: dict[str, Any] = {}
    exec(NETWORKS, space)
    made = {}
    for kind, size in {(kind, size): None for kind, size, *_ in FAULTS}:
        made[kind, size] = folder / f"{kind}{size}.onnx"
        rnnx.export(
            space["Stack"](kind, size).eval(), made[kind, size], inputs={"x": "float32[batch, time, 6]"}
        )
    return made


def against(model: Path, kind: str, size: int) -> tuple[Any, ...]:
    network = f"{model.parent}/net.py:Stack"
    return ("--against", network, "--kwargs", f"kind={kind}", "--kwargs", f"size={size}", "--steps", 500)


@pytest.mark.parametrize(("kind", "size", "gate", "share"), FAULTS)
def test_a_weight_that_is_off_by_little_disagrees_and_is_placed_in_its_layer(
    kind: str, size: int, gate: int, share: float, stacks: Any, command: Command
) -> None:
    good = stacks[kind, size]
    bad = good.with_name(f"bad{kind}{size}{gate}.onnx")
    bad.write_bytes(off(good.read_bytes(), kind, size, gate, share))
    result = command("parity", bad, *against(good, kind, size), "--bisect")
    assert result.exit_code == 1, result.output
    assert "times PyTorch's own error against float64" in result.stderr
    assert f"of module second ({kind})" in result.stderr
    assert "differs in 1 of" in result.stderr


@pytest.mark.parametrize(("kind", "size"), sorted({(kind, size) for kind, size, *_ in FAULTS}))
def test_a_good_stack_agrees_within_what_is_allowed(
    kind: str, size: int, stacks: Any, command: Command
) -> None:
    good = stacks[kind, size]
    result = command("parity", good, *against(good, kind, size), "--json")
    assert result.exit_code == 0, result.output
    (runtime,) = json.loads(result.stdout)["runtimes"]
    assert 0.5 < runtime["ratio"] <= runtime["allowed_ratio"] == ALLOWED
    windows = {step for drift in runtime["drift"].values() for step, _ in drift["ratios"]}
    assert windows == set(range(0, 500, WINDOW))


@pytest.mark.parametrize(("kind", "size", "gate", "share"), FAULTS)
def test_the_proof_refuses_a_weight_that_is_off_by_little(
    kind: str, size: int, gate: int, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = pipeline.to_bytes

    def to_bytes(graph: Any) -> bytes:
        data = honest(graph)
        if any(node.op_type == kind for node in onnx.load_model_from_string(data).graph.node):
            return off(data, kind, size, gate, share)
        return sabotage.spoiled(data, sabotage.tampered_weight)  # the other way, which comes next

    monkeypatch.setattr(pipeline, "to_bytes", to_bytes)
    space: dict[str, Any] = {}
    exec(NETWORKS, space)
    with pytest.raises(RefusedError) as refusal:
        rnnx.export(
            space["Stack"](kind, size).eval(), tmp_path / "m.onnx", inputs={"x": "float32[batch, time, 6]"}
        )
    assert "times PyTorch's own error against float64" in refusal.value.found
    assert not list(tmp_path.iterdir())


class Mask(nn.Module):
    """Lets little through: there ONNX Runtime's sigmoid is exact to 3e-8, PyTorch's to 1e-12."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.out = nn.GRUCell(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.gru(x, h)
        return torch.sigmoid(self.out(h) - 10) * 10 * x, h


class WholeMask(nn.Module):
    """The same of a whole sequence."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.out = nn.GRU(4, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.out(self.gru(x)[0]) - 10) * 10 * x


X = {"inputs": {"x": "float32[batch, time, 4]"}}
STEPPED = {"inputs": {"x": "float32[batch, 4]"}, "state": {"h": "float32[batch, 8]"}}
GRU = {"inputs": {"input": "float32[batch, time, 4]"}}


def verdict(module: nn.Module, tmp_path: Path, given: dict[str, Any], steps: int = 130) -> Parity:
    made = rnnx.export(module.eval(), tmp_path / "m.onnx", **given)
    return assert_parity(made.path, module.eval(), steps=steps)


@pytest.mark.parametrize(("network", "given"), [(Mask, STEPPED), (WholeMask, X)])
def test_an_engine_with_a_coarser_sigmoid_is_right_too(
    network: type[nn.Module], given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    again = compare._Run.compare

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        runs.append(named.get("runs", 0))
        return again(self, *arguments, **named)

    monkeypatch.setattr(compare._Run, "compare", watched)
    found = verdict(network(), tmp_path, given)
    assert max(runs) > 0, "PyTorch's own error was enough: nothing was tested"
    assert found.runtimes[0].ratio is not None
    assert found.runtimes[0].ratio <= ALLOWED


def test_the_reference_is_in_float64_where_the_module_asks_for_float32(tmp_path: Path) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.gru = nn.GRU(4, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.gru(x)[0]
            return (torch.exp(y.float()) / 3).to(x.dtype) * torch.ones(8, dtype=torch.float32)

    found = verdict(Cast(), tmp_path, X)
    assert found.truth
    curve = found.runtimes[0].drift["output.y"].reference
    assert max(error for _, error in curve) > 1e-8
    module = Cast().eval()
    contract = rnnx.load(tmp_path / "m.onnx").contract
    reference, request = open_reference(module, contract, {}), make_request(contract, steps=3)
    reference64 = open_reference64(reference, request.rows(contract), request.sizes)
    assert reference64 is not None
    for outputs, _ in reference64.steps(request.rows(contract), reference.start(request.sizes)):
        assert (outputs["y"] != outputs["y"].astype(np.float32)).any()


def test_fewer_steps_than_a_window_are_judged_by_the_tolerance_alone(tmp_path: Path) -> None:
    found = verdict(nn.GRU(4, 8, batch_first=True), tmp_path, GRU, LEAST - 1)
    assert found.runtimes[0].ratio is None
    assert "times" not in found.summary


@pytest.mark.parametrize("weights", ["f16", "int8"])
def test_other_weights_than_the_networks_are_not_measured_by_its_rounding(
    weights: str, tmp_path: Path
) -> None:
    module = nn.GRU(4, 8, batch_first=True).eval()
    path = rnnx.export(module, tmp_path / "m.onnx", inputs={"input": "float32[batch, time, 4]"}).path
    found = assert_parity(rnnx.load(path, "native", options={"weights": weights}), module, steps=WINDOW)
    assert found.runtimes[0].ratio is None


def test_the_report_shows_the_error_in_units_of_rounding(tmp_path: Path) -> None:
    found = verdict(nn.GRU(4, 8, batch_first=True), tmp_path, GRU)
    text = to_html(found)
    assert f"{found.runtimes[0].ratio:.2g} times PyTorch&#x27;s own, {ALLOWED:g} allowed" in text or (
        f"{found.runtimes[0].ratio:.2g} times PyTorch's own, {ALLOWED:g} allowed" in text
    )
    assert text.count("in units of PyTorch's own, over the steps") == len(found.runtimes[0].drift)


# The measure itself: a model with batch, output y [batch, 8] and states h and c [1, batch, 8].


def measured(error: Callable[[int], Any], own: Callable[[int], Any], steps: int, **more: Any) -> list[Excess]:
    """Return what a meter says of `steps` steps with these errors of a runtime and of PyTorch's."""
    meter = Meter(rnnx.load(onnx_models.lstm()).contract)
    true = np.full((2, 8), 0.25)
    found = []
    for step in range(steps):
        got = (true + error(step)).astype(more.get("dtype", np.float64))
        one = meter.add(step, "output.y", true, got, true + own(step), more.get("rough", lambda s: [])(step))
        found += [one] if one is not None else []
    return found + meter.rest()


def noise(size: float, seed: int) -> Callable[[int], Array]:
    return lambda step: np.random.default_rng([seed, step]).normal(0, size, (2, 8))


def test_rounding_in_another_order_is_about_one() -> None:
    for found in measured(noise(1e-7, 1), noise(1e-7, 2), 5 * WINDOW):
        assert 1 < found.ratio < 1.5
    assert len(measured(noise(1e-7, 1), noise(1e-7, 2), 5 * WINDOW)) == 5


def test_one_element_of_many_that_is_off_is_found_with_its_place() -> None:
    def error(step: int) -> Array:
        values = noise(1e-7, 1)(step)
        values[1, 5] += 2e-6 * (1 + (step == WINDOW + 7)) * (step >= WINDOW)
        return values

    first, second = measured(error, noise(1e-7, 2), 2 * WINDOW)
    assert first.ratio < 1.5
    assert 10 < second.ratio < 20
    assert (second.begin, second.end, second.step) == (WINDOW, 2 * WINDOW, WINDOW + 7)
    assert second.index == [1, 5]
    assert second.got - second.expected == pytest.approx(4e-6, rel=0.2)


def test_what_pytorch_gets_right_by_luck_is_no_scale() -> None:
    """One element never has an error in PyTorch: its scale is that of the others, or of one rounding."""
    own = noise(1e-7, 2)

    def lucky(step: int) -> Array:
        values = own(step)
        values[:, 3] = 0
        return values

    assert all(found.ratio < 1.6 for found in measured(noise(1e-7, 1), lucky, 3 * WINDOW))
    exact = measured(lambda step: np.full((2, 8), 2.0**-26), lambda step: 0, WINDOW, dtype=np.float32)
    assert exact[0].ratio < ALLOWED


def test_a_short_tail_is_not_judged_and_a_long_one_is() -> None:
    assert len(measured(noise(1e-7, 1), noise(1e-7, 2), WINDOW + LEAST - 1)) == 1
    _, second = measured(noise(1e-7, 1), noise(1e-7, 2), WINDOW + LEAST)
    assert (second.begin, second.end) == (WINDOW, WINDOW + LEAST)


def test_further_good_runs_widen_the_scale() -> None:
    alone = measured(noise(1e-6, 1), noise(1e-7, 2), WINDOW)[0].ratio
    among = measured(
        noise(1e-6, 1), noise(1e-7, 2), WINDOW, rough=lambda step: [np.full((2, 8), 0.25 + 1e-6)] * 3
    )[0].ratio
    assert alone > 8
    assert among < 1.5


def test_what_is_not_finite_is_left_to_the_tolerance() -> None:
    found = measured(lambda step: np.where(np.arange(8) == 2, -np.inf, 1e-7), lambda step: 1e-7, WINDOW)
    assert found[0].ratio == pytest.approx(1)


def test_a_fault_is_one_however_late_it_begins(stacks: Any) -> None:
    """A runtime that is right for 70 steps and a little off from then on."""
    path = stacks["GRU", 40]
    space: dict[str, Any] = {}
    exec(NETWORKS, space)
    module = space["Stack"]("GRU", 40).eval()
    session = rnnx.load(path)
    reference = open_reference(module, session.contract, {})
    request = dataclasses.replace(make_request(session.contract, steps=2 * WINDOW), invariants=False)
    reference64 = open_reference64(reference, request.rows(session.contract), request.sizes)
    honest = type(session).stream

    def stream(self: Any, **named: Any) -> Any:
        made, count = honest(self, **named), [0]
        step = made.step

        def late(inputs: Any) -> Any:
            outputs = dict(step(inputs))
            count[0] += 1
            if count[0] > 70:
                outputs["y"] = outputs["y"] + np.float32(2e-6)
            return outputs

        made.step = late
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(session), "stream", stream)
        found = check_parity([session], reference, request, reference64=reference64)
    failure = found.first_failure
    assert failure is not None
    assert failure.ratio is not None
    assert failure.ratio > ALLOWED
    assert failure.step >= 70
    assert failure.max_error < failure.absolute
