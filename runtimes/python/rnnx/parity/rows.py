"""Many single steps at once, each from its own states, as the rows of one batch: weights are read once.

It takes a model whose every value has rows of its own. That rows do not mix is not believed: the first step
is computed alone as well, in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec, step_shape
from rnnx.model.shapes import Array, has_steps
from rnnx.parity.reference import Inputs, Reference, States, Values

_ALONE = 1e-9  # of 1 + |value|: what a step in float64 alone may differ by from the same among others


@dataclasses.dataclass(frozen=True)
class Steps:
    """Single steps of a network, each from the states that stand before it; all arrays are [step, ...].

    Attributes:
        before: the states before each step.
        own: outputs and next states of the network in its own precision.
        true: the same in float64.
    """

    before: States
    own: tuple[Values, States]
    true: tuple[Values, States]

    def each(self, count: int) -> Iterator[tuple[States, tuple[Values, States], tuple[Values, States]]]:
        """Yield the first `count` steps: before, own, true."""
        for step in range(count):
            before, *rest = (
                {name: value[step] for name, value in values.items()}
                for values in (self.before, *self.own, *self.true)
            )
            yield before, (rest[0], rest[1]), (rest[2], rest[3])


class Rows:
    """Joins the steps of a model as rows, and takes them apart again.

    Args:
        contract: of the model, one that `can_join` says yes to.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._axes = {spec.name: _batch(spec) for spec in contract.outputs}
        self._state_axes = {state.name: _batch(state) for state in contract.states}

    def states(self, states: States) -> dict[str, Array]:
        """Return states [step, ...] as those of one batch."""
        return {name: _join(np.asarray(value), self._state_axes[name]) for name, value in states.items()}

    def inputs(self, inputs: Inputs, begin: int, end: int) -> dict[str, Array]:
        """Return the inputs of the steps `begin` up to `end` as those of one step: [1, ...], or once."""
        joined = {}
        for spec in self._contract.inputs:
            if spec.name not in inputs:
                continue
            axis, value = _batch(spec), inputs[spec.name]
            if has_steps(self._contract, spec):
                joined[spec.name] = _join(np.asarray(value[begin:end]), axis)[None]
            elif axis is None:
                joined[spec.name] = np.asarray(value)
            else:
                joined[spec.name] = np.concatenate([np.asarray(value)] * (end - begin), axis)
        return joined

    def apart(self, outputs: Values, states: States, steps: int) -> tuple[Values, States]:
        """Return what a joined step gave as [step, ...]."""
        return (
            {name: _apart(value, self._axes[name], steps) for name, value in outputs.items()},
            {name: _apart(value, self._state_axes[name], steps) for name, value in states.items()},
        )


def can_join(contract: Contract) -> bool:
    """Whether every value of a model has rows of its own."""
    specs: list[OutputSpec | StateSpec] = [*contract.outputs, *contract.states]
    taken = [spec for spec in contract.inputs if has_steps(contract, spec)]
    return (
        not any(spec.role for spec in contract.inputs)
        and not any(_merged(spec) for spec in (*contract.inputs, *specs))
        and all(_batch(spec) is not None for spec in (*specs, *taken))
    )


def steps_at_once(
    reference: Reference, contract: Contract, inputs: Inputs, begin: int, end: int, before: States
) -> tuple[Values, States]:
    """Return outputs and next states, [step, ...], of the steps `begin` up to `end`.

    Args:
        reference: one that can be advanced from any states.
        contract: of the model.
        inputs: rows [step, ...]; those without time once.
        begin, end: which steps.
        before: the states before each of them, [step, ...].
    """
    rows = Rows(contract)
    found = next(iter(reference.steps(rows.inputs(inputs, begin, end), rows.states(before))))
    return rows.apart(*found, end - begin)


def stands_alone(
    reference64: Reference,
    contract: Contract,
    inputs: Inputs,
    begin: int,
    before: States,
    found: tuple[Values, States],
) -> bool:
    """Whether the first of some steps gives alone what it gave among the others: its rows did not mix.

    Args:
        reference64: in float64, where rounding hides nothing.
        contract, inputs, begin, before: as `steps_at_once`.
        found: what that returned.
    """
    first = {name: value[:1] for name, value in before.items()}
    alone = steps_at_once(reference64, contract, inputs, begin, begin + 1, first)
    return all(
        np.allclose(among[name][0], value[0], _ALONE, _ALONE, equal_nan=True)
        for among, values in zip(found, alone, strict=True)
        for name, value in values.items()
    )


def _batch(spec: InputSpec | OutputSpec | StateSpec) -> int | None:
    shape = step_shape(spec)
    return shape.index("batch") if "batch" in shape else None


def _merged(spec: InputSpec | OutputSpec | StateSpec) -> bool:
    """Whether rows lie in an axis together with something else."""
    return any(isinstance(axis, str) and axis.endswith("*batch") for axis in spec.shape)


def _join(value: Array, axis: int | None) -> Array:
    assert axis is not None
    moved = np.moveaxis(value, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def _apart(value: Array, axis: int | None, steps: int) -> Array:
    assert axis is not None
    shape = (*value.shape[:axis], steps, -1, *value.shape[axis + 1 :])
    return np.moveaxis(np.asarray(value).reshape(shape), axis, 0)
