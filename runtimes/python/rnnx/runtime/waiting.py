"""Entries that wait for a whole step: what `Stream.feed` was given and no step has taken yet.

A step takes N entries along an `N*time` axis. Blocks of other lengths are joined here; what is over waits for
the next block, or for `flush`, which fills it up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from rnnx.errors import InputError, StreamError
from rnnx.model.contract import Axis, Contract, InputSpec, axis_index, resolve
from rnnx.model.index_ranges import bounds_of
from rnnx.model.shapes import Array, chunk_shape
from rnnx.runtime import input_buffers
from rnnx.runtime.input_checks import check_values, match_inputs


class Waiting:
    """The inputs of a stream that no step has taken, by name, in the shape of a chunk. Never changed.

    Attributes:
        values: entries that wait; of inputs without time the latest value, which stays until another comes.
    """

    def __init__(self, contract: Contract, values: Mapping[str, Array] | None = None) -> None:
        self._contract = contract
        self.values = dict(values or {})

    def counts(self) -> dict[str, int]:
        """Return how many entries of each input wait, without those of which none does."""
        axes = {spec.name: _time(self._contract, spec) for spec in self._contract.inputs}
        found = {
            name: value.shape[axis] for name, value in self.values.items() if (axis := axes[name]) is not None
        }
        return {name: count for name, count in found.items() if count}

    def require_none(self) -> None:
        """Refuse what would take entries out of their order. Raises StreamError `entries-waiting`."""
        for name, count in self.counts().items():
            raise StreamError(
                "entries-waiting",
                expected="no entries waiting for a whole step",
                found=f"{count} of {name!r}",
                fix="flush first, or reset the whole stream",
            )

    def joined(self, inputs: Any, sizes: Mapping[str, int]) -> Waiting:
        """Return what waits with `inputs` behind it.

        Args:
            inputs: as `Stream.feed` takes them; None for none.
            sizes: of batch and the free dimensions that are bound.

        Raises:
            InputError: as `Stream.run`, and `feed-length`.
        """
        contract = self._contract
        given = {} if inputs is None else inputs
        if not isinstance(given, Mapping):
            given = input_buffers.name_inputs(contract.inputs, given)
        given = {name: value for name, value in given.items() if value is not None}
        input_buffers.name_inputs(contract.inputs, {**self.values, **given})
        values = dict(self.values)
        for spec in contract.inputs:
            if spec.name not in given:
                continue
            if spec.role == "length":
                raise InputError(
                    "feed-length",
                    expected="no lengths in feed, of which all entries count",
                    found=repr(spec.name),
                    fix="leave it out, or give the whole sequence to run",
                )
            value = input_buffers.to_array(spec, given[spec.name])
            axis = _time(contract, spec)
            before = self.values.get(spec.name)
            if not _fits(contract, spec, value, before, sizes):
                shape = chunk_shape(contract, spec)
                raise input_buffers.misfit(spec, shape, value.shape, sizes, whole=True)
            if axis is not None and before is not None:
                value = np.concatenate([before, value], axis)
            values[spec.name] = np.array(value)
        return Waiting(contract, values)

    def whole_steps(self) -> int:
        """Return how many steps can be run: as many as the shortest of the inputs that were given has."""
        return min((count // factor for count, factor in self._entries()), default=0)

    @property
    def steps(self) -> Fraction:
        """How many steps wait, the part of the last one counted: as many as the longest input has."""
        return max((Fraction(count, factor) for count, factor in self._entries()), default=Fraction(0))

    def steps_to_flush(self) -> int:
        """Return how many steps take all that waits, the last of them filled up."""
        return math.ceil(self.steps)

    def first(self, steps: int) -> dict[str, Array]:
        """Return the inputs of the first steps, filled up with zeros, or what is nearest to 0 in a range."""
        taken = {}
        for spec in self._contract.inputs:
            value, axis = self.values.get(spec.name), _time(self._contract, spec)
            if value is not None and axis is not None:
                value = _resized(value, axis, _factor(self._contract, spec) * steps, self._filling(spec))
            if value is not None:
                taken[spec.name] = value
        return taken

    def without(self, steps: int) -> Waiting:
        """Return what waits behind the first steps."""
        left = {}
        for spec in self._contract.inputs:
            value, axis = self.values.get(spec.name), _time(self._contract, spec)
            if value is not None and axis is not None:
                begin = min(_factor(self._contract, spec) * steps, value.shape[axis])
                value = np.array(value[(slice(None),) * axis + (slice(begin, None),)])
            if value is not None:
                left[spec.name] = value
        return Waiting(self._contract, left)

    def without_entries(self) -> Waiting:
        """Return what holds for all steps: the inputs without time."""
        return self.without(self.steps_to_flush())

    def filling(self, steps: int, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Return inputs of steps that nobody gave: zeros, or what is nearest to 0 in a range.

        An input without time is what it was when it was fed.

        Args:
            steps: how many.
            sizes: of batch and the free dimensions.
        """
        given: dict[str, Array] = {}
        for spec in self._contract.inputs:
            if _time(self._contract, spec) is None:
                given |= {spec.name: self.values[spec.name]} if spec.name in self.values else {}
            else:
                shape = resolve(chunk_shape(self._contract, spec), {**sizes, "time": steps})
                given[spec.name] = np.full(shape, self._filling(spec), spec.dtype)
        return given

    def check(self, sizes: Mapping[str, int], *, finite: bool) -> None:
        """Check all that waits as if it were run. Raises InputError as `Stream.run`."""
        steps = self.steps_to_flush()
        if steps:
            arrays, dims = match_inputs(self._contract, self.first(steps), sizes, whole=True)
            check_values(self._contract, arrays, dims, finite=finite)

    def _entries(self) -> list[tuple[int, int]]:
        """Return how many entries each input with time has, and how many of them a step takes."""
        found = []
        for spec in self._contract.inputs:
            value, axis = self.values.get(spec.name), _time(self._contract, spec)
            if value is not None and axis is not None:
                found.append((value.shape[axis], _factor(self._contract, spec)))
        return found

    def _filling(self, spec: InputSpec) -> float:
        bounds = bounds_of(self._contract, spec)
        least, largest = (bounds.least, bounds.largest) if bounds else spec.range or (0, 0)
        return min(max(0, least), largest)


def no_outputs(contract: Contract, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Return the outputs of no steps: those with time, of length 0. A size that only a run tells is 0."""
    found = {}
    for spec in contract.outputs:
        shape = chunk_shape(contract, spec)
        if axis_index(shape, "time") is not None:
            names = {Axis.parse(dimension).name for dimension in shape}
            known = {**dict.fromkeys(names, 0), **sizes, "time": 0}
            found[spec.name] = np.zeros(resolve(shape, known), spec.dtype)
    return found


def joined_outputs(
    contract: Contract, first: Mapping[str, Array], then: Mapping[str, Array]
) -> dict[str, Array]:
    """Return outputs of steps and of those after them; of an output without time, the last."""
    found = {}
    for spec in contract.outputs:
        axis = axis_index(chunk_shape(contract, spec), "time")
        both = spec.name in first and axis is not None
        found[spec.name] = (
            np.concatenate([first[spec.name], then[spec.name]], axis) if both else then[spec.name]
        )
    return found


def require_end(contract: Contract) -> str:
    """Return the state that says that a sequence is over. Raises StreamError `no-end` if there is none."""
    for state in contract.states:
        if state.role == "ended":
            return state.name
    late = max(spec.delay for spec in contract.outputs)
    raise StreamError(
        "no-end",
        expected=f"a model that can give the last {late} steps, which its outputs are late by",
        found="one whose network ends a sequence otherwise than with zeros",
        fix="do without them, or give the whole sequence to a model that was exported without delay",
    )


def _fits(
    contract: Contract, spec: InputSpec, value: Array, before: Array | None, sizes: Mapping[str, int]
) -> bool:
    """Whether an input has the axes of a chunk, of the sizes that are known; any number along time."""
    shape = chunk_shape(contract, spec)
    if value.ndim != len(shape):
        return False
    time = axis_index(shape, "time")
    for index, dimension in enumerate(shape):
        axis = Axis.parse(dimension)
        known = sizes.get(axis.name, 1 if not axis.name else None)
        wanted = None if known is None else known * axis.factor
        if wanted is None and before is not None and time is not None:
            wanted = before.shape[index]
        if index != time and wanted is not None and value.shape[index] != wanted:
            return False
    return True


def _time(contract: Contract, spec: InputSpec) -> int | None:
    return axis_index(chunk_shape(contract, spec), "time")


def _factor(contract: Contract, spec: InputSpec) -> int:
    shape = chunk_shape(contract, spec)
    axis = axis_index(shape, "time")
    assert axis is not None
    return Axis.parse(shape[axis]).factor


def _resized(value: Array, axis: int, count: int, filling: float) -> Array:
    """Return the first entries along an axis, filled up where there are fewer."""
    found = value[(slice(None),) * axis + (slice(count),)]
    missing = count - found.shape[axis]
    widths = [(0, missing if index == axis else 0) for index in range(value.ndim)]
    return np.pad(found, widths, constant_values=np.array(filling, value.dtype)) if missing else found
