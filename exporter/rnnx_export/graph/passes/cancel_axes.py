"""Axes that are put in and taken out again."""

from __future__ import annotations

import onnx_ir as ir


def cancel_axes(graph: ir.Graph) -> None:
    """Drop axes that are put in only to be taken out: Squeeze, or Gather of element 0, behind Unsqueeze."""
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
    return [int(element) for element in value.const_value.numpy().reshape(-1)]
