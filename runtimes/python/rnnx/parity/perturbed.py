"""A reference with other rounding: how far two right runs of one network may lie apart."""

from __future__ import annotations

import numpy as np

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array, has_steps
from rnnx.parity.lockstep import step_inputs
from rnnx.parity.reference import Inputs, Reference, Reference64, States, Values


class Noisy:
    """A float64 run as another engine may round it: its states are perturbed by a rounding at each step.

    Args:
        reference64: one that can be advanced from any states.
        contract: of the model.
        start: states to begin with.
        seed: of the perturbations.
        whole: inputs of all steps, for a reference that computes whole sequences only: its functions are
            rounded, its states are out of reach.
    """

    def __init__(
        self,
        reference64: Reference64,
        contract: Contract,
        start: States,
        seed: int,
        whole: Inputs | None = None,
    ) -> None:
        self._reference, self._contract, self._states = reference64.rough(seed), contract, start
        self._rows = None if whole is None else iter(self._reference.steps(whole, start))
        self._dtypes = {name: np.asarray(value).dtype for name, value in start.items()}
        self._random = np.random.default_rng([seed, 0x6E6F6973])

    def step(self, inputs: Inputs, step: int) -> tuple[Values, States]:
        """Return outputs and states after `step`, whose inputs are row `step` of `inputs`."""
        if self._rows is not None:
            return next(self._rows)
        # An engine keeps them in their own precision between two steps.
        kept = {name: np.asarray(value, self._dtypes[name]) for name, value in self._states.items()}
        states = {name: self._perturb(value) for name, value in kept.items()}
        outputs, self._states = advance(self._reference, self._contract, inputs, step, states)
        return outputs, self._states

    def forced(self, inputs: Inputs, step: int, states: States) -> tuple[Values, States]:
        """Return outputs and states after `step` from these states."""
        return advance(self._reference, self._contract, inputs, step, states)

    def _perturb(self, value: Array) -> Array:
        if value.dtype.kind != "f":
            return value
        noise = self._random.uniform(-1, 1, value.shape) * np.finfo(value.dtype).eps
        with np.errstate(invalid="ignore"):  # infinite starts stay infinite
            return np.asarray(value * (1 + noise), value.dtype)


def advance(
    reference: Reference, contract: Contract, inputs: Inputs, step: int, states: States
) -> tuple[Values, States]:
    """Return outputs and states after `step`, whose inputs are row `step` of `inputs`, from these states."""
    row = step_inputs(contract, inputs, step)
    for spec in contract.inputs:
        if spec.name in row and has_steps(contract, spec):
            row[spec.name] = row[spec.name][None]
    return next(iter(reference.steps(row, states)))
