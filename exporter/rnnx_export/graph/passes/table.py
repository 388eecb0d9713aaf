"""The passes over an ONNX graph, in order: what each ensures, and why it stands where it does.

A pass changes the model in place. One that fails, or does not ensure what it says, is named in the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx_ir as ir
import onnxscript.version_converter

from rnnx_export.diagnostics import Because, CaptureError, first_line
from rnnx_export.graph.contract_states import graph_names
from rnnx_export.graph.convert import DOMAIN
from rnnx_export.graph.passes.cancel_axes import cancel_axes
from rnnx_export.graph.passes.declare_io import declare
from rnnx_export.graph.passes.names import finish
from rnnx_export.graph.passes.recurrent import expand_recurrent
from rnnx_export.graph.passes.scan import wrap_in_scan
from rnnx_export.graph.passes.simplify import simplify
from rnnx_export.states.export_plan import Plan

DIRECT, SCAN = "direct", "scan"
OPSET, NEWEST_OPSET = 18, 21


class Setting(NamedTuple):
    """What passes know beside the model."""

    plan: Plan
    route: str
    opset: int


class GraphPass(NamedTuple):
    """One pass.

    Attributes:
        name: for errors.
        run: changes the model.
        ensures: whether the model then is as the pass says; `what` says it in words.
        what: what holds from here on.
        place: why it stands here.
    """

    name: str
    run: Callable[[ir.Model, Setting], None]
    ensures: Callable[[ir.Model, Setting], bool]
    what: str
    place: str


def _ports(setting: Setting) -> tuple[list[tuple[str, tuple[int | str, ...]]], ...]:
    """Return names and shapes of the graph's inputs and outputs, as the contract has them."""
    plan = setting.plan
    inputs = [(name, spec.shape) for name, spec in plan.subject.inputs.items()]
    outputs = [(output.name, output.spec.shape) for output in plan.outputs]
    inputs += [(graph_names(state.name)[0], state.spec.shape) for state in plan.states]
    outputs += [(graph_names(state.name)[1], state.spec.shape) for state in plan.states]
    return inputs, outputs


def _wrap(model: ir.Model, setting: Setting) -> None:
    if setting.route == SCAN:
        wrap_in_scan(model, setting.plan)


def _declare(model: ir.Model, setting: Setting) -> None:
    inputs, outputs = _ports(setting)
    declare(model, inputs, outputs)


def _convert_version(model: ir.Model, setting: Setting) -> None:
    if setting.opset != OPSET:
        onnxscript.version_converter.convert_version(model, setting.opset)


def _is_declared(model: ir.Model, setting: Setting) -> bool:
    ports = ([value.name for value in side] for side in (model.graph.inputs, model.graph.outputs))
    return list(ports) == [[name for name, _ in side] for side in _ports(setting)]


def _is_sorted(graph: ir.Graph) -> bool:
    """Whether each node stands behind those that it takes values from."""
    made: set[int] = set()
    for node in graph:
        before = [value.producer() for value in node.inputs if value is not None]
        if any(one is not None and one.graph is graph and id(one) not in made for one in before):
            return False
        made.add(id(node))
    return True


PASSES: tuple[GraphPass, ...] = (
    GraphPass(
        "simplify",
        lambda model, _: simplify(model),
        lambda model, _: not model.functions,
        "no functions, no constants that could be computed, nothing twice",
        "first, so that all others see few kinds of nodes",
    ),
    GraphPass(
        "cancel axes",
        lambda model, _: cancel_axes(model.graph),
        lambda model, _: _is_sorted(model.graph),
        "no axis is put in only to be taken out",
        "before layers are expanded, which would hide such pairs",
    ),
    GraphPass(
        "expand recurrent layers",
        lambda model, _: expand_recurrent(model),
        lambda model, _: all(node.domain != DOMAIN for node in model.graph.all_nodes()),
        "no node of our own domain is left",
        "behind simplification, which makes weights constants; before the Scan, whose body must be ONNX",
    ),
    GraphPass(
        "wrap in a Scan",
        _wrap,
        lambda model, setting: setting.route != SCAN or any(n.op_type == "Scan" for n in model.graph),
        "on the route `scan`, the step runs over the time axis",
        "when the step is whole",
    ),
    GraphPass(
        "declare inputs and outputs",
        _declare,
        _is_declared,
        "inputs and outputs have the contract's names and shapes, in its order",
        "when nothing makes new ones any more",
    ),
    GraphPass(
        "convert the operator set",
        _convert_version,
        _is_declared,
        "operators mean what they do in the set that was asked for",
        "when all operators are there",
    ),
    GraphPass(
        "name and sort",
        lambda model, setting: finish(model, setting.opset),
        lambda model, _: _is_sorted(model.graph),
        "nothing unused; names from the module's paths; the same bytes each time",
        "last: the graph is final",
    ),
)


def run_passes(model: ir.Model, setting: Setting) -> None:
    """Run all passes over a model, in place.

    Raises:
        CaptureError: one failed; its name is in the message, unless it says by itself what is wrong.
    """
    for each in PASSES:
        try:
            each.run(model, setting)
        except CaptureError:
            raise
        except Exception as error:  # libraries raise many kinds
            said = first_line(error)
            raise CaptureError(Because(f"pass {each.name!r} fails: {said}", said.reason)) from error
        if not each.ensures(model, setting):
            raise CaptureError(f"pass {each.name!r} does not ensure that {each.what}")
