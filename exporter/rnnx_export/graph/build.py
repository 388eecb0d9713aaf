"""From a plan to an ONNX graph, by one of two routes: direct, or a Scan over a captured step."""

from __future__ import annotations

import onnx_ir as ir
import torch

from rnnx.model.contract import Dimension
from rnnx_export.capture.program import capture
from rnnx_export.diagnostics import quiet
from rnnx_export.graph.convert import convert
from rnnx_export.graph.passes.table import DIRECT, OPSET, SCAN, Setting, run_passes
from rnnx_export.module.spec import step_shape
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program, step_program
from rnnx_export.states.unused_states import unused


def build(plan: Plan, route: str, opset: int = OPSET) -> ir.Model:
    """Return the ONNX model of a plan, without contract, as an export makes it.

    Raises:
        CaptureError: this route does not work for this module.
    """
    plan, program = without_unused(plan, route, captured(plan, route))
    return to_graph(plan, route, program, opset)


def captured(plan: Plan, route: str) -> torch.export.ExportedProgram:
    """Return the plan's program, or its single step for a Scan, with all sizes free. Raises CaptureError."""
    program: torch.nn.Module = Program(plan) if route == DIRECT else step_program(plan)
    shapes: list[list[Dimension]] = [list(spec.shape) for spec in plan.subject.inputs.values()]
    if route == SCAN:
        shapes = [step_shape(shape) for shape in shapes]
    shapes += [list(state.spec.shape) for state in plan.states]
    names = [*plan.subject.inputs, *(state.name for state in plan.states)]
    return capture(program, example_arguments(plan, route), shapes, names)


def without_unused(
    plan: Plan, route: str, program: torch.export.ExportedProgram
) -> tuple[Plan, torch.export.ExportedProgram]:
    """Return plan and program without states that no output depends on. Raises CaptureError."""
    dead = unused(plan, program)
    if not dead:
        return plan, program
    plan = plan.without_states(dead)
    return plan, captured(plan, route)


def to_graph(plan: Plan, route: str, program: torch.export.ExportedProgram, opset: int) -> ir.Model:
    """Return a captured program as the final ONNX graph. Raises CaptureError."""
    model = convert(program)
    run_passes(model, Setting(plan, route, opset))
    return model


def example_arguments(plan: Plan, route: str) -> list[torch.Tensor]:
    """Return random inputs and states at the plan's example sizes; for a scan, of one step."""
    generator = torch.Generator().manual_seed(0)
    sizes = plan.sizes if route == DIRECT else {**plan.sizes, "time": 1}
    inputs = []
    for spec in plan.subject.inputs.values():
        value = spec.random(sizes, generator)
        if route == SCAN and "time" in spec.shape:
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
