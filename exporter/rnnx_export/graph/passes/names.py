"""A minimal graph: no dead code, no leftovers of the conversion, names from the module's paths."""

from __future__ import annotations

import re
from collections import Counter

import onnx_ir as ir
import onnx_ir.passes.common as passes

_SCOPES = "pkg.torch.onnx.name_scopes"
_PREFIXES = re.compile(r"^(?:program\.)*(?:module\.)?")


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


def _rename(graph: ir.Graph, keep: set[int], counts: Counter[str], used: set[str]) -> None:
    """Name each node `path/Op_3` and its values after it, subgraphs included."""

    def fresh(stem: str) -> str:
        while True:
            counts[stem] += 1
            name = f"{stem}_{counts[stem]}" if counts[stem] > 1 else stem
            if name not in used:
                used.add(name)
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
                _rename(inner, keep, counts, used)


def _sort_initializers(graph: ir.Graph) -> None:
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    for name, value in ordered:
        graph.initializers[name] = value
