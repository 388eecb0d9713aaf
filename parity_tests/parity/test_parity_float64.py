"""The file itself in float64: the smallest fault of a weight shows, whatever an engine's rounding hides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

import rnnx
from rnnx.errors import RefusedError
from rnnx.parity.check import make_request
from rnnx.parity.invariants import Check
from rnnx.parity.verdict import Parity
from rnnx.testing import assert_parity
from rnnx_export import pipeline
from rnnx_export.proof.float64_file import ALLOWED, STEPS, InFloat64, compare_in_float64
from rnnx_export.proof.float64_reference import open_reference64
from rnnx_export.proof.reference import open_reference
from support import sabotage

Command = Callable[..., Result]
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.layer = getattr(nn, kind)(6, size, batch_first=True)
        self.out = nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(x)[0])
"""
SPACE: dict[str, Any] = {}
exec(NETWORK, SPACE)
GIVEN = {"inputs": {"x": "float32[batch, time, 6]"}}
STEPPED = {
    "inputs": {"x": "float32[batch, 4]"},
    "state": {"v": "float32[batch, 4]"},
    "returns": ("y", "v"),
}
# Layer, units, and by how much one recurrent weight is off, any of them.
FAULTS = [("LSTM", 40, 2e-4), ("LSTM", 256, 1e-3), ("GRU", 40, 2e-4), ("RNN", 40, 2e-4)]


def off(data: bytes, share: float, place: float) -> bytes:
    """Return a model with one recurrent weight off by a share: the one at `place`, 0 to 1, by size."""
    model = onnx.load_model_from_string(data)
    node = next(node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN"))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    weights = onnx.numpy_helper.to_array(tensor).copy()
    order = np.argsort(np.abs(weights), axis=None)
    weights.flat[order[int(place * (order.size - 1))]] *= np.float32(1 + share)
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    return model.SerializeToString()


def held(module: nn.Module, data: bytes, steps: int = STEPS, **exported_with: Any) -> InFloat64:
    """Return what float64 says of a file's bytes."""
    contract = rnnx.load(data).contract
    reference = open_reference(module, contract, exported_with)
    request = make_request(contract, steps=steps)
    inputs = request.rows(contract)
    reference64 = open_reference64(reference, inputs, request.sizes)
    assert reference64 is not None
    return compare_in_float64(
        onnx.load_model_from_string(data),
        contract,
        reference,
        reference64,
        inputs=inputs,
        sizes=request.sizes,
        initial=reference.start(request.sizes),
        steps=steps,
    )


def file_check(found: Parity) -> Check:
    (check,) = [check for check in found.runtimes[0].checks if check.name == "file in float64"]
    return check


@pytest.mark.parametrize(("kind", "size", "share"), FAULTS)
def test_any_weight_that_is_off_by_little_is_found(
    kind: str, size: int, share: float, tmp_path: Path
) -> None:
    module = SPACE["Net"](kind, size).eval()
    data = rnnx.export(module, tmp_path / "m.onnx", **GIVEN).path.read_bytes()
    good = held(module, data)
    assert good.failure is None
    assert good.ratio < 0.01
    # The smallest weights lie below what rounding all the others costs.
    for place in (0.3, 0.5, 0.8, 1.0):
        found = held(module, off(data, share, place))
        assert found.failure is not None, place
        assert found.failure.ratio is not None
        assert found.failure.ratio > ALLOWED


@pytest.mark.parametrize(("kind", "size", "share"), FAULTS)
def test_it_is_found_by_the_command_and_placed_in_its_layer(
    kind: str, size: int, share: float, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    good = rnnx.export(SPACE["Net"](kind, size).eval(), tmp_path / "m.onnx", **GIVEN).path
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(off(good.read_bytes(), share, 0.3))
    against = ("--against", f"{tmp_path}/net.py:Net", "--kwargs", f"kind={kind}", "--kwargs", f"size={size}")
    result = command("parity", good, *against, "--steps", 40)
    assert result.exit_code == 0, result.output
    result = command("parity", bad, *against, "--steps", 40, "--bisect")
    assert result.exit_code == 1, result.output
    assert f"of module layer ({kind})" in result.stderr
    assert "differs in 1 of" in result.stderr


def test_the_proof_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pipeline.to_bytes

    def to_bytes(graph: Any) -> bytes:
        data = honest(graph)
        if any(node.op_type == "LSTM" for node in onnx.load_model_from_string(data).graph.node):
            return off(data, 2e-4, 0.3)
        return sabotage.spoiled(data, sabotage.tampered_weight)  # the other route, which comes next

    monkeypatch.setattr(pipeline, "to_bytes", to_bytes)
    with pytest.raises(RefusedError, match="what rounding the file's constants costs"):
        rnnx.export(SPACE["Net"]("LSTM", 40).eval(), tmp_path / "m.onnx", **GIVEN)
    assert not list(tmp_path.iterdir())


class Leak(nn.Module):
    """A constant of the code, which the file holds in float32, and the module in float64 does not."""

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = 0.9 * v + x
        return torch.tanh(v), v


class Epsilon(nn.Module):
    """Asks for its own precision: in float64 it is another network."""

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = 0.5 * v + x
        return v / (v.abs() + 64 * torch.finfo(v.dtype).eps).sqrt(), v


class Threshold(nn.Module):
    """Reaches its threshold exactly: rounding decides at which step."""

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v + 0.1
        fired = (v >= 0.7).to(v.dtype)
        return x * fired, v * (1 - fired)


class Normalised(nn.Module):
    """Weights that are computed in forward, and kept as a plain attribute, which the file has in float32."""

    def __init__(self, make: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = make(nn.Linear(4, 4)), make(nn.Linear(4, 4))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.tanh(self.first(x) + self.second(v))
        return v * 2, v


def old_norm() -> nn.Module:
    return Normalised(torch.nn.utils.weight_norm)  # type: ignore[arg-type]


def new_norm() -> nn.Module:
    return Normalised(torch.nn.utils.parametrizations.weight_norm)


def spectral_norm() -> nn.Module:
    return Normalised(torch.nn.utils.spectral_norm)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("network", [Leak, Epsilon, Threshold, old_norm, new_norm, spectral_norm])
def test_what_float64_makes_another_network_is_no_fault(
    network: Callable[[], nn.Module], tmp_path: Path
) -> None:
    module = network().eval()
    made = rnnx.export(module, tmp_path / "m.onnx", **STEPPED)
    check = file_check(assert_parity(made.path, module, steps=40, returns=("y", "v")))
    assert check.holds is True
    assert check.detail.startswith("40 steps")


def test_a_wrong_constant_beside_one_is_a_fault(tmp_path: Path) -> None:
    """The measure that excuses a network of another precision does not excuse a file."""
    module = Epsilon().eval()
    path = rnnx.export(module, tmp_path / "m.onnx", **STEPPED).path
    model = onnx.load(path)
    found = [tensor for tensor in model.graph.initializer if onnx.numpy_helper.to_array(tensor).size == 1]
    half = next(tensor for tensor in found if onnx.numpy_helper.to_array(tensor) == 0.5)
    half.CopyFrom(onnx.numpy_helper.from_array(np.float32([0.50001]).reshape(half.dims), half.name))
    for data, failed in ((path.read_bytes(), False), (model.SerializeToString(), True)):
        assert (held(module, data, returns=("y", "v")).failure is not None) == failed


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.GRU(4, 8, batch_first=True, bidirectional=True), "whole sequences"),
        (nn.GRU(4, 8, batch_first=True).double(), "not run in float64"),
    ],
)
def test_where_nobody_can_say_the_report_says_why(module: nn.Module, reason: str, tmp_path: Path) -> None:
    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    made = rnnx.export(module.eval(), tmp_path / "m.onnx", inputs={"input": f"{dtype}[batch, time, 4]"})
    check = file_check(assert_parity(made.path, module.eval(), steps=40))
    assert check.holds is None
    assert reason in check.detail
