"""Inputs and outputs have the names and shapes that were asked for; each output is a value of its own."""

from __future__ import annotations

import pytest

from rnnx_export.graph.passes.declare_io import declare
from support.onnx_graphs import keeps_values, kinds, normal, parsed

GRAPHS: dict[str, tuple[str, list[str]]] = {
    "as they are": ("a, b", []),
    "one twice": ("a, a", ["Identity"]),
    "an input": ("a, x", ["Identity"]),
    "a constant": ("k, b", ["Identity"]),
    "an input twice": ("x, x", ["Identity", "Identity"]),
}
TEXT = """main (float[n, 3] x, float[n, 3] h) => (float[n, 3] a, float[n, 3] b)
    <float[2, 3] k = {1, 2, 3, 4, 5, 6}> {
    a = Exp (x)
    b = Neg (h)
}"""


@pytest.mark.parametrize("name", GRAPHS)
def test_each_output_has_its_name_its_shape_and_a_value_of_its_own(name: str) -> None:
    handed_out, added = GRAPHS[name]
    model = parsed(TEXT)
    made = [value for node in model.graph for value in node.outputs]
    values = {value.name: value for value in (*model.graph.inputs, *made)} | dict(model.graph.initializers)
    for index, one in enumerate(handed_out.split(", ")):
        model.graph.outputs[index] = values[one]
    feeds = {"x": normal(2, 3), "h": normal(2, 3) + 1}
    asked = [("x.in", ["batch", 3]), ("h_in", ["batch", 3])], [("y", ["batch", 3]), ("h_out", ["batch", 3])]
    keeps_values(model, lambda: declare(model, *asked), feeds, {"x": "x.in", "h": "h_in"})
    assert [value.name for value in model.graph.inputs] == ["x.in", "h_in"]
    assert [value.name for value in model.graph.outputs] == ["y", "h_out"]
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert [str(size) for size in value.shape or ()] == ["batch", "3"]
    assert len({id(value) for value in (*model.graph.inputs, *model.graph.outputs)}) == 4
    assert kinds(model.graph)[2:] == added


def test_another_number_of_them_is_no_declaration() -> None:
    model = parsed("main (float[n] x) => (float[n] y) { y = Exp (x) }")
    with pytest.raises(ValueError, match="zip"):
        declare(model, [], [("y", ["n"])])
