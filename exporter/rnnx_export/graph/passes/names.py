"""A minimal graph: no dead code, no leftovers of the conversion, names from the module's paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer

from rnnx.model.contract import Axis, Dimension
from rnnx_export.diagnostics import silent
from rnnx_export.module.subject import quiet

_SCOPES = "pkg.torch.onnx.name_scopes"
_PREFIXES = re.compile(r"^(?:program\.)*(?:module\.)?")


def simplify(model: ir.Model) -> None:
    """Fold constants, inline functions and drop what nothing uses, in place."""
    with quiet(), silent():
        _forget_shapes(model.graph, every=_is_frozen(model.graph))
        onnxscript.optimizer.optimize_ir(model, num_iterations=2, onnx_shape_inference=False)
        _adopt_constants(model.graph)
        passes.CommonSubexpressionEliminationPass()(model)
        passes.IdentityEliminationPass()(model)
        passes.RemoveUnusedNodesPass()(model)
        passes.RemoveUnusedFunctionsPass()(model)


def cancel_axes(graph: ir.Graph) -> None:
    """Drop axes that are put in only to be taken out: Squeeze, or Gather of entry 0, behind Unsqueeze."""
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        before = source.producer() if source is not None else None
        if before is None or before.op_type != "Unsqueeze" or before.inputs[0] is None:
            continue
        added = _integers(before.inputs[1])
        if added is None or added != _taken_out(node, len(added)):
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], before.inputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)
        if not before.outputs[0].uses() and not before.outputs[0].is_graph_output():
            graph.remove(before, safe=True)


def _taken_out(node: ir.Node, count: int) -> list[int] | None:
    """Return the axes of size 1 that a node removes, None if it is no such node."""
    if node.op_type == "Squeeze" and len(node.inputs) == 2:
        return _integers(node.inputs[1])
    if node.op_type == "Gather" and count == 1:
        index = node.inputs[1]
        scalar = index is not None and index.const_value is not None and len(index.const_value.shape) == 0
        if scalar and _integers(index) == [0]:
            axis = node.attributes.get("axis")
            return [axis.as_int() if axis is not None else 0]
    return None


def _integers(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None:
        return None
    return [int(entry) for entry in value.const_value.numpy().reshape(-1)]


def declare(
    model: ir.Model,
    inputs: Sequence[tuple[str, Sequence[Dimension]]],
    outputs: Sequence[tuple[str, Sequence[Dimension]]],
) -> None:
    """Give graph inputs and outputs their names and shapes, in order; each output its own node."""
    graph = model.graph
    for value, (name, shape) in zip(graph.inputs, inputs, strict=True):
        value.name = name
        value.shape = ir.Shape(shape)
    taken: set[int] = {id(value) for value in graph.inputs}
    for index, (_, shape) in enumerate(outputs):
        value = graph.outputs[index]
        if id(value) in taken or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].type = value.type
            graph.append(node)
            graph.outputs[index] = value = node.outputs[0]
        taken.add(id(value))
        value.shape = ir.Shape(shape)
    for index, (name, _) in enumerate(outputs):
        graph.outputs[index].name = name


def finish(model: ir.Model, opset: int) -> None:
    """Drop what nothing uses, name nodes and values by module path; the graph is final after this."""
    passes.RemoveUnusedNodesPass()(model)
    keep = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    _rename_initializers(model.graph)
    names = {value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)} | set(
        model.graph.initializers
    )
    _rename(model.graph, keep, Counter(), names)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.name = "main"
    model.producer_name, model.producer_version, model.doc_string = "rnnx", "", None
    model.opset_imports.clear()
    model.opset_imports[""] = opset
    model.ir_version = 10 if opset <= 22 else 11
    _sort_initializers(model.graph)


def _is_frozen(graph: ir.Graph) -> bool:
    """Whether the conversion took a free size for the example's: what it says of sizes is worth nothing then.

    Such a size is a name that reads as a number, or is met nowhere behind the inputs.
    """
    free = {str(size) for value in graph.inputs for size in value.shape or () if not isinstance(size, int)}
    shapes = [value.shape or () for node in graph for value in node.outputs]
    met = " ".join({str(size) for shape in shapes for size in shape if not isinstance(size, int)})
    return any(size.isdigit() or re.search(rf"\b{re.escape(size)}\b", met) is None for size in free)


def _adopt_constants(graph: ir.Graph) -> None:
    """Make constants initializers that the optimizer left out of them: it loses one of two of one name."""
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.const_value is None:
                continue
            if graph.initializers.get(value.name or "") is not value:
                count, stem = 1, value.name or "constant"
                while value.name in graph.initializers:
                    count += 1
                    value.name = f"{stem}_{count}"
                graph.register_initializer(value)


def _forget_shapes(graph: ir.Graph, *, every: bool) -> None:
    """Drop sizes of intermediate values: the symbols in them mean nothing outside the capture."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if every:
                value.shape = None
            if value.shape is not None and any(not isinstance(size, int) for size in value.shape):
                value.shape = ir.Shape([size if isinstance(size, int) else None for size in value.shape])


def _path(node: ir.Node) -> str:
    scopes = node.metadata_props.get(_SCOPES)
    if not scopes:
        return ""
    names = [name.strip(" '\"") for name in scopes.strip("[]").split(",")]
    modules = [name for name in names[:-1] if name and not name.startswith("_empty_nn_module_stack")]
    return _PREFIXES.sub("", modules[-1]).removesuffix("module").strip(".") if modules else ""


def _rename_initializers(graph: ir.Graph) -> None:
    for old in list(graph.initializers):
        value = graph.initializers[old]
        new = _PREFIXES.sub("", old)
        if new != old and new not in graph.initializers:
            del graph.initializers[old]
            value.name = new
            graph.initializers[new] = value


def _rename(graph: ir.Graph, keep: set[int], counts: Counter[str], taken: set[str]) -> None:
    """Name each node `path/Op_3` and its values after it, subgraphs included."""

    def fresh(stem: str) -> str:
        while True:
            counts[stem] += 1
            name = f"{stem}_{counts[stem]}" if counts[stem] > 1 else stem
            if name not in taken:
                taken.add(name)
                return name

    for node in graph:
        path = _path(node)
        node.name = fresh(f"{path}/{node.op_type}" if path else node.op_type)
        for index, value in enumerate(node.outputs):
            if id(value) not in keep:
                suffix = f".{index}" if len(node.outputs) > 1 else ""
                value.name = fresh(f"{node.name}:out{suffix}")
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                for value in inner.inputs:
                    value.name = fresh(value.name or "in")
                    value.metadata_props.clear()
                _rename(inner, keep, counts, taken)


def _sort_initializers(graph: ir.Graph) -> None:
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    for name, value in ordered:
        graph.initializers[name] = value


def step_shape(shape: Sequence[Dimension]) -> list[Dimension]:
    """Return the shape of one step: no `time`, N entries where a chunk has `N*time`."""
    axes = [(dimension, Axis.parse(dimension)) for dimension in shape if dimension != "time"]
    return [axis.factor if axis.name == "time" else dimension for dimension, axis in axes]
