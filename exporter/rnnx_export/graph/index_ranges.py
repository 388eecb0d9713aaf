"""The range that an input of ids has by itself: the rows of the tables that the graph looks up with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir
import torch

from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.subject import Subject

Rows = tuple[int, int]  # the least and the largest index that names one

# What hands ids on as they are, all of them or some.
_ALL = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten", "Expand"}
_SOME = {"Slice", "Split", "Gather"}
_SIZES = {"Shape", "Size"}


@dataclasses.dataclass
class _Uses:
    """What becomes of the elements of an input: tables that all, or some, are looked up in, and the rest."""

    by_all: list[Rows] = dataclasses.field(default_factory=list)
    by_some: list[Rows] = dataclasses.field(default_factory=list)
    is_used_otherwise: bool = False


def rows_named(value: ir.Value) -> Rows | None:
    """Return which rows the elements of an integer graph input name; None where the graph does not say.

    Those that every table has which all elements are looked up in: a table is a constant that a Gather takes
    from, or a GatherND, which is what `table[ids]` becomes: there negative ids count from the end. Where only
    some elements are looked up the others may mean something else: then every use must be such a lookup, and
    all tables alike.
    """
    uses = _Uses()
    _follow(value, uses, is_all=True)
    if uses.by_all:
        rows = _common(uses.by_all)
        return rows if rows == _common([rows, *uses.by_some]) else None
    same = len(set(uses.by_some)) == 1 and not uses.is_used_otherwise
    return uses.by_some[0] if same else None


def found_ranges(model: ir.Model, subject: Subject) -> dict[str, TensorSpec]:
    """Return new specs of integer inputs that have no range, but name rows of tables: those rows.

    An optional input whose default is no such row keeps its spec: other values are meant there.
    """
    found = {}
    for value in model.graph.inputs:
        name = value.name or ""
        spec = subject.inputs.get(name)
        if spec is None or spec.dtype.is_floating_point or spec.dtype == torch.bool:
            continue
        if spec.low is not None and not spec.is_example:
            continue
        rows, default, holds = rows_named(value), subject.default(name), torch.iinfo(spec.dtype)
        if rows is not None and (default is None or rows[0] <= default <= rows[1]):
            low, high = _common([rows, (holds.min, holds.max)])
            found[name] = dataclasses.replace(spec, low=low, high=high, is_example=False)
    return found


def _common(rows: Sequence[Rows]) -> Rows:
    return max(least for least, _ in rows), min(largest for _, largest in rows)


def _follow(value: ir.Value, uses: _Uses, *, is_all: bool) -> None:
    uses.is_used_otherwise |= value.is_graph_output()
    for node, index in value.uses():
        kind, outputs = node.op_type, list(node.outputs)
        rows = _rows(node) if index == 1 else None
        if rows is not None:
            (uses.by_all if is_all else uses.by_some).append(rows)
        elif kind in _ALL and index == 0:
            _follow(outputs[0], uses, is_all=is_all)
        elif kind in _SOME and index == 0:
            for part in outputs:
                _follow(part, uses, is_all=False)
        elif kind == "Scan" and index >= len(node.inputs) - node.attributes["num_scan_inputs"].as_int():
            # A step of the body sees one step of what is scanned, and all of them are.
            _follow(node.attributes["body"].as_graph().inputs[index], uses, is_all=is_all)
        elif not _tells_sizes(node):
            uses.is_used_otherwise = True


def _tells_sizes(node: ir.Node) -> bool:
    """Whether only the sizes of what a node takes matter: `table[ids]` begins with the shape of a Max."""
    behind = [user for output in node.outputs for user, _ in output.uses()]
    return node.op_type in _SIZES or (node.op_type == "Max" and all(map(_tells_sizes, behind)))


def _rows(lookup: ir.Node) -> Rows | None:
    """Return which rows the table has that a node looks up, None if it looks none up."""
    table, indices = lookup.inputs[:2]
    if lookup.op_type not in ("Gather", "GatherND") or table is None or table.shape is None:
        return None
    axis = lookup.attributes.get("axis")
    rows = table.shape[axis.as_int() if axis is not None else 0]
    if not isinstance(rows, int) or not _is_constant(table):
        return None
    if lookup.op_type == "Gather":
        return 0, rows - 1
    batched = lookup.attributes.get("batch_dims")
    return (-rows, rows - 1) if _are_single(indices) and not (batched and batched.as_int()) else None


def _are_single(indices: ir.Value | None) -> bool:
    """Whether each index of a GatherND is one element of its input, with an axis of its own put in behind."""
    node = None if indices is None else indices.producer()
    if node is None or node.op_type != "Unsqueeze" or node.inputs[1] is None:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    return axes is not None and axes.numpy().tolist() == [-1]


def _is_constant(value: ir.Value) -> bool:
    while ir.convenience.get_const_tensor(value) is None:
        node = value.producer()
        if node is None or node.op_type not in ("Cast", "Transpose", "Identity") or node.inputs[0] is None:
            return False
        value = node.inputs[0]
    return True
