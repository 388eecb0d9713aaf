"""The first look at a file: many comparisons in few runs. What it does not pass is looked at one by one.

Runs of a network cost as often as its weights are read. Here the file runs free once beside all that it is
held to, the module runs in chunks, and single steps are computed as the rows of one batch: those of the
module from each of the states that the file itself went through. Why nothing less is seen stands in
docs/decisions/0017-the-proof-reads-weights-seldom.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import torch

from rnnx.errors import RnnxError
from rnnx.parity.compare import Comparison, compare_runtimes
from rnnx.parity.lockstep import step_inputs
from rnnx.parity.reference import States, Values
from rnnx.parity.rounding import WINDOW, Meter
from rnnx.parity.rows import Steps
from rnnx.tolerance import Level, relative_error
from rnnx_export.proof.driven_reference import DrivenReference
from rnnx_export.proof.float64_file import compare_in_float64
from rnnx_export.proof.many_steps import at_once, joins, stacked
from rnnx_export.proof.module_reference import ChunkReference, StepReference, runs_chunks
from rnnx_export.proof.setting import ProofSetting

_SEED = 2


def short_runs_agree(
    setting: ProofSetting, inputs: Mapping[str, Any], sizes: Mapping[str, int], seed: int
) -> float | None:
    """Return the largest error beside the module, one step at a time, and driven in both precisions.

    Returns:
        None where that does not settle it.
    """
    plan = setting.plan
    driven = [DrivenReference(plan), DrivenReference(plan, torch.float64)]
    own = (ChunkReference if runs_chunks(plan) else StepReference)(plan) if not plan.whole_only else None
    reference, *others = driven if own is None else [own, *driven]
    try:
        result = compare_runtimes(
            [setting.session],
            reference,
            inputs=inputs,
            sizes=sizes,
            seed=seed,
            levels=[setting.levels],
            others=others,
        )[0]
    except (RuntimeError, TypeError, NotImplementedError, RnnxError):
        return None
    return _largest(result, setting.levels)


def long_run_agrees(
    setting: ProofSetting, graph: onnx.ModelProto | None, batch: int, *, steps: int, file_steps: int
) -> float | None:
    """Return the largest error of a long run, free and in chunks, and of every step alone.

    Args:
        setting: the file and the module.
        graph: the file's graph, to be run in float64; None where it is too large.
        batch: rows.
        steps: of the long run.
        file_steps: how many the graph takes in float64.

    Returns:
        None where that does not settle it.
    """
    plan = setting.plan
    if plan.whole_only or not joins(plan, setting.contract):
        return None
    driven = DrivenReference(plan)
    reference, *others = [ChunkReference(plan), driven] if runs_chunks(plan) else [driven]
    sizes = setting.sizes(batch, steps, _SEED)
    inputs = setting.inputs(sizes, _SEED)
    try:
        reference64 = setting.reference64(type(reference), sizes, inputs)
        if reference64 is None:
            return None
        result = compare_runtimes(
            [setting.session],
            reference,
            inputs=inputs,
            sizes=sizes,
            seed=_SEED,
            levels=[setting.table],
            reference64=reference64,
            others=others,
            looks=1,
        )[0]
        largest = _largest(result, setting.table)
        alone = None if largest is None else _steps_agree(setting, graph, batch, file_steps)
    except (RuntimeError, TypeError, NotImplementedError, RnnxError):
        return None
    return None if largest is None or alone is None else max(largest, alone)


def _largest(result: Comparison, levels: Mapping[str, Level]) -> float | None:
    """Return the largest error, None if one leaves the tolerance, be there an excuse for it or not."""
    if result.failure is not None:
        return None
    errors = [(tensor, error) for found in result.max_errors.values() for tensor, error in found.items()]
    within = all(error <= levels[tensor].drift.relative for tensor, error in errors)
    return max((error for _, error in errors), default=0.0) if within else None


def _steps_agree(
    setting: ProofSetting, graph: onnx.ModelProto | None, batch: int, file_steps: int
) -> float | None:
    """Return the largest error of the file's own steps beside the module's from the same states."""
    plan, contract = setting.plan, setting.contract
    sizes = setting.sizes(batch, WINDOW, _SEED)
    inputs, steps = setting.inputs(sizes, _SEED), sizes["time"]
    before, got = _free_run(setting, inputs, sizes)
    reference = StepReference(plan)
    reference64 = setting.reference64(StepReference, sizes, inputs)
    if reference64 is None:
        return None
    known = at_once(reference, reference64, contract, inputs, before, steps)
    largest = None if known is None else _within(setting, known, got)
    if largest is None or graph is None:
        return largest
    held = compare_in_float64(
        graph,
        contract,
        reference,
        reference64,
        inputs=inputs,
        sizes=sizes,
        initial=reference.start(sizes),
        steps=min(file_steps, steps),
        known=known,
    )
    return largest if held.failure is None else None


def _free_run(
    setting: ProofSetting, inputs: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[States, tuple[Values, States]]:
    """Return the file's states before each step, and its outputs and states after it; all [step, ...]."""
    stream = setting.stream(sizes)
    states, outputs = [dict(stream.state)], []
    for step in range(sizes["time"]):
        outputs.append(stream.step(step_inputs(setting.contract, inputs, step)))
        states.append(dict(stream.state))
    return stacked(states[:-1]), (stacked(outputs), stacked(states[1:]))


def _within(setting: ProofSetting, known: Steps, got: tuple[Values, States]) -> float | None:
    """Return the largest error of single steps, None if rounding or the tolerance does not explain one."""
    meter, largest = Meter(setting.contract), 0.0
    for kind, values, own, true in zip(("output", "state"), got, known.own, known.true, strict=True):
        for name, each in values.items():
            tensor = f"{kind}.{name}"
            level = setting.table[tensor]
            largest = max(largest, error := relative_error(own[name], each))
            if error > level.step.relative:
                return None
            excess = meter.whole(tensor, true[name], each, own[name])
            if excess is not None and level.rounding is not None and excess.ratio > level.rounding:
                return None
    return largest
