"""A module is the reference of the model exported from it, with nothing but the contract to go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rnnx
from rnnx.errors import UsageError
from rnnx.formats.trace_file import read_trace
from rnnx.parity.compare import compare_runtimes
from rnnx_export.proof.reference import open_reference
from support.plain_torch import CASES, build


def compare(made: Any, module: nn.Module) -> None:
    session = rnnx.load(made.path)
    reference = open_reference(module, session.contract, {})
    trace = read_trace(made.trace, session.contract, model_id=session.id)
    result = compare_runtimes([session], reference, inputs=trace.inputs, sizes={"batch": 2})[0]
    assert result.failure is None, result.failure


@pytest.mark.parametrize(
    "name", ["lengths_end_of_masked_loop", "loop_after_convolution", "loop_by_step_number", "hold_in_loop"]
)
def test_what_was_found_in_a_loop_is_found_again(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments)
    compare(made, build(case))


def test_a_step_model_with_a_time_axis_is_compared_step_by_step(tmp_path: Path) -> None:
    case = CASES["memory_by_usage"]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments, time=True)
    compare(made, build(case))


def test_another_network_with_a_time_axis_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    case = CASES["memory_by_usage"]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments, time=True)
    with pytest.raises(UsageError) as refusal:
        open_reference(build(CASES["refused_solver"]), made.contract, {})
    assert refusal.value.code in ("forward-failed", "other-network")
