"""A graph without dead code and leftovers of the conversion."""

from __future__ import annotations

import re

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer

from rnnx_export.diagnostics import quiet, silent


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
