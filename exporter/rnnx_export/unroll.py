"""State that a hand-written loop makes and throws away, found by comparing its first three steps.

The module is captured on prefixes of one, two and three steps. What a step gives is the same expression each
time, but for two things: the step's input, and the values carried in. Where the first step has a constant and
the second an expression, a state is carried: the constant is its start, the expression its next value.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from rnnx_export.capture import CaptureError, capture
from rnnx_export.clean import step_shape
from rnnx_export.explore import narrow_start
from rnnx_export.plan import Plan, Program, State, time_axis
from rnnx_export.spec import TensorSpec
from rnnx_export.subject import quiet
from rnnx_export.unstack import LIKE, Unstacker

_STEPS = 3


class _Prefixes(nn.Module):
    """Runs a program on its first one, two and three steps; gives the last step of each, and the states."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.program = Program(plan)
        self._timed = {name: time_axis(spec.shape) for name, spec in plan.subject.inputs.items()}
        self._outputs = [time_axis(output.spec.shape) for output in plan.outputs]

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Take each step of each input, then the states; return the roots of each prefix in turn."""
        names = list(self._timed)
        count = len(names)
        rows = [
            dict(zip(names, flat[step * count : (step + 1) * count], strict=True)) for step in range(_STEPS)
        ]
        results: list[Tensor] = []
        for length in range(1, _STEPS + 1):
            inputs = [
                rows[0][name] if axis is None else torch.stack([row[name] for row in rows[:length]], axis)
                for name, axis in self._timed.items()
            ]
            result = self.program(*inputs, *flat[_STEPS * count :])
            last = [
                y if axis is None else y.select(axis, -1)
                for y, axis in zip(result, self._outputs, strict=False)
            ]
            results += [*last, *result[len(last) :]]
        return tuple(results)


def lift_loop(plan: Plan) -> bool:
    """Find the states of a loop that carries them by itself; put them and their step into the plan.

    Returns:
        Whether any were found. What was found is a claim that the proof has to confirm.
    """
    shapes = [spec.shape for spec in plan.subject.inputs.values()]
    if any(
        spec.is_length or ("time" not in spec.shape and spec.has("time"))
        for spec in plan.subject.inputs.values()
    ):
        return False
    steps = [step_shape(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(0)
    sizes = plan.sizes
    rows = [
        TensorSpec(spec.dtype, tuple(shape), spec.low, spec.high).random(sizes, generator)
        for _ in range(_STEPS)
        for spec, shape in zip(plan.subject.inputs.values(), steps, strict=True)
    ]
    given = list(plan.start(sizes).values())
    names = [
        *(f"{name}.{step}" for step in range(_STEPS) for name in plan.subject.inputs),
        *(s.name for s in plan.states),
    ]
    all_shapes = [*steps * _STEPS, *(state.spec.shape for state in plan.states)]
    try:
        exported = capture(_Prefixes(plan), [*rows, *given], all_shapes, names).run_decompositions({})
        matcher = _Matcher(plan, exported, [*rows, *given])
        matcher.match()
    except (CaptureError, _MismatchError):
        return False
    if not matcher.slots:
        return False
    plan.states += matcher.new_states()
    plan.step_graph = matcher.finish()
    return True


class _MismatchError(Exception):
    """The steps differ in more than their inputs and carried values."""


@dataclasses.dataclass
class _Slot:
    """A carried value: its constant start, its values after one and two steps, its place in the new graph."""

    start: fx.Node
    first: fx.Node
    second: fx.Node | None
    placeholder: fx.Node


class _Matcher:
    """Walks the three steps side by side and rebuilds one of them as a graph of its own."""

    def __init__(
        self, plan: Plan, exported: torch.export.ExportedProgram, examples: Sequence[Tensor]
    ) -> None:
        self.plan = plan
        self.slots: dict[tuple[fx.Node, fx.Node], _Slot] = {}
        self._graph = fx.Graph()
        self._examples = list(examples)
        self._source = exported
        signature = exported.graph_signature
        self._weights: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._tensors = {**exported.state_dict, **exported.constants}
        user = [
            node
            for node in exported.graph.nodes
            if node.op == "placeholder" and node.name not in self._weights
        ]
        count = len(plan.subject.inputs)
        self._user = user
        self._unstacker = Unstacker(exported.graph)
        self._constant: dict[fx.Node, bool] = {}
        self._built: dict[tuple[fx.Node, ...], Any] = {}
        inputs = [self._graph.placeholder(f"input_{index}") for index in range(count)]
        states = [self._graph.placeholder(f"state_{index}") for index in range(len(plan.states))]
        self._inputs = {
            user[index]: (inputs[index], [user[index + count * s] for s in range(_STEPS)])
            for index in range(count)
        }
        self._states = dict(zip(user[_STEPS * count :], states, strict=True))
        self._results: list[Any] = []

    def match(self) -> None:
        """Rebuild outputs and next states of a step. Raises _MismatchError."""
        roots = list(self._source.graph.output_node().args[0])
        count = len(roots) // _STEPS
        for index in range(count):
            self._results.append(self._build(tuple(roots[index + step * count] for step in range(_STEPS))))
        done = 0
        while done < len(self.slots):
            slot = list(self.slots.values())[done]
            if slot.second is None:
                raise _MismatchError
            self._results.append(self._build((slot.first, slot.second)))
            done += 1

    def new_states(self) -> list[State]:
        """Return the carried values as states."""
        taken = {state.name for state in self.plan.states} | set(self.plan.subject.inputs)
        states = []
        for slot in self.slots.values():
            name = next(n for n in ("carried", *(f"carried_{i}" for i in range(2, 99))) if n not in taken)
            taken.add(name)
            spec = self._spec(slot.first)
            with quiet():
                start = self._evaluate(slot.start).to(spec.dtype).expand(spec.sizes(self.plan.sizes))
            states.append(State(name, spec, narrow_start(name, start, spec), f"loop:{name}"))
        return states

    def finish(self) -> fx.GraphModule:
        """Return the step as a module: (inputs..., states..., carried...) -> (outputs..., next states...)."""
        self._graph.output(tuple(self._results))
        used = {node.target for node in self._graph.nodes if node.op == "get_attr"}
        weights = {name: self._tensors[name] for name in sorted(used)}
        return fx.GraphModule(weights, self._graph)

    def _build(self, nodes: tuple[Any, ...]) -> Any:
        """Return the new graph's counterpart of one expression seen at two or three steps."""
        nodes = tuple(self._unstacker.simplify(node) for node in nodes)
        if nodes in self._built:
            return self._built[nodes]
        built = self._built[nodes] = self._build_new(nodes)
        return built

    def _build_new(self, nodes: tuple[fx.Node, ...]) -> Any:
        first = nodes[0]
        if first in self._states:
            return self._states[first]
        if first in self._inputs:
            placeholder, steps = self._inputs[first]
            if list(nodes) == steps[: len(nodes)] or all(node is first for node in nodes):
                return placeholder
            raise _MismatchError
        if first.op == "placeholder" and first.name in self._weights:
            if any(node is not first for node in nodes):
                raise _MismatchError
            return self._graph.get_attr(self._weights[first.name])
        if self._is_constant(first) and not all(self._is_constant(node) for node in nodes[1:]):
            return self._slot(nodes)
        return self._same_operation(nodes)

    def _slot(self, nodes: tuple[fx.Node, ...]) -> fx.Node:
        key = (nodes[0], nodes[1])
        if key not in self.slots:
            last = list(self._states.values()) + [slot.placeholder for slot in self.slots.values()]
            after = last[-1] if last else list(self._inputs.values())[-1][0]
            with self._graph.inserting_after(after):
                placeholder = self._graph.placeholder(f"carried_{len(self.slots)}")
            self.slots[key] = _Slot(nodes[0], nodes[1], nodes[2] if len(nodes) > 2 else None, placeholder)
        return self.slots[key].placeholder

    def _same_operation(self, nodes: tuple[fx.Node, ...]) -> Any:
        first = nodes[0]
        if (
            any(node.op != first.op or node.target != first.target for node in nodes)
            or first.op != "call_function"
        ):
            raise _MismatchError
        if any(
            len(node.args) != len(first.args) or node.kwargs.keys() != first.kwargs.keys() for node in nodes
        ):
            raise _MismatchError
        args = [self._argument([node.args[index] for node in nodes]) for index in range(len(first.args))]
        kwargs = {name: self._argument([node.kwargs[name] for node in nodes]) for name in first.kwargs}
        return self._graph.call_function(first.target, tuple(args), kwargs)  # type: ignore[arg-type]

    def _argument(self, values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, fx.Node):
            if not all(isinstance(value, fx.Node) for value in values):
                raise _MismatchError
            return self._build(tuple(values))
        if isinstance(first, list | tuple):
            if any(not isinstance(value, list | tuple) or len(value) != len(first) for value in values):
                raise _MismatchError
            return type(first)(
                self._argument([value[index] for value in values]) for index in range(len(first))
            )
        if any(type(value) is not type(first) or value != first for value in values):
            raise _MismatchError
        return first

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether a node's value depends on no input and no state; sizes do not count."""
        if node not in self._constant:
            node = self._unstacker.simplify(node)
            if node.op == "placeholder":
                found = node.name in self._weights
            elif node.target in LIKE or (
                node.target in (torch.ops.aten.sym_size.int, operator.getitem) and not _gives_tensor(node)
            ):
                found = True
            else:
                found = all(self._is_constant(parent) for parent in node.all_input_nodes)
            self._constant[node] = found
        return self._constant[node]

    def _spec(self, node: fx.Node) -> TensorSpec:
        """Return the spec of a node's value, its symbols read off the inputs and states."""
        names: dict[str, str] = {}
        specs = [*self.plan.subject.inputs.values()] * _STEPS + [state.spec for state in self.plan.states]
        for placeholder, spec in zip(self._user, specs, strict=True):
            shape = step_shape(spec.shape)
            for size, dimension in zip(placeholder.meta["val"].shape, shape, strict=True):
                if isinstance(dimension, str):
                    names[str(size)] = dimension
        value = node.meta["val"]
        shape = [names.get(str(size)) or _number(size) for size in value.shape]
        return TensorSpec(value.dtype, tuple(shape))

    def _evaluate(self, node: fx.Node) -> Tensor:
        """Return the value of a constant node at the example sizes."""
        values: dict[fx.Node, Any] = dict(zip(self._user, self._examples, strict=True))

        def value_of(current: fx.Node) -> Any:
            if current not in values:
                if current.op == "placeholder":
                    values[current] = self._tensors[self._weights[current.name]]
                else:
                    args = fx.map_arg(current.args, value_of)
                    kwargs = fx.map_arg(current.kwargs, value_of)
                    values[current] = current.target(*args, **kwargs)  # type: ignore[operator]
            return values[current]

        result = value_of(node)
        assert isinstance(result, Tensor)
        return result.detach()


def _gives_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _number(size: Any) -> int:
    if not str(size).isdigit():
        raise _MismatchError
    return int(str(size))
