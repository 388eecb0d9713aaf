"""What an export is, read from the top down: two routes, tried in order, each through the same stages.

Both begin with the plan that running the module gave. A stage takes an attempt and returns it with what it
made; one that cannot ends the route, and what it says is kept for the next one, and for the user.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import onnx_ir as ir
import torch

from rnnx.errors import RefusedError, RnnxError
from rnnx.files import write_bytes
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import model_id, write_contract
from rnnx_export.diagnostics import CaptureError, levels_restored, user_error, with_line
from rnnx_export.graph.build import captured, computed_dtype, to_graph, without_unused
from rnnx_export.graph.external_weights import move_weights_out, to_bytes
from rnnx_export.graph.index_ranges import found_ranges
from rnnx_export.graph.passes.table import DIRECT, SCAN
from rnnx_export.loops.unroll import lift_loop
from rnnx_export.proof.prove import Proved, prove
from rnnx_export.proof.setting import ProofError
from rnnx_export.refusals import advice, location
from rnnx_export.states.export_plan import Plan


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked of an export.

    Attributes:
        opset: operator set version.
        weights_name: of the file beside the model that holds weights too large for it.
        contract: makes the contract of a plan, from the plan and the model's id.
        told: is told what begins, for people who wait.
    """

    opset: int
    weights_name: str
    contract: Callable[[Plan, str], Contract]
    told: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One route, and what its stages have made so far; what is not made yet is None or empty.

    Attributes:
        route: `direct` or `scan`.
        plan: what was found in the module.
        order: what is asked for.
        folder: where files lie that the proof needs.
        program: the captured program.
        graph: it as an ONNX graph.
        weights: what is too large for the file.
        model: the file without its contract.
        contract: the file's.
        proved: the proof, and the trace that goes with it.
    """

    route: str
    plan: Plan
    order: Order
    folder: Path
    program: torch.export.ExportedProgram | None = None
    graph: ir.Model | None = None
    weights: bytes = b""
    model: bytes = b""
    contract: Contract | None = None
    proved: Proved | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """What is to be written: the file, weights beside it if they are too large for it, the trace."""

    data: bytes
    weights: bytes
    contract: Contract
    trace: bytes
    notes: list[str]


def _capture(attempt: Attempt) -> Attempt:
    return dataclasses.replace(attempt, program=captured(attempt.plan, attempt.route))


def _drop_unused_states(attempt: Attempt) -> Attempt:
    assert attempt.program is not None
    plan, program = without_unused(attempt.plan, attempt.route, attempt.program)
    return dataclasses.replace(attempt, plan=plan, program=program)


def _convert(attempt: Attempt) -> Attempt:
    assert attempt.program is not None
    graph = to_graph(attempt.plan, attempt.route, attempt.program, attempt.order.opset)
    return dataclasses.replace(attempt, graph=graph)


def _find_ranges(attempt: Attempt) -> Attempt:
    assert attempt.graph is not None
    subject = attempt.plan.subject
    subject.inputs |= found_ranges(attempt.graph, subject)  # the same whichever route found them
    return attempt


def _move_weights_out(attempt: Attempt) -> Attempt:
    assert attempt.graph is not None
    weights = move_weights_out(attempt.graph, attempt.order.weights_name)
    if weights:
        write_bytes(attempt.folder / attempt.order.weights_name, weights)
    return dataclasses.replace(attempt, weights=weights, model=to_bytes(attempt.graph))


def _describe(attempt: Attempt) -> Attempt:
    identity = model_id(attempt.model, attempt.folder if attempt.weights else None)
    return dataclasses.replace(attempt, contract=attempt.order.contract(attempt.plan, identity))


def _prove(attempt: Attempt) -> Attempt:
    assert attempt.graph is not None
    assert attempt.contract is not None
    folder = attempt.folder if attempt.weights else None
    computed = computed_dtype(attempt.graph)
    return dataclasses.replace(
        attempt, proved=prove(attempt.plan, attempt.model, attempt.contract, computed, folder)
    )


STAGES: tuple[Callable[[Attempt], Attempt], ...] = (
    _capture,  # the module as a graph of torch operators, all sizes free
    _drop_unused_states,  # those that no output depends on; captured again without them
    _convert,  # to an ONNX graph, through the passes of graph/passes/table.py
    _find_ranges,  # of ids, from the tables that the graph looks up
    _move_weights_out,  # where they are too large for one file
    _describe,  # the contract
    _prove,  # the file against the module, before anything is written
)


def _not_direct(plan: Plan) -> str | None:
    """Return why a plan cannot be captured with its time axis, None if it may be."""
    if plan.delay is not None:
        return "outputs that come late are computed a step at a time"
    looped = plan.loops or plan.step_graph is not None
    return "memory lies in a Python loop over time" if looped else None


def _not_scan(plan: Plan) -> str | None:
    """Return why a step of a plan cannot be run over time, None if it may be."""
    return plan.whole_only if plan.has_time else "the model has no time axis"


def _with_hold_states(plan: Plan) -> Plan:
    """Return the plan with what no random input moves, such as hold state: its loop shows it all the same."""
    closed = plan.step_graph is not None or plan.loops or plan.delay is not None
    return plan if closed else lift_loop(plan)


@dataclasses.dataclass(frozen=True)
class Route:
    """A route through the stages.

    Attributes:
        name: in contracts and messages.
        why_not: why it is none for a plan, or None.
        prepare: what it makes of a plan first.
    """

    name: str
    why_not: Callable[[Plan], str | None]
    prepare: Callable[[Plan], Plan]


ROUTES = (
    Route(DIRECT, _not_direct, lambda plan: plan),  # the whole chunk as it is, time free
    Route(SCAN, _not_scan, _with_hold_states),  # one step, in a Scan over time
)


def run(plan: Plan, order: Order) -> Made:
    """Return what the first route gives that is proved.

    Raises:
        RefusedError: `not-exported`, with what stands in the way on each route.
    """
    failed: dict[str, str] = {}
    for route in ROUTES:
        why_not = route.why_not(plan)
        if why_not is not None:
            failed[route.name] = why_not
            continue
        try:
            with tempfile.TemporaryDirectory() as name, levels_restored():
                attempt = Attempt(route.name, route.prepare(plan), order, Path(name))
                for stage in STAGES:
                    order.told(f"{route.name}: {stage.__name__.replace('_', ' ').strip()}")
                    attempt = stage(attempt)
        except (CaptureError, ProofError) as error:
            failed[route.name] = error.args[0]
            continue
        except RnnxError:
            raise
        except Exception as error:  # of torch, a converter or an engine, about a module it does not expect
            failed[route.name] = user_error(error, f"{type(error).__name__}: ")
            continue
        return _finished(attempt, failed)
    raise _refused(plan, failed)


def _finished(attempt: Attempt, failed: Mapping[str, str]) -> Made:
    assert attempt.contract is not None
    assert attempt.proved is not None
    not_direct = failed.get(DIRECT)
    proof = msgspec.structs.replace(
        attempt.proved.proof, way=attempt.route, not_direct=None if not_direct is None else str(not_direct)
    )
    contract = msgspec.structs.replace(attempt.contract, proof=proof)
    return Made(
        write_contract(attempt.model, contract),
        attempt.weights,
        contract,
        attempt.proved.trace,
        [*attempt.plan.notes, *attempt.proved.notes],
    )


def _refused(plan: Plan, failed: Mapping[str, str]) -> RefusedError:
    said = [*(f"{route}: {with_line(why)}" for route, why in failed.items()), *plan.notes]
    return RefusedError(
        "not-exported",
        expected=f"{location(plan.subject)} to be captured with free batch and time, or step by step",
        found="; ".join(said),
        fix=advice([*failed.values(), *plan.notes]),
    )
