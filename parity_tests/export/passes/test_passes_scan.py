"""A step in a Scan over time gives, in one call, what it gives step by step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnx_export.graph.passes.names import finish
from rnnx_export.graph.passes.scan import wrap_in_scan
from rnnx_export.module.spec import TensorSpec, parse
from support.chunks import FEW, part_of, some_of
from support.onnx_graphs import kinds, parsed, results


def plan_of(inputs: dict[str, str], states: dict[str, str], outputs: dict[str, str]) -> Any:
    """Return as much of a plan as the pass asks for."""

    def specs(texts: dict[str, str]) -> dict[str, TensorSpec]:
        return {name: parse(text, name) for name, text in texts.items()}

    return SimpleNamespace(
        subject=SimpleNamespace(inputs=specs(inputs)),
        states=[SimpleNamespace(name=name, spec=spec) for name, spec in specs(states).items()],
        outputs=[SimpleNamespace(name=name, spec=spec) for name, spec in specs(outputs).items()],
    )


LEAK = """main (float[batch, 3] x, float[batch, 3] h) => (float[batch, 3] y, float[batch, 3] h_end)
    <float half = {0.5}> {
    kept = Mul (h, half)
    y = Add (kept, x)
    h_end = Identity (y)
}"""
# By what it shows: the step, and inputs, states and outputs of the plan.
STEPS: dict[str, tuple[str, dict[str, str], dict[str, str], dict[str, str]]] = {
    "time behind the batch": (
        LEAK,
        {"x": "float32[batch, time, 3]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, time, 3]"},
    ),
    "time first": (
        LEAK,
        {"x": "float32[time, batch, 3]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[time, batch, 3]"},
    ),
    "time last": (
        LEAK,
        {"x": "float32[batch, 3, time]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, 3, time]"},
    ),
    "the last step": (
        LEAK,
        {"x": "float32[batch, time, 3]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, 3]"},
    ),
    "several frames a step": (
        LEAK,
        {"x": "float32[batch, 3*time]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, 3*time]"},
    ),
    "an input for the whole call": (
        """main (float[batch, 3] x, float[batch, 3] gain, float[batch, 3] h)
            => (float[batch, 3] y, float[batch, 3] h_end) {
            kept = Mul (h, gain)
            y = Add (kept, x)
            h_end = Neg (y)
        }""",
        {"x": "float32[batch, time, 3]", "gain": "float32[batch, 3]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, time, 3]"},
    ),
    "lengths": (
        """main (float[batch, 3] x, int64[batch] lengths, float[batch, 3] h)
            => (float[batch, 3] y, float[batch, 3] h_end) <int64[1] axis = {1}> {
            counts = Cast <to = 1> (lengths)
            valid = Unsqueeze (counts, axis)
            part = Mul (x, valid)
            y = Add (h, part)
            h_end = Identity (y)
        }""",
        {"x": "float32[batch, time, 3]", "lengths": "int64[batch] in 1..time"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, time, 3]"},
    ),
    "states that change places": (
        """main (float[batch, 3] x, float[batch, 3] a, float[batch, 3] b)
            => (float[batch, 3] x, float[batch, 3] b, float[batch, 3] a) { unused = Neg (x) }""",
        {"x": "float32[batch, time, 3]"},
        {"a": "float32[batch, 3]", "b": "float32[batch, 3]"},
        {"y": "float32[batch, time, 3]"},
    ),
    "an input for the whole call that is handed out": (
        """main (float[batch, 3] x, float[batch, 3] gain, float[batch, 3] h)
            => (float[batch, 3] gain, float[batch, 3] y) {
            y = Add (h, x)
        }""",
        {"x": "float32[batch, time, 3]", "gain": "float32[batch, 3]"},
        {"h": "float32[batch, 3]"},
        {"y": "float32[batch, 3]"},
    ),
    "a constant and one value twice": (
        """main (float[batch, 3] x, float[batch, 3] a, float[2, 3] b)
            => (float[batch, 3] y, float[batch, 3] y, float[2, 3] k) <float[2, 3] k = {1, 2, 3, 4, 5, 6}> {
            s = Sub (x, a)
            m = ReduceMax <keepdims = 0> (b)
            y = Mul (s, m)
        }""",
        {"x": "float32[batch, time, 3]"},
        {"a": "float32[batch, 3]", "b": "float32[2, 3]"},
        {"y": "float32[batch, time, 3]"},
    ),
}


def stepped(model: ir.Model, plan: Any, values: dict[str, torch.Tensor], start: list[Any], time: int) -> Any:
    """Return what the step gives over a sequence: outputs, each step's, and the states at its end."""
    names = [value.name for value in model.graph.inputs]
    rows, states = [], start
    for place in range(time):
        taken = []
        for name, spec in plan.subject.inputs.items():
            part = part_of(values[name], spec, place, 1)
            timed = "time" in spec.shape
            taken.append((part.squeeze(list(spec.shape).index("time")) if timed else part).numpy())
        result = results(model, dict(zip(names, [*taken, *states], strict=True)))
        rows.append(result[: len(plan.outputs)])
        states = result[len(plan.outputs) :]
    return rows, states


@pytest.mark.parametrize("name", STEPS)
@FEW
@given(st.data())
def test_a_whole_call_is_its_steps(name: str, data: st.DataObject) -> None:
    text, inputs, carried, outputs = STEPS[name]
    some, plan = some_of(data), plan_of(inputs, carried, outputs)
    sizes = {"batch": some(1, 3), "time": some(1, 4)}
    generator = torch.Generator().manual_seed(some(0, 1000))
    values = {key: spec.random(sizes, generator) for key, spec in plan.subject.inputs.items()}
    start = [state.spec.random(sizes, generator).numpy() for state in plan.states]
    rows, ends = stepped(parsed(text), plan, values, start, sizes["time"])
    model = parsed(text)
    wrap_in_scan(model, plan)
    assert kinds(model.graph).count("Scan") == 1
    finish(model, 18)  # names are each a value's own only behind this
    feeds = [*(value.numpy() for value in values.values()), *start]
    names = [value.name for value in model.graph.inputs]
    got = results(model, dict(zip(names, feeds, strict=True)))
    for place, output in enumerate(plan.outputs):
        each, shape = [row[place] for row in rows], list(output.spec.shape)
        expected = each[-1]
        if "time" in shape:
            expected = np.stack(each, shape.index("time"))
        elif output.spec.has("time"):
            expected = np.concatenate(each, [axis.name for axis in output.spec.axes()].index("time"))
        np.testing.assert_allclose(got[place], expected, rtol=1e-6, atol=1e-6)
    for end, expected in zip(got[len(plan.outputs) :], ends, strict=True):
        np.testing.assert_allclose(end, expected, rtol=1e-6, atol=1e-6)


def test_the_graph_has_the_plans_inputs_and_the_weights_stay_outside() -> None:
    text, inputs, carried, outputs = STEPS["time behind the batch"]
    model, plan = parsed(text), plan_of(inputs, carried, outputs)
    wrap_in_scan(model, plan)
    shapes = [[str(size) for size in value.shape or ()] for value in model.graph.inputs]
    assert shapes == [["batch", "time", "3"], ["batch", "3"]]
    assert "half" in model.graph.initializers
    (scan,) = [node for node in model.graph if node.op_type == "Scan"]
    body = scan.attributes["body"].as_graph()
    assert [value.name for value in body.inputs] == ["h.before", "x.step"]
    assert not body.initializers
