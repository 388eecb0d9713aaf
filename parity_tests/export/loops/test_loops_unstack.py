"""Single steps seen through what stacks, cuts and fills: the value stays, and the step itself is found."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from rnnx_export.loops.unstack import LIKE, MismatchError, Unstacker
from support.chunks import FEW, Some, normal, some_of
from support.graph_values import Values, computed

aten = torch.ops.aten
Maker = Callable[[Values, Some], fx.Node]


def sizes(some: Some, least: int = 2, most: int = 3) -> list[int]:
    return [some(1, 4) for _ in range(some(least, most))]


def chunk(values: Values, some: Some, axis: int = 1) -> fx.Node:
    """Return steps behind one another, made in one of several ways: [batch, time, width]."""
    batch, width, steps = 2, some(1, 3), some(1, 4)
    parts = [values.tensor(normal(batch, width)) for _ in range(steps)]
    way = some(0, 3)
    if way == 0:
        return values.call(aten.stack.default, (parts, axis))
    rows = [values.call(aten.unsqueeze.default, (part, axis)) for part in parts]
    if way == 1:
        return values.call(aten.cat.default, (rows, axis))
    whole = values.call(aten.cat.default, (rows, axis))
    if way == 2:
        return values.call(aten.tanh.default, (whole,))
    return values.call(aten.add.Tensor, (whole, values.tensor(normal(width))))


def stacked(values: Values, some: Some) -> fx.Node:
    shape = sizes(some)
    axis = some(-len(shape) - 1, len(shape))
    return values.call(aten.stack.default, ([normal(*shape) for _ in range(some(1, 3))], axis))


def joined(values: Values, some: Some) -> fx.Node:
    """Parts of different sizes, and one that is nothing but the begin of a list."""
    axis = some(-2, 1)
    parts = [normal(*((some(1, 3), 2) if axis % 2 == 0 else (2, some(1, 3)))) for _ in range(some(1, 3))]
    nothing = [torch.empty(0, dtype=torch.float64)] if some(0, 1) else []
    return values.call(aten.cat.default, ([*nothing, *parts], axis))


def unsqueezed(values: Values, some: Some) -> fx.Node:
    x = chunk(values, some)
    return values.call(aten.unsqueeze.default, (x, some(-4, 3)))


def written(values: Values, some: Some) -> fx.Node:
    """`x[:, i] = y`."""
    x = chunk(values, some)
    shape = x.meta["val"].shape
    index = some(-shape[1], shape[1] - 1)
    return values.call(aten.select_scatter.default, (x, normal(shape[0], shape[2]), 1, index))


def summed(values: Values, some: Some) -> fx.Node:
    return values.call(aten.cumsum.default, (chunk(values, some), some(-2, 1)))


def summed_from(values: Values, some: Some) -> fx.Node:
    """A start and what runs on from it, in either order; the start has no time of its own."""
    x = chunk(values, some)
    shape = x.meta["val"].shape
    sums = values.call(aten.cumsum.default, (x, 1))
    start = values.tensor(normal(shape[0] if some(0, 1) else 1, 1, shape[2]))
    return values.call(aten.add.Tensor, (start, sums) if some(0, 1) else (sums, start))


def sliced(values: Values, some: Some) -> fx.Node:
    x = chunk(values, some)
    size = x.meta["val"].shape[1]
    start = some(-size, size - 1)
    rest = ((2**62,), (2**62, 1), (2**62, 2), (), (start + 1,))[some(0, 4)]
    if rest == (start + 1,) and start == -1:
        rest = ()
    return values.call(aten.slice.Tensor, (x, (1, -2)[some(0, 1)], start, *rest))


def counted(values: Values, some: Some) -> fx.Node:
    way, dtype = some(0, 2), {"dtype": (torch.int64, torch.float64)[some(0, 1)]}
    if way == 0:
        return values.call(aten.arange.default, (some(1, 4),), dtype)
    if way == 1:
        return values.call(aten.arange.start, (2, 2 + some(1, 4)), dtype)
    return values.call(aten.arange.start_step, (1, 1 + 3 * some(1, 4), 3), dtype)


def unbound(values: Values, some: Some) -> fx.Node:
    pieces = values.call(aten.unbind.int, (chunk(values, some), some(-2, 1)))
    return values.call(operator.getitem, (pieces, some(0, len(pieces.meta["val"]) - 1)))


def split(values: Values, some: Some) -> fx.Node:
    pieces = values.call(aten.split.Tensor, (chunk(values, some), some(1, 2), some(-2, 1)))
    return values.call(operator.getitem, (pieces, some(0, len(pieces.meta["val"]) - 1)))


def squeezed(values: Values, some: Some) -> fx.Node:
    x = values.call(aten.unsqueeze.default, (chunk(values, some), 1))
    return values.call(aten.squeeze.dims, (x, [1])) if some(0, 1) else values.call(aten.squeeze.dim, (x, -3))


def below(values: Values, some: Some) -> fx.Node:
    parts = (
        [normal(3) for _ in range(some(1, 3))] if some(0, 1) else [normal(some(1, 2), 3) for _ in range(2)]
    )
    return values.call(aten.vstack.default, (parts,))


def the_same(values: Values, some: Some) -> fx.Node:
    """Copies, views and slices that change nothing."""
    x = chunk(values, some)
    shape = list(x.meta["val"].shape)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (aten.clone.default, (x,)),
        (aten.slice.Tensor, (x, 1)),
        (aten.slice.Tensor, (x, 1, 0, 2**63 - 1)),
        (aten.view.default, (x, shape)),
        (aten.expand.default, (x, shape)),
        (aten.copy.default, (values.tensor(normal(*shape)), x)),
        (aten.slice_scatter.default, (values.tensor(normal(*shape)), x, 1, 0, 2**63 - 1)),
    ]
    return values.call(*calls[some(0, len(calls) - 1)])


def made_like(values: Values, some: Some) -> fx.Node:
    x = chunk(values, some)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (aten.new_zeros.default, (x, [2, 3])),
        (aten.new_ones.default, (x, [2, 3])),
        (aten.new_full.default, (x, [2, 3], 4.0)),
        (aten.zeros_like.default, (x,)),
    ]
    return values.call(*calls[some(0, len(calls) - 1)])


def whole_numbers(values: Values, some: Some) -> fx.Node:
    """`(n + 1) + 2`, the numbers on either side, of integers of several shapes."""
    node = values.tensor(torch.tensor([3, 5])[: some(1, 2)])
    for _ in range(some(1, 3)):
        number: Any = some(-2, 3)
        if some(0, 1):
            number = values.call(aten.scalar_tensor.default, (number,), {"dtype": torch.int64})
            node = values.call(aten.add.Tensor, (number, node) if some(0, 1) else (node, number))
        else:
            node = values.call(aten.add.Tensor, (node, number))
    return node


MAKERS: list[Maker] = [
    stacked, joined, unsqueezed, written, summed, summed_from, sliced, counted, unbound, split, squeezed,
    below, the_same, made_like, whole_numbers, chunk,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@FEW
@given(st.data())
def test_what_is_simplified_has_the_same_value(make: Maker, data: st.DataObject) -> None:
    """The node, each of its elements along each axis, and both behind what works element by element."""
    some, values = some_of(data), Values()
    torch.manual_seed(some(0, 1000))
    node = make(values, some)
    if some(0, 1):
        node = values.call(aten.mul.Tensor, (node, 2))
    unstacker, value = Unstacker(values.graph), node.meta["val"]
    torch.testing.assert_close(computed(unstacker.simplify(node)), value)
    for dim, size in enumerate(value.shape):
        for index in range(-size, size):
            found = unstacker.select(node, dim - value.dim() if some(0, 1) else dim, index)
            torch.testing.assert_close(computed(found), value.select(dim, index))
            assert found.meta["val"].shape == value.select(dim, index).shape
    values.graph.lint()


Found = tuple[fx.Node, fx.Node]  # what is simplified, and what it is


def a_step_of_a_stack(values: Values, steps: list[fx.Node]) -> Found:
    node = values.call(aten.stack.default, (steps, 1))
    return values.call(aten.select.int, (node, 1, -2)), steps[1]


def a_step_of_a_growing_list(values: Values, steps: list[fx.Node]) -> Found:
    node: Any = torch.empty(0)
    for step in steps:
        node = values.call(aten.cat.default, ([node, values.call(aten.unsqueeze.default, (step, 1))], 1))
    return values.call(aten.select.int, (node, 1, 0)), steps[0]


def a_step_that_was_written(values: Values, steps: list[fx.Node]) -> Found:
    node = values.call(aten.zeros.default, ([2, 3, 3],))
    for place, step in enumerate(steps):
        node = values.call(aten.select_scatter.default, (node, step, 1, place))
    return values.call(aten.select.int, (node, 1, 1)), steps[1]


def a_step_of_what_begins_later(values: Values, steps: list[fx.Node]) -> Found:
    node = values.call(aten.stack.default, (steps, 0))
    node = values.call(aten.slice.Tensor, (node, 0, -2, 2**62))
    return values.call(aten.select.int, (node, 0, 1)), steps[2]


def a_piece(values: Values, steps: list[fx.Node]) -> Found:
    node = values.call(aten.unbind.int, (values.call(aten.stack.default, (steps, 1)), 1))
    return values.call(operator.getitem, (node, 2)), steps[2]


def an_axis_that_comes_and_goes(values: Values, steps: list[fx.Node]) -> Found:
    node = values.call(aten.unsqueeze.default, (steps[0], 1))
    return values.call(aten.squeeze.dim, (values.call(aten.clone.default, (node,)), 1)), steps[0]


def the_first_sum(values: Values, steps: list[fx.Node]) -> Found:
    """Behind a start: of it and of the first step."""
    node = values.call(aten.stack.default, (steps, 1))
    sums = values.call(aten.cumsum.default, (node, 1))
    start = values.call(aten.unsqueeze.default, (steps[2], 1))
    wanted = values.call(aten.add.Tensor, (steps[2], steps[0]))
    return values.call(aten.select.int, (values.call(aten.add.Tensor, (start, sums)), 1, 0)), wanted


def the_same_call_again(values: Values, steps: list[fx.Node]) -> Found:
    first, again = (values.call(aten.mul.Tensor, (steps[0], steps[1])) for _ in range(2))
    return values.call(aten.tanh.default, (again,)), values.call(aten.tanh.default, (first,))


SEEN_THROUGH = [
    a_step_of_a_stack, a_step_of_a_growing_list, a_step_that_was_written, a_step_of_what_begins_later,
    a_piece, an_axis_that_comes_and_goes, the_first_sum, the_same_call_again,
]  # fmt: skip


@pytest.mark.parametrize("make", SEEN_THROUGH, ids=lambda make: make.__name__)
def test_the_step_itself_is_found(make: Callable[[Values, list[fx.Node]], Found]) -> None:
    values = Values()
    node, wanted = make(values, [values.tensor(torch.randn(2, 3)) for _ in range(3)])
    unstacker = Unstacker(values.graph)
    assert unstacker.simplify(wanted) is unstacker.simplify(node)


def test_a_step_that_a_chunk_does_not_have_is_a_mismatch() -> None:
    values = Values()
    node = values.call(aten.stack.default, ([torch.ones(2), torch.ones(2)],))
    for index in (2, -3):
        with pytest.raises(MismatchError):
            Unstacker(values.graph).select(node, 0, index)


def test_numbers_and_truth_values_are_told_apart() -> None:
    """In Python, True is 1 and 1 is 1.0."""
    values = Values()
    x = values.tensor(torch.ones(2))
    calls = [values.call(aten.mul.Tensor, (x, number)) for number in (1, 1.0, True, 1)]
    unstacker = Unstacker(values.graph)
    assert len({unstacker.simplify(call) for call in calls}) == 3
    assert unstacker.simplify(calls[3]) is unstacker.simplify(calls[0])


@FEW
@given(st.data())
def test_others_can_be_put_in_the_place_of_what_a_value_is_computed_from(data: st.DataObject) -> None:
    some, values = some_of(data), Values()
    x, y, z = (values.tensor(normal(2, 3)) for _ in range(3))
    node = values.call(aten.add.Tensor, (values.call(aten.tanh.default, (x,)), y))
    for _ in range(some(0, 3)):
        node = values.call(aten.maximum.default, (node, x if some(0, 1) else y))
    unstacker = Unstacker(values.graph)
    replaced = unstacker.replace(node, {x: z})
    expected = computed(node)
    x.meta["val"], before = z.meta["val"], x.meta["val"]
    wanted = computed(node)
    x.meta["val"] = before
    torch.testing.assert_close(computed(replaced), wanted)
    torch.testing.assert_close(computed(node), expected)
    assert unstacker.replace(node, {}) is unstacker.simplify(node)


def test_what_is_made_like_another_depends_on_no_value() -> None:
    values = Values()
    x = values.tensor(torch.ones(2, 3))
    node = values.call(aten.new_zeros.default, (x, [2]))
    assert not Unstacker(values.graph).simplify(node).all_input_nodes
    assert {aten.zeros_like.default, aten.full_like.default} <= set(LIKE)


def test_a_node_that_many_share_is_replaced_once() -> None:
    """Each of these takes the one before it twice: as a tree they are 2 ** 40."""
    graph = fx.Graph()
    first, second = graph.placeholder("first"), graph.placeholder("second")
    for node in (first, second):
        node.meta["val"] = torch.zeros(2)
    last = first
    for _ in range(40):
        last = graph.call_function(aten.add.Tensor, (last, last))
        last.meta["val"] = torch.zeros(2)
    graph.output((last,))
    unstacker, before = Unstacker(graph), len(graph.nodes)
    values = {first: second}
    other = unstacker.replace(last, values)
    assert len(graph.nodes) == before + 40
    assert unstacker.replace(last, values) is other
    graph.output_node().args = ((other,),)  # what the first one led to is left
    graph.eliminate_dead_code()
    assert not first.users
    assert len(second.users) == 1
