"""Running a module to see what it does: at several sizes, with several inputs, twice in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnx.errors import RefusedError, RnnxError
from rnnx.model.contract import Dimension, axis_index
from rnnx_export import refusals
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Decision, RecordedCall
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec, infer_shape
from rnnx_export.module.structure import Path, flatten
from rnnx_export.module.subject import Subject
from rnnx_export.module.tensors import alike, disturbed, nearly_same, same_values, to_numpy
from rnnx_export.states.layouts import Fold, sizes_of_rows, split

_FREE = (5, 11, 13, 17, 19, 23)
# How much larger a size is in the run that varies it; free ones by so much that a part of one grows too.
_VARIED, _FREE_VARIED = {"batch": 1, "time": 4}, 8


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a module: what went in, what came out, what was intercepted, what it left behind.

    Attributes:
        flows: what each recurrent call started from, and what it ended with.
        decisions: tensors whose values decided something.
        held: state arguments, as forward left them.
        left: by state argument, what lay at each path in it afterwards.
        written: the states, by flat name, that forward wrote to or put other tensors in the place of.
    """

    inputs: dict[str, Tensor]
    result: Any
    recordings: list[RecordedCall]
    flows: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
    decisions: list[Decision]
    held: dict[str, Any]
    left: dict[str, dict[Path, Any]]
    written: frozenset[str]
    memory: dict[Place, Any]

    def leaf(self, path: tuple[str, ...]) -> Any:
        """Return the part of the result at `path`."""
        return dict(flatten(self.result))[path]

    def recorded(self, key: str) -> RecordedCall | None:
        """Return the recorded call of that key."""
        return next((recorded for recorded in self.recordings if recorded.key == key), None)


@dataclasses.dataclass(frozen=True)
class Run:
    """Two calls in a row of a fresh module: the states it was given, its memory before, itself after.

    `written` are the places that forward wrote to, with other values than before or not, and `parameters`
    the parameters.
    """

    passed: dict[str, Tensor | None]
    memory: dict[Place, Any]
    written: list[Place]
    parameters: list[str]
    first: Call
    second: Call
    module: nn.Module


class Exploration:
    """All runs of one subject.

    Attributes:
        sizes: example size of each named dimension.
        base, other: runs at those sizes with different inputs and states.
        variants: by dimension name, the run of `base` with only that dimension at another size.
        notes: what the user should know.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.sizes = example_sizes(subject)
        self._varied = {name: size + _VARIED.get(name, _FREE_VARIED) for name, size in self.sizes.items()}
        self.notes: list[str] = []
        self._first_row: Run | None = None
        self.base = self._run(self.sizes, 0)
        if subject.note_remembering(self.base.parameters):
            self.base = self._run(self.sizes, 0)
        self.other = self._run(self.sizes, 1)
        self._refuse_varying(self._run(self.sizes, 0))
        self.variants = {
            name: self._run({**self.sizes, name: varied}, 0) for name, varied in self._varied.items()
        }

    def shape(self, pick: Callable[[Run], Tensor]) -> tuple[Dimension, ...] | str:
        """Return the shape of what `pick` takes from a run, in dimension names, or why it has none."""
        base = tuple(pick(self.base).shape)
        others = {name: tuple(pick(run).shape) for name, run in self.variants.items()}
        if any(len(shape) != len(base) for shape in others.values()):
            return "its number of axes depends on a size"
        return infer_shape(base, others, self.sizes, self._varied)

    def has_time_axis(self, path: Path) -> bool:
        """Whether an axis of a part of forward's result follows the model's time."""
        longer = self.variants.get("time")
        if longer is None:
            return False
        return bool(longer.first.leaf(path).shape != self.base.first.leaf(path).shape)

    def folded(
        self, pick: Callable[[Run], Tensor], shown: Callable[[Run], Tensor]
    ) -> tuple[tuple[Dimension, ...], Fold] | None:
        """Return a shape with the batch as an axis of its own, where it is merged into another.

        Args:
            pick: takes a tensor from a run.
            shown: takes one with the same rows, which depend on the inputs.
        """
        axis, other = (self._merged_axis(take) for take in (pick, shown))
        if axis is None or other is None:
            return None
        if self._first_row is None:
            self._first_row = self._run(self.sizes, 0, first_row=1)
        sizes = sizes_of_rows(shown(self.base), shown(self._first_row), other, self.sizes["batch"])
        if sizes is None:
            return None
        fold = Fold(axis, sizes)
        shape = self.shape(lambda run: split(pick(run), fold))
        return None if isinstance(shape, str) else (shape, fold)

    def _merged_axis(self, pick: Callable[[Run], Tensor]) -> int | None:
        """Return the axis that has several rows for each of the batch, None if there is none."""
        batch = self.sizes.get("batch", 0)
        before = pick(self.base).shape
        after = pick(self.variants["batch"]).shape if batch else before
        grown = [
            (axis, new - old)
            for axis, (old, new) in enumerate(zip(before, after, strict=False))
            if new != old
        ]
        rows = [axis for axis, count in grown if count > 1 and before[axis] == count * batch]
        return rows[0] if len(grown) == len(rows) == 1 else None

    def time_axis(self, recorded: RecordedCall) -> int | None:
        """Return the axis of a recorded call that follows the model's time, None if none does."""
        longer = self.variants["time"].first.recorded(recorded.key) if "time" in self.variants else None
        if longer is None:
            return None
        for axis in recorded.axes:
            size, grown = recorded.like.shape[axis], longer.like.shape[axis]
            factor, rest = divmod(grown - size, self._varied["time"] - self.sizes["time"])
            if factor >= 1 and rest == 0 and size == factor * self.sizes["time"]:
                return axis
        return None

    def cuts_alike(self, recorded: RecordedCall, axis: int) -> bool:
        """Whether a recorded call takes as many frames of memory, at least one, in longer calls."""
        longer = self.variants["time"].first.recorded(recorded.key)
        return longer is not None and 0 < recorded.axes[axis] == longer.axes.get(axis)

    def repeats(self, recorded: RecordedCall) -> bool:
        """Whether the call is made once for each time step."""

        def count(run: Run) -> int:
            pair = recorded.key.rpartition(":")[0]
            return sum(other.key.rpartition(":")[0] == pair for other in run.first.recordings)

        return (
            "time" in self.variants
            and count(self.base) == self.sizes["time"]
            and count(self.variants["time"]) == self._varied["time"]
        )

    def starts_constant(self, recorded: RecordedCall) -> bool:
        """Whether the call starts from the same tensors whatever the inputs and the states are."""
        for call in (self.base.second, self.other.first, self.other.second):
            other = call.recorded(recorded.key)
            if other is None or len(other.start) != len(recorded.start):
                return False
            for left, right in zip(recorded.start, other.start, strict=True):
                if left.shape != right.shape or not torch.equal(left, right):
                    return False
        return True

    def draw(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Return random inputs and declared states at the example sizes."""
        generator = torch.Generator().manual_seed(seed)
        return self._inputs(self.sizes, generator), self._states(self.sizes, generator)

    def reads(self, place: Place) -> bool:
        """Whether another value at a place makes any difference to a call, or to what it leaves behind.

        For a tensor these are other numbers, for a plain value what it is after two calls.
        """
        results = []
        for moved in (False, True):
            module = self.subject.fresh()
            if moved:
                value = attributes.read(module, place)
                other = disturbed(value) if isinstance(value, Tensor) else self.base.second.memory.get(place)
                attributes.write(module, {place: other}, attributes.templates(module, [place]))
            try:
                result = self.subject.call(module, *self.draw(0))
            except Exception:  # the user's own code may fail on it in any way, but then it reads it
                return True
            results.append([leaf for _, leaf in flatten(result)] + list(attributes.snapshot(module).values()))
        return len(results[0]) != len(results[1]) or any(
            isinstance(left, Tensor) != isinstance(right, Tensor)
            or (isinstance(left, Tensor) and not same_values(left, right))
            for left, right in zip(*results, strict=True)
        )

    def _run(self, sizes: Mapping[str, int], seed: int, first_row: int | None = None) -> Run:
        """Return a run; its inputs have a first row of another seed where one is given."""
        subject = self.subject
        module = subject.fresh()
        generator = torch.Generator().manual_seed(seed)
        passed = self._states(sizes, generator)
        before = attributes.snapshot(module)
        stamps = attributes.stamps(module)
        parameters = attributes.parameter_stamps(module)
        calls = []
        other = None if first_row is None else torch.Generator().manual_seed(first_row)
        for _ in range(2):
            inputs = self._inputs(sizes, generator)
            for name, value in self._inputs(sizes, other).items() if other is not None else ():
                axis = axis_index(subject.inputs[name].shape, "batch")
                if axis is not None:
                    inputs[name].narrow(axis, 0, 1).copy_(value.narrow(axis, 0, 1))
            states = {name: None if value is None else value.clone() for name, value in passed.items()}
            versions = {name: value._version for name, value in states.items() if value is not None}
            arguments = subject.arguments(inputs, states)
            try:
                with CallTracer(module) as tracer:
                    result = subject.invoke(module, arguments)
            except RnnxError:
                raise
            except Exception as error:  # the user's own code may fail in any way
                raise refusals.forward_fails(subject, error, inputs, states, before) from error
            held = {name: arguments[name] for name in subject.state_trees()}
            left = {name: dict(flatten(value)) for name, value in held.items()}
            places = {name: subject.place(name) for name in versions}
            written = frozenset(
                name
                for name, (parameter, path) in places.items()
                if left[parameter].get(path) is not states[name] or _version(states[name]) != versions[name]
            )
            calls.append(
                Call(
                    inputs,
                    result,
                    tracer.recordings,
                    tracer.flows,
                    tracer.decisions,
                    held,
                    left,
                    written,
                    attributes.snapshot(module),
                )
            )
        after = attributes.parameter_stamps(module)
        changed = [name for name, stamp in parameters.items() if after.get(name) != stamp]
        return Run(passed, before, attributes.written(stamps, module), changed, calls[0], calls[1], module)

    def _refuse_varying(self, again: Run) -> None:
        """Refuse a module that gives something else for the same inputs, or shapes that depend on values."""
        for (path, first), (_, second) in zip(
            flatten(self.base.first.result), flatten(again.first.result), strict=False
        ):
            if isinstance(first, Tensor) and not nearly_same(first, second):
                recordings = (*self.base.first.recordings, *again.first.recordings)
                where = next((recorded.where for recorded in recordings if recorded.kind == "random"), "")
                raise refusals.random(self.subject, where)
            for call in (self.base.second, self.other.first, self.other.second):
                other = dict(flatten(call.result)).get(path)
                if isinstance(first, Tensor) and isinstance(other, Tensor) and first.shape != other.shape:
                    name = f"result{''.join(f'[{part}]' for part in path)}"
                    raise refusals.shape_varies(self.subject, name, tuple(first.shape), tuple(other.shape))

    def _inputs(self, sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, Tensor]:
        return {name: spec.random(sizes, generator) for name, spec in self.subject.inputs.items()}

    def _states(self, sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, Tensor | None]:
        return {
            name: None if spec is None else spec.random(sizes, generator)
            for name, spec in self.subject.states.items()
        }


def example_sizes(subject: Subject) -> dict[str, int]:
    """Return a size for each named dimension, no two alike and none equal to a fixed dimension."""
    specs = [*subject.inputs.values(), *(spec for spec in subject.states.values() if spec)]
    axes = [axis for spec in specs for axis in spec.axes()]
    names = list(dict.fromkeys(axis.name for axis in axes if axis.name))
    used = {axis.factor for axis in axes if not axis.name}
    sizes: dict[str, int] = {}
    for name in names:
        wanted = {"batch": (3, 5, 9), "time": (7, 9, 11, 13)}.get(name, _FREE)
        sizes[name] = next(size for size in (*wanted, *range(29, 10_000)) if size not in used)
        used |= {sizes[name] + more for more in (0, *_VARIED.values(), _FREE_VARIED)}
    return sizes


def narrow_start(name: str, value: Tensor, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return a start with every named axis cut to one element.

    Raises:
        RefusedError: `start-differs` if the rows are not alike.
    """
    narrow = value
    for axis, dimension in enumerate(spec.shape):
        if isinstance(dimension, str):
            narrow = narrow.narrow(axis, 0, 1)
    if not alike(narrow, value):
        raise RefusedError(
            "start-differs",
            expected=f"state {name!r} to start the same in every row",
            found="rows that differ",
            fix="declare it as a state that the caller passes",
        )
    return to_numpy(narrow)


def _version(value: Tensor | None) -> int:
    return -1 if value is None else value._version
