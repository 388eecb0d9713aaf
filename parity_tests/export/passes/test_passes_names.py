"""The final graph: names from the module's paths, each once, the same in every run, and nothing left over."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rnnx_export.graph.passes.names import finish
from support.onnx_graphs import keeps_values, kinds, normal, parsed

SCOPES = "pkg.torch.onnx.name_scopes"
TEXT = """main (float[batch, 3] x) => (float[batch, 3] y, float[batch, 3] z) <float[1] w = {2.0}> {
    a = Exp (x)
    b = Exp (a)
    unused = Neg (b)
    y = Mul (b, w)
    first, second = Split <axis = 1, num_outputs = 2> (x)
    z = Concat <axis = 1> (first, second)
}"""


def made(scopes: dict[str, str]) -> ir.Model:
    """Return the graph, its nodes of some kinds with the path that the conversion notes down."""
    model = parsed(TEXT)
    for node in model.graph:
        if node.op_type in scopes:
            node.metadata_props[SCOPES] = scopes[node.op_type]
    return model


def names(model: ir.Model) -> list[str]:
    return [node.name or "" for node in model.graph]


def test_nodes_are_named_by_path_and_numbered_and_values_after_them() -> None:
    model = made({"Exp": "['', 'program.module.encoder', 'exp']", "Mul": "['module', 'mul']"})
    keeps_values(model, lambda: finish(model, 18), {"x": normal(2, 3)})
    assert names(model) == ["encoder/Exp", "encoder/Exp_2", "Mul", "Split", "Concat"]
    values = [value.name for node in model.graph for value in node.outputs]
    assert values == ["encoder/Exp:out", "encoder/Exp_2:out", "y", "Split:out.0", "Split:out.1", "z"]


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'module', 'module.encoder.0', 'linear']", "encoder.0/Exp"),
        ("['program.program.module.encoder', 'linear']", "encoder/Exp"),
        ("['module', '_empty_nn_module_stack_from_metadata_hook', 'linear']", "Exp"),
        ("['linear']", "Exp"),
        ("[]", "Exp"),
    ],
)
def test_paths_are_the_users_modules_own(scopes: str, path: str) -> None:
    model = made({"Exp": scopes})
    finish(model, 18)
    assert names(model)[0] == path


def test_what_nothing_uses_is_gone_and_nothing_says_where_it_was_made() -> None:
    model = made({"Exp": "['module.a', 'exp']"})
    model.metadata_props["secret"] = model.graph.metadata_props["secret"] = "/home/someone"
    model.doc_string = "made at home"
    for node in model.graph:
        node.doc_string = "/home/someone/net.py"
        node.outputs[0].metadata_props["secret"] = "/home/someone"
    finish(model, 18)
    assert "Neg" not in kinds(model.graph)
    assert b"home" not in ir.to_proto(model).SerializeToString()
    assert (model.producer_name, model.graph.name, model.doc_string) == ("rnnx", "main", None)


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 10), (21, 10), (23, 11)])
def test_the_operator_set_is_the_one_asked_for_and_no_other(opset: int, ir_version: int) -> None:
    model = made({})
    finish(model, opset)
    assert dict(model.opset_imports) == {"": opset}
    assert model.ir_version == ir_version


def test_weights_are_named_as_in_the_module_and_sorted() -> None:
    text = """main (float[1] x) => (float[1] y)
        <float[1] first = {1}, float[1] second = {2}, float[1] third = {3}> {
        a = Add (x, first)  b = Add (a, second)  y = Add (b, third)
    }"""
    model = parsed(text)
    values = list(model.graph.initializers.values())
    for value, name in zip(values, ("module.z", "program.module.b", "module.z_2"), strict=True):
        del model.graph.initializers[value.name]
        value.name = name
        model.graph.register_initializer(value)
    finish(model, 18)
    assert list(model.graph.initializers) == ["b", "z", "z_2"]
    assert [value.name for value in model.graph.initializers.values()] == ["b", "z", "z_2"]


def test_no_name_is_taken_from_an_input_an_output_or_a_weight() -> None:
    model = parsed(
        "main (float[1] Exp) => (float[1] y) <float[1] Add = {2.0}> { a = Exp (Exp)  y = Add (a, Add) }"
    )
    finish(model, 18)
    assert names(model) == ["Exp_2", "Add_2"]


def test_steps_inside_a_scan_are_named_too_and_no_name_stands_twice() -> None:
    model = parsed(
        """main (float[2] h, float[time, 2] x) => (float[2] end, float[time, 2] y) {
            end, y = Scan <num_scan_inputs = 1, body = step (float[2] h, float[2] x)
                => (float[2] end, float[2] y) { end = Add (h, x)  y = Exp (end) }> (h, x)
        }"""
    )
    keeps_values(model, lambda: finish(model, 18), {"h": normal(2), "x": normal(3, 2)})
    body = next(iter(model.graph)).attributes["body"].as_graph()
    every = [value.name for value in (*model.graph.inputs, *model.graph.outputs, *body.inputs)]
    every += [value.name for node in body for value in node.outputs]
    assert len(set(every)) == len(every) == 8


def test_the_same_graph_gives_the_same_bytes() -> None:
    made_twice = [made({"Exp": "['module.a', 'exp']"}) for _ in range(2)]
    for model in made_twice:
        finish(model, 18)
    first, second = (ir.to_proto(model).SerializeToString(deterministic=True) for model in made_twice)
    assert first == second
