"""Opening a module as the reference of a model that was exported from it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch

from rnnx.errors import RefusedError, UsageError
from rnnx.model.contract import Contract, Dimension, InputSpec, StateSpec, describe, input_text, step_shape
from rnnx_export.loops.unroll import lift_loop
from rnnx_export.module.subject import Subject, require_method, require_module
from rnnx_export.proof.driven_reference import DrivenReference, check_driven
from rnnx_export.proof.module_reference import ModuleReference, StepReference
from rnnx_export.states.delay import with_delay
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Output, Plan
from rnnx_export.states.time_loop import with_time
from rnnx_export.stepping import made_to_step


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
        return DrivenReference(plan.made_whole(contract.whole_only))
    check_driven(plan)
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
    late = max(output.delay for output in contract.outputs)
    if late:
        plan = with_delay(plan, arguments.get("returns"), late)
    wanted = {spec.name for spec in contract.states}
    if not contract.whole_only and not late and wanted - {spec.name for spec in plan.states}:
        # What only a fallback rule finds, and what a loop of the module's own carries, as the export did.
        plan = made_to_step(plan, arguments.get("returns"))
        if wanted - {spec.name for spec in plan.states}:
            plan = lift_loop(plan)
    plan = plan.without_states({spec.name for spec in plan.states} - wanted)
    if arguments.get("returns") is None:
        plan = _with_names(plan, [spec.name for spec in contract.outputs])
    _check_same(plan, contract)
    return plan


def _with_names(plan: Plan, names: list[str]) -> Plan:
    """Return the plan with a contract's names for its outputs, which stand in the same order.

    Names that the export was given are in no module. If it is another network that has as many outputs of
    these sizes, their values tell.
    """

    def named(outputs: Sequence[Output]) -> list[Output]:
        return [dataclasses.replace(o, name=name) for o, name in zip(outputs, names, strict=True)]

    if len(names) != len(plan.outputs):
        return plan
    convention = dataclasses.replace(plan.convention, outputs=named(plan.convention.outputs))
    return dataclasses.replace(plan, outputs=named(plan.outputs), convention=convention)


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
