"""Making a trace: what a reference takes, gives and carries, kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnx.formats.trace_file import Trace
from rnnx.model.contract import Contract
from rnnx.model.shapes import Array
from rnnx.parity.compare import computed_dtypes
from rnnx.parity.reference import Inputs, Reference
from rnnx.tolerance import level_of


def record_trace(
    reference: Reference,
    contract: Contract,
    inputs: Inputs,
    *,
    sizes: Mapping[str, int],
    model_id: str,
    advanced: Callable[[int], None] | None = None,
) -> Trace:
    """Run a reference and keep everything.

    Args:
        reference: the network.
        contract: of the model that the trace is for.
        inputs: by name, rows [step, ...]; those without time once.
        sizes: of batch and the free dimensions.
        model_id: of the model that the trace is for.
        advanced: called with the number of steps done so far.

    Returns:
        The trace, with the drift tolerances of the CPU: the replay runs free.
    """
    start = reference.start(sizes)
    collected: dict[str, list[Any]] = {spec.name: [] for spec in contract.outputs}
    carried: dict[str, list[Array]] = {state.name: [start[state.name]] for state in contract.states}
    for step, (outputs, after) in enumerate(reference.steps(inputs, start), 1):
        for name, rows in collected.items():
            rows.append(outputs.get(name))
        for name, kept in carried.items():
            kept.append(after.get(name, kept[-1]))
        if advanced is not None:
            advanced(step)
    bounds = {name: level_of(dtype).drift for name, dtype in computed_dtypes(contract).items()}
    return Trace(
        model_id,
        reference.name,
        bounds,
        {name: np.asarray(rows) for name, rows in inputs.items()},
        {
            name: np.stack([rows[-1] if row is None else row for row in rows])
            for name, rows in collected.items()
        },
        {name: np.stack(rows) for name, rows in carried.items()},
    )
