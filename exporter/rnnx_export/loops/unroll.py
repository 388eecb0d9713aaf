"""State that a hand-written loop makes and throws away, found by comparing its first steps.

The module is captured on prefixes of one, two and three steps, or of more. What a step gives is the same
expression each time, but for two things: the step's input, and the values carried in. Where the first step
has a constant and the second an expression, a state is carried: the constant is its start, the expression its
next value.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rnnx_export.calls.kinds import SLOTS
from rnnx_export.capture.program import capture, decomposed
from rnnx_export.diagnostics import CaptureError, Reason, reason_of
from rnnx_export.loops.even import grows_evenly
from rnnx_export.loops.matcher import Matcher
from rnnx_export.loops.prefixes import STEP_COUNTS
from rnnx_export.loops.unstack import MismatchError
from rnnx_export.module.spec import TensorSpec, step_shape, time_axis
from rnnx_export.states.causality import why_not_stepped
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program

_FEW = STEP_COUNTS[1]


class _Prefixes(nn.Module):
    """Runs a program on its first step, its first two and so on; gives the last step of each, and states."""

    def __init__(self, plan: Plan, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self.program = Program(plan)
        self._timed = {name: time_axis(spec.shape) for name, spec in plan.subject.inputs.items()}
        self._outputs = [time_axis(output.spec.shape) for output in plan.outputs]

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Take each step of each input, then the states; return the roots of each prefix in turn."""
        names = list(self._timed)
        count = len(names)
        rows = [
            dict(zip(names, flat[step * count : (step + 1) * count], strict=True))
            for step in range(self._steps)
        ]
        results: list[Tensor] = []
        for length in range(1, self._steps + 1):
            inputs = [
                rows[0][name] if axis is None else torch.stack([row[name] for row in rows[:length]], axis)
                for name, axis in self._timed.items()
            ]
            result = self.program(*inputs, *flat[self._steps * count :])
            last = [
                y if axis is None else y.select(axis, -1)
                for y, axis in zip(result, self._outputs, strict=False)
            ]
            results += [*last, *result[len(last) :]]
        return tuple(results)


def lift_loops(plans: Sequence[Plan], fits: Callable[[Plan], bool]) -> Plan | None:
    """Return the first of the plans with the states of a loop put to it that fit, None if there is none.

    More steps take much longer to compare: each plan is looked at with a few before any is with more.

    Args:
        plans: to look at, the better first.
        fits: whether a plan with what was found is good.
    """
    left = [plan for plan in plans if grows_evenly(plan)]
    for steps in STEP_COUNTS:
        if steps > _FEW:
            left = [plan for plan in left if not _starts_from_input(plan)]
        for plan in list(left):
            try:
                found = _lifted(plan, fits, steps)
                if found is not None:
                    return found
            except CaptureError:
                left.remove(plan)
    return None


def _starts_from_input(plan: Plan) -> bool:
    """Whether a cell seems to start from an input: few steps show if the loop carries that all the same."""
    return plan.hint is not None and reason_of(plan.hint) is Reason.STARTS_FROM_INPUT


def lift_loop(plan: Plan) -> Plan:
    """Find what a loop carries beside the states that make it stepped, such as hold state: few steps show it.

    Args:
        plan: one that can be stepped.

    Returns:
        The plan with what was found, if it can be stepped so; else the plan. What was found is a claim that
        the proof has to confirm.
    """
    try:
        return _lifted(plan, lambda found: why_not_stepped(found) is None, STEP_COUNTS[0]) or plan
    except CaptureError:
        return plan


def _lifted(plan: Plan, fits: Callable[[Plan], bool], steps: int) -> Plan | None:
    """Return the plan with what a loop carries and its step, if that fits. Raises CaptureError."""
    timed = [spec for spec in plan.subject.inputs.values() if not spec.is_length]
    if any("time" not in spec.shape and spec.has("time") for spec in timed):
        return None
    trial = _spelled_out(plan)
    for matcher in _matched(trial, *_captured(trial, steps)):
        states = trial.states + matcher.new_states()
        found = dataclasses.replace(trial, states=states, step_graph=matcher.finish())
        if fits(found):
            return found
    return None


def _spelled_out(plan: Plan) -> Plan:
    """Return the plan without what an unrolled loop shows by itself: running sums, the number of the step."""
    shown = {
        name
        for lift in plan.lifts.values()
        for name, slot in zip(lift.names, SLOTS[lift.kind], strict=True)
        if slot == "position" or lift.kind == "cumsum"
    }
    lifts = {key: lift for key, lift in plan.lifts.items() if lift.kind != "cumsum"}
    states = [state for state in plan.states if state.name not in shown]
    return dataclasses.replace(plan, states=states, lifts=lifts)


def _captured(plan: Plan, steps: int) -> tuple[torch.export.ExportedProgram, list[Tensor]]:
    """Return the program of the first steps, and the tensors it was captured with. Raises CaptureError."""
    shapes = [step_shape(spec.shape) for spec in plan.subject.inputs.values()]
    generator = torch.Generator().manual_seed(0)
    rows = [
        TensorSpec(spec.dtype, tuple(shape), spec.low, spec.high).random(plan.sizes, generator)
        for _ in range(steps)
        for spec, shape in zip(plan.subject.inputs.values(), shapes, strict=True)
    ]
    examples = [*rows, *plan.start(plan.sizes).values()]
    names = [f"{name}.{step}" for step in range(steps) for name in plan.subject.inputs]
    names += [state.name for state in plan.states]
    every = [*shapes * steps, *(state.spec.shape for state in plan.states)]
    return decomposed(capture(_Prefixes(plan, steps), examples, every, names)), examples


def _matched(plan: Plan, exported: torch.export.ExportedProgram, examples: Sequence[Tensor]) -> list[Matcher]:
    """Return the routes by which one step was found in all of them, that with the fewest states first.

    What is carried is taken as it is used (a value times its weight), or as it is before that: a value that
    is used in several ways is then carried once.
    """
    found: dict[tuple[int, int], Matcher] = {}
    for descends in (True, False):
        matcher = Matcher(plan, exported, examples, descends=descends)
        with contextlib.suppress(MismatchError, RecursionError):  # a graph may be deeper than Python's stack
            matcher.match()
            if matcher.slots or matcher.position:
                found.setdefault(matcher.carried(), matcher)
    return [found[size] for size in sorted(found)]
