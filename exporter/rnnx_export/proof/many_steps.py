"""Single steps of a module in its own precision and in float64, from any states, many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array
from rnnx.parity.reference import Inputs, Reference64, States, Values
from rnnx.parity.rows import Steps, can_join, stands_alone, steps_at_once
from rnnx_export.proof.module_reference import ModuleReference
from rnnx_export.states.export_plan import Plan

_TOGETHER = 64  # steps that are computed as one batch


def joins(plan: Plan, contract: Contract) -> bool:
    """Whether many steps can be the rows of one batch: nothing is decided for all rows at once."""
    return can_join(contract) and not (plan.sides or plan.both)


def at_once(
    reference: ModuleReference,
    reference64: Reference64,
    contract: Contract,
    inputs: Inputs,
    before: States,
    steps: int,
) -> Steps | None:
    """Return steps of a module from any states, many at a time; None where its rows are seen to mix.

    Args:
        reference, reference64: the module, one that can be advanced from any states, and it in float64.
        contract: of the model, one that `joins`.
        inputs: rows [step, ...]; those without time once.
        before: the states before each step, [step, ...].
        steps: how many.
    """
    own, true = [], []
    for begin in range(0, steps, _TOGETHER):
        end = min(begin + _TOGETHER, steps)
        states = {name: value[begin:end] for name, value in before.items()}
        own.append(steps_at_once(reference, contract, inputs, begin, end, states))
        true.append(steps_at_once(reference64, contract, inputs, begin, end, states))
        if not stands_alone(reference64, contract, inputs, begin, states, true[-1]):
            return None
    return Steps(before, _joined(own), _joined(true))


def stacked(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return arrays by name as [step, ...]."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def _joined(parts: Sequence[tuple[Values, States]]) -> tuple[Values, States]:
    outputs, states = (
        {name: np.concatenate([part[place][name] for part in parts]) for name in parts[0][place]}
        for place in (0, 1)
    )
    return outputs, states
