"""From a plan to the bytes of an ONNX file, one of two ways: direct, or a Scan over a captured step."""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.version_converter
import torch

from rnnx.model.contract import Dimension
from rnnx_export.capture.program import capture
from rnnx_export.diagnostics import quiet
from rnnx_export.graph.contract_states import graph_names
from rnnx_export.graph.convert import convert
from rnnx_export.graph.passes.cancel_axes import cancel_axes
from rnnx_export.graph.passes.declare_io import declare
from rnnx_export.graph.passes.names import finish
from rnnx_export.graph.passes.recurrent import expand_recurrent
from rnnx_export.graph.passes.scan import wrap_in_scan
from rnnx_export.graph.passes.simplify import simplify
from rnnx_export.module.spec import step_shape
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program, step_program
from rnnx_export.states.unused_states import unused

DIRECT, SCAN = "direct", "scan"
OPSET, NEWEST_OPSET = 18, 21


def build(plan: Plan, way: str, opset: int = OPSET) -> ir.Model:
    """Return the ONNX model of a plan, without contract.

    Raises:
        CaptureError: this way does not work for this module.
    """
    exported = _captured(plan, way)
    dead = unused(plan, exported)
    if dead:
        plan.drop_states(dead)
        exported = _captured(plan, way)
    specs = plan.subject.inputs
    model = convert(exported)
    simplify(model)
    cancel_axes(model.graph)
    expand_recurrent(model)
    if way == SCAN:
        wrap_in_scan(model, plan)
    inputs = [(name, spec.shape) for name, spec in specs.items()]
    outputs = [(output.name, output.spec.shape) for output in plan.outputs]
    inputs += [(graph_names(state.name)[0], state.spec.shape) for state in plan.states]
    outputs += [(graph_names(state.name)[1], state.spec.shape) for state in plan.states]
    declare(model, inputs, outputs)
    if opset != OPSET:
        onnxscript.version_converter.convert_version(model, opset)
    finish(model, opset)
    return model


def _captured(plan: Plan, way: str) -> torch.export.ExportedProgram:
    program: torch.nn.Module = Program(plan) if way == DIRECT else step_program(plan)
    shapes: list[list[Dimension]] = [list(spec.shape) for spec in plan.subject.inputs.values()]
    if way == SCAN:
        shapes = [step_shape(shape) for shape in shapes]
    shapes += [list(state.spec.shape) for state in plan.states]
    names = [*plan.subject.inputs, *(state.name for state in plan.states)]
    return capture(program, example_arguments(plan, way), shapes, names)


def example_arguments(plan: Plan, way: str) -> list[torch.Tensor]:
    """Return random inputs and states at the plan's example sizes; for a scan, of one step."""
    generator = torch.Generator().manual_seed(0)
    sizes = plan.sizes if way == DIRECT else {**plan.sizes, "time": 1}
    inputs = []
    for spec in plan.subject.inputs.values():
        value = spec.random(sizes, generator)
        if way == SCAN and "time" in spec.shape:
            value = value.squeeze(list(spec.shape).index("time"))
        inputs.append(value)
    with quiet():
        start = plan.start(sizes)
    return [*inputs, *start.values()]


def computed_dtype(model: ir.Model) -> str:
    """Return the coarsest floating dtype that a model computes in, "exact" if it computes in none.

    It is told by weights and by casts that round. An input may well be coarser: that is exact in the others.
    """
    floats = [ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE]
    found = [value.dtype for value in model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        source, made = (node.inputs[0], node.outputs[0]) if node.op_type == "Cast" else (None, None)
        if source is not None and made is not None and source.dtype in (None, *floats):
            found.append(made.dtype)
    coarsest = next((dtype for dtype in floats if dtype in found), None)
    return "exact" if coarsest is None else coarsest.numpy().name
