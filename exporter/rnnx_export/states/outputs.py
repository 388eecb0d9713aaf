"""Which parts of forward's result are outputs, what they are called, and which look like states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnx.model.contract import Axis
from rnnx.spelling import spelled
from rnnx_export import refusals
from rnnx_export.diagnostics import Caution
from rnnx_export.module.return_names import same_name
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.structure import Path, flatten, tensors
from rnnx_export.module.tensors import same_values
from rnnx_export.states.arguments import part_names, result_names
from rnnx_export.states.buffers import unique
from rnnx_export.states.export_plan import Argument, Output
from rnnx_export.states.observations import Exploration, Run


def find_outputs(
    seen: Exploration, returns: Any, origins: Mapping[str, Path | Argument]
) -> tuple[list[Output], str | None]:
    """Return the outputs, and why they cannot be given step by step if so."""
    result = seen.base.first.result
    names = part_names(result, returns)
    states = {origin: name for name, origin in origins.items() if isinstance(origin, tuple)}
    leaves = [(path, leaf) for path, leaf in tensors(result) if leaf.numel()]  # the others tell nothing
    if not leaves:
        raise refusals.no_outputs(seen.subject, result)
    for path, leaf in leaves:
        if leaf.is_complex():
            raise refusals.complex_output(seen.subject, ".".join(("result", *path)), leaf)
    free = [path for path, _ in leaves if path not in states] or [path for path, _ in leaves]
    free = _without_lengths(seen, free)
    reserved = set(seen.subject.inputs) | {
        f"{name}_{side}" for name in seen.subject.states for side in ("in", "out")
    }
    outputs, reason = [], None
    used: set[str] = set(reserved)
    for path in free:
        shape = seen.shape(returned(path))
        name = _output_name(path, names, states, alone=len(free) == 1)
        if isinstance(shape, str):
            reason = f"output {name!r}: {shape}"
            sizes = tuple(seen.base.first.leaf(path).shape)
            shape = _partly_named(seen, path, sizes)
        times = [axis for axis, one in enumerate(shape) if Axis.parse(one).name == "time"]
        if len(times) > 1:  # steps paired with steps: the weights of an attention
            reason = reason or f"output {name!r} has {len(times)} time axes"
            shape = tuple(_entries(axis) if axis in times[1:] else one for axis, one in enumerate(shape))
        outputs.append(Output(unique(name, used), TensorSpec(seen.base.first.leaf(path).dtype, shape), path))
    return outputs, reason


def _without_lengths(seen: Exploration, paths: list[Path]) -> list[Path]:
    """Return the parts of a result that say more than how long the rows are, and note the others.

    How many steps of a whole call are valid is no value at its last step: the caller has it already.
    """
    subject = seen.subject
    lengths = [name for name, spec in subject.inputs.items() if spec.is_length]
    plain = [path for path in paths if not seen.has_time_axis(path)]
    if not lengths or not plain or len(plain) == len(paths):
        return paths
    base, other = seen.base, seen.other
    swapped = {name: other.first.inputs[name] for name in lengths}
    same = {name: base.first.inputs[name] for name in lengths}
    results = [
        dict(flatten(subject.call(subject.fresh(), inputs, dict(passed))))
        for inputs, passed in (
            ({**other.first.inputs, **same}, other.passed),  # all but the lengths differ
            ({**base.first.inputs, **swapped}, base.passed),  # only they do
        )
    ]
    echoes = []
    for path in plain:
        first = base.first.leaf(path)
        if same_values(results[0][path], first) and not same_values(results[1][path], first):
            echoes.append(path)
            seen.notes.append(
                f"{'.'.join(('result', *path))} says how long the rows are and nothing else: "
                "it is no output of a step"
            )
    return [path for path in paths if path not in echoes]


def like_states(seen: Exploration, outputs: list[Output], returns: Any) -> list[str]:
    """Return a note for each input that an output looks like the next value of, where nothing is carried.

    An input of single steps has many likes. It is told if the author called its like the same, or if it is
    the only one of several inputs that has any.
    """
    subject = seen.subject
    method = getattr(type(subject.original), subject.method, None)
    names = result_names(seen.base.first.result, returns, method)
    timed = any(spec.has("time") for spec in subject.inputs.values())
    likes = {
        name: [o for o in outputs if (o.spec.dtype, o.spec.shape) == (spec.dtype, spec.shape)]
        for name, spec in subject.inputs.items()
        if spec.dtype.is_floating_point and not spec.has("time")
    }
    alone = len(subject.inputs) > 1 and sum(map(bool, likes.values())) == 1
    notes: list[str] = []
    for name, found in likes.items():
        if not (timed or alone):
            found = [output for output in found if same_name(names.get(output.path), name)]
        if found:
            notes.append(
                Caution(
                    f"nothing is carried, though output {found[-1].name!r} is like input {name!r}: if it is "
                    "its next value, give it as a state: "
                    f"{spelled('state', {name: subject.inputs[name].text})}"
                )
            )
    return notes


def _partly_named(seen: Exploration, path: Path, sizes: tuple[int, ...]) -> tuple[int | str, ...]:
    """Return an output's shape where an axis is no dimension of the contract: it gets a name of its own."""

    def one_axis(axis: int) -> Callable[[Run], Tensor]:
        return lambda run: torch.empty(run.first.leaf(path).shape[axis])

    alone = [seen.shape(one_axis(axis)) for axis in range(len(sizes))]
    return tuple(_entries(axis) if isinstance(one, str) else one[0] for axis, one in enumerate(alone))


def _entries(axis: int) -> str:
    return f"entries_{axis}"


def _output_name(path: Path, names: Mapping[Path, str], states: Mapping[Path, str], *, alone: bool) -> str:
    if path in names and all(path[:i] not in names for i in range(len(path)) if i):
        return names[path]
    if path in states:
        return "y" if alone else states[path]
    if alone:
        return names.get((), "y")
    return ".".join(("y", *path))


def returned(path: Path) -> Callable[[Run], Tensor]:
    """Return what picks the part of a run's first result at `path`."""
    return lambda run: run.first.leaf(path)
