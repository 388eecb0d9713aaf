"""A captured step, wrapped into an ONNX Scan over time: a chunk model that is stepped inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.model.contract import Dimension, axis_index
from rnnx_export.graph.passes.recurrent import constant
from rnnx_export.module.spec import TensorSpec, step_shape, time_axis
from rnnx_export.states.export_plan import Plan


def wrap_in_scan(model: ir.Model, plan: Plan) -> None:
    """Turn a step graph (inputs..., states...) -> (outputs..., next states...) into a chunk graph, in place.

    Inputs with time are scanned along it; those without hold for the whole call, except a length, of which
    each step gets its share of 0 or 1. Outputs without time are the value at the last step.
    """
    body = model.graph
    specs = list(plan.subject.inputs.values())
    step_inputs, states = list(body.inputs[: len(specs)]), list(body.inputs[len(specs) :])
    outer = ir.Graph([], [], nodes=[], name="main", opset_imports=dict(model.opset_imports))
    tape, inner = Tape(), Tape()
    results = list(body.outputs)
    body.outputs.clear()  # among them may be weights, and inputs that others take the place of
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        outer.initializers[name] = value
    inputs = [_like(value, spec.shape) for value, spec in zip(step_inputs, specs, strict=True)]
    starts = [_like(value, state.spec.shape) for value, state in zip(states, plan.states, strict=True)]
    scanned: list[ir.Value] = []
    scan_inputs: list[ir.Value] = []
    axes: list[int] = []
    for spec, chunk, step in zip(specs, inputs, step_inputs, strict=True):
        if spec.is_length:
            share, numbers, number = _share(tape, inner, outer, chunk, _time_source(specs, inputs))
            ir.convenience.replace_all_uses_with(step, share)
            scanned.append(numbers)
            scan_inputs.append(number)
            axes.append(0)
        elif not spec.has("time"):
            ir.convenience.replace_all_uses_with(step, chunk)
            results = [chunk if value is step else value for value in results]
        else:
            axis = time_axis(spec.shape)
            if axis is None:
                axis = axis_index(spec.shape, "time")
                assert axis is not None
                chunk = _frames(tape, outer, chunk, spec, axis)
            scanned.append(chunk)
            scan_inputs.append(step)
            axes.append(axis)
    nodes = list(body)
    body.inputs.clear()
    body.remove(nodes)
    held = {id(value) for value in (*states, *step_inputs)}
    finals = []
    for value in results:
        own = id(value) in held or value.is_initializer() or value.producer() is None
        finals.append(_own(inner, value) if own else value)
        held.add(id(finals[-1]))
    count = len(plan.outputs)
    for value, output in zip(finals[:count], plan.outputs, strict=True):
        value.shape = ir.Shape(step_shape(output.spec.shape))
    for value, state in zip(finals[count:], plan.states, strict=True):
        value.shape = ir.Shape(state.spec.shape)
    for value, state in zip(states, plan.states, strict=True):
        value.name, value.shape = f"{state.name}.before", ir.Shape(state.spec.shape)
    for value, (name, spec) in zip(step_inputs, plan.subject.inputs.items(), strict=True):
        value.name, value.shape = f"{name}.step", ir.Shape(step_shape(spec.shape))
    head = [node for node in inner.nodes if node.op_type != "Identity"]
    tail = [node for node in inner.nodes if node.op_type == "Identity"]
    graph = ir.Graph(
        [*states, *scan_inputs], [*finals[count:], *finals[:count]], nodes=[*head, *nodes, *tail], name="step"
    )
    out_axes = [_out_axis(output.spec) for output in plan.outputs]
    attributes: dict[str, Any] = {
        "body": graph,
        "num_scan_inputs": len(scan_inputs),
        "scan_input_axes": axes,
        "scan_output_axes": out_axes,
    }
    produced = tape.op_multi_out("Scan", [*starts, *scanned], attributes, num_outputs=len(results))
    ends, stacked = list(produced[: len(states)]), list(produced[len(states) :])
    outputs = [
        _joined(tape, outer, value, output.spec, axis)
        for value, output, axis in zip(stacked, plan.outputs, out_axes, strict=True)
    ]
    for value, like in zip((*outputs, *ends), (*results,), strict=True):
        value.type = like.type
    outer.extend(tape.nodes)
    outer.inputs.extend([*inputs, *starts])
    outer.outputs.extend([*outputs, *ends])
    model.graph = outer


def _like(value: ir.Value, shape: Sequence[Dimension]) -> ir.Value:
    return ir.Value(name=f"{value.name}.chunk", type=value.type, shape=ir.Shape(shape))


def _own(tape: Tape, value: ir.Value) -> ir.Value:
    """Return a value of its own for a body output that is an input, an initializer or another output."""
    out = tape.op("Identity", [value])
    out.type = value.type
    return out


def _time_source(specs: Sequence[TensorSpec], inputs: Sequence[ir.Value]) -> tuple[ir.Value, int, int]:
    """Return (input, axis, factor) of some input with time."""
    for spec, value in zip(specs, inputs, strict=True):
        for index, axis in enumerate(spec.axes()):
            if axis.name == "time":
                return value, index, axis.factor
    raise AssertionError("no input has time")


def _share(
    tape: Tape, inner: Tape, outer: ir.Graph, lengths: ir.Value, source: tuple[ir.Value, int, int]
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return (a step's share of the lengths, the step numbers to scan, the scanned number)."""
    value, axis, factor = source
    elements = tape.op("Squeeze", [tape.op("Shape", [value], {"start": axis, "end": axis + 1})])
    steps = (
        elements if factor == 1 else tape.op("Div", [elements, constant(outer, "factor", np.array(factor))])
    )
    zero, one = constant(outer, "zero", np.array(0)), constant(outer, "one", np.array(1))
    numbers = tape.op("Range", [zero, steps, one])
    number = ir.Value(name="step_number", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    share = inner.op("Clip", [inner.op("Sub", [lengths, number]), zero, one])
    return share, numbers, number


def _around(
    tape: Tape, outer: ir.Graph, value: ir.Value, axis: int, middle: list[int], skip: int
) -> ir.Value:
    """Return `value` reshaped: the `skip` axes from `axis` on replaced by the sizes in `middle`."""
    parts = [
        constant(outer, "sizes_" + "_".join(str(size) for size in middle).replace("-", "m"), np.array(middle))
    ]
    if axis:
        parts.insert(0, tape.op("Shape", [value], {"start": 0, "end": axis}))
    parts.append(tape.op("Shape", [value], {"start": axis + skip}))
    return tape.op("Reshape", [value, tape.op("Concat", parts, {"axis": 0})])


def _frames(tape: Tape, outer: ir.Graph, value: ir.Value, spec: TensorSpec, axis: int) -> ir.Value:
    """Return [.., N*time, ..] as [.., time, N, ..]."""
    return _around(tape, outer, value, axis, [-1, spec.axes()[axis].factor], 1)


def _out_axis(spec: TensorSpec) -> int:
    return axis_index(spec.shape, "time") or 0


def _joined(tape: Tape, outer: ir.Graph, value: ir.Value, spec: TensorSpec, axis: int) -> ir.Value:
    """Return a scan output as the model's: frames joined, or the last step where there is no time."""
    if not spec.has("time"):
        return tape.op("Gather", [value, constant(outer, "last", np.array(-1))], {"axis": 0})
    if time_axis(spec.shape) is None:
        return _around(tape, outer, value, axis, [-1], 2)
    return value
