"""How taking one entry along an axis passes through an operator: `f(x)[:, 1]` as `f'(x[:, 1])`.

A rule takes a `Pass` and returns the operator on what is left of its arguments, or None where every entry
depends on others, so that nothing passes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

aten = torch.ops.aten


class Pass(NamedTuple):
    """One entry asked of a node.

    Attributes:
        source: the node.
        dim: the axis of its value along which one entry is asked for.
        take: (node, axis) -> that entry of an argument.
        make: (operator, arguments, value like it) -> a new node, for what has to go around the operator.
    """

    source: fx.Node
    dim: int
    take: Callable[[Any, int], fx.Node]
    make: Callable[[Any, Sequence[Any], torch.Tensor], fx.Node]

    @property
    def args(self) -> tuple[Any, ...]:
        """The node's arguments."""
        return tuple(self.source.args)

    @property
    def rank(self) -> int:
        """Number of axes of the node's value."""
        return rank(self.source)

    def after(self, axis: int) -> int:
        """Return where an axis of the value is once `dim` is gone."""
        return axis - (axis > self.dim)


class Left(NamedTuple):
    """An operator on what is left of its arguments; keyword arguments stay if the operator does."""

    target: Any
    args: tuple[Any, ...]


def left_of(entry: Pass) -> Left | None:
    """Return the operator of a node as it gives the one entry alone, None if it needs the others too."""
    rule = _RULES.get(entry.source.target)
    if rule is not None:
        return rule(entry)
    target = entry.source.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return Left(target, _aligned(entry, entry.args))
    return None


def rank(node: Any) -> int:
    """Return the number of axes of a node's value; -1 if it is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, torch.Tensor) else -1


def sizes(node: fx.Node) -> list[str]:
    """Return the sizes of a node's value as texts: symbols are compared by name."""
    return [str(size) for size in node.meta["val"].shape]


def _aligned(entry: Pass, values: Any) -> Any:
    """Return arguments broadcast from the right, each with its own entry."""
    if isinstance(values, list | tuple):
        return type(values)(_aligned(entry, value) for value in values)
    own = entry.dim - (entry.rank - rank(values))
    return values if rank(values) < 0 or own < 0 else entry.take(values, own)


def _first(entry: Pass) -> Left | None:
    """An operator of the same axes whose other arguments have none."""
    return Left(entry.source.target, (entry.take(entry.args[0], entry.dim), *entry.args[1:]))


def _along(place: int) -> Callable[[Pass], Left | None]:
    """An operator along one axis that keeps all of them; its argument `place` says which."""

    def rule(entry: Pass) -> Left | None:
        args = list(entry.args)
        axis = args[place] % entry.rank
        if axis == entry.dim:
            return None
        args[0], args[place] = entry.take(args[0], entry.dim), entry.after(axis)
        return Left(entry.source.target, tuple(args))

    return rule


def _reduction(place: int) -> Callable[[Pass], Left | None]:
    """A reduction over the axes in its argument `place`, kept or not as the next argument says."""

    def rule(entry: Pass) -> Left | None:
        args = list(entry.args)
        given = args[place] if len(args) > place else None
        if given is None:
            return None
        before = rank(args[0])
        listed = [axis % before for axis in (given if isinstance(given, list | tuple) else [given])]
        keeps = entry.rank == before
        own = entry.dim if keeps else [axis for axis in range(before) if axis not in listed][entry.dim]
        if own in listed:
            return None
        moved = [axis - (axis > own) for axis in listed]
        args[0] = entry.take(args[0], own)
        args[place] = moved if isinstance(given, list | tuple) else moved[0]
        return Left(entry.source.target, tuple(args))

    return rule


def _normalised(entry: Pass) -> Left | None:
    """layer_norm and rms_norm: over the last axes."""
    return _first(entry) if entry.dim < entry.rank - len(entry.args[1]) else None


def _linear(entry: Pass) -> Left | None:
    return _first(entry) if entry.dim < entry.rank - 1 else None


def _embedding(entry: Pass) -> Left | None:
    weight, ids, *rest = entry.args
    return (
        Left(entry.source.target, (weight, entry.take(ids, entry.dim), *rest))
        if entry.dim < rank(ids)
        else None
    )


def _unsqueeze(entry: Pass) -> Left | None:
    axis = entry.args[1] % entry.rank
    return Left(
        entry.source.target, (entry.take(entry.args[0], entry.dim - (entry.dim > axis)), entry.after(axis))
    )


def _squeeze(entry: Pass) -> Left | None:
    x, given = entry.args
    before = rank(x)
    listed = [axis % before for axis in (given if isinstance(given, list | tuple) else [given])]
    if any(sizes(x)[axis] != "1" for axis in listed):
        return None
    own = [axis for axis in range(before) if axis not in listed][entry.dim]
    return Left(aten.squeeze.dims, (entry.take(x, own), [axis - (axis > own) for axis in listed]))


def _permutation(order: Callable[[Pass], list[int]]) -> Callable[[Pass], Left | None]:
    def rule(entry: Pass) -> Left | None:
        axes = [axis % entry.rank for axis in order(entry)]
        own = axes[entry.dim]
        rest = [axis - (axis > own) for place, axis in enumerate(axes) if place != entry.dim]
        return Left(aten.permute.default, (entry.take(entry.args[0], own), rest))

    return rule


def _swapped(entry: Pass) -> list[int]:
    axes = list(range(entry.rank))
    first, second = (entry.args[1], entry.args[2]) if len(entry.args) > 1 else (0, entry.rank - 1)
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def _expand(entry: Pass) -> Left | None:
    x, shape = entry.args[:2]
    own = entry.dim - (entry.rank - rank(x))
    rest = [size for axis, size in enumerate(shape) if axis != entry.dim]
    return Left(aten.expand.default, (x if own < 0 else entry.take(x, own), rest))


def _view(entry: Pass) -> Left | None:
    """An axis passes where everything before it, or from it on, is as it was."""
    x, shape = entry.args[:2]
    before, now, dim = sizes(x), sizes(entry.source), entry.dim
    own = dim - (entry.rank - rank(x))
    if before[: dim + 1] == now[: dim + 1]:
        own = dim
    elif own < 0 or before[own:] != now[dim:]:
        return None
    return Left(
        aten.reshape.default, (entry.take(x, own), [size for axis, size in enumerate(shape) if axis != dim])
    )


def _select(entry: Pass) -> Left | None:
    x, axis, index = entry.args
    axis %= rank(x)
    own = entry.dim + (entry.dim >= axis)
    return Left(aten.select.int, (entry.take(x, own), axis - (axis > own), index))


def _join(entry: Pass) -> Left | None:
    """cat and stack along another axis."""
    parts, axis = entry.args[0], (entry.args[1] if len(entry.args) > 1 else 0) % entry.rank
    if axis == entry.dim:
        return None
    stacked = entry.source.target is aten.stack.default
    own = entry.dim - (stacked and entry.dim > axis)
    return Left(entry.source.target, ([entry.take(part, own) for part in parts], entry.after(axis)))


def _einsum(entry: Pass) -> Left | None:
    equation, parts = entry.args[:2]
    sides, _, result = equation.replace(" ", "").partition("->")
    terms = sides.split(",")
    if not result or "." in equation or any(len(set(term)) < len(term) for term in terms):
        return None
    letter = result[entry.dim]
    taken = [
        entry.take(part, term.index(letter)) if letter in term else part
        for term, part in zip(terms, parts, strict=True)
    ]
    left = ",".join(terms).replace(letter, "")
    return Left(entry.source.target, (f"{left}->{result.replace(letter, '')}", taken))


def _product(entry: Pass) -> Left | None:
    """mm, bmm, matmul: along a batch axis, or along the rows of the left factor."""
    x, y = entry.args
    dim = entry.dim
    if rank(y) == 2 and dim < rank(x) - 1:
        return Left(aten.matmul.default, (entry.take(x, dim), y))
    if rank(x) != rank(y) or rank(x) < 3:
        return None
    if dim < rank(x) - 2:
        return Left(aten.matmul.default, (_batch(entry, x), _batch(entry, y)))
    if dim == rank(x) - 2:
        value = entry.source.meta["val"].narrow(dim, 0, 1)
        row = entry.make(aten.unsqueeze.default, (entry.take(x, dim), dim), x.meta["val"].narrow(dim, 0, 1))
        product = entry.make(aten.matmul.default, (row, y), value)
        return Left(aten.squeeze.dims, (product, [dim]))
    return None


def _batch(entry: Pass, x: fx.Node) -> fx.Node:
    return entry.take(x, entry.dim)


def _pointwise_convolution(entry: Pass) -> Left | None:
    """A convolution whose kernel has one entry looks at no neighbour."""
    x, weight, *rest = entry.args
    dim = entry.dim
    plain = all(
        value in (0, 1) for listed in rest[1:3] for value in (listed if isinstance(listed, list) else [])
    )
    if dim < 2 or sizes(weight)[dim] != "1" or not plain or sizes(x)[dim] != sizes(entry.source)[dim]:
        return None
    row = entry.make(aten.unsqueeze.default, (entry.take(x, dim), dim), x.meta["val"].narrow(dim, 0, 1))
    value = entry.source.meta["val"].narrow(dim, 0, 1)
    return Left(aten.squeeze.dims, (entry.make(entry.source.target, (row, weight, *rest), value), [dim]))


def _batch_norm(entry: Pass) -> Left | None:
    return _first(entry) if entry.dim >= 2 and entry.args[5] is False else None


def _part(entry: Pass) -> Left | None:
    """One result of chunk or split along another axis."""
    whole, place = entry.args
    if not isinstance(whole, fx.Node) or whole.target not in _SPLITS:
        return None
    x, count, *rest = whole.args
    axis = int(rest[0] if rest else whole.kwargs.get("dim", 0)) % entry.rank  # type: ignore[arg-type]
    if axis == entry.dim:
        return None
    parts = entry.make(whole.target, (entry.take(x, entry.dim), count, entry.after(axis)), whole.meta["val"])
    return Left(operator.getitem, (parts, place))


_SPLITS = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_RULES: dict[Any, Callable[[Pass], Left | None]] = {
    aten.linear.default: _linear,
    aten.embedding.default: _embedding,
    aten.layer_norm.default: _normalised,
    aten.rms_norm.default: _normalised,
    aten.batch_norm.default: _batch_norm,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.permute.default: _permutation(lambda entry: list(entry.args[1])),
    aten.transpose.int: _permutation(_swapped),
    aten.t.default: _permutation(_swapped),
    aten.expand.default: _expand,
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten._unsafe_view.default: _view,
    aten.select.int: _select,
    aten.slice.Tensor: _along(1),
    aten.cat.default: _join,
    aten.stack.default: _join,
    aten.einsum.default: _einsum,
    operator.getitem: _part,
    **dict.fromkeys((aten._to_copy.default, aten.to.dtype), _first),
    **dict.fromkeys(
        (
            aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten.glu.default,
            aten.cumsum.default, aten.cumprod.default,
        ),
        _along(1),
    ),
    **dict.fromkeys(
        (
            aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default, aten.var.correction,
            aten.logsumexp.default, aten.argmax.default, aten.prod.dim_int, aten.any.dim, aten.all.dim,
        ),
        _reduction(1),
    ),
    aten.linalg_vector_norm.default: _reduction(2),
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.matmul.default), _product),
    **dict.fromkeys(_CONVOLUTIONS, _pointwise_convolution),
}  # fmt: skip
