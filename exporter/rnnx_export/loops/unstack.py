"""Seeing single steps through the operators that stack, cut and fill a time axis."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from rnnx_export.loops.select_rules import Pass, left_of

aten = torch.ops.aten
_EVERYTHING = 2**62
LIKE = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default)
_NEW = {
    aten.new_zeros.default: aten.zeros.default,
    aten.new_ones.default: aten.ones.default,
    aten.new_full.default: aten.full.default,
}
_RESHAPES = (aten.expand.default, aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_COUNTS = (aten.arange.default, aten.arange.start, aten.arange.start_step)


class MismatchError(Exception):
    """The steps differ in more than their inputs and carried values."""


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
        self._replaced: dict[int, tuple[Mapping[fx.Node, fx.Node], dict[fx.Node, fx.Node]]] = {}

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
        if node.target in _RESHAPES and _same_shape(node, node.args[0]):
            return self.simplify(node.args[0])  # type: ignore[arg-type]
        if node.target is aten.copy.default and _same_shape(node.args[0], node.args[1]):
            return self.simplify(node.args[1])  # type: ignore[arg-type]
        if node.target is aten.slice_scatter.default and _whole(node, 1):
            return self.simplify(node.args[1])  # type: ignore[arg-type]
        if node.target is aten.slice.Tensor and (place := _single(node)) is not None:
            axis = int(node.args[1])  # type: ignore[arg-type]
            element = self.select(node.args[0], axis, place)  # type: ignore[arg-type]
            return self._made(aten.unsqueeze.default, (element, axis), node.meta["val"])
        if node.target is aten.select.int:
            return self.select(node.args[0], int(node.args[1]), node.args[2])  # type: ignore[arg-type]
        if node.target is aten.cat.default and (parts := _joined_parts(node)) is not None:
            if len(parts) == 1:
                return self.simplify(parts[0])
            return self._made(aten.cat.default, (parts, _dim(node, 1)), node.meta["val"])
        if node.target is aten.vstack.default:
            flat = all(part.meta["val"].dim() == 1 for part in node.args[0])  # type: ignore[union-attr]
            join = aten.stack.default if flat else aten.cat.default
            return self._made(join, (node.args[0], 0), node.meta["val"])
        if node.target is operator.getitem and _is(node.args[0], aten.unbind.int):
            source = node.args[0]
            dim = source.args[1] if len(source.args) > 1 else source.kwargs.get("dim", 0)  # type: ignore[union-attr]
            return self.select(source.args[0], int(dim), node.args[1])  # type: ignore[union-attr, arg-type]
        if node.target is operator.getitem and _is(node.args[0], aten.split.Tensor):
            pieces: fx.Node = node.args[0]  # type: ignore[assignment]
            source, size = pieces.args[0], int(pieces.args[1])  # type: ignore[arg-type]
            dim, start = _dim(pieces, 2), int(node.args[1]) * size  # type: ignore[arg-type]
            return self._made(aten.slice.Tensor, (source, dim, start, start + size), node.meta["val"])
        if node.target in (aten.squeeze.dim, aten.squeeze.dims):
            dims = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
            if len(dims) == 1 and _size(node.args[0], int(dims[0])) == 1:  # type: ignore[arg-type]
                return self.select(node.args[0], int(dims[0]), 0)  # type: ignore[arg-type]
        if (count := self._count(node)) is not None:
            return count
        if node.target in _NEW:
            # Only the size and the dtype matter, not what the tensor is made like.
            return self._new_like(node, node.args[1:], _NEW[node.target], {"dtype": node.meta["val"].dtype})
        return self._unique(node)

    def _count(self, node: fx.Node) -> fx.Node | None:
        """Return `(n + 1) + 2` of whole numbers as `n + 3`, None where there is nothing to add up."""
        base, total = _whole_sum(node)
        if base is None:
            return None
        base = self.simplify(base)
        inner, more = _whole_sum(base)
        args = (base, total) if inner is None else (inner, total + more)
        return None if args == node.args else self._made(aten.add.Tensor, args, node.meta["val"])

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

    def select(self, source: fx.Node, dim: int, index: Any) -> fx.Node:
        """Return source[.., index, ..] along `dim`, as simple as it gets."""
        source = self.simplify(source)
        rank = source.meta["val"].dim()
        dim %= rank
        size = _size(source, dim)
        if not isinstance(index, int) or size is None:
            return self._new(aten.select.int, (source, dim, index), source, dim)
        if not -size <= index < size:
            raise MismatchError  # this step is one that the chunk does not have
        index %= size
        key = (source, dim, index)
        if key not in self._selected:
            self._selected[key] = self._pushed(source, dim, index)
        return self._selected[key]

    def replace(self, node: fx.Node, values: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Return a node with others in place of some that it is computed from."""
        node = self.simplify(node)
        if node in values:
            return self.simplify(values[node])
        if not values or node.op != "call_function":
            return node
        # A node that many share is looked at once. The mapping is kept, so that its identity stays its own.
        done = self._replaced.setdefault(id(values), (values, {}))[1]
        if node not in done:
            done[node] = self._replaced_in(node, values)
        return done[node]

    def _replaced_in(self, node: fx.Node, values: Mapping[fx.Node, fx.Node]) -> fx.Node:
        def other(value: Any) -> Any:
            return fx.map_arg(value, lambda part: self.replace(part, values))

        args, kwargs = other(node.args), other(node.kwargs)
        if args == node.args and kwargs == node.kwargs:
            return node
        with self._graph.inserting_before(self._graph.output_node()):
            new = self._graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
        new.meta["val"] = node.meta["val"]
        return self.simplify(new)

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
                    return self.select(part, dim, index)  # type: ignore[arg-type]
                index -= size
        if target is aten.select_scatter.default and int(args[2]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            if int(args[3]) % (_size(source, dim) or 1) == index:  # type: ignore[arg-type]
                return self.simplify(args[1])  # type: ignore[arg-type]
            return self.select(args[0], dim, index)  # type: ignore[arg-type]
        if target is aten.cumsum.default and int(args[1]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            element = self.select(args[0], dim, index)  # type: ignore[arg-type]
            before = self._pushed(source, dim, index - 1) if index else self._zeros(element)
            return self._made(aten.add.Tensor, (before, element), element.meta["val"])
        if (sums := _from_start(source, dim)) is not None:
            first, part = sums
            element = self.select(part, dim, index)
            before = self._pushed(source, dim, index - 1) if index else self.select(first, dim, 0)
            return self._made(aten.add.Tensor, (before, element), element.meta["val"])
        if target is aten.slice.Tensor and int(args[1]) % source.meta["val"].dim() == dim:  # type: ignore[arg-type]
            start = int(args[2]) if len(args) > 2 and args[2] is not None else 0  # type: ignore[arg-type]
            known = _size(args[0], dim)  # type: ignore[arg-type]
            start = max(0, start + known) if start < 0 and known is not None else start
            if start >= 0 and (len(args) < 5 or args[4] == 1):
                return self.select(args[0], dim, start + index)  # type: ignore[arg-type]
        if target in _COUNTS:
            low, stride = (0, 1) if len(args) == 1 else (args[0], args[2] if len(args) > 2 else 1)
            if isinstance(low, int) and isinstance(stride, int):
                dtype = {"dtype": source.meta["val"].dtype}
                return self._new(aten.scalar_tensor.default, (low + stride * index,), source, dim, dtype)
        left = left_of(Pass(source, dim, lambda node, own: self._entry(node, own, index), self._made))
        if left is not None:
            kwargs = dict(source.kwargs) if left.target is source.target else {}
            return self._new(left.target, left.args, source, dim, kwargs)
        return self._new(aten.select.int, (source, dim, index), source, dim)

    def _zeros(self, node: fx.Node) -> fx.Node:
        return self._made(aten.zeros_like.default, (node,), node.meta["val"])

    def _entry(self, node: fx.Node, dim: int, index: int) -> fx.Node:
        """Return node[.., index, ..]; an axis of one element is broadcast."""
        return self.select(node, dim, 0 if _size(node, dim) == 1 else index)

    def _made(self, target: Any, args: Sequence[Any], value: Any) -> fx.Node:
        """Return a new node of a value like `value`."""
        with self._graph.inserting_before(self._graph.output_node()):
            node = self._graph.call_function(target, tuple(args))
        node.meta["val"] = value
        return self._remember(node)

    def _new(
        self, target: Any, args: Any, source: fx.Node, dim: int, kwargs: dict[str, Any] | None = None
    ) -> fx.Node:
        with self._graph.inserting_before(self._graph.output_node()):
            node = self._graph.call_function(target, tuple(args), kwargs or {})
        value = source.meta["val"]
        node.meta["val"] = value.select(dim, 0) if isinstance(value, torch.Tensor) else value
        return self._remember(node)

    def _new_like(self, source: fx.Node, args: Any, target: Any, kwargs: dict[str, Any]) -> fx.Node:
        with self._graph.inserting_before(self._graph.output_node()):
            node = self._graph.call_function(target, tuple(args), kwargs)
        node.meta["val"] = source.meta["val"]
        return self._remember(node)

    def _remember(self, node: fx.Node) -> fx.Node:
        """Return the first node that computes what a new one does."""
        found = self._count(node) or self._unique(node)
        self._done[node] = found
        self._done.setdefault(found, found)
        return found


def _is(value: Any, target: Any) -> bool:
    return isinstance(value, fx.Node) and value.target is target


def _dim(node: fx.Node, place: int) -> int:
    return int(node.args[place]) if len(node.args) > place else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]


def _size(node: fx.Node, dim: int) -> int | None:
    """Return the size of an axis where it is a number."""
    size = str(node.meta["val"].shape[dim])
    return int(size) if size.isdigit() else None


def _joined_parts(node: fx.Node) -> list[fx.Node] | None:
    """Return what a join is made of, where beside it there is a tensor of shape [0], which PyTorch skips."""
    parts: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    value = node.meta["val"]
    left = [part for part in parts if part.meta["val"].dim() > 1 or _size(part, 0) != 0]
    same = all(part.meta["val"].dtype == value.dtype for part in left)
    return left if value.dim() > 1 and len(left) < len(parts) and same else None


def _from_start(node: fx.Node, dim: int) -> tuple[fx.Node, fx.Node] | None:
    """Return start and part of `start + cumsum(part, dim)`, None if a node is no such sum."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    rank = node.meta["val"].dim()
    for start, sums in (node.args, node.args[::-1]):
        if not isinstance(start, fx.Node) or not isinstance(sums, fx.Node):
            return None
        fits = sums.target is aten.cumsum.default and _dim(sums, 1) % rank == dim and _same_shape(node, sums)
        if fits and start.meta["val"].dim() == rank and _size(start, dim) == 1:
            return start, sums.args[0]  # type: ignore[return-value]
    return None


def _whole_sum(node: fx.Node) -> tuple[fx.Node | None, int]:
    """Return n and k of `n + k`, whole numbers of which k is a constant; None where a node is no such sum."""
    value = node.meta.get("val")
    whole = isinstance(value, torch.Tensor) and value.dtype in (torch.int64, torch.int32)
    if node.target is not aten.add.Tensor or node.kwargs or not whole:
        return None, 0
    for base, count in (node.args, node.args[::-1]):
        if isinstance(count, fx.Node) and count.target is aten.scalar_tensor.default:
            count = count.args[0]
        fits = isinstance(base, fx.Node) and isinstance(count, int) and _same_shape(base, node)
        if fits:
            return base, count  # type: ignore[return-value]
    return None, 0


def _same_shape(left: Any, right: Any) -> bool:
    a, b = left.meta["val"], right.meta["val"]
    return bool(a.dtype == b.dtype) and [str(size) for size in a.shape] == [str(size) for size in b.shape]


def _single(node: fx.Node) -> int | None:
    """Return which one element a slice takes, None if it takes more."""
    start, end, step = (node.args[place] if len(node.args) > place else None for place in (2, 3, 4))
    if not isinstance(start, int) or not isinstance(end, int) or step not in (None, 1):
        return None
    known = _size(node.args[0], int(node.args[1]))  # type: ignore[arg-type]
    return start if known is not None and 0 <= start < known and end == start + 1 else None


def _whole(node: fx.Node, extra: int = 0) -> bool:
    """Whether a slice takes everything; `extra` arguments stand before its axis."""
    args = node.args[extra:]
    start = args[2] if len(args) > 2 else None
    end = args[3] if len(args) > 3 else None
    step = args[4] if len(args) > 4 else 1
    return bool(
        start in (None, 0) and (end is None or (isinstance(end, int) and end >= _EVERYTHING)) and step == 1
    )
