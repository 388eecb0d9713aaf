"""What errors are measured against, step by step: the float64 reference, and PyTorch's own errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rnnx.model.contract import Contract
from rnnx.parity.drift import Track
from rnnx.parity.lazy_inputs import fed_back, push
from rnnx.parity.lockstep import Step, ended_rows
from rnnx.parity.perturbed import Noisy, advance
from rnnx.parity.reference import Inputs, Reference64, States, Values
from rnnx.tolerance import Level, relative_error

_FORCED = 2  # further runs from the reference's states: no chaos parts them, so that few will do


class Yardstick:
    """Runs the float64 reference beside a reference.

    Args:
        reference64: the reference in float64.
        contract: of the model.
        inputs: rows [step, ...] of what it takes.
        loops: inputs that take what came out a step before, by the output they take.
        start: states to begin with.
        levels: tolerance by tensor.
        resumes: whether it can be advanced from any states.
        runs: how many further good runs, each with rounding of its own, to measure PyTorch's own error by.
    """

    def __init__(
        self,
        reference64: Reference64,
        contract: Contract,
        inputs: Inputs,
        loops: Mapping[str, str],
        start: States,
        levels: Mapping[str, Level],
        *,
        resumes: bool,
        runs: int,
    ) -> None:
        self.own = Track({name: level.drift.relative for name, level in levels.items()})
        self._reference64, self._contract, self._loops, self._resumes = reference64, contract, loops, resumes
        self._inputs = fed_back(inputs, loops)
        self._steps = iter(reference64.steps(self._inputs, start))
        whole = None if resumes else inputs
        self._noisy = [Noisy(reference64, contract, start, number, whole) for number in range(runs)]

    def measure(self, inputs: Inputs, step: int, outputs: Values, after: States, before: States) -> Step:
        """Return a step with all that errors are measured against.

        Args:
            inputs: that the reference takes.
            step: which.
            outputs, after, before: the reference's, and its states before the step.
        """
        true = next(self._steps)
        rough = [each.step(inputs, step) for each in self._noisy]
        for run in ((outputs, after), *rough):
            self._note_own(inputs, step, *run, true)
        push(self._inputs, self._loops, true[0])
        if not self._resumes:
            return Step(outputs, after, true, rough=rough)
        true_forced = advance(self._reference64, self._contract, inputs, step, before)
        rough_forced = [each.forced(inputs, step, before) for each in self._noisy[:_FORCED]]
        return Step(outputs, after, true, true_forced, rough, rough_forced)

    def _note_own(
        self, inputs: Inputs, step: int, outputs: Values, after: States, true: tuple[Values, States]
    ) -> None:
        """Measure the error of the reference, or of another good run, against the one in float64."""
        pairs = {f"output.{name}": (true[0][name], value) for name, value in outputs.items()}
        pairs |= {f"state.{name}": (true[1][name], value) for name, value in after.items()}
        for tensor, (expected, got) in pairs.items():
            ended = ended_rows(self._contract, inputs, step, tensor)
            if ended is not None:
                expected, got = np.where(ended, 0, expected), np.where(ended, 0, got)
            self.own.add(step, tensor, relative_error(np.asarray(expected), np.asarray(got)))
