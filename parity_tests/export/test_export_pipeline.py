"""The pipeline as data: what a stage or a pass cannot do is told; a route leaves nothing to the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError
from rnnx_export import pipeline
from rnnx_export.diagnostics import Because, CaptureError, Reason
from rnnx_export.graph.passes import table
from rnnx_export.refusals import ADVICE
from support.plain_torch import CASES, build


def export(name: str, folder: Path) -> rnnx.Contract:
    case = CASES[name]
    return rnnx.export(build(case), folder / "model.onnx", **case.arguments).contract


def broken(*_: Any) -> None:
    raise KeyError("what it needs")


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [("run", broken, "fails: 'what it needs'"), ("ensures", lambda *_: False, "does not ensure that ")],
)
def test_a_pass_that_fails_is_named_in_the_refusal_and_nothing_is_written(
    part: str, change: Callable[..., Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That each of them is named stands in passes/test_passes_table.py."""
    *others, last = table.PASSES
    monkeypatch.setattr(table, "PASSES", (*others, last._replace(**{part: change})))
    with pytest.raises(RefusedError, match=f"pass '{last.name}' {said}") as caught:
        export("attribute_lazy", tmp_path)
    assert caught.value.code == "not-exported"
    assert not list(tmp_path.iterdir())


def test_the_second_route_starts_from_what_running_the_module_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fail_once(attempt: pipeline.Attempt) -> pipeline.Attempt:
        seen.append(attempt.plan)
        if attempt.route == table.DIRECT:
            raise CaptureError("not this time")
        return attempt

    # States that are unused are dropped on either route, by each for itself.
    position = pipeline.STAGES.index(pipeline._convert)
    stages = (*pipeline.STAGES[:position], fail_once, *pipeline.STAGES[position:])
    monkeypatch.setattr(pipeline, "STAGES", stages)
    contract = export("lstm", tmp_path)
    assert contract.proof is not None
    assert (contract.proof.way, contract.proof.not_direct) == ("scan", "not this time")
    first, second = seen
    assert [state.name for state in first.states] == [state.name for state in second.states]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.states = []


def test_each_reason_has_its_advice() -> None:
    assert set(ADVICE) == set(Reason)


def test_advice_is_keyed_by_the_reason_and_not_by_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words that look like those of another failure change nothing."""

    def fail(_: pipeline.Attempt) -> pipeline.Attempt:
        raise CaptureError(Because("data-dependent, no ONNX form: of complex numbers", Reason.NO_KERNEL))

    monkeypatch.setattr(pipeline, "STAGES", (fail,))
    with pytest.raises(RefusedError) as caught:
        export("attribute_lazy", tmp_path)
    assert caught.value.fix == ADVICE[Reason.NO_KERNEL]


class ByNumpy(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = h + torch.from_numpy(x.numpy() * 2)
        return h.tanh(), h


def test_code_that_reads_a_tensor_s_memory_is_told_in_our_words(tmp_path: Path) -> None:
    specs = {"inputs": {"x": "float32[batch, 4]"}, "state": {"h": "float32[batch, 4]"}}
    with pytest.raises(RefusedError, match="code outside of torch reads a tensor's memory") as caught:
        rnnx.export(ByNumpy(), tmp_path / "m.onnx", **specs)
    assert caught.value.fix == ADVICE[Reason.OUTSIDE_TORCH]
