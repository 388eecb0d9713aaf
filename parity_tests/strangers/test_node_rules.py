"""Nodes that are known to end an engine are refused by rules, before the engine sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import rnnx
from cases.leak import edited_leak
from rnnx.engines import ort_engine
from rnnx.engines.node_rules import broken_rule, empty_constants, read_node, require_rules
from rnnx.errors import ModelError
from rnnx.model.onnx_file import read_model
from rnnx.model.onnx_messages import walk


@pytest.mark.parametrize("place", ["graph", "inside a node", "function"])
def test_a_split_that_disagrees_with_its_outputs_is_refused_before_an_engine_sees_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime is never asked here: what it would do with such a file is not known to end."""
    assert require_rules(read_model(with_split(place, 2))) is None
    for stated in (0, 1, 3, 1 << 40):
        with pytest.raises(ModelError) as caught:
            require_rules(read_model(with_split(place, stated)))
        assert caught.value.code == "engine-refused"
        assert "and it has 2" in caught.value.found
    monkeypatch.setattr(ort_engine, "_session", None)  # not even called
    with pytest.raises(ModelError) as caught:
        rnnx.load(with_split(place, 3))
    assert caught.value.code == "engine-refused"


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "numbers", "wrong"),
    [
        ("Split", ["x"], ["a", ""], {"num_outputs": 2}, "outputs are left out"),
        ("If", ["c"], ["a", ""], {}, "outputs are left out"),
        ("Loop", ["n", "", "h"], ["", "z"], {}, "outputs are left out"),
        ("Scan", ["h", "x"], ["a", ""], {}, "outputs are left out"),
        ("GatherND", ["x", "i"], ["y"], {"batch_dims": -1}, "batch_dims is -1"),
        ("LayerNormalization", ["x", "scale", ""], ["y"], {}, "third input has no name"),
        ("DFT", ["x", "length", ""], ["y"], {}, "third input has no name"),
        ("Unique", ["x"], ["y"], {"axis": 1}, "axis is 1"),
        ("RandomUniform", [], ["y"], {"low": 2.0}, "low is 2 and high 1"),
        ("RandomNormalLike", ["x"], ["y"], {"scale": 0.0}, "scale is 0"),
    ],
)
def test_a_node_that_would_end_an_engine_breaks_a_rule(
    operator: str, inputs: list[str], outputs: list[str], numbers: dict[str, float], wrong: str
) -> None:
    found = broken_rule(operator, inputs, outputs, numbers)
    assert found is not None
    assert found[1] == wrong
    right = {"num_outputs": 2, "batch_dims": 1, "low": 0.5, "scale": 0.5}
    named = [name or "given" for name in outputs]
    kept = {name: right[name] for name in numbers if name in right}
    assert broken_rule(operator, [name or "bias" for name in inputs], named, kept) is None


def test_what_decides_on_a_graph_holds_a_value() -> None:
    """ONNX Runtime takes the first element of a count or a condition, also where there is none."""
    for operator, place in (("Loop", 0), ("Loop", 1), ("If", 0)):
        inputs = ["count", "condition", "state"][: 3 if operator == "Loop" else 1]
        found = broken_rule(operator, inputs, ["y"], {}, {inputs[place]})
        assert found is not None
        assert found[1] == f"input {place} has no element"
        assert broken_rule(operator, inputs, ["y"], {}, {"state", "other"}) is None


def test_rules_know_the_constants_without_an_element() -> None:
    none, some = (numpy_helper.from_array(np.zeros(size, np.int64)) for size in (0, 1))

    def add(model: Any) -> None:
        for name, tensor in (("none", none), ("some", some)):
            held = model.graph.initializer.add()
            held.CopyFrom(tensor)
            held.name = f"{name}_there"
            inside = helper.make_node("Constant", [], [f"{name}_inside"], value=tensor)
            body = helper.make_graph([inside], "body", [], [])
            model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=body))
        model.graph.node.append(helper.make_node("Loop", ["some_there", "", "x"], ["z"], body=body))

    data = edited_leak(add)
    assert empty_constants(memoryview(data)) == {"none_there", "none_inside"}
    require_rules(read_model(data))


def test_rules_read_what_a_file_says_of_a_node() -> None:
    """Numbers below 0, and those with a fraction; as they stand in the file."""

    def add(model: Any) -> None:
        node = helper.make_node("RandomUniform", [], ["r"], low=-1.5, high=-0.5, shape=[2])
        model.graph.node.append(node)

    require_rules(read_model(edited_leak(add)))
    seen = {}
    for node in walk(memoryview(edited_leak(add)), "model", "node"):
        operator, _, outputs, numbers = read_node(node)
        seen[operator] = (outputs, numbers)
    assert seen["RandomUniform"] == (["r"], {"low": -1.5, "high": -0.5})


def with_split(place: str, stated: int) -> bytes:
    """Return a model in which a Split of two outputs says that it has `stated`."""

    def add(model: Any) -> None:
        split = helper.make_node("Split", ["x"], ["a", "b"], num_outputs=stated)
        if place == "graph":
            model.graph.node.append(split)
        elif place == "function":
            function = helper.make_function("d", "f", ["x"], ["a"], [split], [helper.make_opsetid("", 18)])
            model.functions.append(function)
        else:
            body = helper.make_graph([split], "body", [], [])
            inner = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=body)], "outer", [], [])
            model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=inner))

    return edited_leak(add)
