"""A reference with other rounding: how far two right runs of one network may lie apart."""

from __future__ import annotations

import numpy as np

from rnnx.beside import step_inputs
from rnnx.contract import Contract
from rnnx.reference import Inputs, Reference, States, Values
from rnnx.shapes import Array, has_steps


class Noisy:
    """A run of a reference whose states are nudged by up to one rounding before each step.

    Args:
        reference: one that can be advanced from any states.
        contract: of the model.
        start: states to begin with.
        seed: of the nudges.
    """

    def __init__(self, reference: Reference, contract: Contract, start: States, seed: int) -> None:
        self._reference, self._contract, self._states = reference, contract, start
        self._random = np.random.default_rng([seed, 0x6E6F6973])

    def step(self, inputs: Inputs, step: int) -> tuple[Values, States]:
        """Return outputs and states after `step`, whose inputs are row `step` of `inputs`."""
        row = step_inputs(self._contract, inputs, step)
        for spec in self._contract.inputs:
            if spec.name in row and has_steps(self._contract, spec):
                row[spec.name] = row[spec.name][None]
        states = {name: self._nudge(np.asarray(value)) for name, value in self._states.items()}
        outputs, self._states = next(iter(self._reference.steps(row, states)))
        return outputs, self._states

    def _nudge(self, value: Array) -> Array:
        if value.dtype.kind != "f":
            return value
        noise = self._random.uniform(-1, 1, value.shape) * np.finfo(value.dtype).eps
        with np.errstate(invalid="ignore"):  # infinite starts stay infinite
            return np.asarray(value * (1 + noise), value.dtype)
