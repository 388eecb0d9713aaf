"""A module that looks ahead, made one that is stepped: its outputs come as many steps later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnnx.errors import RefusedError, UsageError
from rnnx.model.contract import axis_index
from rnnx_export import refusals
from rnnx_export.calls.delays import Delay, Delays
from rnnx_export.diagnostics import quiet, user_error
from rnnx_export.module.spec import TensorSpec, infer_shape
from rnnx_export.states.buffers import constant, unique
from rnnx_export.states.causality import call_fresh, draw, join_steps, stepped_rows, why_not_stepped
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan, State
from rnnx_export.states.program import Program

_FLOAT = torch.float32


def with_delay(plan: Plan, returns: Any, delay: Any) -> Plan:
    """Return the plan whose outputs come late, so that it can be stepped.

    Args:
        plan: of a module that looks ahead.
        returns: names for the parts of forward's result, or None.
        delay: by how many steps, or "auto" for as few as it takes.

    Raises:
        RefusedError: `not-delayed`, with what stands in the way.
        UsageError: `bad-delay`: fewer steps than it takes.
    """
    if plan.whole_only is not None:
        raise refusals.not_delayed(plan.subject, None, str(plan.whole_only))
    plan = discover(plan.subject, returns, ahead=True)
    _check(plan)
    flags = {*plan.subject.inputs, *(state.name for state in plan.states)}
    flags |= {output.name for output in plan.outputs}
    live, ended = unique("live", flags), unique("ended", flags)
    trial = dataclasses.replace(plan, delay=Delay(0, live, None, ()))
    with quiet():
        least = _run(trial, {**plan.sizes, "time": 1}).latest
    if delay != "auto" and delay < least:
        raise UsageError(
            "bad-delay",
            expected=f"a delay of {least} steps or more, as far as forward looks ahead",
            found=str(delay),
            fix="leave it to be found: delay='auto', --delay auto",
        )
    steps = least if delay == "auto" else delay
    if not steps:
        plan = discover(plan.subject, returns)
        why = why_not_stepped(plan)
        if why is not None:
            raise refusals.not_delayed(plan.subject, None, str(why))
        return plan
    found = _with_states(plan, Delay(steps, live, ended, ()), flags)
    why = why_not_stepped(found)
    if why is not None:
        raise refusals.not_delayed(plan.subject, steps, str(why))
    if not _ends_alike(found):
        note = "a stream cannot give its last steps: forward ends a sequence otherwise than with zeros"
        assert found.delay is not None
        found = dataclasses.replace(
            found,
            delay=dataclasses.replace(found.delay, ended=None),
            states=[state for state in found.states if state.name != ended],
            notes=[*found.notes, note],
        )
    return found


def _check(plan: Plan) -> None:
    """Refuse what has no steps to be late by."""
    if any(spec.is_length for spec in plan.subject.inputs.values()):
        raise refusals.not_delayed(plan.subject, None, "it takes lengths: rows end at different steps")
    timeless = [output.name for output in plan.outputs if axis_index(output.spec.shape, "time") is None]
    if not plan.has_time or timeless:
        said = f"output {timeless[0]!r} has no time axis" if timeless else "the model has no time axis"
        raise refusals.not_delayed(plan.subject, None, said)


def _run(plan: Plan, sizes: dict[str, int]) -> Delays:
    """Return how late the values were when one step was run."""
    program = Program(plan)
    generator = torch.Generator().manual_seed(0)
    inputs = [spec.random(sizes, generator) for spec in plan.subject.inputs.values()]
    try:
        program(*inputs, *plan.start(sizes).values())
    except RefusedError:
        raise
    except Exception as error:  # the user's own code may refuse a single step in any way
        said = user_error(error, "forward does not run on a single step: ")
        raise refusals.not_delayed(plan.subject, None, said) from error
    assert program.delays is not None
    return program.delays


def _with_states(plan: Plan, delay: Delay, used: set[str]) -> Plan:
    """Return the plan with the lines and the flags that a delay takes, as states."""
    trial = dataclasses.replace(plan, delay=delay)
    base = {**plan.sizes, "time": 1}
    with quiet():
        run = _run(trial, base)
        lines = run.waiting
        varied = {name: size + 2 for name, size in base.items() if name != "time"}
        others = {name: _run(trial, {**base, name: size}).waiting for name, size in varied.items()}
    delay = dataclasses.replace(delay, memory=run.oldest)
    batch = ("batch",) if any("batch" in spec.shape for spec in plan.subject.inputs.values()) else ()
    flags = [(delay.live, (*batch, delay.memory)), (delay.ended or "", batch)]
    specs = [(name, TensorSpec(_FLOAT, shape)) for name, shape in flags]
    for index, (waits, value) in enumerate(lines):
        shapes = {name: tuple(other[index][1].shape) for name, other in others.items()}
        shape = infer_shape(tuple(value.shape), shapes, base, varied)
        if isinstance(shape, str):
            raise refusals.not_delayed(plan.subject, delay.steps, f"a value that waits: {shape}")
        specs.append((unique("waiting", used), TensorSpec(value.dtype, (waits, *shape))))
    states = [State(name, spec, constant(spec, 0.0), f"delay:{name}") for name, spec in specs]
    note = f"outputs come {delay.steps} step{'s' if delay.steps > 1 else ''} late: forward looks so far ahead"
    names = tuple(name for name, _ in specs[2:])
    return dataclasses.replace(
        plan,
        delay=dataclasses.replace(delay, lines=names),
        convention=dataclasses.replace(plan.convention, delay=delay.steps),
        states=[*plan.states, *states],
        sizes={**plan.sizes, "time": max(plan.sizes["time"], 2 * delay.steps + 5)},
        notes=[*plan.notes, note],
    )


def steps_and_end(plan: Plan, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the outputs of a sequence run step by step, and of its end, as a whole call gives them.

    Args:
        plan: one whose outputs come late.
        inputs: by name, of all steps.
        states: by name, what they begin as.
    """
    assert plan.delay is not None
    longer, late, steps = {}, plan.delay.steps, 0
    for name, value in inputs.items():
        spec = plan.subject.inputs[name]
        axis = axis_index(spec.shape, "time")
        longer[name] = value
        if axis is not None:
            frames = spec.axes()[axis].factor
            steps = value.shape[axis] // frames
            after = [late * frames if place == axis else size for place, size in enumerate(value.shape)]
            longer[name] = torch.cat([value, value.new_zeros(after)], axis)
    rows = stepped_rows(plan, longer, states, steps + late, ends=steps)[late:]
    return [
        join_steps([row[index] for row in rows], output.spec) for index, output in enumerate(plan.outputs)
    ]


def _ends_alike(plan: Plan) -> bool:
    """Whether steps of zeros after the end, said to be that, give the last outputs of a whole call."""
    plain = dataclasses.replace(plan, convention=dataclasses.replace(plan.convention, delay=0))
    with quiet():
        inputs, states = draw(plan, 7)
        whole, got = call_fresh(plain, inputs, states), steps_and_end(plan, inputs, states)
    return all(torch.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in zip(got, whole, strict=True))
