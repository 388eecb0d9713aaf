"""The plan of an export: which tensor is an input, an output, a state; and the pure function it describes."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnx.model.contract import Axis, Dimension
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Lift
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.structure import Path, flatten
from rnnx_export.module.subject import Subject, in_precision
from rnnx_export.states.arguments import Feedback
from rnnx_export.states.layouts import AnyFold, merge, split


@dataclasses.dataclass(frozen=True)
class Argument:
    """A leaf of a state argument: where forward leaves the next value if it changes the argument."""

    parameter: str
    inside: Path


@dataclasses.dataclass(frozen=True)
class State:
    """One state of the exported model.

    Attributes:
        name: its name in the contract.
        spec: dtype and shape; no time axis.
        initial: its start, broadcastable to the shape with every named axis of size 1.
        origin: where its next value is: a path in forward's result, the leaf of the argument that forward
            changes, the place in the module that holds it, or the key of the call that carries it.
        fold: how the module has it, where that is not as the contract does.
    """

    name: str
    spec: TensorSpec
    initial: np.ndarray[Any, Any]
    origin: Path | Argument | Place | str
    fold: AnyFold | None = None

    @property
    def is_declared(self) -> bool:
        """Whether forward takes it as an argument."""
        return isinstance(self.origin, tuple | Argument)


@dataclasses.dataclass(frozen=True)
class Output:
    """One output: its name, spec, and path in forward's result."""

    name: str
    spec: TensorSpec
    path: Path


@dataclasses.dataclass(frozen=True)
class Convention:
    """How the author of a module calls it: settled before any state is looked for.

    Attributes:
        subject: the module and its arguments.
        feedback: by state argument, what is handed back for it after a call.
        outputs: the parts of the result that are outputs.
    """

    subject: Subject
    feedback: Mapping[str, Feedback]
    outputs: Sequence[Output]

    @property
    def has_time(self) -> bool:
        """Whether a call takes a whole chunk of steps."""
        return any(spec.has("time") for spec in self.subject.inputs.values())


@dataclasses.dataclass
class Plan:
    """Everything an export needs to know about a module, found by running it.

    Attributes:
        subject: the module and its arguments.
        convention: how its author calls it, which the proof drives it by.
        outputs, states: in contract order.
        lifts: calls that take their memory from states.
        whole_only: why the model cannot be stepped, or None.
        loops: a call inside a Python loop over time is lifted, so only single steps can be captured.
        notes: things found that the user should know.
        templates: attributes that hold memory, to know their structure.
        sizes: sizes of the dimensions that work as examples.
        hint: why the model may be one that cannot be stepped, for want of a better reason.
        resorts: kinds of calls that could be lifted too, as a last resort.
        step_graph: a single step as a graph of its own, where it was found by unrolling a loop.
    """

    subject: Subject
    convention: Convention
    outputs: list[Output]
    states: list[State]
    lifts: dict[str, Lift]
    whole_only: str | None
    loops: bool
    notes: list[str]
    templates: attributes.Templates
    sizes: dict[str, int]
    resorts: frozenset[str] = frozenset()
    step_graph: nn.Module | None = None
    hint: str | None = None

    @property
    def has_time(self) -> bool:
        """Whether inputs have a time axis."""
        return any(spec.has("time") for spec in self.subject.inputs.values())

    def make_whole(self, reason: str) -> None:
        """Give up stepping: no call is lifted, and states are only those the caller asked for."""
        self.whole_only = reason
        self.lifts = {}
        self.loops = False
        self.step_graph = None
        self.states = [state for state in self.states if not isinstance(state.origin, str)]

    def without_loop_lifts(self) -> Plan:
        """Return a copy in which the lifts of calls in a loop over time are taken back."""
        plan = dataclasses.replace(self, states=list(self.states), lifts=dict(self.lifts))
        plan.drop_loop_lifts()
        return plan

    def drop_loop_lifts(self) -> None:
        """Take back the lifts of calls in a loop over time: what they return is not what they get next."""
        if self.loops:
            looped = {name for lift in self.lifts.values() if lift.axis < 0 for name in lift.names}
            self.drop_states(looped)
            self.loops = False

    def drop_states(self, names: Collection[str]) -> None:
        """Leave out states that nothing depends on; their calls run as they are."""
        self.states = [state for state in self.states if state.name not in names]
        kept = {state.name for state in self.states}
        self.lifts = {
            key: lift
            for key, lift in self.lifts.items()
            if not lift.names or any(name in kept for name in lift.names)
        }

    def start(self, dims: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the initial states as tensors of full shape."""
        return {
            state.name: torch.from_numpy(
                np.array(np.broadcast_to(state.initial, state.spec.sizes(dims)), order="C")
            ).to(state.spec.dtype)
            for state in self.states
        }


class Program(nn.Module):
    """A plan as a pure function: (inputs..., states...) -> (outputs..., next states...), all flat tensors.

    Inputs and outputs have the shapes of the specs, time axis included. The module inside is left as it
    was after each call.

    Attributes:
        returned: paths in the latest result that hold the next value of a lifted state.
    """

    def __init__(self, plan: Plan, module: nn.Module | None = None) -> None:
        super().__init__()
        self.module = module if module is not None else plan.subject.fresh()
        self.plan = plan
        self.returned: set[Path] = set()
        places = [state.origin for state in plan.states if isinstance(state.origin, Place)]
        attributes.unregister(self.module, places)
        self._held = attributes.templates(self.module, places)

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Compute one call."""
        names = list(self.plan.subject.inputs)
        inputs = dict(zip(names, flat, strict=False))
        given = {s.name: merge(v, s.fold) for s, v in zip(self.plan.states, flat[len(names) :], strict=True)}
        declared = {s.name: given[s.name].clone() for s in self.plan.states if s.is_declared}
        placed = {s.origin: given[s.name].clone() for s in self.plan.states if isinstance(s.origin, Place)}
        with CallTracer(self.module, self.plan.lifts, given) as tracer:
            attributes.write(self.module, placed, self.plan.templates)
            arguments = self.plan.subject.arguments(inputs, declared)
            result = self.plan.subject.invoke(self.module, arguments)
            kept = {place: attributes.read(self.module, place) for place in placed}
            attributes.put_back(self.module, list(placed), self._held)
        leaves = dict(flatten(result))
        ends = {id(value) for value in tracer.next_states.values()}
        self.returned = {path for path, leaf in leaves.items() if id(leaf) in ends}
        return (
            *(leaves[output.path] for output in self.plan.outputs),
            *(self._next(state, leaves, arguments, kept, tracer) for state in self.plan.states),
        )

    @staticmethod
    def _next(
        state: State,
        leaves: dict[Path, Tensor],
        arguments: Mapping[str, Any],
        kept: dict[Place, Any],
        tracer: CallTracer,
    ) -> Tensor:
        value: Tensor
        if isinstance(state.origin, Place):
            value = kept[state.origin]
        elif isinstance(state.origin, Argument):
            value = dict(flatten(arguments[state.origin.parameter]))[state.origin.inside]
        elif isinstance(state.origin, tuple):
            value = leaves[state.origin]
        else:
            if state.name not in tracer.next_states:
                raise RuntimeError(f"the call that {state.name!r} belongs to is not made at this length")
            value = tracer.next_states[state.name]
        return split(value, state.fold)


class StepProgram(nn.Module):
    """A program at a single step: the same flat tensors without their time axis."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        plan = program.plan
        self._inputs = [time_axis(spec.shape) for spec in plan.subject.inputs.values()]
        self._outputs = [time_axis(output.spec.shape) for output in plan.outputs]

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Compute one step."""
        count = len(self._inputs)
        chunk = [
            x if axis is None else x.unsqueeze(axis) for x, axis in zip(flat, self._inputs, strict=False)
        ]
        result = self.program(*chunk, *flat[count:])
        count = len(self._outputs)
        outputs = [
            y if axis is None else y.squeeze(axis) for y, axis in zip(result, self._outputs, strict=False)
        ]
        return (*outputs, *result[count:])


def step_program(plan: Plan, dtype: torch.dtype | None = None) -> nn.Module:
    """Return the plan's single step as a pure function, in the module's precision or in `dtype`."""
    if plan.step_graph is None:
        return StepProgram(Program(plan, plan.subject.fresh(dtype)))
    if dtype is None:
        return plan.step_graph
    step = copy.deepcopy(plan.step_graph)
    step._apply(functools.partial(in_precision, dtype))
    return step


def time_axis(shape: Sequence[Dimension]) -> int | None:
    """Return the axis that a step does not have: the one called exactly `time`."""
    return list(shape).index("time") if "time" in shape else None


def infer_shape(
    base: Sequence[int],
    variants: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
    varied: Mapping[str, int],
) -> tuple[Dimension, ...] | str:
    """Return a tensor's shape in dimension names, from its sizes in several runs.

    Args:
        base: its shape when the dimensions have `sizes`.
        variants: by dimension name, its shape when that one alone has the size in `varied`.

    Returns:
        The shape, or a sentence part saying why there is none.
    """
    shape: list[Dimension] = []
    for axis, size in enumerate(base):
        moved = {name: other[axis] - size for name, other in variants.items() if other[axis] != size}
        if not moved:
            shape.append(size)
            continue
        if len(moved) > 1:
            return f"axis {axis} grows with {' and '.join(moved)} together"
        name, growth = next(iter(moved.items()))
        factor, rest = divmod(growth, varied[name] - sizes[name])
        if rest or factor < 1 or size != factor * sizes[name]:
            return f"axis {axis} has {size} entries where {name} is {sizes[name]}"
        dimension = name if factor == 1 else f"{factor}*{name}"
        try:
            Axis.parse(dimension)
        except ValueError:
            return f"axis {axis} has {factor} entries for each of {name}"
        shape.append(dimension)
    return tuple(shape)
