"""A simplified graph has nothing to compute in advance, nothing twice and nothing unused, and its values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rnnx_export.graph.passes.simplify import simplify
from support.onnx_graphs import keeps_values, kinds, normal, parsed

X = {"x": normal(2, 3)}
GRAPHS: dict[str, tuple[str, list[str]]] = {
    "constants are computed": (
        """main (float[batch, 3] x) => (float[batch, 3] y) <float[1] a = {2.0}, float[1] b = {3.0}> {
            c = Mul (a, b)
            d = Neg (c)
            y = Add (x, d)
        }""",
        ["Add"],
    ),
    "what nothing uses is dropped": (
        """main (float[batch, 3] x) => (float[batch, 3] y) {
            unused = Exp (x)
            further = Neg (unused)
            y = Abs (x)
        }""",
        ["Abs"],
    ),
    "what is computed twice is computed once": (
        """main (float[batch, 3] x) => (float[batch, 3] y) {
            a = Exp (x)
            b = Exp (x)
            y = Mul (a, b)
        }""",
        ["Exp", "Mul"],
    ),
    "what does nothing is dropped": (
        """main (float[batch, 3] x) => (float[batch, 3] y) {
            a = Identity (x)
            b = Identity (a)
            y = Abs (b)
        }""",
        ["Abs"],
    ),
    "functions are put where they are called": (
        """main (float[batch, 3] x) => (float[batch, 3] y) {
            a = local.twice (x)
            y = local.twice (a)
        }
        <domain: "local", opset_import: ["" : 18]>
        twice (x) => (y) {
            y = Add (x, x)
        }""",
        ["Add", "Add"],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_simpler_graph_of_the_same_values(name: str) -> None:
    text, expected = GRAPHS[name]
    model = parsed(text)
    keeps_values(model, lambda: simplify(model), X)
    assert kinds(model.graph) == expected
    assert not model.functions


def test_sizes_that_the_capture_named_are_forgotten_and_fixed_ones_are_not() -> None:
    model = parsed(
        """main (float[batch, 3] x) => (float[batch, 3] y) {
            a = Exp (x)
            y = Neg (a)
        }"""
    )
    made = next(iter(model.graph)).outputs[0]
    made.shape = ir.Shape(["batch", 3])
    simplify(model)
    assert made.shape is not None
    assert list(made.shape)[1] == 3
    assert not isinstance(made.shape[0], int)
    assert str(made.shape[0]) != "batch"


def test_sizes_of_a_capture_that_froze_one_are_worth_nothing() -> None:
    """A free size that is met nowhere behind the inputs was taken for the example's, 5."""
    model = parsed(
        """main (float[batch, 3] x) => (float[batch, 3] y) <int64[1] axes = {1}> {
            a = Exp (x)
            s = Shape (a)
            r = Expand (a, s)
            y = Neg (r)
        }"""
    )
    nodes = {node.op_type: node for node in model.graph}
    for name in ("Exp", "Expand", "Neg"):
        nodes[name].outputs[0].shape = ir.Shape([5, 3])
    keeps_values(model, lambda: simplify(model), {"x": normal(2, 3)})
    nodes = {node.op_type: node for node in model.graph}
    assert nodes["Exp"].outputs[0].shape is None


def test_of_two_constants_with_one_name_each_keeps_its_values() -> None:
    model = parsed("main (float[batch, 3] x) => (float[batch, 3] y) { a = Add (x, x)  y = Add (x, x) }")
    first, second = list(model.graph)
    for node, number in ((first, 2.0), (second, 3.0)):
        value = ir.Value(name="one name", const_value=ir.tensor(np.array([number], np.float32)))
        node.replace_input_with(1, value)
    second.replace_input_with(0, first.outputs[0])
    simplify(model)
    held = sorted(value.const_value.numpy().item() for value in model.graph.initializers.values())
    assert held == [2.0, 3.0]
    assert all(name == value.name for name, value in model.graph.initializers.items())
