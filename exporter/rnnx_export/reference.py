"""The module itself as the reference that an exported file is compared with.

Two views of one network. `StepReference` advances it one step at a time and shows every state.
`WholeReference` calls the untouched module once on the whole sequence: what PyTorch gives, with nothing of
ours in between.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from rnnx.contract import Contract, Dimension, InputSpec, StateSpec, describe, input_text, step_shape
from rnnx.errors import RefusedError, RnnxError, UsageError
from rnnx.shapes import from_steps, to_steps
from rnnx_export import memory, refusals
from rnnx_export.carried import made_to_step
from rnnx_export.discover import discover
from rnnx_export.explore import to_numpy
from rnnx_export.folds import split
from rnnx_export.memory import Place
from rnnx_export.plan import IN_PLACE, Plan, step_program
from rnnx_export.spec import TensorSpec
from rnnx_export.structure import flatten
from rnnx_export.subject import Subject, precision, quiet, require_method, require_module
from rnnx_export.timeloop import with_time
from rnnx_export.unroll import lift_loop

Arrays = Mapping[str, np.ndarray[Any, Any]]


def reference_name() -> str:
    """Return what contracts and reports call PyTorch: "torch 2.15.0"."""
    return f"torch {torch.__version__.split('+')[0]}"


class ModuleReference:
    """What both views share: a name, a plan, a start, and the precision computed in."""

    resumes = False

    def __init__(self, plan: Plan, dtype: torch.dtype | None = None) -> None:
        self.name = reference_name()
        self.plan = plan
        self.dtype = dtype

    def start(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the start of every state in full shape."""
        return {name: to_numpy(value) for name, value in self.plan.start(sizes).items()}

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and next states after each step, as `rnnx.reference.Reference` has it."""
        raise NotImplementedError


class StepReference(ModuleReference):
    """A module advanced one step at a time, from any states, all states shown.

    Memory in arguments, buffers and attributes is the module's own; what hides inside it is carried by the
    plan's lifts.

    Args:
        plan: what was found in the module.
        dtype: compute in this precision instead of the module's own.
    """

    resumes = True

    def __init__(self, plan: Plan, dtype: torch.dtype | None = None) -> None:
        super().__init__(plan, dtype)
        self._program = step_program(plan, dtype)

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and next states after each step."""
        plan = self.plan
        count = len(plan.outputs)
        carried = [_tensor(states[state.name], state.spec, self.dtype) for state in plan.states]
        for step in range(count_steps(plan, inputs)):
            arguments = [
                _tensor(_row(inputs[name], spec, step, plan), spec, self.dtype)
                for name, spec in plan.subject.inputs.items()
            ]
            place = f"the inputs of step {step}"
            with _running(plan.subject, arguments, place), quiet(), precision(self.dtype):
                result = self._program(*arguments, *carried)
            carried = list(result[count:])
            outputs = {o.name: to_numpy(value) for o, value in zip(plan.outputs, result, strict=False)}
            yield (
                outputs,
                {s.name: _state(value, s.spec) for s, value in zip(plan.states, carried, strict=True)},
            )


class WholeReference(ModuleReference):
    """A module called once on the whole sequence from its own start.

    Args:
        plan: what was found in the module.
        dtype: compute in this precision instead of the module's own.
    """

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs after each step; those without time, and the states it shows, after the last."""
        plan, subject = self.plan, self.plan.subject
        steps = count_steps(plan, inputs)
        tensors = {
            name: _tensor(_chunk(inputs[name], spec), spec, self.dtype)
            for name, spec in subject.inputs.items()
        }
        given = {
            name: None if subject.starts_as_none(name) else _tensor(states[name], spec, self.dtype)
            for name, spec in subject.states.items()
            if spec is not None
        }
        module = subject.fresh(self.dtype)
        with _running(subject, list(tensors.values()), "the inputs"), quiet(), precision(self.dtype):
            leaves = dict(flatten(subject.call(module, tensors, given)))
        ends = {}
        for state in plan.states:
            if isinstance(state.origin, Place):
                ends[state.name] = _state(split(memory.read(module, state.origin), state.fold), state.spec)
            elif isinstance(state.origin, tuple) and (
                state.origin != IN_PLACE or given[state.name] is not None
            ):
                value = given[state.name] if state.origin == IN_PLACE else leaves[state.origin]
                assert value is not None
                ends[state.name] = _state(value, state.spec)
        rows = {
            o.name: _rows(to_numpy(leaves[o.path]), o.spec, steps) for o in plan.outputs if o.spec.has("time")
        }
        last = {o.name: to_numpy(leaves[o.path]) for o in plan.outputs if not o.spec.has("time")}
        for step in range(steps):
            final = step == steps - 1
            yield (
                {name: each[step] for name, each in rows.items()} | (last if final else {}),
                ends if final else {},
            )


@contextlib.contextmanager
def _running(subject: Subject, inputs: Sequence[Tensor], place: str) -> Iterator[None]:
    """Say which inputs they were if the module fails on them; the user's own code may do so in any way."""
    try:
        yield
    except RnnxError:
        raise
    except Exception as error:
        named = dict(zip(subject.inputs, inputs, strict=True))
        raise refusals.inputs_fail(subject, error, named, place) from error


def count_steps(plan: Plan, inputs: Arrays) -> int:
    """Return the number of steps in recorded inputs, [step, ...] each."""
    return next(len(inputs[n]) for n, spec in plan.subject.inputs.items() if stepped(plan, spec))


def stepped(plan: Plan, spec: TensorSpec) -> bool:
    """Whether each step has its own value of an input; else one value holds for the whole call."""
    return spec.has("time") or (not plan.has_time and not spec.is_length)


def _row(value: np.ndarray[Any, Any], spec: TensorSpec, step: int, plan: Plan) -> np.ndarray[Any, Any]:
    if spec.is_length:
        return np.asarray(np.clip(value - step, 0, 1))
    return np.asarray(value[step]) if stepped(plan, spec) else value


def _chunk(rows: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return [step, ...] rows as the chunk that the module takes."""
    return from_steps(rows, spec.shape) if spec.has("time") else rows


def _rows(chunk: np.ndarray[Any, Any], spec: TensorSpec, steps: int) -> np.ndarray[Any, Any]:
    """Return an output chunk as [step, ...] rows; a chunk that ends early is filled up with zeros."""
    rows = to_steps(chunk, spec.shape)
    missing = steps - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing > 0 else rows


def _state(value: Tensor, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return a state in its own precision, whatever the module computed in."""
    return to_numpy(value.to(spec.dtype))


def _tensor(value: np.ndarray[Any, Any], spec: TensorSpec, dtype: torch.dtype | None) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(dtype if dtype is not None and spec.dtype.is_floating_point else spec.dtype)


def open_reference(
    module: torch.nn.Module, contract: Contract, arguments: Mapping[str, Any]
) -> ModuleReference:
    """Return a module as the reference of the model that was exported from it.

    Args:
        module: the network.
        contract: of the exported model.
        arguments: what it was exported with (`inputs`, `state`, `returns`, `method`, `constants`); specs
            that are missing are read from the contract.

    Raises:
        UsageError: `other-network` if the module's states or outputs, or their sizes, are not those of the
            contract; with the code of the refusal, a module that cannot be exported at all.
    """
    entries = [(spec.name, _text(spec)) for spec in contract.inputs]
    try:
        plan = _understood(module, contract, arguments, entries)
    except UsageError as error:
        # A step model that was given a time axis (`time=True`) takes no chunk, or makes something else of it.
        timed = not arguments.get("inputs") and _has_time_after_batch(contract)
        if not timed or error.code not in ("forward-failed", "other-network", "state-shape"):
            raise
        steps = [(spec.name, _text(_without_time(spec))) for spec in contract.inputs]
        try:
            plan = _understood(module, contract, arguments, steps)
        except UsageError:
            raise error from None
    if contract.whole_only:
        plan.make_whole(contract.whole_only)
        return WholeReference(plan)
    return StepReference(plan)


def _understood(
    module: torch.nn.Module,
    contract: Contract,
    arguments: Mapping[str, Any],
    entries: list[tuple[str, str]],
) -> Plan:
    """Return the plan of a module that a model was exported from. Raises UsageError as `open_reference`."""
    try:
        return _plan_like(module, contract, arguments, entries)
    except RefusedError as error:
        # Nobody asked to export it: it is another network than it was, and there is nothing to compare.
        raise UsageError(error.code, expected=error.expected, found=error.found, fix=error.fix) from error


def _plan_like(
    module: torch.nn.Module,
    contract: Contract,
    arguments: Mapping[str, Any],
    entries: list[tuple[str, str]],
) -> Plan:
    """Return the plan of a module with the states of a contract; `entries` stand for missing inputs."""
    inputs = arguments.get("inputs") or _trees(entries)
    state = arguments.get("state")
    if not state and not arguments.get("inputs"):
        method = require_method(require_module(module), arguments.get("method", "forward"))
        parameters = inspect.signature(method).parameters
        state = _trees(
            [(spec.name, _text(spec)) for spec in contract.states if spec.name.split(".")[0] in parameters]
        )
    subject = Subject(module, inputs, state, arguments.get("method", "forward"), arguments.get("constants"))
    plan = discover(subject, arguments.get("returns"))
    if contract.has_time and not plan.has_time:
        plan = with_time(plan)
    wanted = {spec.name for spec in contract.states}
    if not contract.whole_only and wanted - {spec.name for spec in plan.states}:
        # What only a last resort finds, and what a loop of the module's own carries, as the export found it.
        plan = made_to_step(plan, arguments.get("returns"))
        if wanted - {spec.name for spec in plan.states}:
            lift_loop(plan)
    plan.drop_states({spec.name for spec in plan.states} - wanted)
    _check_same(plan, contract)
    return plan


def _has_time_after_batch(contract: Contract) -> bool:
    """Whether every input has the axes that `time=True` gives it."""
    shapes = [list(spec.shape) for spec in contract.inputs if spec.role != "length"]
    return all(
        "time" in shape and shape.index("time") == (shape.index("batch") + 1 if "batch" in shape else 0)
        for shape in shapes
    )


def _without_time(spec: InputSpec) -> InputSpec:
    return msgspec.structs.replace(spec, shape=[axis for axis in spec.shape if axis != "time"])


def _check_same(plan: Plan, contract: Contract) -> None:
    """Refuse a network whose states and outputs are not the model's, by name or by size."""
    pairs: list[tuple[str, list[Any], list[Any]]] = [
        ("state", list(plan.states), list(contract.states)),
        ("output", list(plan.outputs), list(contract.outputs)),
    ]
    ours = [[spec.name for spec in found] for _, found, _ in pairs]
    theirs = [[spec.name for spec in wanted] for _, _, wanted in pairs]
    if ours != theirs:
        raise _other_network(
            f"a network with states {theirs[0]} and outputs {theirs[1]}",
            f"states {ours[0]} and outputs {ours[1]}",
        )
    for kind, found, wanted in pairs:
        for own, spec in zip(found, wanted, strict=True):
            if not _same_sizes(step_shape(own.spec), step_shape(spec)):
                told = describe(spec.dtype, spec.shape)
                raise _other_network(
                    f"a network of the model's size, with {kind} {spec.name!r} as {told}",
                    f"one of another size: {own.spec.text}",
                )


def _same_sizes(ours: Sequence[Dimension], theirs: Sequence[Dimension]) -> bool:
    """Whether two shapes agree in their numbers; a name stands for any."""
    return len(ours) == len(theirs) and all(
        own == other or isinstance(own, str) or isinstance(other, str)
        for own, other in zip(ours, theirs, strict=True)
    )


def _other_network(expected: str, found: str) -> UsageError:
    return UsageError(
        "other-network",
        expected=expected,
        found=found,
        fix="compare with the network that the model was exported from, made with the same arguments",
    )


def _text(spec: InputSpec | StateSpec) -> str:
    if isinstance(spec, StateSpec):
        return describe(spec.dtype, spec.shape)
    return input_text(spec) + (" in 1..time" if spec.role == "length" else "")


def _trees(entries: list[tuple[str, str]]) -> dict[str, Any]:
    """Return specs by parameter from names that are paths: digits make a tuple, anything else a dict."""
    trees: dict[str, Any] = {}
    for name, text in entries:
        *path, last = name.split(".")
        node = trees
        for part in path:
            node = node.setdefault(part, {})
        node[last] = text
    return {name: _tuples(tree) for name, tree in trees.items()}


def _tuples(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    parts = {key: _tuples(value) for key, value in tree.items()}
    return tuple(parts.values()) if all(key.isdigit() for key in parts) else parts
