"""The same values seen in runs of one step, two and so on: how they are told to be the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from rnnx_export.loops.unstack import MismatchError, Unstacker

aten = torch.ops.aten
# So many steps are compared, one number after the other: a value that is used four steps later (the last
# tap of a filter of fourth order) shows in the fifth step alone, and takes one more to be seen carried.
STEP_COUNTS = (3, 4, 6, 9)


class Element(NamedTuple):
    """One step of two chunks, on which no later step of them has a say."""

    step: int
    sizes: tuple[int, int]  # how many steps each chunk has


class Twins:
    """Expressions of different prefixes that are the same, as long as no step looks ahead.

    Args:
        unstacker: of the graph that holds them.
    """

    def __init__(self, unstacker: Unstacker) -> None:
        self._unstacker = unstacker
        self._known: dict[tuple[fx.Node, fx.Node, Element | None], bool] = {}

    def same(self, left: Any, right: Any, element: Element | None = None) -> bool:
        """Whether two expressions are the same but for the prefix they come from.

        Args:
            left, right: nodes, or arguments of nodes.
            element: what is asked of chunks; None for all of them.
        """
        if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
            if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
                return all(self.same(a, b, element) for a, b in zip(left, right, strict=True))
            if type(left) is type(right) and left == right:
                return True
            whole = element is not None and type(left) is int and type(right) is int
            return whole and left - right == element.sizes[0] - element.sizes[1]  # type: ignore[union-attr]
        left, right = self._unstacker.simplify(left), self._unstacker.simplify(right)
        key = (left, right, element)
        if key not in self._known:
            self._known[key] = left is right or self._same_but_prefix(left, right, element)
        return self._known[key]

    def _same_but_prefix(self, left: fx.Node, right: fx.Node, element: Element | None) -> bool:
        elements = [node.args[2] for node in (left, right) if node.target is aten.select.int]
        if len(elements) == 2 and isinstance(elements[0], int) and left.args[1:] == right.args[1:]:
            one, other = (self._unstacker.simplify(node.args[0]) for node in (left, right))  # type: ignore[arg-type]
            sizes = [str(node.meta["val"].shape[left.args[1]]) for node in (one, other)]
            if sizes[0] != sizes[1] and all(size.isdigit() for size in sizes):
                asked = Element(elements[0], (int(sizes[0]), int(sizes[1])))
                return self._same_call(one, other, asked)
        if element is not None and gives_tensor(left) and gives_tensor(right):
            axis = _differ_along(left, right, element.sizes)
            if axis is not None:
                try:
                    one, other = (self._unstacker.select(node, axis, element.step) for node in (left, right))
                except MismatchError:
                    return False
                return self.same(one, other)
        return self._same_call(left, right, element)

    def _same_call(self, left: fx.Node, right: fx.Node, element: Element | None) -> bool:
        if left.op != "call_function" or left.target != right.target or len(left.args) != len(right.args):
            return False
        return self.same(left.args, right.args, element) and self.same(
            list(left.kwargs.values()), list(right.kwargs.values()), element
        )


def _differ_along(left: fx.Node, right: fx.Node, sizes: tuple[int, int]) -> int | None:
    """Return the axis along which two values have so many elements, None if there is none."""
    shapes = [[str(size) for size in node.meta["val"].shape] for node in (left, right)]
    if len(shapes[0]) != len(shapes[1]):
        return None
    moving = [axis for axis, pair in enumerate(zip(*shapes, strict=True)) if pair[0] != pair[1]]
    wanted = [str(size) for size in sizes]
    return moving[0] if len(moving) == 1 and [shape[moving[0]] for shape in shapes] == wanted else None


def grows_along(nodes: tuple[fx.Node, ...], steps: int) -> int | None:
    """Return the axis along which values have one element for each step so far, None if there is none."""
    shapes = [[str(size) for size in node.meta["val"].shape] for node in nodes if gives_tensor(node)]
    if len(shapes) < len(nodes) or any(len(shape) != len(shapes[0]) for shape in shapes):
        return None
    moving = [axis for axis, size in enumerate(shapes[0]) if any(shape[axis] != size for shape in shapes)]
    fits = len(moving) == 1 and are_counts([shape[moving[0]] for shape in shapes], steps)
    return moving[0] if fits else None


def single_axis(nodes: tuple[fx.Node, ...]) -> int | None:
    """Return an axis of one element that some of the nodes put there and others have already."""
    made = next((node for node in nodes if node.target is aten.unsqueeze.default), None)
    if made is None or all(node.target is made.target for node in nodes):
        return None
    axis = int(made.args[1]) % made.meta["val"].dim()  # type: ignore[arg-type]
    shapes = [node.meta["val"].shape for node in nodes if gives_tensor(node)]
    fits = len(shapes) == len(nodes) and all(len(s) > axis and str(s[axis]) == "1" for s in shapes)
    return axis if fits else None


def is_loop_variable(values: Sequence[Any]) -> bool:
    """Whether numbers go up by one from step to step."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return whole and all(after == before + 1 for before, after in itertools.pairwise(values))


def are_counts(values: Sequence[str], steps: int) -> bool:
    """Whether sizes are those of prefixes, each a step longer than the one before."""
    return all(value.isdigit() for value in values) and all(
        int(after) == int(before) + 1 <= steps for before, after in itertools.pairwise(values)
    )


def follow_steps(nodes: tuple[fx.Node, ...]) -> bool:
    """Whether the nodes take one element each along one axis, of which each step takes the next."""
    if any(node.target is not aten.select.int for node in nodes):
        return False
    axis, index = nodes[0].args[1:3]
    wanted = [(axis, index + step) for step in range(len(nodes))]  # type: ignore[operator]
    return [node.args[1:3] for node in nodes] == wanted


def gives_tensor(node: fx.Node) -> bool:
    """Whether a node's value is a tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)
