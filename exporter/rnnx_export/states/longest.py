"""How long a sequence may be that forward takes: it may have a mask or a table of positions of fixed size."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rnnx.errors import InputError, UsageError
from rnnx_export import refusals
from rnnx_export.diagnostics import quiet
from rnnx_export.states.export_plan import Plan

SHORTEST = 16  # the proof needs as many steps
_ENOUGH = 256  # what runs on as many steps is taken to run on any number


def with_longest(plan: Plan, longest: int | None) -> Plan:
    """Return the plan that knows how many steps a sequence may have.

    Args:
        plan: what was found in the module.
        longest: what the caller says; None has it found.

    Raises:
        UsageError: `bad-longest`: less than the proof needs.
        InputError: `forward-failed`: forward does not take as many.
    """
    if longest is None:
        longest = _found(plan) if plan.convention.has_time else None
    elif plan.convention.has_time:
        error = _fails(plan, longest)
        if error is not None:
            raise error
    if longest is not None and longest < SHORTEST:
        raise UsageError(
            "bad-longest",
            expected=f"forward to take sequences of {SHORTEST} steps or more",
            found=f"at most {longest}",
            fix=f"make its mask or table longer: a proof needs {SHORTEST} steps",
        )
    if longest is None:
        return plan
    note = f"forward takes at most {longest} steps from the start of a sequence: so does the file"
    return dataclasses.replace(plan, longest=longest, notes=[*plan.notes, note])


def _found(plan: Plan) -> int | None:
    """Return the most steps that forward takes, None where it takes any number."""
    if _fails(plan, _ENOUGH) is None:
        return None
    least, most = plan.sizes["time"], _ENOUGH  # it ran on the one, and fails on the other
    while most - least > 1:
        middle = (least + most) // 2
        if _fails(plan, middle) is None:
            least = middle
        else:
            most = middle
    return least


def _fails(plan: Plan, steps: int) -> InputError | None:
    """Return how forward fails on a sequence of so many steps, None if it does not."""
    subject, sizes = plan.subject, {**plan.sizes, "time": steps}
    generator = torch.Generator().manual_seed(0)
    inputs = {name: spec.random(sizes, generator) for name, spec in subject.inputs.items()}
    states: dict[str, Tensor | None] = {
        name: None if spec is None or subject.starts_as_none(name) else spec.random(sizes, generator)
        for name, spec in subject.states.items()
    }
    try:
        with quiet():
            subject.call(subject.fresh(), inputs, states)
    except Exception as error:  # the user's own code may fail in any way
        return refusals.inputs_fail(subject, error, inputs, f"{steps} steps")
    return None
