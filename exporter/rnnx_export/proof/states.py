"""What each state is good for: what moves nothing in the file must move nothing in the module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.parity.lockstep import chunk_inputs
from rnnx_export.proof.module_reference import StepReference
from rnnx_export.proof.setting import ProofError, ProofSetting

_WARM_STEPS, _MOVED_STEPS = 3, 12
_SEEDS = (5, 105, 205)

# The states after the first steps, the outputs of the rest, the states at the end.
_Ends = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]


def explain_states(setting: ProofSetting) -> None:
    """Put other values into each state; note each that changes nothing, in the module as in the file.

    Raises:
        ProofError: another value in a state changes nothing in the file, and something in the module.
    """
    steps = _warm_steps(setting) + _MOVED_STEPS
    sizes = setting.sizes(2 if setting.contract.has_batch else 1, steps, 5)
    # One draw of inputs may begin with what makes all states anew, such as a mask.
    draws = [setting.inputs(sizes, seed) for seed in _SEEDS]
    bases = [_run(setting, inputs, sizes, {}) for inputs in draws[:1]]
    for state in setting.plan.states:
        tried = 0
        for index, inputs in enumerate(draws):
            if index == len(bases):
                bases.append(_run(setting, inputs, sizes, {}))
            others = _moved(bases[index][0][state.name])
            tried += len(others)
            if any(_moves(setting, state.name, inputs, sizes, bases[index], value) for value in others):
                break
            if any(_moves_module(setting, state.name, inputs, bases[index][0], value) for value in others):
                said = f"state {state.name!r} changes nothing in the file, and something in the module"
                raise ProofError(said)
        else:
            setting.note(
                f"nothing was seen to depend on state {state.name!r}: {tried} other values in it changed "
                f"no output and no other state in {_MOVED_STEPS} steps, in the file and in the module"
            )


def _run(
    setting: ProofSetting, inputs: Mapping[str, Any], sizes: Mapping[str, int], states: Mapping[str, Any]
) -> _Ends:
    """Run the first steps, put `states` in, run the rest."""
    stream, contract = setting.stream(sizes), setting.contract
    warm = _warm_steps(setting)
    stream.run(chunk_inputs(contract, inputs, 0, warm))
    middle = dict(stream.state)
    stream.state.update(states)
    outputs = stream.run(chunk_inputs(contract, inputs, warm, sizes["time"]))
    return middle, outputs, dict(stream.state)


def _warm_steps(setting: ProofSetting) -> int:
    """Return how many steps are run first: until outputs come."""
    return _WARM_STEPS + setting.plan.convention.delay


def _moves(
    setting: ProofSetting,
    name: str,
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int],
    base: _Ends,
    value: Any,
) -> bool:
    """Whether another value in a state changes an output or another state of the file."""
    other = _run(setting, inputs, sizes, {name: value})
    if any(not _equal(base[1][key], other[1][key]) for key in base[1]):
        return True
    return any(not _equal(base[2][key], other[2][key]) for key in base[2] if key != name)


def _moves_module(
    setting: ProofSetting, name: str, inputs: Mapping[str, Any], warm: Mapping[str, Any], value: Any
) -> bool:
    """Whether another value in a state changes an output or another state of the module."""
    specs, steps = setting.plan.subject.inputs, _warm_steps(setting)
    rows = {
        key: array[steps:]
        if setting.stepped(key)
        else np.maximum(array - steps, 0)
        if specs[key].is_length
        else array
        for key, array in inputs.items()
    }
    runs = [StepReference(setting.plan).steps(rows, {**warm, **moved}) for moved in ({}, {name: value})]
    for first, second in zip(*runs, strict=True):
        if any(not _equal(value, second[0][key]) for key, value in first[0].items()):
            return True
        if any(not _equal(value, second[1][key]) for key, value in first[1].items() if key != name):
            return True
    return False


def _moved(value: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return other values of the same dtype: finite, near and far; of integers those that tables may have."""
    if value.dtype.kind == "f":
        near = np.where(np.isfinite(value), value, 0)
        drawn = 4 * np.random.default_rng(0).standard_normal(value.shape)
        moved = (near * 0.5 + 0.25, near + 1, -near - 0.5, 16 * near + 4, 100 * near - 100, drawn)
        return [np.asarray(other).astype(value.dtype) for other in moved]
    if value.dtype.kind == "b":
        return [~value]
    return [np.zeros_like(value)] if value.any() else [np.ones_like(value)]


def _equal(left: Any, right: Any) -> bool:
    return bool(left.tobytes() == right.tobytes())
