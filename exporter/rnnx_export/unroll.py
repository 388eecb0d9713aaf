"""State that a hand-written loop makes and throws away, found by comparing its first three steps.

The module is captured on prefixes of one, two and three steps. What a step gives is the same expression each
time, but for two things: the step's input, and the values carried in. Where the first step has a constant and
the second an expression, a state is carried: the constant is its start, the expression its next value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnnx_export.capture import CaptureError, capture
from rnnx_export.clean import step_shape
from rnnx_export.matcher import Matcher, MismatchError
from rnnx_export.plan import Plan, Program, time_axis
from rnnx_export.prefixes import STEPS
from rnnx_export.spec import TensorSpec


class _Prefixes(nn.Module):
    """Runs a program on its first one, two and three steps; gives the last step of each, and the states."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.program = Program(plan)
        self._timed = {name: time_axis(spec.shape) for name, spec in plan.subject.inputs.items()}
        self._outputs = [time_axis(output.spec.shape) for output in plan.outputs]

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Take each step of each input, then the states; return the roots of each prefix in turn."""
        names = list(self._timed)
        count = len(names)
        rows = [
            dict(zip(names, flat[step * count : (step + 1) * count], strict=True)) for step in range(STEPS)
        ]
        results: list[Tensor] = []
        for length in range(1, STEPS + 1):
            inputs = [
                rows[0][name] if axis is None else torch.stack([row[name] for row in rows[:length]], axis)
                for name, axis in self._timed.items()
            ]
            result = self.program(*inputs, *flat[STEPS * count :])
            last = [
                y if axis is None else y.select(axis, -1)
                for y, axis in zip(result, self._outputs, strict=False)
            ]
            results += [*last, *result[len(last) :]]
        return tuple(results)


def lift_loop(plan: Plan) -> bool:
    """Find the states of a loop that carries them by itself; put them and their step into the plan.

    Returns:
        Whether any were found. What was found is a claim that the proof has to confirm.
    """
    shapes = [spec.shape for spec in plan.subject.inputs.values()]
    timed = [spec for spec in plan.subject.inputs.values() if not spec.is_length]
    if any("time" not in spec.shape and spec.has("time") for spec in timed):
        return False
    steps = [step_shape(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(0)
    sizes = plan.sizes
    rows = [
        TensorSpec(spec.dtype, tuple(shape), spec.low, spec.high).random(sizes, generator)
        for _ in range(STEPS)
        for spec, shape in zip(plan.subject.inputs.values(), steps, strict=True)
    ]
    given = list(plan.start(sizes).values())
    names = [
        *(f"{name}.{step}" for step in range(STEPS) for name in plan.subject.inputs),
        *(s.name for s in plan.states),
    ]
    all_shapes = [*steps * STEPS, *(state.spec.shape for state in plan.states)]
    try:
        exported = capture(_Prefixes(plan), [*rows, *given], all_shapes, names).run_decompositions({})
        matcher = _matched(plan, exported, [*rows, *given])
    except CaptureError:
        return False
    if matcher is None or not (matcher.slots or matcher.position):
        return False
    plan.states += matcher.new_states()
    plan.step_graph = matcher.finish()
    return True


def _matched(
    plan: Plan, exported: torch.export.ExportedProgram, examples: Sequence[Tensor]
) -> Matcher | None:
    """Return a matcher that found one step in all of them: first with what is carried taken as it is used."""
    for descends in (False, True):
        matcher = Matcher(plan, exported, examples, descends=descends)
        with contextlib.suppress(MismatchError, RecursionError):  # a graph may be deeper than Python's stack
            matcher.match()
            return matcher
    return None
