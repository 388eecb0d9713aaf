"""States that lie in buffers and attributes of the module."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnx_export import refusals
from rnnx_export.diagnostics import Because, Reason
from rnnx_export.module import attributes as memory
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.structure import flatten
from rnnx_export.module.subject import Subject
from rnnx_export.module.tensors import to_numpy
from rnnx_export.states.export_plan import State
from rnnx_export.states.initial_values import measure_start
from rnnx_export.states.layouts import AnyFold, ComplexFold, merge, split
from rnnx_export.states.observations import Exploration, Run, narrow_start


def remembered(seen: Exploration, used: set[str]) -> list[State]:
    """Return the states that lie in buffers and attributes.

    Args:
        seen: the runs.
        used: names that others have; those of the states are added.
    """
    subject, base = seen.subject, seen.base
    states: list[State] = []
    unmeasured: dict[str, TensorSpec] = {}
    places: dict[str, Place] = {}
    folds: dict[str, AnyFold | None] = {}
    for place in _changed_places(seen):
        first, second = base.first.memory.get(place), base.second.memory[place]
        if first is None and place.inside and _grew(seen, place):
            raise refusals.list_grows(subject, place)
        if isinstance(first, Tensor) and first.shape != second.shape:
            if _gets_rows(first, second, seen.shape(_kept(place))):
                raise refusals.gets_rows(subject, place, first, second)
            raise refusals.growing(subject, place, first, second)
        spec, fold = _form(seen, place)
        if spec.has("time"):
            seen.notes.append(f"{place.name!r} holds frames of the last call and is not carried")
            continue
        name = unique(place.name, used)
        start = base.memory.get(place)
        empty = isinstance(start, Tensor) and not start.numel() and second.numel()
        if isinstance(start, Tensor) and not empty:
            initial = _broadcast(subject, place, split(start, fold), spec)
        else:  # forward makes the start itself
            initial = constant(spec, 0.0)
            unmeasured[name], places[name] = spec, place
        folds[name] = fold
        states.append(State(name, spec, initial, place, fold))
    if not unmeasured:
        return states

    def run(values: Mapping[str, Tensor | None], seed: int) -> list[Tensor]:
        inputs, passed = seen.draw(seed)
        module = subject.fresh()
        given_places = {places[n]: merge(v, folds[n]) for n, v in values.items() if v is not None}
        # What else lies in the same attribute begins as it does.
        attributes = {(place.module, place.attribute) for place in given_places}
        for state in states:
            place = state.origin
            if isinstance(place, Place) and (place.module, place.attribute) in attributes:
                start = base.memory.get(place)
                if isinstance(start, Tensor):
                    given_places.setdefault(place, start.clone())
        memory.write(module, given_places, memory.templates(base.module, list(given_places)))
        result = subject.call(module, inputs, passed)
        after = [memory.read(module, place) for place in places.values()]
        return [*(leaf for _, leaf in flatten(result) if isinstance(leaf, Tensor)), *after]

    return measured(states, run, unmeasured, seen)


def _form(seen: Exploration, place: Place) -> tuple[TensorSpec, AnyFold | None]:
    """Return the spec of the state at a place, and how the module has it where that is otherwise."""
    value = seen.base.second.memory[place]
    shape = seen.shape(_kept(place))
    fold: AnyFold | None = ComplexFold() if value.is_complex() else None
    if fold is None and isinstance(shape, str):
        shape, fold = seen.folded(_kept(place), _kept(place)) or (shape, None)
    if isinstance(shape, str):
        raise refusals.state_shape(seen.subject, place.name, shape)
    if value.is_complex():
        return TensorSpec(value.real.dtype, (*shape, 2)), fold
    return TensorSpec(value.dtype, shape), fold


def _changed_places(seen: Exploration) -> list[Place]:
    """Return the places that forward changes and that hold tensors."""
    found: dict[Place, None] = {}
    for run in (seen.base, seen.other):
        for before, after in ((run.memory, run.first.memory), (run.first.memory, run.second.memory)):
            found.update(dict.fromkeys(memory.changed(before, after)))
    # Hold state that no random input moves is written all the same, and read; a table made anew is not read.
    found.update({place: None for place in seen.base.written if place not in found and seen.reads(place)})
    places = []
    for place in found:
        if isinstance(seen.base.second.memory.get(place), Tensor):
            places.append(place)
        elif isinstance(seen.base.memory.get(place), Tensor):
            raise refusals.changes_kind(seen.subject, place)
        elif not _holds_tensors(seen, place) and not _is_idle(seen, place):
            seen.notes.append(
                Because(
                    f"forward changes {place.name!r}, which is no tensor: its start is used at every step",
                    Reason.NO_TENSOR,
                )
            )
    return places


def _is_idle(seen: Exploration, place: Place) -> bool:
    """Whether a plain value is noted once and makes no difference: the batch, say, or that it was called."""
    runs = (seen.base, seen.other)
    notes = [call.memory.get(place) for run in runs for call in (run.first, run.second)]
    return not any(memory.differ(notes[0], value) for value in notes) and not seen.reads(place)


def _grew(seen: Exploration, place: Place) -> bool:
    """Whether a list that holds a tensor at `place` after the second call held fewer after the first."""
    beside = (place.module, place.attribute, place.inside[:-1])
    return any(
        (other.module, other.attribute, other.inside[:-1]) == beside and isinstance(value, Tensor)
        for other, value in seen.base.first.memory.items()
        if other.inside
    )


def _gets_rows(first: Tensor, second: Tensor, shape: tuple[Any, ...] | str) -> bool:
    """Whether memory has one row after the first call and one for each sequence after the second."""
    return first.dim() == second.dim() == len(shape) and all(
        before == after or (before == 1 and isinstance(name, str))
        for before, after, name in zip(first.shape, second.shape, shape, strict=True)
    )


def _holds_tensors(seen: Exploration, place: Place) -> bool:
    """Whether an attribute that began as None or empty holds tensors after the call."""
    return any(
        (other.module, other.attribute) == (place.module, place.attribute)
        and other.inside[: len(place.inside)] == place.inside
        and isinstance(value, Tensor)
        for other, value in seen.base.second.memory.items()
    )


def measured(
    states: list[State], run: Any, specs: Mapping[str, TensorSpec], seen: Exploration
) -> list[State]:
    """Return states with the start that the module makes of None, for those in `specs`."""
    shapes = {name: torch.zeros(spec.sizes(seen.sizes), dtype=spec.dtype) for name, spec in specs.items()}
    starts = measure_start(run, shapes)
    return [
        dataclasses.replace(state, initial=narrow_start(state.name, starts[state.name], state.spec))
        if state.name in starts
        else state
        for state in states
    ]


def unique(name: str, used: set[str]) -> str:
    """Return the name, with a number where others have it; it is taken then."""
    candidate, count = name, 1
    while candidate in used:
        count += 1
        candidate = f"{name}_{count}"
    used.add(candidate)
    return candidate


def constant(spec: TensorSpec, value: float) -> np.ndarray[Any, Any]:
    """Return a start of one number, each named axis of size 1; an infinity of integers is their limit."""
    if not spec.dtype.is_floating_point and value in (float("inf"), -float("inf")):
        info = torch.iinfo(spec.dtype)
        value = info.max if value > 0 else info.min
    ones = [1 if isinstance(dimension, str) else dimension for dimension in spec.shape]
    return to_numpy(torch.full(ones, value, dtype=spec.dtype))


def _broadcast(subject: Subject, place: Place, start: Tensor, spec: TensorSpec) -> np.ndarray[Any, Any]:
    ones = [1 if isinstance(dimension, str) else dimension for dimension in spec.shape]
    try:
        return np.array(np.broadcast_to(to_numpy(start.to(spec.dtype)), ones))
    except ValueError:
        raise refusals.start_shape(subject, place, start, spec) from None


def _kept(place: Place) -> Callable[[Run], Tensor]:
    """Return what picks the value at `place` after a run's second call."""
    return lambda run: run.second.memory[place]
