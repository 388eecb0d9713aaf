"""Graphs of torch operators whose nodes know their values: what is added is computed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx


class Values:
    """A graph with an output, to which operators are added; each node's value lies in its `meta["val"]`."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.graph.output(())

    def tensor(self, value: Tensor) -> fx.Node:
        """Return a new input of that value."""
        with self.graph.inserting_before(self.graph.output_node()):
            node = self.graph.placeholder(f"input_{len(self.graph.nodes)}")
        node.meta["val"] = value
        return node

    def call(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> fx.Node:
        """Return a new node of an operator's value; tensors among its arguments become inputs."""
        given, named = self._nodes(list(args)), self._nodes(dict(kwargs or {}))
        with self.graph.inserting_before(self.graph.output_node()):
            node = self.graph.call_function(target, tuple(given), named)
        node.meta["val"] = target(*value_of(given), **value_of(named))
        return node

    def _nodes(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, list | tuple):
            return type(value)(self._nodes(part) for part in value)
        if isinstance(value, dict):
            return {key: self._nodes(part) for key, part in value.items()}
        return value


def value_of(value: Any) -> Any:
    """Return arguments with the values of their nodes."""
    return fx.map_arg(value, lambda node: node.meta["val"])


def computed(node: fx.Node) -> Any:
    """Return the value of a node, computed anew from the inputs."""
    known: dict[fx.Node, Any] = {}

    def compute(one: fx.Node) -> Any:
        if one not in known:
            args, kwargs = fx.map_arg(one.args, compute), fx.map_arg(one.kwargs, compute)
            known[one] = one.meta["val"] if one.op == "placeholder" else one.target(*args, **kwargs)  # type: ignore[operator]
        return known[one]

    with torch.no_grad():
        return compute(node)
