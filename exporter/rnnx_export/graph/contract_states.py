"""The states of a plan as the contract and the graph name them."""

from __future__ import annotations

from typing import Any

import msgspec

from rnnx.model.contract import StateSpec
from rnnx.model.contract_values import encode_initial
from rnnx_export.module.spec import boundary_dtype
from rnnx_export.states.export_plan import Plan


def graph_names(name: str) -> tuple[str, str]:
    """Return the names of a state's graph input and output."""
    return f"{name}_in", f"{name}_out"


def state_specs(plan: Plan) -> list[StateSpec]:
    """Return the contract's entries for the plan's states."""
    entries: list[Any] = []
    for state in plan.states:
        before, after = graph_names(state.name)
        entries.append(
            StateSpec(
                name=state.name,
                input=before,
                output=after,
                dtype=boundary_dtype(state.spec.dtype),  # type: ignore[arg-type]
                shape=list(state.spec.shape),
                initial=encode_initial(state.initial),
                role="ended" if plan.delay is not None and state.name == plan.delay.ended else msgspec.UNSET,
            )
        )
    return entries
