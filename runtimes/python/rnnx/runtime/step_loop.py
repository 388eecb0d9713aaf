"""A chunk of a step model: the graph knows single steps only, so the chunk is a loop over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array, chunk_shape, from_steps, to_steps
from rnnx.runtime.bound_call import Plan

Moving = Sequence[tuple[Array, Array]]


def moving_inputs(contract: Contract, plan: Plan, arrays: Mapping[str, Array], time: int) -> Moving:
    """Return (buffer of a step, its rows [step, ...]) of inputs that move; fill in the defaults of others.

    Args:
        contract: of a step model.
        plan: of one step.
        arrays: inputs of the chunk by name; those left out take their defaults.
        time: number of steps. A length counts the valid ones; at each step it is 0 or 1.
    """
    plan.begin()
    moving = []
    for spec, feed in zip(contract.inputs, plan.feeds, strict=True):
        if spec.role == "length":
            counts = arrays.get(spec.name, np.full(feed.shape, time))
            steps = np.arange(time).reshape(-1, *(1 for _ in feed.shape))
            moving.append((feed.target, np.clip(counts - steps, 0, 1)))
        elif spec.name in arrays:
            moving.append((feed.target, to_steps(arrays[spec.name], chunk_shape(contract, spec))))
        else:
            feed.target[...] = feed.default
    return moving


def run_steps(contract: Contract, plan: Plan, moving: Moving, steps: int) -> dict[str, Array]:
    """Run so many steps, from state buffer 0 of the plan to buffer `steps % 2`.

    Args:
        contract: of a step model.
        plan: of one step.
        moving: as `moving_inputs` gives it.
        steps: 1 or more.

    Returns:
        The outputs of all steps as those of one chunk.
    """
    rows = []
    for step in range(steps):
        for target, values in moving:
            target[...] = values[step]
        plan.run(step % 2)
        rows.append(plan.results())
    return {
        spec.name: from_steps(np.stack([row[spec.name] for row in rows]), chunk_shape(contract, spec))
        for spec in contract.outputs
    }
