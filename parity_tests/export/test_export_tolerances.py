"""A value is held to the coarsest precision on the way to it, and to none coarser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rnnx
from rnnx.formats.trace_file import read_trace
from rnnx.parity.compare import default_levels
from rnnx.tolerance import coarser, level_of
from support.plain_torch import CASES, build


class Core(nn.Module):
    """A layer in one precision between inputs and outputs of another."""

    def __init__(self, core: torch.dtype) -> None:
        super().__init__()
        self.rnn, self.core = nn.RNN(6, 8, batch_first=True).to(core), core

    def forward(self, x: Any) -> Any:
        return self.rnn(x.to(self.core))[0].to(x.dtype)


class Wide(nn.Module):
    """float16 outside, float32 within and for its second output."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 8, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.rnn(x.float())[0]


@pytest.mark.parametrize(
    ("module", "dtype", "level"),
    [
        (lambda: Core(torch.float16), "float32", "float16"),
        (lambda: Core(torch.float32), "float64", "float32"),
        (lambda: Core(torch.float32), "float32", "float32"),
        (lambda: Core(torch.float64), "float64", "float64"),
        (Wide, "float16", "float32"),
    ],
)
def test_outputs_are_held_to_the_coarsest_precision_on_the_way(
    module: Any, dtype: str, level: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = rnnx.export(module(), tmp_path / "m.onnx", inputs={"x": f"{dtype}[batch, time, 6]"})
    assert made.contract.proof is not None
    assert made.contract.proof.tolerance == level
    bounds = read_trace(made.trace, made.contract, model_id=made.contract.id).tolerances
    assert bounds["output.y"] == level_of(level).step
    assert default_levels(rnnx.load(made.path))["output.y"] == level_of(level)


def test_a_double_state_of_float32_values_is_held_to_float32(tmp_path: Path) -> None:
    case = CASES["double_mean_in_buffer"]
    made = rnnx.export(build(case), tmp_path / "m.onnx", **case.arguments)
    assert [state.dtype for state in made.contract.states] == ["float64", "float64"]
    assert default_levels(rnnx.load(made.path))["state.mean"] == level_of("float32")


@pytest.mark.parametrize(
    ("dtype", "proved", "expected"),
    [
        ("float64", "float32", "float32"),
        ("float32", "float64", "float32"),
        ("float32", "exact, float16", "float16"),
        ("float32", "float16-native", "float32"),
        ("float32", "exact", "float32"),
        ("int64", "float32", "int64"),
    ],
)
def test_the_coarser_of_two_precisions(dtype: str, proved: str, expected: str) -> None:
    assert coarser(dtype, proved) == expected
