"""How taking one element along an axis passes through an operator: `f(x)[:, 1]` as `f'(x[:, 1])`.

A rule takes a `Pass` and returns the operator on what is left of its arguments, or None where every element
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
    """One element asked of a node.

    Attributes:
        source: the node.
        dim: the axis of its value along which one element is asked for.
        take: (node, axis) -> that element of an argument.
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


def left_of(element: Pass) -> Left | None:
    """Return the operator of a node as it gives the one element alone, None if it needs the others too."""
    rule = _RULES.get(element.source.target)
    if rule is not None:
        return rule(element)
    target = element.source.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return Left(target, _aligned(element, element.args))
    return None


def rank(node: Any) -> int:
    """Return the number of axes of a node's value; -1 if it is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, torch.Tensor) else -1


def sizes(node: fx.Node) -> list[str]:
    """Return the sizes of a node's value as texts: symbols are compared by name."""
    return [str(size) for size in node.meta["val"].shape]


def _aligned(element: Pass, values: Any) -> Any:
    """Return arguments broadcast from the right, each with its own element."""
    if isinstance(values, list | tuple):
        return type(values)(_aligned(element, value) for value in values)
    own = element.dim - (element.rank - rank(values))
    return values if rank(values) < 0 or own < 0 else element.take(values, own)


def _first(element: Pass) -> Left | None:
    """An operator of the same axes whose other arguments have none."""
    return Left(element.source.target, (element.take(element.args[0], element.dim), *element.args[1:]))


def _along(place: int) -> Callable[[Pass], Left | None]:
    """An operator along one axis that keeps all of them: its argument `place`, or the last one."""

    def rule(element: Pass) -> Left | None:
        args = list(element.args)
        axis = (args[place] if len(args) > place else -1) % element.rank
        if axis == element.dim:
            return None
        args[0], args[place : place + 1] = element.take(args[0], element.dim), [element.after(axis)]
        return Left(element.source.target, tuple(args))

    return rule


def _reduction(place: int) -> Callable[[Pass], Left | None]:
    """A reduction over the axes in its argument `place`, kept or not as the next argument says."""

    def rule(element: Pass) -> Left | None:
        args = list(element.args)
        wanted = args[place] if len(args) > place else None
        if wanted is None or wanted == []:  # over all axes
            return None
        before = rank(args[0])
        listed = [axis % before for axis in (wanted if isinstance(wanted, list | tuple) else [wanted])]
        keeps = element.rank == before
        own = element.dim if keeps else [axis for axis in range(before) if axis not in listed][element.dim]
        if own in listed:
            return None
        moved = [axis - (axis > own) for axis in listed]
        args[0] = element.take(args[0], own)
        args[place] = moved if isinstance(wanted, list | tuple) else moved[0]
        return Left(element.source.target, tuple(args))

    return rule


def _normalised(element: Pass) -> Left | None:
    """layer_norm and rms_norm: over the last axes."""
    return _first(element) if element.dim < element.rank - len(element.args[1]) else None


def _linear(element: Pass) -> Left | None:
    return _first(element) if element.dim < element.rank - 1 else None


def _embedding(element: Pass) -> Left | None:
    weight, ids, *rest = element.args
    return (
        Left(element.source.target, (weight, element.take(ids, element.dim), *rest))
        if element.dim < rank(ids)
        else None
    )


def _unsqueeze(element: Pass) -> Left | None:
    axis = element.args[1] % element.rank
    return Left(
        element.source.target,
        (element.take(element.args[0], element.dim - (element.dim > axis)), element.after(axis)),
    )


def _squeeze(element: Pass) -> Left | None:
    x, wanted = element.args
    before = rank(x)
    listed = [axis % before for axis in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    if any(sizes(x)[axis] != "1" for axis in listed):
        return None
    own = [axis for axis in range(before) if axis not in listed][element.dim]
    return Left(aten.squeeze.dims, (element.take(x, own), [axis - (axis > own) for axis in listed]))


def _permutation(order: Callable[[Pass], list[int]]) -> Callable[[Pass], Left | None]:
    def rule(element: Pass) -> Left | None:
        axes = [axis % element.rank for axis in order(element)]
        own = axes[element.dim]
        rest = [axis - (axis > own) for place, axis in enumerate(axes) if place != element.dim]
        return Left(aten.permute.default, (element.take(element.args[0], own), rest))

    return rule


def _swapped(element: Pass) -> list[int]:
    axes = list(range(element.rank))
    first, second = (element.args[1], element.args[2]) if len(element.args) > 1 else (0, element.rank - 1)
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def _expand(element: Pass) -> Left | None:
    x, shape = element.args[:2]
    own = element.dim - (element.rank - rank(x))
    rest = [size for axis, size in enumerate(shape) if axis != element.dim]
    return Left(aten.expand.default, (x if own < 0 else element.take(x, own), rest))


def _view(element: Pass) -> Left | None:
    """An axis passes where everything before it, or from it on, is as it was."""
    x, shape = element.args[:2]
    before, now, dim = sizes(x), sizes(element.source), element.dim
    own = dim - (element.rank - rank(x))
    if before[: dim + 1] == now[: dim + 1]:
        own = dim
    elif own < 0 or before[own:] != now[dim:]:
        return None
    return Left(
        aten.reshape.default, (element.take(x, own), [size for axis, size in enumerate(shape) if axis != dim])
    )


def _select(element: Pass) -> Left | None:
    x, axis, index = element.args
    axis %= rank(x)
    own = element.dim + (element.dim >= axis)
    return Left(aten.select.int, (element.take(x, own), axis - (axis > own), index))


def _join(element: Pass) -> Left | None:
    """cat and stack along another axis."""
    parts, axis = element.args[0], (element.args[1] if len(element.args) > 1 else 0) % element.rank
    if axis == element.dim:
        return None
    stacked = element.source.target is aten.stack.default
    own = element.dim - (stacked and element.dim > axis)
    return Left(element.source.target, ([element.take(part, own) for part in parts], element.after(axis)))


def _einsum(element: Pass) -> Left | None:
    equation, parts = element.args[:2]
    sides, _, result = equation.replace(" ", "").partition("->")
    terms = sides.split(",")
    if not result or "." in equation or any(len(set(term)) < len(term) for term in terms):
        return None
    letter = result[element.dim]
    operands = [
        element.take(part, term.index(letter)) if letter in term else part
        for term, part in zip(terms, parts, strict=True)
    ]
    left = ",".join(terms).replace(letter, "")
    return Left(element.source.target, (f"{left}->{result.replace(letter, '')}", operands))


def _product(element: Pass) -> Left | None:
    """mm, bmm, matmul: along a batch axis, or along the rows of the left factor."""
    x, y = element.args
    dim = element.dim
    if rank(y) == 2 and dim < rank(x) - 1:
        return Left(aten.matmul.default, (element.take(x, dim), y))
    if rank(x) != rank(y) or rank(x) < 3:
        return None
    if dim < rank(x) - 2:
        return Left(aten.matmul.default, (_batch(element, x), _batch(element, y)))
    if dim == rank(x) - 2:
        value = element.source.meta["val"].narrow(dim, 0, 1)
        row = element.make(
            aten.unsqueeze.default, (element.take(x, dim), dim), x.meta["val"].narrow(dim, 0, 1)
        )
        product = element.make(aten.matmul.default, (row, y), value)
        return Left(aten.squeeze.dims, (product, [dim]))
    return None


def _batch(element: Pass, x: fx.Node) -> fx.Node:
    return element.take(x, element.dim)


def _pointwise_convolution(element: Pass) -> Left | None:
    """A convolution whose kernel has one element looks at no neighbour."""
    x, weight, *rest = element.args
    dim = element.dim
    plain = all(
        value in (0, 1) for listed in rest[1:3] for value in (listed if isinstance(listed, list) else [])
    )
    if rank(x) != rank(weight) or dim < 2 or sizes(weight)[dim] != "1" or not plain:
        return None  # without a batch, axes of the kernel stand elsewhere
    if sizes(x)[dim] != sizes(element.source)[dim]:
        return None
    row = element.make(aten.unsqueeze.default, (element.take(x, dim), dim), x.meta["val"].narrow(dim, 0, 1))
    value = element.source.meta["val"].narrow(dim, 0, 1)
    return Left(aten.squeeze.dims, (element.make(element.source.target, (row, weight, *rest), value), [dim]))


def _batch_norm(element: Pass) -> Left | None:
    return _first(element) if element.dim >= 2 and element.args[5] is False else None


def _part(element: Pass) -> Left | None:
    """One result of chunk or split along another axis."""
    whole, place = element.args
    if not isinstance(whole, fx.Node) or whole.target not in _SPLITS:
        return None
    x, count, *rest = whole.args
    axis = int(rest[0] if rest else whole.kwargs.get("dim", 0)) % element.rank  # type: ignore[arg-type]
    if axis == element.dim:
        return None
    parts = element.make(
        whole.target, (element.take(x, element.dim), count, element.after(axis)), whole.meta["val"]
    )
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
    aten.permute.default: _permutation(lambda element: list(element.args[1])),
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
