"""One step of a loop, rebuilt as a graph of its own from its first steps side by side."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from rnnx_export.diagnostics import quiet
from rnnx_export.loops.names import author_name
from rnnx_export.loops.prefixes import (
    Twins,
    are_counts,
    follow_steps,
    gives_tensor,
    grows_along,
    is_loop_variable,
    single_axis,
)
from rnnx_export.loops.unstack import LIKE, MismatchError, Unstacker
from rnnx_export.module.spec import TensorSpec, step_shape
from rnnx_export.states.export_plan import Plan, State
from rnnx_export.states.observations import narrow_start

aten = torch.ops.aten
_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
_Build = Callable[[tuple[fx.Node, ...]], Any]


@dataclasses.dataclass
class _Slot:
    """A carried value: its constant start, its values after one step and more, its place in the new graph."""

    start: fx.Node
    later: tuple[fx.Node, ...]
    placeholder: fx.Node


class Step(nn.Module):
    """A step as a graph, whose operators keep the lines of user code that they come from."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.program = graph

    def forward(self, *flat: Tensor) -> Any:
        """Compute one step: (inputs..., states..., carried...) -> (outputs..., next states...)."""
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(self.program).run(*flat)


class Matcher:
    """Walks the steps side by side and rebuilds one of them as a graph of its own."""

    def __init__(
        self,
        plan: Plan,
        exported: torch.export.ExportedProgram,
        examples: Sequence[Tensor],
        *,
        descends: bool,
    ) -> None:
        self.plan = plan
        self._steps = (len(examples) - len(plan.states)) // len(plan.subject.inputs)
        self._descends = descends
        self.slots: dict[tuple[fx.Node, ...], _Slot] = {}  # by the values at each step
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
        self._twins = Twins(self._unstacker)
        inputs = [self._graph.placeholder(f"input_{index}") for index in range(count)]
        states = [self._graph.placeholder(f"state_{index}") for index in range(len(plan.states))]
        self._inputs = {
            user[index]: (inputs[index], [user[index + count * s] for s in range(self._steps)])
            for index in range(count)
        }
        self._states = dict(zip(user[self._steps * count :], states, strict=True))
        self._results: list[Any] = []
        self._after: list[dict[fx.Node, fx.Node]] = []  # what the given states are after one step, after two
        self._lengths = any(spec.is_length for spec in plan.subject.inputs.values())
        self.position: fx.Node | None = None

    def match(self) -> None:
        """Rebuild outputs and next states of a step. Raises MismatchError."""
        roots = list(self._source.graph.output_node().args[0])
        count = len(roots) // self._steps
        for step in range(1, self._steps):
            ends = roots[step * count - len(self._states) : step * count]
            self._after.append(dict(zip(self._states, ends, strict=True)))
        for index in range(count):
            self._results.append(
                self._build(tuple(roots[index + step * count] for step in range(self._steps)))
            )
        done = 0
        while done < len(self.slots):
            slot = list(self.slots.values())[done]
            later = self._at_more_steps(slot.later)
            if len(later) < 2:
                raise MismatchError
            self._results.append(self._build(later))
            done += 1

    def _at_more_steps(self, nodes: tuple[fx.Node, ...]) -> tuple[fx.Node, ...]:
        """Return the same values at as many steps as were seen: two may hide a value carried twice."""
        seen = [other for other in self._built if other[: len(nodes)] == nodes]
        return max([nodes, *seen], key=len)

    def carried(self) -> tuple[int, int]:
        """Return how many values are carried, and how many elements they have at the example sizes."""
        shapes = [self._spec(slot.later[0]).sizes(self.plan.sizes) for slot in self.slots.values()]
        return len(shapes), sum(math.prod(shape) for shape in shapes)

    def new_states(self) -> list[State]:
        """Return the carried values as states, by the names that their author gave them."""
        used = {state.name for state in self.plan.states} | set(self.plan.subject.inputs)
        used |= {output.name for output in self.plan.outputs}
        states = []
        for slot in self.slots.values():
            name = _unused(author_name(slot.later[0], self.plan.subject.original) or "carried", used)
            used.add(name)
            spec = self._spec(slot.later[0])
            with quiet():
                start = self._evaluate(slot.start).to(spec.dtype).expand(spec.sizes(self.plan.sizes))
            states.append(State(name, spec, narrow_start(name, start, spec), f"loop:{name}"))
        if self.position is not None:
            name = _unused("position", used)
            states.append(State(name, TensorSpec(torch.int64, ()), np.array(0), f"loop:{name}"))
        return states

    def finish(self) -> Step:
        """Return the step as a module: (inputs..., states..., carried...) -> (outputs..., next states...)."""
        if self.position is not None:
            self._results.append(self._graph.call_function(aten.add.Tensor, (self.position, 1)))
        self._graph.output(tuple(self._results))
        used = {node.target for node in self._graph.nodes if node.op == "get_attr"}
        weights = {name: self._tensors[name] for name in sorted(used)}
        return Step(fx.GraphModule(weights, self._graph))

    def _build(self, nodes: tuple[Any, ...]) -> Any:
        """Return the new graph's counterpart of one expression seen at several steps."""
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
            raise MismatchError
        if first.op == "placeholder" and first.name in self._weights:
            if all(node is first for node in nodes):
                return self._graph.get_attr(self._weights[first.name])
            if all(self._is_constant(node) for node in nodes):
                raise MismatchError  # each step has weights of its own
        if self._is_constant(first) and not all(self._is_constant(node) for node in nodes[1:]):
            below = self._descends and self._carried_below(nodes)
            return self._same_operation(nodes, self._build) if below else self._slot(nodes)
        if any(node is not first for node in nodes):
            if self._follows_states(nodes):
                return self._build(tuple(first for _ in nodes))
            if follow_steps(nodes) and all(node.args[0] is first.args[0] for node in nodes):
                return self._row(nodes)
            if follow_steps(nodes):
                axis, index = first.args[1:3]
                chunk = self._same_operation(tuple(node.args[0] for node in nodes), self._chunk)  # type: ignore[misc]
                return self._graph.call_function(aten.select.int, (chunk, axis, index))
            if grows_along(nodes, self._steps) is not None:
                return self._chunk(nodes)
            single = single_axis(nodes)
            if single is not None:
                rows = tuple(self._unstacker.select(node, single, 0) for node in nodes)
                return self._graph.call_function(aten.unsqueeze.default, (self._build(rows), single))
        if all(self._is_constant(node) and node.target is not first.target for node in nodes[1:]):
            return self._slot(nodes)  # it is carried, though no input has a say: the covariance of a filter
        return self._same_operation(nodes, self._build)

    def _follows_states(self, nodes: tuple[fx.Node, ...]) -> bool:
        """Whether later steps have of the given states' next values what the first has of the states."""
        return all(
            self._twins.same(self._unstacker.replace(nodes[0], after), node)
            for after, node in zip(self._after, nodes[1:], strict=False)
        )

    def _row(self, nodes: tuple[fx.Node, ...]) -> fx.Node:
        """Return the row of a table that has one for each step."""
        table, axis, index = nodes[0].args
        number = self._number(index)  # type: ignore[arg-type]
        same = self._build(tuple(table for _ in nodes))
        if self._lengths:
            raise MismatchError
        place = self._graph.call_function(aten.reshape.default, (number, [1]))
        row = self._graph.call_function(aten.index_select.default, (same, axis, place))
        return self._graph.call_function(aten.squeeze.dims, (row, [axis]))

    def _chunk(self, nodes: tuple[fx.Node, ...]) -> Any:
        """Return the counterpart of values with a time axis: a chunk of one step.

        A convolution over its past and the chunk lets no single element through, but computes the same on a
        chunk of one step, with the past as the state has it.
        """
        nodes = tuple(self._unstacker.simplify(node) for node in nodes)
        if nodes[0] in self._states:
            return self._states[nodes[0]]
        if all(
            node.target is operator.mul and node.args == (nodes[0], step)
            for step, node in enumerate(nodes, 1)
            if step > 1
        ):
            return self._build(tuple(nodes[0] for _ in nodes))  # a size: rows of all steps of the chunk
        axis = grows_along(nodes, self._steps)
        if axis is not None:
            rows = tuple(self._unstacker.select(node, axis, step) for step, node in enumerate(nodes))
            return self._graph.call_function(aten.unsqueeze.default, (self._build(rows), axis))
        if all(node is nodes[0] for node in nodes):
            return self._build(nodes)
        return self._same_operation(nodes, self._chunk)

    def _slot(self, nodes: tuple[fx.Node, ...]) -> fx.Node:
        key = self._known_slot(nodes)
        if key not in self.slots:
            placeholder = self._placeholder(f"carried_{len(self.slots)}")
            self.slots[key] = _Slot(nodes[0], nodes[1:], placeholder)
        return self.slots[key].placeholder

    def _placeholder(self, name: str) -> fx.Node:
        """Return a new argument of the step, after those that there are; the position comes last."""
        last = list(self._states.values()) + [slot.placeholder for slot in self.slots.values()]
        with self._graph.inserting_after(last[-1] if last else list(self._inputs.values())[-1][0]):
            return self._graph.placeholder(name)

    def _number(self, first: int) -> Any:
        """Return the number of the step, counted from `first`, that a loop variable is.

        Beside lengths it is compared with what is left of them, and so stays where it was at the first step.
        """
        if self._lengths:
            return first
        if self.position is None:
            self.position = self._placeholder("position")
        return self._graph.call_function(aten.add.Tensor, (self.position, first)) if first else self.position

    def _carried_below(self, nodes: tuple[fx.Node, ...]) -> bool:
        """Whether it is an argument that is carried: the first step does the same with a constant."""
        first = nodes[0]
        if first.op != "call_function" or any(node.target != first.target for node in nodes):
            return False
        plain = [[arg for arg in node.args if not isinstance(arg, fx.Node)] for node in nodes]
        counts = {len(node.all_input_nodes) for node in nodes}
        return len(counts) == 1 and counts != {0} and all(values == plain[0] for values in plain)

    def _known_slot(self, nodes: tuple[fx.Node, ...]) -> tuple[fx.Node, ...]:
        """Return the key of the slot with the same value at each step seen; of a new one if there is none."""
        for known in self.slots:
            if all(self._twins.same(a, b) for a, b in zip(known, nodes, strict=False)):
                return known
        return nodes

    def _same_operation(self, nodes: tuple[fx.Node, ...], build: _Build) -> Any:
        nodes = tuple(self._unstacker.simplify(node) for node in nodes)
        first = nodes[0]
        reshapes = all(node.target in _RESHAPES for node in nodes)  # which one depends on the length
        if (
            any(node.op != first.op or (node.target != first.target and not reshapes) for node in nodes)
            or first.op != "call_function"
        ):
            raise MismatchError
        if any(
            len(node.args) != len(first.args) or node.kwargs.keys() != first.kwargs.keys() for node in nodes
        ):
            raise MismatchError
        columns: list[list[Any]] = [[node.args[index] for node in nodes] for index in range(len(first.args))]
        kwargs = {name: self._argument([node.kwargs[name] for node in nodes], build) for name in first.kwargs}
        args = [
            self._number(values[0]) if build == self._build and is_loop_variable(values)
            else self._argument(values, build)
            for values in columns
        ]  # fmt: skip
        # A view of a chunk may be none of a step, whose strides differ.
        target: Any = aten.reshape.default if reshapes else first.target
        if first.target is aten.scalar_tensor.default and isinstance(args[0], fx.Node):
            target, kwargs = aten._to_copy.default, {"dtype": kwargs["dtype"]}
        elif any(
            isinstance(new, fx.Node) and isinstance(old[0], int)
            for new, old in zip(args, columns, strict=True)
        ):
            target = first.target.overloadpacket  # type: ignore[union-attr]  # the one that takes a tensor there
        node = self._graph.call_function(target, tuple(args), kwargs)
        node.meta["stack_trace"] = first.meta.get("stack_trace", "")
        return node

    def _argument(self, values: Sequence[Any], build: _Build) -> Any:
        first = values[0]
        if isinstance(first, fx.Node):
            if not all(isinstance(value, fx.Node) for value in values):
                raise MismatchError
            return build(tuple(values))
        if isinstance(first, list | tuple):
            if any(not isinstance(value, list | tuple) or len(value) != len(first) for value in values):
                raise MismatchError
            return type(first)(
                self._argument([value[index] for value in values], build) for index in range(len(first))
            )
        if build == self._chunk and are_counts([str(value) for value in values], self._steps):
            return 1  # a size: the steps of the chunk
        if any(type(value) is not type(first) or value != first for value in values):
            raise MismatchError
        return first

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether a node's value depends on no input and no state; sizes do not count."""
        if node not in self._constant:
            node = self._unstacker.simplify(node)
            if node.op == "placeholder":
                found = node.name in self._weights
            elif node.target in LIKE or (
                node.target in (torch.ops.aten.sym_size.int, operator.getitem) and not gives_tensor(node)
            ):
                found = True
            else:
                found = all(self._is_constant(parent) for parent in node.all_input_nodes)
            self._constant[node] = found
        return self._constant[node]

    def _spec(self, node: fx.Node) -> TensorSpec:
        """Return the spec of a node's value, its symbols read off the inputs and states."""
        names: dict[str, str] = {}
        specs = [*self.plan.subject.inputs.values()] * self._steps + [
            state.spec for state in self.plan.states
        ]
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


def _unused(name: str, used: Collection[str]) -> str:
    """Return a name that is not used yet: it, or it with a number."""
    return next(
        n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2))) if n not in used
    )


def _number(size: Any) -> int:
    if not str(size).isdigit():
        raise MismatchError
    return int(str(size))
