"""An axis that is put in only to be taken out again is not put in."""

from __future__ import annotations

import numpy as np
import pytest

from rnnx_export.graph.passes.cancel_axes import cancel_axes
from support.onnx_graphs import keeps_values, kinds, normal, parsed

GONE: dict[str, str] = {
    "squeezed": """main (float[batch, 3] x) => (float[batch, 3] y) <int64[1] axis = {1}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Squeeze (b, axis)
        y = Neg (c)
    }""",
    "from the end": """main (float[batch, 3] x) => (float[batch, 3] y) <int64[1] axis = {-1}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Squeeze (b, axis)
        y = Neg (c)
    }""",
    "several": """main (float[batch, 3] x) => (float[batch, 3] y) <int64[2] axes = {0, 2}> {
        a = Exp (x)
        b = Unsqueeze (a, axes)
        c = Squeeze (b, axes)
        y = Neg (c)
    }""",
    "gathered": """main (float[batch, 3] x) => (float[batch, 3] y) <int64[1] axis = {1}, int64 zero = {0}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Gather <axis = 1> (b, zero)
        y = Neg (c)
    }""",
    "gathered along the first": """main (float[batch, 3] x) => (float[batch, 3] y)
        <int64[1] axis = {0}, int64 zero = {0}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Gather (b, zero)
        y = Neg (c)
    }""",
}
KEPT: dict[str, str] = {
    "another axis": """main (float[batch, 1] x) => (float[batch, 1] y)
        <int64[1] axis = {1}, int64[1] other = {2}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Squeeze (b, other)
        y = Neg (c)
    }""",
    "one element as an axis": """main (float[batch, 1] x) => (float[batch, 1, 1] y)
        <int64[1] axis = {1}, int64[1] zero = {0}> {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Gather <axis = 1> (b, zero)
        y = Neg (c)
    }""",
    "fewer axes": """main (float[batch, 1] x) => (float[batch, 1, 1] y)
        <int64[2] axes = {0, 1}, int64[1] first = {0}> {
        a = Exp (x)
        b = Unsqueeze (a, axes)
        c = Squeeze (b, first)
        y = Neg (c)
    }""",
    "axes that are computed": """main (float[batch, 1] x, int64[1] axis) => (float[batch, 1] y) {
        a = Exp (x)
        b = Unsqueeze (a, axis)
        c = Squeeze (b, axis)
        y = Neg (c)
    }""",
}


@pytest.mark.parametrize("name", GONE)
def test_the_axis_is_gone(name: str) -> None:
    model = parsed(GONE[name])
    keeps_values(model, lambda: cancel_axes(model.graph), {"x": normal(2, 3)})
    assert kinds(model.graph) == ["Exp", "Neg"]


@pytest.mark.parametrize("name", KEPT)
def test_the_axis_stays(name: str) -> None:
    model = parsed(KEPT[name])
    before = kinds(model.graph)
    feeds = {"x": normal(2, 1), "axis": np.array([1])}
    known = {value.name for value in model.graph.inputs}
    keeps_values(model, lambda: cancel_axes(model.graph), {key: feeds[key] for key in feeds if key in known})
    assert kinds(model.graph) == before


def test_an_element_of_an_axis_that_was_there_is_taken() -> None:
    model = parsed(
        """main (float[batch, 3] x) => (float[batch] y) <int64[1] axis = {1}, int64 zero = {0}> {
            a = Exp (x)
            b = Unsqueeze (a, axis)
            c = Squeeze (b, axis)
            y = Gather <axis = 1> (c, zero)
        }"""
    )
    keeps_values(model, lambda: cancel_axes(model.graph), {"x": normal(2, 3)})
    assert kinds(model.graph) == ["Exp", "Gather"]


def test_an_axis_that_others_use_is_put_in_for_them() -> None:
    model = parsed(
        """main (float[batch, 3] x) => (float[batch, 3] y, float[batch, 1, 3] z) <int64[1] axis = {1}> {
            a = Exp (x)
            b = Unsqueeze (a, axis)
            c = Squeeze (b, axis)
            y = Neg (c)
            z = Abs (b)
        }"""
    )
    keeps_values(model, lambda: cancel_axes(model.graph), {"x": normal(2, 3)})
    assert kinds(model.graph) == ["Exp", "Unsqueeze", "Neg", "Abs"]


def test_what_is_handed_out_is_handed_out_still() -> None:
    """The graph's own outputs: what takes the axis out, and what puts it in."""
    model = parsed(
        """main (float[batch, 3] x) => (float[batch, 1, 3] b, float[batch, 3] c) <int64[1] axis = {1}> {
            a = Exp (x)
            b = Unsqueeze (a, axis)
            c = Squeeze (b, axis)
        }"""
    )
    keeps_values(model, lambda: cancel_axes(model.graph), {"x": normal(2, 3)})
    assert kinds(model.graph) == ["Exp", "Unsqueeze"]
