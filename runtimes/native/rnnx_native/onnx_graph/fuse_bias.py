"""Rewriting of a graph before it is lowered: a product and the bias after it become one node."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from rnnx_native.onnx_graph.read import Graph, Node
from rnnx_native.program.values import Array

DENSE = "rnnx:Dense"  # inputs x [..., columns], weight [columns, units], bias [units]


def fuse(graph: Graph, around: Mapping[str, Array] | None = None) -> Graph:
    """Return the graph, and the graphs inside it, with each `MatMul` and `Add` of a bias as one node.

    Args:
        graph: as read.
        around: constants of the graph that this one lies in.
    """
    constants = {**(around or {}), **graph.constants}
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.outputs)
    makers = {name: node for node in graph.nodes for name in node.outputs}
    joined: dict[int, Node] = {}  # by the node that disappears, or changes; names may be the same
    for node in graph.nodes:
        found = _bias_after_product(constants, node, makers, uses) if node.op == "Add" else None
        if found is not None:
            product, bias = found
            joined[id(node)] = dataclasses.replace(
                product, op=DENSE, inputs=(*product.inputs, bias), outputs=node.outputs
            )
            joined[id(product)] = product
    nodes = []
    for node in graph.nodes:
        if id(node) in joined and node.op == "MatMul":
            continue  # its place is that of the bias
        nodes.append(joined.get(id(node), _inside(node, constants)))
    return dataclasses.replace(graph, nodes=nodes)


def _inside(node: Node, constants: Mapping[str, Array]) -> Node:
    """Return a node with the graphs among its attributes rewritten."""
    attributes = {
        key: fuse(value, constants) if isinstance(value, Graph) else value
        for key, value in node.attributes.items()
    }
    return dataclasses.replace(node, attributes=attributes)


def _bias_after_product(
    constants: Mapping[str, Array], node: Node, makers: dict[str, Node], uses: Counter[str]
) -> tuple[Node, str] | None:
    """Return the product and the bias that a sum consists of, if nothing else uses the product."""
    if len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        product, bias = makers.get(value), constants.get(other)
        if (
            product is None
            or product.op != "MatMul"
            or len(product.inputs) != 2
            or bias is None
            or uses[value] != 1
        ):
            continue
        weight = constants.get(product.inputs[1])
        if weight is not None and weight.ndim == 2 and bias.shape == weight.shape[1:]:
            return product, other
    return None
