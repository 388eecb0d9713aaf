"""Where a disagreement begins: the first node of a graph whose value departs, and the module it came from.

The network is exported anew, in memory, and that graph is evaluated in float64 by onnx's reference
evaluator: every value of it has the name that it has in the file. Its results are held against the module
itself in float64 first, so that what everything else is compared with is known to be good. Then the file's
graph runs on the engine with all of its values shown. The first one, in the order of the graph, that
departs has inputs that agree: its node is at fault. docs/decisions/0002-localise.md says why not otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from rnnx.errors import InputError, RnnxError
from rnnx.model.contract import Contract, InputSpec, axis_index, initial_array
from rnnx.model.shapes import chunk_shape, has_steps, to_steps
from rnnx.parity.check import Request
from rnnx.parity.compare import computed_dtypes, default_levels
from rnnx.parity.lockstep import Failure
from rnnx.parity.verdict import Finding
from rnnx.session import Session
from rnnx.tolerance import Bound, error_beyond, level_of, relative_error
from rnnx_export.diagnostics import CaptureError
from rnnx_export.graph.build import build
from rnnx_export.graph.contract_states import state_specs
from rnnx_export.graph.external_weights import to_bytes
from rnnx_export.graph.passes.table import DIRECT, SCAN
from rnnx_export.proof.graph_values import (
    Values,
    attributes,
    constants,
    engine_values,
    flat_graph,
    float64_values,
    graph_inputs,
)
from rnnx_export.proof.module_reference import StepReference
from rnnx_export.proof.reference import open_reference
from rnnx_export.states.time_loop import with_time

_CHUNK = 32
_WORSE = 10.0  # how many times the root mean square of its rounding the largest of a value's errors may be
_RUNTIME = "computes something else from the same inputs and weights, so the runtime is at fault"
_SAME = 1e-6  # two evaluations in float64, one of which was handed float32 states, agree to this


@dataclasses.dataclass(frozen=True)
class _Place:
    """Steps `begin` up to `end` from these states."""

    begin: int
    end: int
    states: Mapping[str, np.ndarray[Any, Any]]


class Localiser:
    """Finds where models of one network depart from it.

    Args:
        module: the network.
        arguments: as `rnnx_export.proof.reference.open_reference` takes them.
        contract: of the models.

    Raises:
        RnnxError: the network cannot be exported, or is another one.
    """

    def __init__(self, module: nn.Module, arguments: Mapping[str, Any], contract: Contract) -> None:
        self.module = module
        self.reference = open_reference(module, contract, arguments)
        self.plan = self.reference.plan
        if contract.has_time and not self.plan.has_time:
            self.plan = with_time(self.plan)
        self.good = _export(self.plan, contract)

    def locate(self, session: Session, request: Request, failure: Failure | None) -> Finding | None:
        """Return where a model departs.

        Args:
            session: the model that disagrees, loaded from a file.
            request: of the comparison that failed.
            failure: its first failure, None if only an invariant failed.

        Returns:
            The first value that departs, the node and the module behind it; None where every value agrees.
        """
        contract = session.contract
        found = _in_contract(contract, self.plan, request.sizes)
        if found is not None:
            return _with_type(found, self.module)
        suspect = onnx.load(str(session.path))
        places = [] if contract.whole_only else [_single(self.reference, contract, request, failure)]
        if contract.has_time:
            places.append(_several(self.reference, contract, request, failure))
        for place in places:
            found = _in_graph(session, suspect, self.good, self.reference, request, place, failure)
            if found is not None:
                return _with_type(found, self.module)
        return None


def _export(plan: Any, contract: Contract) -> onnx.ModelProto:
    """Return the network's graph, made on the route that the file was made on."""
    first = contract.proof.way if contract.proof and contract.proof.way else DIRECT
    for route in (first, SCAN if first == DIRECT else DIRECT):
        try:
            return onnx.load_model_from_string(to_bytes(build(plan, route)))
        except (CaptureError, RuntimeError):
            continue
    raise RnnxError(
        "not-exported",
        expected="the network to be exported again, to compare its graph with the file's",
        found="a network that cannot be",
        fix="export it with 'rnnx export', which says why",
    )


def _in_contract(contract: Contract, plan: Any, sizes: Mapping[str, int]) -> Finding | None:
    """Return a state whose entry in the contract is not what the network says."""
    wanted = {state.name: state for state in state_specs(plan)}
    for state in contract.states:
        own = wanted.get(state.name)
        if own is None:
            continue
        home = state.name.rpartition(".")[0]
        for field in ("input", "output"):
            got, expected = getattr(state, field), getattr(own, field)
            if got != expected:
                said = (
                    f"{field} of state {state.name} is {got!r} in the contract, {expected!r} by the network"
                )
                return Finding(0, f"state.{state.name}", "", "", home, "", float("inf"), said)
        start, begins = initial_array(state, sizes), initial_array(own, sizes)
        error = relative_error(begins, start)
        if error > level_of(state.dtype).step.absolute:
            place = np.unravel_index(int(np.abs(start - begins).argmax()), start.shape)
            said = f"state {state.name} starts as {start[place]:g}, the network as {begins[place]:g}"
            return Finding(0, f"state.{state.name}", "", "", home, "", error, said)
    return None


def _single(reference: Any, contract: Contract, request: Request, failure: Failure | None) -> _Place:
    """Return the step that failed, from the states that the network has before it."""
    step = failure.step if failure is not None else 0
    return _Place(step, step + 1, _states_before(reference, contract, request, step))


def _several(reference: Any, contract: Contract, request: Request, failure: Failure | None) -> _Place:
    """Return the steps around the one that failed."""
    step = failure.step if failure is not None else 0
    if not isinstance(reference, StepReference):
        return _Place(0, request.steps, dict(reference.start(request.sizes)))
    begin = max(0, step - _CHUNK // 2)
    end = min(begin + _CHUNK, request.steps)
    return _Place(begin, end, _states_before(reference, contract, request, begin))


def _states_before(
    reference: Any, contract: Contract, request: Request, step: int
) -> Mapping[str, np.ndarray[Any, Any]]:
    states = dict(request.initial or reference.start(request.sizes))
    inputs = request.rows(contract)
    for index, (_, after) in enumerate(reference.steps(inputs, states)):
        if index == step:
            break
        states = after
    return states


def _in_graph(
    session: Session,
    suspect: onnx.ModelProto,
    good: onnx.ModelProto,
    reference: Any,
    request: Request,
    place: _Place,
    failure: Failure | None,
) -> Finding | None:
    """Return the first value of the file's graph that departs in some steps as `failure` says."""
    contract = session.contract
    feeds = graph_inputs(
        contract, request.rows(contract), request.sizes, place.begin, place.end, place.states
    )
    single = place.end - place.begin == 1
    suspect, good = flat_graph(suspect, single=single), flat_graph(good, single=single)
    true = float64_values(good, feeds)
    if not _is_true(true, contract, reference, request, place):
        said = "a new export of the network departs from it as well, so the export is at fault"
        return Finding(place.begin, "", "", "", "", "", float("inf"), said)
    if failure is not None and failure.way == "float64":
        return _in_rounding(suspect, good, true, float64_values(suspect, feeds), true, place.begin)
    got = engine_values(suspect, feeds, session.provider)
    if failure is not None and failure.ratio is not None:
        same = engine_values(good, feeds, session.provider)
        return _in_rounding(suspect, good, true, got, same, place.begin)
    levels = default_levels(session)
    widest = max(levels[f"output.{spec.name}"].step.absolute for spec in contract.outputs)
    # A fault may show in a sum only; the value that first carries it then lies within the tolerance.
    for allowed in (widest, widest / 10):
        for node in suspect.graph.node:
            for name in node.output:
                if name in true and name in got and _departs(allowed, true[name], got[name]):
                    return _finding(suspect, good, node, name, true, got, place.begin)
    return None


def _in_rounding(
    suspect: onnx.ModelProto, good: onnx.ModelProto, true: Values, got: Values, same: Values, step: int
) -> Finding | None:
    """Return the first value that differs from the good graph's on the same engine, and is not as good.

    Up to the fault the two graphs compute the same to the bit, if one exporter made them. If not, a value
    may differ by rounding: then its node has to be another one, or its error many times the good graph's.
    """
    for node in suspect.graph.node:
        for name in node.output:
            if not all(name in values for values in (true, got, same)):
                continue
            if got[name].shape == same[name].shape and np.array_equal(got[name], same[name], equal_nan=True):
                continue
            found = _finding(suspect, good, node, name, true, got, step)
            if found.detail != _RUNTIME or _rounds_worse(true[name], got[name], same[name]):
                return found
    return None


def _rounds_worse(true: np.ndarray[Any, Any], got: np.ndarray[Any, Any], same: np.ndarray[Any, Any]) -> bool:
    """Whether a value is further from the float64 value than rounding it in another order explains."""
    if got.shape != same.shape or got.dtype.kind != "f":
        return True
    wide = np.asarray(true, np.float64)
    own = float(np.sqrt(np.mean((same - wide) ** 2)))
    rounding = float(np.finfo(got.dtype).eps) * float(np.sqrt(np.mean(wide**2)))
    return bool(np.abs(got - wide).max() > _WORSE * max(own, rounding))


def _is_true(true: Values, contract: Contract, reference: Any, request: Request, place: _Place) -> bool:
    """Whether the good graph gives what the module itself gives in float64 (or in its own precision)."""
    steps = place.end - place.begin
    rows = {
        spec.name: _part(request.rows(contract)[spec.name], contract, spec, place)
        for spec in contract.inputs
        if spec.name in request.rows(contract)
    }
    try:
        module = type(reference)(reference.plan, torch.float64)
        recorded = list(module.steps(rows, place.states))
        allowed = _SAME
    except (RuntimeError, TypeError, NotImplementedError, InputError):
        recorded = list(reference.steps(rows, place.states))
        dtypes = computed_dtypes(contract)
        allowed = max(level_of(dtypes[f"output.{spec.name}"]).step.absolute for spec in contract.outputs)
    for spec in contract.outputs:
        shape = chunk_shape(contract, spec)
        lasts = recorded[-1][0]
        if contract.has_time and axis_index(shape, "time") is not None:
            pairs = list(
                zip((row[0][spec.name] for row in recorded), to_steps(true[spec.name], shape), strict=True)
            )
        else:
            pairs = (
                [(lasts[spec.name], true[spec.name])]
                if spec.name in lasts and (contract.has_time or steps == 1)
                else []
            )
        if any(_departs(allowed, np.asarray(a), np.asarray(b)) for a, b in pairs):
            return False
    return not any(
        _departs(allowed, np.asarray(value), true[state.output])
        for state in contract.states
        for name, value in recorded[-1][1].items()
        if name == state.name
    )


def _part(rows: Any, contract: Contract, spec: InputSpec, place: _Place) -> Any:
    if spec.role == "length":
        return np.clip(rows - place.begin, 0, place.end - place.begin)
    return rows[place.begin : place.end] if has_steps(contract, spec) else rows


def _departs(allowed: float, expected: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> bool:
    if expected.shape != got.shape:
        return True
    if got.dtype.kind != "f":
        return bool((expected != got).any())
    return bool((error_beyond(Bound(allowed, allowed), np.asarray(expected, np.float64), got) > 0).any())


def _finding(
    suspect: onnx.ModelProto,
    good: onnx.ModelProto,
    node: onnx.NodeProto,
    value: str,
    true: Values,
    got: Values,
    step: int,
) -> Finding:
    """Describe the node behind a value that departs while everything before it agrees."""
    makers = {name: other for other in suspect.graph.node for name in other.output}
    model = next(other for other in good.graph.node if value in other.output)
    said = _difference(suspect, good, node, model)
    # A node that the network does not have stands between two that it has: it is at fault, not who reads it.
    known = {other.name for other in good.graph.node}
    while True:
        before = [makers[name] for name in node.input if name in makers and name not in true]
        strange = next((other for other in before if other.name not in known), None)
        if strange is None:
            break
        node, said = strange, f"the network has no such {strange.op_type} there"
    same = true[value].shape == got[value].shape
    return Finding(
        step=step,
        tensor=value,
        node=node.name or model.name,
        operator=node.op_type,
        module=(node.name if "/" in node.name else model.name).rpartition("/")[0],
        module_type="",
        max_error=relative_error(np.asarray(true[value], np.float64), got[value]) if same else float("inf"),
        detail=said,
    )


def _difference(
    suspect: onnx.ModelProto, good: onnx.ModelProto, node: onnx.NodeProto, model: onnx.NodeProto
) -> str:
    """Say what a node has that the network's node has not: operator, attributes, inputs, weights."""
    if node.op_type != model.op_type:
        return f"computes {node.op_type}, the network {model.op_type}"
    for name, value in attributes(model).items():
        own = attributes(node).get(name)
        if own != value:
            return f"{name} is {own}, the network's {value}"
    if list(node.input) != list(model.input):
        return f"reads {', '.join(node.input)}; the network {', '.join(model.input)}"
    ours, theirs = constants(suspect), constants(good)
    for name in node.input:
        if name in theirs and name in ours:
            wanted, have = theirs[name], ours[name]
            if wanted.shape != have.shape:
                return f"its {name} is {list(have.shape)}, the network's {list(wanted.shape)}"
            if not np.array_equal(wanted, have, equal_nan=True):
                different = wanted != have
                first = [int(index) for index in np.argwhere(different)[0]]
                return (
                    f"its {name} differs in {int(different.sum()):,} of {different.size:,} elements, "
                    f"first at {first}: {have[tuple(first)]:.7g}, the network's {wanted[tuple(first)]:.7g}"
                )
    return _RUNTIME


def _with_type(found: Finding, module: nn.Module) -> Finding:
    """Return a finding with the class of its module; a path that is none of its is cut to one that is."""
    path = found.module
    known = dict(module.named_modules())
    while path and path not in known:
        path = path.rpartition(".")[0]
    return dataclasses.replace(found, module=path, module_type=type(known[path]).__name__)
