"""The passes in order: each does what it says, keeps what is computed, and is named where it does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rnnx_export.diagnostics import Because, CaptureError, Reason, reason_of
from rnnx_export.graph.convert import DOMAIN
from rnnx_export.graph.passes import table
from rnnx_export.graph.passes.table import DIRECT, NEWEST_OPSET, OPSET, PASSES, SCAN, Setting, run_passes
from rnnx_export.module.spec import parse
from support.onnx_graphs import kinds, normal, parsed, results

NAMES = [each.name for each in PASSES]
HEAD = "main (float[batch, 3] x, float[batch, 3] h) => (float[batch, 3] y, float[batch, 3] end)"
TEXT = (
    HEAD
    + """<int64[1] axis = {1}, float[1] two = {2.0}> {
    a = Exp (x)
    b = Unsqueeze (a, axis)
    c = Squeeze (b, axis)
    k = Neg (two)
    unused = Abs (c)
    y = Add (h, c)
    end = Mul (y, k)
}"""
)


def setting(route: str = DIRECT, opset: int = OPSET) -> Setting:
    """Return what passes know beside the graph: a plan of one input, one output and one state."""
    shape = "batch, time, 3" if route == SCAN else "batch, 3"
    plan: Any = SimpleNamespace(
        subject=SimpleNamespace(inputs={"x": parse(f"float32[{shape}]", "x")}),
        outputs=[SimpleNamespace(name="y", spec=parse(f"float32[{shape}]", "y"))],
        states=[SimpleNamespace(name="h", spec=parse("float32[batch, 3]", "h"))],
    )
    return Setting(plan, route, opset)


# By pass: the operators of the graph behind it, on the direct route.
BEHIND: dict[str, list[str]] = {
    "simplify": ["Exp", "Unsqueeze", "Squeeze", "Add", "Mul"],
    "cancel axes": ["Exp", "Add", "Mul"],
    "expand recurrent layers": ["Exp", "Add", "Mul"],
    "wrap in a Scan": ["Exp", "Add", "Mul"],
    "declare inputs and outputs": ["Exp", "Add", "Mul"],
    "convert the operator set": ["Exp", "Add", "Mul"],
    "name and sort": ["Exp", "Add", "Mul"],
}


def unsorted() -> ir.Model:
    model = parsed(TEXT)
    last = list(model.graph)[-1]
    model.graph.remove(last)
    model.graph.insert_before(next(iter(model.graph)), last)
    return model


def with_layer() -> ir.Model:
    model = parsed(TEXT)
    node = next(iter(model.graph))
    model.graph.insert_before(node, ir.Node(DOMAIN, "LSTM", [node.inputs[0]], num_outputs=3))
    return model


def with_function() -> ir.Model:
    return parsed(
        "main (float[2] x) => (float[2] y) { y = local.f (x) }\n"
        '<domain: "local", opset_import: ["" : 18]> f (x) => (y) { y = Exp (x) }'
    )


# By pass: a graph that it has not been over yet.
NOT_YET: dict[str, tuple[Callable[[], ir.Model], Setting]] = {
    "simplify": (with_function, setting()),
    "cancel axes": (unsorted, setting()),
    "expand recurrent layers": (with_layer, setting()),
    "wrap in a Scan": (lambda: parsed(TEXT), setting(SCAN)),
    "declare inputs and outputs": (lambda: parsed(TEXT), setting()),
    "convert the operator set": (lambda: parsed(TEXT), setting()),
    "name and sort": (unsorted, setting()),
}


def test_every_pass_has_its_rows() -> None:
    assert NAMES == list(BEHIND) == list(NOT_YET)
    assert len(set(NAMES)) == len(NAMES)


def computed(model: ir.Model, *values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return the outputs for inputs in their order, whatever they are called."""
    return results(model, dict(zip([value.name or "" for value in model.graph.inputs], values, strict=True)))


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_ensures_what_it_says_and_keeps_what_is_computed(name: str) -> None:
    model, index, feeds = parsed(TEXT), NAMES.index(name), (normal(2, 3), normal(2, 3) + 1)
    expected = computed(model, *feeds)
    for each in PASSES[: index + 1]:
        each.run(model, setting())
    assert PASSES[index].ensures(model, setting())
    assert kinds(model.graph) == BEHIND[name]
    for got, wanted in zip(computed(model, *feeds), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_tells_a_graph_that_it_has_not_been_over(name: str) -> None:
    make, known = NOT_YET[name]
    assert not PASSES[NAMES.index(name)].ensures(make(), known)


@pytest.mark.parametrize("opset", [OPSET, NEWEST_OPSET])
def test_all_of_them_give_the_contracts_graph_over_time(opset: int) -> None:
    step, model, known = parsed(TEXT), parsed(TEXT), setting(SCAN, opset)
    run_passes(model, known)
    assert [value.name for value in model.graph.inputs] == ["x", "h_in"]
    assert [value.name for value in model.graph.outputs] == ["y", "h_out"]
    assert dict(model.opset_imports) == {"": opset}
    x, h = normal(2, 4, 3), normal(2, 3)
    got, end = computed(model, x, h)
    for place in range(4):
        y, h = computed(step, x[:, place], h)
        np.testing.assert_allclose(got[:, place], y, rtol=1e-6)
    np.testing.assert_allclose(end, h, rtol=1e-6)


def fail(error: Exception) -> Callable[..., Any]:
    def run(*_: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize("index", range(len(PASSES)), ids=NAMES)
@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("run", fail(KeyError("what it needs")), "fails: 'what it needs'"),
        ("ensures", lambda *_: False, "does not ensure that "),
    ],
    ids=["fails", "does not ensure"],
)
def test_a_pass_that_fails_is_named(
    index: int, part: str, change: Callable[..., Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = list(PASSES)
    passes[index] = passes[index]._replace(**{part: change})
    monkeypatch.setattr(table, "PASSES", tuple(passes))
    with pytest.raises(CaptureError, match=f"^pass '{NAMES[index]}' {said}"):
        run_passes(parsed(TEXT), setting())


def test_a_pass_that_knows_what_is_wrong_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Because("the weights are computed", Reason.NO_ONNX_FORM)
    monkeypatch.setattr(table, "PASSES", (PASSES[0]._replace(run=fail(CaptureError(said))),))
    with pytest.raises(CaptureError, match=r"^the weights are computed$") as caught:
        run_passes(parsed(TEXT), setting())
    assert reason_of(caught.value.args[0]) is Reason.NO_ONNX_FORM
