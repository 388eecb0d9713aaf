"""From a plan to the bytes of an ONNX file, one of two ways: direct, or a Scan over a captured step."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.version_converter
import torch

from rnnx.model.contract import Dimension, StateSpec
from rnnx.model.contract_values import encode_initial
from rnnx_export.capture.program import capture
from rnnx_export.diagnostics import CaptureError
from rnnx_export.graph.convert import convert
from rnnx_export.graph.passes import names as clean
from rnnx_export.graph.passes.recurrent import expand_recurrent
from rnnx_export.graph.passes.scan import wrap_in_scan
from rnnx_export.module.spec import boundary_dtype
from rnnx_export.module.subject import quiet
from rnnx_export.states.export_plan import Plan, Program, step_program

DIRECT, SCAN = "direct", "scan"
OPSET, NEWEST_OPSET = 18, 21
# A protobuf message holds less than 2 GiB; the graph itself needs room too.
WEIGHTS_LIMIT = 2**31 - 2**24
_SMALL = 1024


def graph_names(name: str) -> tuple[str, str]:
    """Return the names of a state's graph input and output."""
    return f"{name}_in", f"{name}_out"


def build(plan: Plan, way: str, opset: int = OPSET) -> ir.Model:
    """Return the ONNX model of a plan, without contract.

    Raises:
        CaptureError: this way does not work for this module.
    """
    exported = _captured(plan, way)
    dead = _dead(plan, exported)
    if dead:
        plan.drop_states(dead)
        exported = _captured(plan, way)
    specs = plan.subject.inputs
    model = convert(exported)
    clean.simplify(model)
    clean.cancel_axes(model.graph)
    expand_recurrent(model)
    if way == SCAN:
        wrap_in_scan(model, plan)
    inputs = [(name, spec.shape) for name, spec in specs.items()]
    outputs = [(output.name, output.spec.shape) for output in plan.outputs]
    inputs += [(graph_names(state.name)[0], state.spec.shape) for state in plan.states]
    outputs += [(graph_names(state.name)[1], state.spec.shape) for state in plan.states]
    clean.declare(model, inputs, outputs)
    if opset != OPSET:
        onnxscript.version_converter.convert_version(model, opset)
    clean.finish(model, opset)
    return model


def _captured(plan: Plan, way: str) -> torch.export.ExportedProgram:
    program: torch.nn.Module = Program(plan) if way == DIRECT else step_program(plan)
    shapes: list[list[Dimension]] = [list(spec.shape) for spec in plan.subject.inputs.values()]
    if way == SCAN:
        shapes = [clean.step_shape(shape) for shape in shapes]
    shapes += [list(state.spec.shape) for state in plan.states]
    names = [*plan.subject.inputs, *(state.name for state in plan.states)]
    return capture(program, example_arguments(plan, way), shapes, names)


def _dead(plan: Plan, exported: torch.export.ExportedProgram) -> set[str]:
    """Return the states that were found, not declared, and that no output depends on, now or later."""
    if any(_writes(node) for node in exported.graph.nodes):
        with quiet():
            exported = exported.run_decompositions({})  # what is written in place is read from then on
    user = set(exported.graph_signature.user_inputs)
    given = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in user]
    given = given[len(plan.subject.inputs) :]
    results = list(exported.graph.output_node().args[0])
    ends = dict(
        zip((state.name for state in plan.states), results[-len(plan.states) or len(results) :], strict=True)
    )
    live: set[str] = set()
    reached: set[torch.fx.Node] = set()
    pending = [node for node in results[: len(results) - len(plan.states)] if isinstance(node, torch.fx.Node)]
    while pending:
        node = pending.pop()
        if node in reached:
            continue
        reached.add(node)
        pending += node.all_input_nodes
        for state, placeholder in zip(plan.states, given, strict=True):
            if placeholder is node and state.name not in live:
                live.add(state.name)
                pending.append(ends[state.name])
    groups = [set(lift.names) for lift in plan.lifts.values()]
    declared = {state.name for state in plan.states if state.is_declared}
    dead = {state.name for state in plan.states} - live - declared
    return {name for name in dead if not any(name in group and group & live for group in groups)}


def _writes(node: torch.fx.Node) -> bool:
    """Whether a node of a captured program writes to one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


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


def to_bytes(model: ir.Model) -> bytes:
    """Return the file's bytes, the same for the same model in every process.

    Raises:
        CaptureError: the graph is not valid.
    """
    proto = ir.to_proto(model)
    external = any(bool(tensor.data_location) for tensor in proto.graph.initializer)
    try:
        if not external:  # the checker would look for the weights in the current folder
            onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CaptureError(f"no valid ONNX graph: {' '.join(str(error).split())[:180]}") from error
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def move_weights_out(model: ir.Model, location: str) -> bytes:
    """Return the weights as one block, where they are too large for the file; else return nothing.

    Args:
        model: its initializers then point into the block.
        location: the block's file name beside the model.
    """
    initializers = model.graph.initializers.values()
    tensors = [(value, value.const_value) for value in initializers if value.const_value is not None]
    if sum(tensor.nbytes for _, tensor in tensors) <= WEIGHTS_LIMIT:
        return b""
    block = bytearray()
    for value, tensor in tensors:
        if tensor.nbytes < _SMALL:
            continue
        block += bytes(-len(block) % 64)
        data = tensor.tobytes()
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor(
            location, len(block), len(data), tensor.dtype, name=tensor.name or "", shape=shape
        )
        block += data
    return bytes(block)


def state_specs(plan: Plan) -> list[StateSpec]:
    """Return the contract's entries for the plan's states."""
    entries: list[Any] = []
    for state in plan.states:
        before, after = graph_names(state.name)
        entries.append(
            StateSpec(
                name=state.name,
                input=before,
                output=after,
                dtype=boundary_dtype(state.spec.dtype),  # type: ignore[arg-type]
                shape=list(state.spec.shape),
                initial=encode_initial(state.initial),
            )
        )
    return entries
