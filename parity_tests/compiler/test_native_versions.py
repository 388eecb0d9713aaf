"""The compiler takes the versions and attributes of operators that it was written for, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import rnnx
import rnnx_native.lowering.ops  # noqa: F401  registers what is known
from rnnx.model.contract import Contract, InputSpec, OutputSpec
from rnnx.model.onnx_file import write_contract
from rnnx_native.compile import compile_model
from rnnx_native.lowering.lower import KNOWN, OPS
from rnnx_native.onnx_graph.fuse_bias import DENSE

HISTORY: dict[str, dict[int, Any]] = {}
for found in onnx.defs.get_all_schemas_with_history():
    if found.domain == "":
        HISTORY.setdefault(found.name, {})[found.since_version] = found


def one_node(
    node: Any, opset: int, x: list[int], y: list[int], *, kind: str = "float32", more: tuple[Any, ...] = ()
) -> bytes:
    """Return a model of one node, from x to y, of a fixed shape."""
    types = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}
    value = types[kind]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", value, x)],
        [helper.make_tensor_value_info("y", value, y)],
        list(more),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    contract = Contract(
        inputs=[InputSpec(name="x", dtype=kind, shape=list(x))],
        outputs=[OutputSpec(name="y", dtype=kind, shape=list(y))],
        states=[],
    )
    return write_contract(made.SerializeToString(), contract)


def refused(data: bytes, tmp_path: Path) -> str:
    """Return what the provider native says, which must be what `rnnx compile` says."""
    (tmp_path / "m.onnx").write_bytes(data)
    texts = []

    def step() -> None:
        session = rnnx.load(data, "native")  # rows are not free: it is compiled at the first call
        (spec,) = session.contract.inputs
        session.stream().step(np.zeros([int(size) for size in spec.shape], spec.dtype))

    for call in (step, lambda: compile_model(tmp_path / "m.onnx", tmp_path / "c")):
        with pytest.raises(rnnx.RnnxError) as refusal:
            call()
        assert refusal.value.code == "cannot-compile"
        texts.append(str(refusal.value))
    assert texts[0] == texts[1]
    assert not (tmp_path / "c").exists()
    return texts[0]


@pytest.mark.parametrize("name", sorted(set(OPS) - {DENSE}))
def test_every_writer_says_what_it_knows(name: str) -> None:
    """Versions that exist, and every attribute that these have: none is ignored without a decision."""
    known, versions = KNOWN[name], HISTORY[name]
    assert {known.first, known.last} <= set(versions)
    held = [schema for version, schema in versions.items() if known.first <= version <= known.last]
    assert known.attributes == {attribute for schema in held for attribute in schema.attributes}


two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
shift = helper.make_tensor("shift", TensorProto.UINT8, [2], [1, 9])
NEWER = {
    "SpaceToDepth": (
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD"), [1, 2, 4, 4], [1, 8, 2, 2],
        {},
    ),
    "BitShift": (
        helper.make_node("BitShift", ["x", "shift"], ["y"], direction="LEFT"), [2], [2],
        {"kind": "uint8", "more": (shift,)},
    ),
    "Mod": (helper.make_node("Mod", ["x", "two"], ["y"]), [3], [3], {"more": (two,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_an_operator_whose_meaning_changed_since_is_refused(name: str, tmp_path: Path) -> None:
    """Each of these was compiled as it was before."""
    newest = max(HISTORY[name])
    assert newest > KNOWN[name].last, "onnx has a newer one"
    node, x, y, more = NEWER[name]
    text = refused(one_node(node, newest, x, y, **more), tmp_path)
    assert f"{name} in node" in text
    assert f"version {newest} of the operator" in text


def test_an_operator_older_than_what_is_written_is_refused(tmp_path: Path) -> None:
    """Clip had its bounds as attributes; they would be lost."""
    node = helper.make_node("Clip", ["x"], ["y"], min=0.0, max=1.0)
    assert "version 6 of the operator, where C has 11 to 13" in refused(
        one_node(node, 10, [3], [3]), tmp_path
    )


def test_an_attribute_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Tanh", ["x"], ["y"], approximate="fast")
    assert "the attribute 'approximate', which C does not know" in refused(
        one_node(node, 18, [3], [3]), tmp_path
    )


def test_an_operator_set_that_is_not_there_yet_is_refused(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    text = refused(one_node(helper.make_node("Tanh", ["x"], ["y"]), newest + 1, [3], [3]), tmp_path)
    assert f"found operator set {newest + 1}" in text


def test_remainders_of_floats_need_fmod(tmp_path: Path) -> None:
    data = one_node(helper.make_node("Mod", ["x", "two"], ["y"]), 13, [3], [3], more=(two,))
    assert "without fmod=1" in refused(data, tmp_path)


def test_an_output_that_is_not_written_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Dropout", ["x"], ["dropped", "mask"])
    cast = helper.make_node("Cast", ["mask"], ["y"], to=TensorProto.FLOAT)
    model = onnx.load_model_from_string(one_node(node, 13, [3], [3]))
    model.graph.node.append(cast)
    contract = Contract(
        inputs=[InputSpec(name="x", dtype="float32", shape=[3])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=[3])],
        states=[],
    )
    text = refused(write_contract(model.SerializeToString(), contract), tmp_path)
    assert "an output that C does not have, 'mask'" in text


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_before_operator_set_13_is_over_all_axes_from_one_on(name: str, tmp_path: Path) -> None:
    node = helper.make_node(name, ["x"], ["y"], axis=1)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    assert "of all axes from one on" in refused(one_node(node, 12, [2, 3, 4], [2, 3, 4]), tmp_path)
    for shape, attributes in (([2, 3, 4], {"axis": 2}), ([2, 12], {})):
        data = one_node(helper.make_node(name, ["x"], ["y"], **attributes), 12, shape, shape)
        want = onnxruntime.InferenceSession(data).run(None, {"x": x.reshape(shape)})[0]
        got = rnnx.load(data, "native").stream().step({"x": x.reshape(shape)})["y"]
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", ["ReduceL1", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"])
def test_a_reduction_of_nothing_is_refused_where_it_is_more_than_the_value(name: str, tmp_path: Path) -> None:
    data = one_node(helper.make_node(name, ["x"], ["y"], noop_with_empty_axes=1), 18, [3], [3])
    assert "noop_with_empty_axes" in refused(data, tmp_path)
