"""A plan as a pure function of flat tensors, for chunks and for single steps."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnnx.model.contract import Axis, axis_index
from rnnx_export.calls.delays import Delays
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Counted
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec, time_axis
from rnnx_export.module.structure import Path, flatten
from rnnx_export.module.subject import in_precision
from rnnx_export.states.export_plan import Argument, Output, Plan, State
from rnnx_export.states.layouts import merge, split


class Program(nn.Module):
    """A plan as a pure function: (inputs..., states...) -> (outputs..., next states...), all flat tensors.

    Inputs and outputs have the shapes of the specs, time axis included. The module inside is left as it
    was after each call.

    Attributes:
        returned: paths in the latest result that hold the next value of a lifted state.
        delays: how late the values of the latest call were.
    """

    def __init__(self, plan: Plan, module: nn.Module | None = None) -> None:
        super().__init__()
        self.module = module if module is not None else plan.subject.fresh()
        self.plan = plan
        self.returned: set[Path] = set()
        self.delays: Delays | None = None
        places = [state.origin for state in plan.states if isinstance(state.origin, Place)]
        self._as_buffers = attributes.unregister(self.module, places)
        self._held = attributes.templates(self.module, places)

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Compute one call."""
        if not torch.compiler.is_exporting():
            return self._once(flat, {})[0]
        return self._chosen(flat, dict(self.plan.sides), self.plan.both)

    def _chosen(
        self, flat: Sequence[Tensor], sides: Mapping[str, bool], open_: Sequence[str]
    ) -> tuple[Tensor, ...]:
        """Compute one call with both sides of the decisions in `open_`, and choose by what decides."""
        if not open_:
            return self._once(flat, sides)[0]
        key, *rest = open_
        yes = self._chosen(flat, {**sides, key: True}, rest)
        no = self._chosen(flat, {**sides, key: False}, rest)
        _, conditions = self._once(flat, {**sides, **dict.fromkeys(open_, False)})
        if key not in conditions:
            return no
        condition = conditions[key].reshape(()).bool()
        return tuple(torch.where(condition, left, right) for left, right in zip(yes, no, strict=True))

    def _once(
        self, flat: Sequence[Tensor], sides: Mapping[str, bool]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Compute one call; return also what decides, by key."""
        names = list(self.plan.subject.inputs)
        inputs = dict(zip(names, flat, strict=False))
        passed = {s.name: merge(v, s.fold) for s, v in zip(self.plan.states, flat[len(names) :], strict=True)}
        declared = {s.name: passed[s.name].clone() for s in self.plan.states if s.is_declared}
        placed = {s.origin: passed[s.name].clone() for s in self.plan.states if isinstance(s.origin, Place)}
        tracing = CallTracer(self.module, self.plan.lifts, passed, sides, lengths=self._lengths(inputs))
        with tracing as tracer:
            delays = tracer.delays = self._delays(inputs, passed, tracer.next_states)
            attributes.write(self.module, placed, self.plan.templates)
            arguments = self.plan.subject.arguments(inputs, declared)
            with attributes.registered(self.module, self._as_buffers):
                result = self.plan.subject.invoke(self.module, arguments)
            kept = {place: attributes.read(self.module, place) for place in placed}
            attributes.put_back(self.module, list(placed), self._held)
        leaves = dict(flatten(result))
        ends = {id(value) for value in tracer.next_states.values()}
        self.returned = {path for path, leaf in leaves.items() if id(leaf) in ends}
        outputs = [leaves[output.path] for output in self.plan.outputs]
        if delays is not None:
            outputs = [
                self._late(delays, value, output)
                for value, output in zip(outputs, self.plan.outputs, strict=True)
            ]
        found = (
            *outputs,
            *(self._next(state, leaves, arguments, kept, tracer) for state in self.plan.states),
        )
        return found, tracer.conditions

    def _lengths(self, inputs: Mapping[str, Tensor]) -> list[Counted]:
        """Return the lengths among inputs, each with time's size."""
        specs = self.plan.subject.inputs
        for name, spec in specs.items():
            axis = axis_index(spec.shape, "time")
            if axis is not None:
                size = inputs[name].shape[axis] // Axis.parse(spec.shape[axis]).factor
                return [Counted(inputs[each], size) for each, spec in specs.items() if spec.is_length]
        return []

    def _delays(
        self, inputs: Mapping[str, Tensor], passed: Mapping[str, Tensor], next_states: dict[str, Tensor]
    ) -> Delays | None:
        """Return what follows how late values are, where outputs are to be."""
        if self.plan.delay is None:
            return None
        specs = self.plan.subject.inputs
        counts = [
            inputs[name].shape[spec.shape.index("batch")]
            for name, spec in specs.items()
            if "batch" in spec.shape
        ]
        delays = self.delays = Delays(self.plan.delay, passed, next_states, counts[:1])
        for name, spec in specs.items():
            if spec.has("time"):
                delays.begin(inputs[name])
        return delays

    def _late(self, delays: Delays, value: Tensor, output: Output) -> Tensor:
        """Return an output as late as all are, zero where its step does not exist."""
        assert self.plan.delay is not None
        steps = self.plan.delay.steps
        delays.latest = max(delays.latest, delays.late(value) or 0)
        value = delays.waited(value, steps)
        exists = delays.exists(steps, _batch_axis(output.spec), value.dim())
        return torch.where(exists, value, torch.zeros_like(value))

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
        late = 0
        if tracer.delays is not None:
            lifted = isinstance(state.origin, str)
            late = tracer.delays.at.get(state.name, 0) if lifted else tracer.delays.late(value) or 0
        value = split(value, state.fold)
        if not late:
            return value
        assert tracer.delays is not None
        # Before its first step a stream stays at its start.
        exists = tracer.delays.exists(late, _batch_axis(state.spec), value.dim())
        return torch.where(exists, value, split(tracer.states[state.name], state.fold))


def _batch_axis(spec: TensorSpec) -> int | None:
    return spec.shape.index("batch") if "batch" in spec.shape else None


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
