"""How a selection passes through an operator: `f(x).select(d, i)` is `f'(x.select(d', i))`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx

from rnnx_export.loops import select_rules
from rnnx_export.loops.select_rules import Pass, left_of
from support.chunks import FEW, Some, normal, some_of
from support.graph_values import Values, value_of

aten = torch.ops.aten


class Asked(NamedTuple):
    """An operator on tensors of random sizes.

    Attributes:
        args, kwargs: of the operator; a split's, for the one of its pieces that is asked for.
        through: the axes of its value along which a selection passes; along all others none must.
        kept: an axis that no rule is asked about, for it is the operator's own doing.
        split: the operator that makes the pieces.
    """

    args: tuple[Any, ...]
    through: Iterable[int]
    kwargs: dict[str, Any] | None = None
    kept: int | None = None
    split: Any = None


Row = Callable[[Some], Asked]


def sizes(some: Some, least: int = 1, most: int = 4) -> list[int]:
    return [some(1, 4) for _ in range(some(least, most))]


def others(rank: int, *axes: int) -> list[int]:
    return [axis for axis in range(rank) if axis not in [one % rank for one in axes]]


def any_axis(some: Some, rank: int) -> int:
    return some(-rank, rank - 1)


def linear(some: Some) -> Asked:
    shape = sizes(some, 2)
    bias = (normal(3),) if some(0, 1) else ()
    return Asked((normal(*shape), normal(3, shape[-1]), *bias), others(len(shape), -1))


def embedding(some: Some) -> Asked:
    shape = sizes(some)
    return Asked((normal(5, 3), torch.randint(0, 5, shape)), range(len(shape)))


def normalised(some: Some) -> Asked:
    shape, count = sizes(some, 2), some(1, 2)
    weight = (normal(*shape[-count:]),) if some(0, 1) else ()
    return Asked((normal(*shape), shape[-count:], *weight), range(len(shape) - count))


def batch_norm(some: Some) -> Asked:
    """With the statistics that were learned; those of the batch need all of it."""
    shape, training = [some(2, 4) for _ in range(some(2, 4))], some(0, 3) == 0
    statistics = [normal(shape[1]) for _ in range(3)]
    args = (normal(*shape), *statistics, normal(shape[1]).abs() + 1, training, 0.0, 1e-5, False)
    return Asked(args, [] if training else range(2, len(shape)))


def unsqueeze(some: Some) -> Asked:
    shape = sizes(some, 1, 3)
    rank = len(shape) + 1
    axis = any_axis(some, rank)
    return Asked((normal(*shape), axis), others(rank, axis), kept=axis % rank)


def squeeze(some: Some) -> Asked:
    """An axis of more than one element stays; whether it does may depend on a size then."""
    shape = sizes(some, 2)
    axis = any_axis(some, len(shape))
    shape[axis] = some(1, 2)
    return Asked((normal(*shape), axis), range(len(shape) - 1) if shape[axis] == 1 else [])


def squeeze_several(some: Some) -> Asked:
    shape = [1, *sizes(some, 1, 2), 1]
    rank = len(shape)
    axes = ([0, -1], [rank - 1], [-rank])[some(0, 2)]
    return Asked((normal(*shape), axes), range(rank - len(axes)))


def permuted(some: Some) -> Asked:
    shape = sizes(some)
    order = [axis - len(shape) * some(0, 1) for axis in torch.randperm(len(shape)).tolist()]
    return Asked((normal(*shape), order), range(len(shape)))


def swapped(some: Some) -> Asked:
    shape = sizes(some)
    axes = any_axis(some, len(shape)), any_axis(some, len(shape))
    return Asked((normal(*shape), *axes), range(len(shape)))


def turned(some: Some) -> Asked:
    shape = sizes(some, 1, 2)
    return Asked((normal(*shape),), range(len(shape)))


def expanded(some: Some) -> Asked:
    """Axes of one element are wider, others kept by their size or by -1, and new ones stand in front."""
    shape, new = sizes(some, 1, 3), [some(1, 3) for _ in range(some(0, 2))]
    wanted = [some(1, 3) if size == 1 else (size, -1)[some(0, 1)] for size in shape]
    return Asked((normal(*shape), [*new, *wanted]), range(len(new) + len(shape)))


def viewed(some: Some) -> Asked:
    """Two axes made one, or one made two: what stands around them, of sizes of its own, passes."""
    before, after = [7, 5][: some(0, 2)], [11, 13][: some(0, 2)]
    apart, joined = [*before, 2, 3, *after], [*before, 6, *after]
    shape, wanted = (apart, joined) if some(0, 1) else (joined, apart)
    passing = [axis for axis, size in enumerate(wanted) if size in (*before, *after)]
    if some(0, 1):
        wanted[some(0, len(wanted) - 1)] = -1
    return Asked((normal(*shape), wanted), passing)


def selected(some: Some) -> Asked:
    shape = sizes(some, 2)
    axis = any_axis(some, len(shape))
    return Asked((normal(*shape), axis, any_axis(some, shape[axis])), range(len(shape) - 1))


def sliced(some: Some) -> Asked:
    shape = sizes(some)
    axis = any_axis(some, len(shape))
    rest = ((2**62,), (2**62, 2), ())[some(0, 2)]
    return Asked((normal(*shape), axis, any_axis(some, shape[axis]), *rest), others(len(shape), axis))


def joined(some: Some) -> Asked:
    shape = sizes(some)
    axis = any_axis(some, len(shape))
    parts = [normal(*shape[:axis], some(1, 3), *shape[axis:][1:]) for _ in range(some(1, 3))]
    return Asked((parts, *([axis] if axis else [])), others(len(shape), axis))


def stacked(some: Some) -> Asked:
    shape = sizes(some, 1, 3)
    axis = any_axis(some, len(shape) + 1)
    parts = [normal(*shape) for _ in range(some(1, 3))]
    return Asked((parts, *([axis] if axis else [])), others(len(shape) + 1, axis))


def einsum(some: Some) -> Asked:
    """Sums over letters, elements of one broadcast; not what is repeated, left open or without a result."""
    b, i, j, k = (some(1, 3) for _ in range(4))
    rows: list[tuple[str, list[Tensor], int]] = [
        ("bij,bjk->bik", [normal(b, i, j), normal(b, j, k)], 3),
        ("b i j, k j -> k b i", [normal(b, i, j), normal(k, j)], 3),
        ("bi,bj->bij", [normal(1, i), normal(b, j)], 3),
        ("bij->bj", [normal(b, i, j)], 2),
        ("bij,bjk", [normal(b, i, j), normal(b, j, k)], 0),
        ("...ij,...jk->...ik", [normal(b, i, j), normal(b, j, k)], 0),
        ("bii->bi", [normal(b, i, i)], 0),
    ]
    equation, parts, passing = rows[some(0, len(rows) - 1)]
    return Asked((equation, parts), range(passing))


def piece(way: str, some: Some) -> Asked:
    shape = sizes(some)
    axis = any_axis(some, len(shape))
    shape[axis] = size = some(2, 5)
    first = some(1, size - 1)
    split, count = {
        "chunk": (aten.chunk.default, 2),
        "split": (aten.split.Tensor, (size + 1) // 2),
        "sizes": (aten.split_with_sizes.default, [first, size - first]),
    }[way]
    args = (normal(*shape), count, *([axis] if axis else []))
    return Asked(args, others(len(shape), axis), split=split)


def any_piece(some: Some) -> Asked:
    return piece(("chunk", "split", "sizes")[some(0, 2)], some)


def converted(some: Some) -> Asked:
    shape = sizes(some)
    return Asked((normal(*shape),), range(len(shape)), {"dtype": torch.float32})


def converted_to(some: Some) -> Asked:
    shape = sizes(some)
    return Asked((normal(*shape), torch.int32), range(len(shape)))


def along(some: Some, *rest: Any) -> Asked:
    shape = sizes(some)
    axis = any_axis(some, len(shape))
    return Asked((normal(*shape), axis, *rest), others(len(shape), axis))


def half_gated(some: Some) -> Asked:
    """Along the last axis where none is named."""
    shape = sizes(some)
    axis = any_axis(some, len(shape)) if some(0, 1) else -1
    shape[axis] = 2 * some(1, 2)
    return Asked((normal(*shape), *([axis] if axis != -1 else [])), others(len(shape), axis))


def reduced(
    some: Some, *, least: int = 0, before: tuple[Any, ...] = (), named: bool = False, **kwargs: Any
) -> Asked:
    """Over one axis, several, or all of them if none is named, kept or not."""
    shape, keeps = sizes(some, 1, 4), bool(some(0, 1))
    count = some(least, max(least, len(shape) - 1))
    axes = [axis - len(shape) * some(0, 1) for axis in torch.randperm(len(shape)).tolist()[:count]]
    left: Iterable[int] = others(len(shape), *axes) if keeps else range(len(shape) - count)
    if not axes:  # all of them
        left = []
    if named:
        return Asked((normal(*shape), *before, axes), left, {"keepdim": keeps, **kwargs})
    return Asked((normal(*shape), *before, axes, *([True] if keeps else [])), left)


def reduced_over_one(some: Some) -> Asked:
    shape, keeps = sizes(some), bool(some(0, 1))
    axis = any_axis(some, len(shape))
    left = others(len(shape), axis) if keeps else range(len(shape) - 1)
    return Asked((normal(*shape), axis, *([True] if keeps else [])), left)


def product(some: Some) -> Asked:
    n, k, m = (some(1, 3) for _ in range(3))
    return Asked((normal(n, k), normal(k, m)), [0])


def batch_product(some: Some) -> Asked:
    b, n, k, m = (some(1, 3) for _ in range(4))
    return Asked((normal(b, n, k), normal(b, k, m)), [0, 1])


def any_product(some: Some) -> Asked:
    """Matrices of as many axes, one for all, and vectors, which no rule takes."""
    a, b, n, k, m = (some(1, 3) for _ in range(5))
    rows: list[tuple[Tensor, Tensor, Iterable[int]]] = [
        (normal(a, b, n, k), normal(k, m), range(3)),
        (normal(a, b, n, k), normal(a, b, k, m), range(3)),
        (normal(1, n, k), normal(b, k, m), range(2)),
        (normal(b, n, k), normal(1, k, m), range(2)),
        (normal(n, k), normal(b, k, m), []),
        (normal(b, n, k), normal(k), []),
        (normal(k), normal(k, m), []),
    ]
    x, y, passing = rows[some(0, len(rows) - 1)]
    return Asked((x, y), passing)


def convolution(some: Some) -> Asked:
    """Along time where the kernel has one element there, and takes each step as it is."""
    time = some(3, 5)
    x, one, three, bias = normal(2, 2, time), normal(3, 2, 1), normal(3, 2, 3), normal(3)
    rows: list[tuple[tuple[Any, ...], Iterable[int]]] = [
        ((x, one), [2]),
        ((x, one, bias), [2]),
        ((x, one, bias, [1], [0], [3]), [2]),
        ((x, one, bias, [2]), []),
        ((x, one, bias, [1], [1]), []),
        ((x, three, bias, [1], [1]), []),
        ((x[0], one, bias), []),
    ]
    return Asked(*rows[some(0, len(rows) - 1)])


def convolution_2d(some: Some) -> Asked:
    time, width = some(3, 4), some(3, 4)
    x, across, bias = normal(2, 2, time, width), normal(3, 2, 1, 3), normal(3)
    rows: list[tuple[tuple[Any, ...], Iterable[int]]] = [
        ((x, across, bias), [2]),
        ((x, across, bias, [1, 1], [0, 1]), [2]),
        ((x, across.mT.contiguous(), bias, [1, 1], [1, 0]), [3]),
        ((x, normal(3, 2, 1, 1), bias), [2, 3]),
        ((x, normal(3, 2, 1, 1), bias, [1, 1], [1, 0]), [3]),
        ((x, across, bias, [1, 2], [0, 1]), []),
        ((x[0], across, bias, [1, 1], [0, 1]), []),
        ((x[0], across.mT.contiguous(), bias, [1, 1], [1, 0]), []),
    ]
    return Asked(*rows[some(0, len(rows) - 1)])


ROWS: dict[Any, Row] = {
    aten.linear.default: linear,
    aten.embedding.default: embedding,
    aten.layer_norm.default: normalised,
    aten.rms_norm.default: normalised,
    aten.batch_norm.default: batch_norm,
    aten.unsqueeze.default: unsqueeze,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze_several,
    aten.permute.default: permuted,
    aten.transpose.int: swapped,
    aten.t.default: turned,
    aten.expand.default: expanded,
    aten.view.default: viewed,
    aten.reshape.default: viewed,
    aten._unsafe_view.default: viewed,
    aten.select.int: selected,
    aten.slice.Tensor: sliced,
    aten.cat.default: joined,
    aten.stack.default: stacked,
    aten.einsum.default: einsum,
    operator.getitem: any_piece,
    aten._to_copy.default: converted,
    aten.to.dtype: converted_to,
    aten.softmax.int: along,
    aten.log_softmax.int: along,
    aten._softmax.default: lambda some: along(some, False),
    aten.glu.default: half_gated,
    aten.cumsum.default: along,
    aten.cumprod.default: along,
    aten.sum.dim_IntList: reduced,
    aten.mean.dim: reduced,
    aten.amax.default: reduced,
    aten.amin.default: reduced,
    aten.var.correction: functools.partial(reduced, named=True, correction=0),
    aten.logsumexp.default: functools.partial(reduced, least=1),
    aten.argmax.default: reduced_over_one,
    aten.prod.dim_int: reduced_over_one,
    aten.any.dim: reduced_over_one,
    aten.all.dim: reduced_over_one,
    aten.linalg_vector_norm.default: functools.partial(reduced, before=(2,)),
    aten.mm.default: product,
    aten.bmm.default: batch_product,
    aten.matmul.default: any_product,
    aten.conv1d.default: convolution,
    aten.conv2d.default: convolution_2d,
}


def test_every_rule_has_a_row() -> None:
    assert set(ROWS) == set(select_rules._RULES)


def passed(values: Values, node: fx.Node, dim: int, index: int) -> Any:
    """Return what a rule makes of one element, None where nothing passes."""

    def take(source: Any, axis: int) -> fx.Node:
        size = source.meta["val"].shape[axis]
        return values.call(aten.select.int, (source, axis, 0 if size == 1 else index))

    def make(target: Any, args: Any, like: Any) -> fx.Node:
        made = values.call(target, args)
        if isinstance(like, Tensor):
            assert made.meta["val"].shape == like.shape, "a value that is said to be like another"
        return made

    left = left_of(Pass(node, dim, take, make))
    if left is None:
        return None
    kwargs = dict(node.kwargs) if left.target is node.target else {}
    return left.target(*value_of(list(left.args)), **value_of(kwargs))


def check(values: Values, node: fx.Node, asked: Asked) -> None:
    value, through = node.meta["val"], set(asked.through)
    for dim, size in enumerate(value.shape):
        if dim == asked.kept:
            continue
        for index in {0, size - 1}:
            got = passed(values, node, dim, index)
            assert (got is not None) == (dim in through), f"axis {dim} of {tuple(value.shape)}"
            if got is not None:
                torch.testing.assert_close(got, value.select(dim, index), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("target", ROWS, ids=str)
@FEW
@given(st.data())
def test_a_selection_passes_along_these_axes_and_no_others(target: Any, data: st.DataObject) -> None:
    some = some_of(data)
    torch.manual_seed(some(0, 1000))
    asked, values = ROWS[target](some), Values()
    if asked.split is None:
        node = values.call(target, asked.args, asked.kwargs)
    else:
        pieces = values.call(asked.split, asked.args)
        node = values.call(target, (pieces, some(0, len(pieces.meta["val"]) - 1)))
    check(values, node, asked)


def broadcast(some: Some) -> list[Tensor]:
    """Return tensors of one shape, or with fewer axes, or with one element along some."""
    shape = sizes(some, 2)
    shapes = [[size if some(0, 2) else 1 for size in shape][some(0, len(shape) - 1) :] for _ in range(2)]
    return [normal(*shape), *(normal(*one) for one in shapes)]


POINTWISE: dict[str, tuple[Any, Callable[[list[Tensor]], tuple[Any, ...]]]] = {
    "of one": (aten.tanh.default, lambda given: (given[0],)),
    "of two": (aten.mul.Tensor, lambda given: (given[0], given[1])),
    "the second has more axes": (aten.sub.Tensor, lambda given: (given[1], given[0])),
    "with a number": (aten.mul.Tensor, lambda given: (given[0], 3)),
    "of three": (aten.where.self, lambda given: (given[1] > 0, given[0], given[2])),
    "with none": (aten.clamp.Tensor, lambda given: (given[0], None, given[1])),
    "two added": (aten.addcmul.default, lambda given: tuple(given)),
}


@pytest.mark.parametrize("way", POINTWISE)
@FEW
@given(st.data())
def test_a_selection_passes_through_what_works_element_by_element(way: str, data: st.DataObject) -> None:
    target, arrange = POINTWISE[way]
    values, some = Values(), some_of(data)
    args = arrange(broadcast(some))
    node = values.call(target, args)
    assert target not in select_rules._RULES
    check(values, node, Asked(args, range(node.meta["val"].dim())))


@pytest.mark.parametrize(
    ("target", "args"),
    [(aten.flip.default, ([1],)), (aten.roll.default, ([1], [1])), (aten.prelu.default, (torch.ones(3),))],
    ids=str,
)
def test_nothing_passes_through_what_is_not_known(target: Any, args: tuple[Any, ...]) -> None:
    values = Values()
    node = values.call(target, (torch.randn(2, 3, 4), *args))
    check(values, node, Asked((), []))
