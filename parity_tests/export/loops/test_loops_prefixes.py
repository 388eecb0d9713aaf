"""Values of runs of one step, two and so on: which are the same, which grow, which are counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx

from rnnx_export.loops.prefixes import (
    Twins,
    are_counts,
    follow_steps,
    gives_tensor,
    grows_along,
    is_loop_variable,
    single_axis,
)
from rnnx_export.loops.unstack import Unstacker
from support.chunks import FEW, some_of
from support.graph_values import Values

aten = torch.ops.aten
Chunk = Callable[["Prefixes", fx.Node], fx.Node]  # [batch, width, time] -> the same

PAST, WEIGHT = torch.randn(2, 3, 2), torch.randn(3, 3, 3)


def causal_convolution(values: Prefixes, chunk: fx.Node) -> fx.Node:
    joined = values.call(aten.cat.default, ([values.known["past"], chunk], 2))
    return values.call(aten.conv1d.default, (joined, values.known["weight"]))


def twice_convolved(values: Prefixes, chunk: fx.Node) -> fx.Node:
    inner = values.call(aten.tanh.default, (causal_convolution(values, chunk),))
    return causal_convolution(values, inner)


def element_by_element(values: Prefixes, chunk: fx.Node) -> fx.Node:
    return values.call(aten.mul.Tensor, (values.call(aten.tanh.default, (chunk,)), 3))


def less_the_mean(values: Prefixes, chunk: fx.Node) -> fx.Node:
    return values.call(aten.sub.Tensor, (chunk, values.call(aten.mean.dim, (chunk, [2], True))))


class Prefixes(Values):
    """Chunks of the first steps of one sequence, and what is computed of them alike."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.known = {"past": self.tensor(PAST), "weight": self.tensor(WEIGHT)}
        self.steps = [self.tensor(torch.randn(2, 3)) for _ in range(steps)]
        self.twins = Twins(Unstacker(self.graph))

    def chunk(self, steps: int) -> fx.Node:
        return self.call(aten.stack.default, (self.steps[:steps], 2))

    def step(self, node: fx.Node, index: int) -> fx.Node:
        return self.call(aten.select.int, (node, 2, index))


@pytest.mark.parametrize("make", [causal_convolution, twice_convolved, element_by_element])
@FEW
@given(st.data())
def test_a_step_is_the_same_in_any_prefix_that_has_it_and_no_other_step_is(
    make: Chunk, data: st.DataObject
) -> None:
    some = some_of(data)
    short, longer = some(1, 3), some(4, 5)
    values, index, other = Prefixes(longer), some(0, short - 1), some(0, longer - 1)
    left, right = (make(values, values.chunk(steps)) for steps in (short, longer))
    assert values.twins.same(values.step(left, index), values.step(right, index))
    alike = values.twins.same(values.step(left, index), values.step(right, other))
    assert alike == (index == other)


def test_what_all_steps_have_a_say_in_is_not_the_same() -> None:
    values = Prefixes(3)
    left, right = (less_the_mean(values, values.chunk(steps)) for steps in (2, 3))
    for index in range(2):
        assert not values.twins.same(values.step(left, index), values.step(right, index))


def test_arguments_are_compared_by_value_and_kind() -> None:
    same = Prefixes(1).twins.same
    assert same([1, (2.0, "a")], [1, (2.0, "a")])
    assert not same([1], [1, 1])
    assert not same(1, 1.0)
    assert not same(1, True)
    assert not same(1, 2)


def nodes_of(*shapes: tuple[int, ...]) -> tuple[fx.Node, ...]:
    values = Values()
    return tuple(values.tensor(torch.zeros(shape)) for shape in shapes)


@FEW
@given(st.data())
def test_values_grow_along_the_one_axis_that_has_an_element_more_each_step(data: st.DataObject) -> None:
    some = some_of(data)
    shape, first, count = [some(1, 4) for _ in range(3)], some(1, 2), some(2, 4)
    axis, steps = some(0, 2), some(1, 6)
    shapes = [(*shape[:axis], first + step, *shape[axis + 1 :]) for step in range(count)]
    fits = first + count - 1 <= steps
    assert grows_along(nodes_of(*shapes), steps) == (axis if fits else None)
    assert grows_along(nodes_of(*shapes[:1] * count), steps) is None
    assert grows_along(nodes_of(*shapes[::-1]), steps) is None
    both = [(*one[:2], one[2] + 1 + step, 5 + step) for step, one in enumerate(shapes)]
    assert grows_along(nodes_of(*both), 9) is None


def test_values_of_other_ranks_or_that_are_no_tensors_do_not_grow() -> None:
    values = Values()
    pair = (values.tensor(torch.zeros(1, 2)), values.tensor(torch.zeros(2)))
    assert grows_along(pair, 5) is None
    pieces = values.call(aten.unbind.int, (torch.zeros(2, 2),))
    assert not gives_tensor(pieces)
    assert grows_along((pair[0], pieces), 5) is None


@FEW
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=4), st.integers(0, 9))
def test_counts_are_sizes_that_go_up_by_one_and_so_do_loop_variables(values: list[int], steps: int) -> None:
    going_up = all(after == before + 1 for before, after in itertools.pairwise(values))
    assert is_loop_variable(values) == going_up
    within = all(value >= 0 for value in values) and all(value <= steps for value in values[1:])
    assert are_counts([str(value) for value in values], steps) == (going_up and within)


def test_no_count_is_a_symbol_and_no_loop_variable_a_truth_value_or_a_fraction() -> None:
    assert is_loop_variable([0, 1, 2])
    for values in ([False, True], [0.0, 1.0], ["a", "b"]):
        assert not is_loop_variable(values)
    assert not are_counts(["s0", "s1"], 5)


@FEW
@given(st.data())
def test_steps_are_followed_where_each_takes_the_next_one(data: st.DataObject) -> None:
    some, values = some_of(data), Values()
    chunks = [values.tensor(torch.zeros(5, 5)) for _ in range(3)]
    indices = [some(0, 2) for _ in chunks] if some(0, 1) else [some(0, 2) + step for step in range(3)]
    axes = [some(0, 1)] * 3 if some(0, 2) else [0, 0, 1]
    nodes = tuple(values.call(aten.select.int, pair) for pair in zip(chunks, axes, indices, strict=True))
    wanted = len(set(axes)) == 1 and indices == list(range(indices[0], indices[0] + 3))
    assert follow_steps(nodes) == wanted
    assert not follow_steps((chunks[0], *nodes))


def test_an_axis_that_one_step_puts_in_and_another_has_is_known() -> None:
    values = Values()

    def unsqueezed(value: Tensor, axis: int) -> fx.Node:
        return values.call(aten.unsqueeze.default, (value, axis))

    put_in, has = unsqueezed(torch.zeros(2, 3), -2), values.tensor(torch.zeros(2, 1, 3))
    assert single_axis((put_in, has)) == 1
    assert single_axis((has, put_in)) == 1
    assert single_axis((put_in, unsqueezed(torch.zeros(2, 3), 1))) is None
    assert single_axis((has, has)) is None
    assert single_axis((put_in, values.tensor(torch.zeros(2, 2, 3)))) is None
