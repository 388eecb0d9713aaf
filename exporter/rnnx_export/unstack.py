"""Seeing single steps through the operators that stack, cut and fill a time axis."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
_EVERYTHING = 2**62
LIKE = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default)
_NEW = {
    aten.new_zeros.default: aten.zeros.default,
    aten.new_ones.default: aten.ones.default,
    aten.new_full.default: aten.full.default,
}


class Unstacker:
    """Simplifies nodes of one graph: `stack([a, b])[1]` is b, `f(x)[:, 1]` is `f(x[:, 1])`.

    Args:
        graph: where new nodes go, at its end; nothing in it is changed.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._done: dict[fx.Node, fx.Node] = {}
        self._selected: dict[tuple[fx.Node, int, int], fx.Node] = {}
        self._known: dict[Any, fx.Node] = {}

    def simplify(self, node: fx.Node) -> fx.Node:
        """Return the simplest node of the same value."""
        if node not in self._done:
            found = self._simplify(node)
            self._done[node] = found
            self._done.setdefault(found, found)
        return self._done[node]

    def _simplify(self, node: fx.Node) -> fx.Node:
        if node.op != "call_function":
            return node
        if node.target is aten.clone.default or (node.target is aten.slice.Tensor and _whole(node)):
            return self.simplify(node.args[0])  # type: ignore[arg-type]
        if node.target is aten.copy.default and _same_shape(node.args[0], node.args[1]):
            return self.simplify(node.args[1])  # type: ignore[arg-type]
        if node.target is aten.slice_scatter.default and _whole(node, 1):
            return self.simplify(node.args[1])  # type: ignore[arg-type]
        if node.target is aten.select.int:
            return self._select(node.args[0], int(node.args[1]), node.args[2])  # type: ignore[arg-type]
        if node.target is operator.getitem and _is(node.args[0], aten.unbind.int):
            source = node.args[0]
            dim = source.args[1] if len(source.args) > 1 else source.kwargs.get("dim", 0)  # type: ignore[union-attr]
            return self._select(source.args[0], int(dim), node.args[1])  # type: ignore[union-attr, arg-type]
        if node.target in (aten.squeeze.dim, aten.squeeze.dims):
            dims = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
            if len(dims) == 1 and _size(node.args[0], int(dims[0])) == 1:  # type: ignore[arg-type]
                return self._select(node.args[0], int(dims[0]), 0)  # type: ignore[arg-type]
        if node.target in _NEW:
            # Only the size and the dtype matter, not what the tensor is made like.
            return self._new_like(node, node.args[1:], _NEW[node.target], {"dtype": node.meta["val"].dtype})
        return self._unique(node)

    def _unique(self, node: fx.Node) -> fx.Node:
        """Return the first node seen that computes the same from the same."""

        def key(value: Any) -> Any:
            if isinstance(value, fx.Node):
                return ("node", self.simplify(value))
            if isinstance(value, list | tuple):
                return tuple(key(part) for part in value)
            return (type(value), value)

        identity = (node.target, key(node.args), key(tuple(sorted(node.kwargs.items()))))
        return self._known.setdefault(identity, node)

    def _select(self, source: fx.Node, dim: int, index: Any) -> fx.Node:
        source = self.simplify(source)
        rank = source.meta["val"].dim()
        dim %= rank
        size = _size(source, dim)
        if not isinstance(index, int) or size is None:
            return self._new(aten.select.int, (source, dim, index), source, dim)
        index %= size
        key = (source, dim, index)
        if key not in self._selected:
            self._selected[key] = self._pushed(source, dim, index)
        return self._selected[key]

    def _pushed(self, source: fx.Node, dim: int, index: int) -> fx.Node:
        """Return source[.., index, ..] along `dim`, taken as far towards the inputs as it goes."""
        target, args = source.target, source.args
        if target is aten.stack.default and _dim(source, 1) % source.meta["val"].dim() == dim:
            return self.simplify(args[0][index])  # type: ignore[index, arg-type]
        if target is aten.unsqueeze.default and int(args[1]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            return self.simplify(args[0])  # type: ignore[arg-type]
        if target is aten.cat.default and _dim(source, 1) % source.meta["val"].dim() == dim:
            for part in args[0]:  # type: ignore[union-attr]
                size = _size(part, dim)  # type: ignore[arg-type]
                if size is None:
                    break
                if index < size:
                    return self._select(part, dim, index)  # type: ignore[arg-type]
                index -= size
        if target is aten.select_scatter.default and int(args[2]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            if int(args[3]) % (_size(source, dim) or 1) == index:  # type: ignore[arg-type]
                return self.simplify(args[1])  # type: ignore[arg-type]
            return self._select(args[0], dim, index)  # type: ignore[arg-type]
        if target is aten.slice.Tensor and int(args[1]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            start = int(args[2]) if len(args) > 2 and args[2] is not None else 0  # type: ignore[arg-type]
            if start >= 0 and (len(args) < 5 or args[4] == 1):
                return self._select(args[0], dim, start + index)  # type: ignore[arg-type]
        if _each_step_alone(source, dim):
            return self._through(source, dim, index)
        return self._new(aten.select.int, (source, dim, index), source, dim)

    def _through(self, source: fx.Node, dim: int, index: int) -> fx.Node:
        """Return a pointwise or last-axis operator applied to the one step of its arguments."""
        rank = source.meta["val"].dim()

        def step(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(step(part) for part in value)
            if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), torch.Tensor):
                return value
            own = dim - (rank - value.meta["val"].dim())
            if own < 0:
                return value
            return self._select(value, own, 0 if _size(value, own) == 1 else index)

        if source.target is aten.linear.default:
            args: tuple[Any, ...] = (step(source.args[0]), *source.args[1:])
        elif source.target is operator.getitem:
            whole = source.args[0]
            assert isinstance(whole, fx.Node)
            inner = self._new_like(whole, (step(whole.args[0]), *whole.args[1:]))
            args = (inner, source.args[1])
        else:
            args = step(tuple(source.args))
        return self._new(source.target, args, source, dim, dict(source.kwargs))

    def _new(
        self, target: Any, args: Any, source: fx.Node, dim: int, kwargs: dict[str, Any] | None = None
    ) -> fx.Node:
        output = self._graph.output_node()
        with self._graph.inserting_before(output):
            node = self._graph.call_function(target, tuple(args), kwargs or {})
        value = source.meta["val"]
        node.meta["val"] = value.select(dim, 0) if isinstance(value, torch.Tensor) else value
        found = self._unique(node)
        self._done[node] = found
        self._done.setdefault(found, found)
        return found

    def _new_like(
        self, source: fx.Node, args: Any, target: Any = None, kwargs: dict[str, Any] | None = None
    ) -> fx.Node:
        output = self._graph.output_node()
        with self._graph.inserting_before(output):
            node = self._graph.call_function(
                target or source.target,  # type: ignore[arg-type]
                tuple(args),
                dict(source.kwargs) if kwargs is None else kwargs,
            )
        node.meta["val"] = source.meta["val"]
        found = self._unique(node)
        self._done[node] = found
        self._done.setdefault(found, found)
        return found


def _each_step_alone(node: fx.Node, dim: int) -> bool:
    """Whether an operator treats every entry along `dim` by itself."""
    target = node.target
    rank = node.meta["val"].dim() if isinstance(node.meta.get("val"), torch.Tensor) else 0
    if target is aten.linear.default:
        return dim < rank - 1
    if target is operator.getitem:
        whole = node.args[0]
        if (
            not _is(whole, aten.chunk.default)
            and not _is(whole, aten.split.Tensor)
            and not _is(whole, aten.split_with_sizes.default)
        ):
            return False
        along = whole.args[2] if len(whole.args) > 2 else 0  # type: ignore[union-attr]
        return isinstance(along, int) and along < 0 and along % rank != dim
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags


def _is(value: Any, target: Any) -> bool:
    return isinstance(value, fx.Node) and value.target is target


def _dim(node: fx.Node, place: int) -> int:
    return int(node.args[place]) if len(node.args) > place else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]


def _size(node: fx.Node, dim: int) -> int | None:
    """Return the size of an axis where it is a number."""
    size = str(node.meta["val"].shape[dim])
    return int(size) if size.isdigit() else None


def _same_shape(left: Any, right: Any) -> bool:
    a, b = left.meta["val"], right.meta["val"]
    return bool(a.dtype == b.dtype) and [str(size) for size in a.shape] == [str(size) for size in b.shape]


def _whole(node: fx.Node, extra: int = 0) -> bool:
    """Whether a slice takes everything; `extra` arguments stand before its axis."""
    args = node.args[extra:]
    start = args[2] if len(args) > 2 else None
    end = args[3] if len(args) > 3 else None
    step = args[4] if len(args) > 4 else 1
    return bool(
        start in (None, 0) and (end is None or (isinstance(end, int) and end >= _EVERYTHING)) and step == 1
    )
