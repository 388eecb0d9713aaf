"""Whether a call does the same again for each of its steps: of one that does not, no step can be cut out.

A parallel scan takes more operators for 9 steps than for 8, and as many for 5 as for 8. To unroll it and to
look for one step in it takes minutes, and finds none.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_export.diagnostics import quiet
from rnnx_export.loops.prefixes import STEP_COUNTS
from rnnx_export.states.causality import draw
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program

# The longest that are unrolled: what a few first steps do otherwise is over by then.
_LENGTHS = range(STEP_COUNTS[-1] - 3, STEP_COUNTS[-1] + 1)


def grows_evenly(plan: Plan) -> bool:
    """Whether each further step of a call takes as many operators as the one before it, be it none.

    A module that decides on values, or does not run on few steps, is given the benefit of the doubt.
    """
    if plan.sides or plan.both:
        return True
    try:
        counts = [_operators(plan, steps) for steps in _LENGTHS]
    except Exception:  # the user's own code may refuse a length in any way
        return True
    return len({after - before for before, after in itertools.pairwise(counts)}) == 1


def _operators(plan: Plan, steps: int) -> int:
    """Return how many operators a call of so many steps runs."""
    inputs, states = draw(plan, 5, {**plan.sizes, "time": steps})
    program = Program(plan)
    counting = _Counting()
    with quiet(), torch.no_grad(), counting:
        program(*inputs.values(), *states.values())
    return counting.count


class _Counting(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        self.count += 1
        return func(*args, **dict(kwargs or {}))
