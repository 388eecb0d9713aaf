"""A recurrent layer in ONNX computes what PyTorch's does: natively, or as a Scan of its cell."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rnnx_export.capture import recurrent_ops  # noqa: F401  (defines the operators)
from rnnx_export.diagnostics import CaptureError
from rnnx_export.graph.convert import DOMAIN
from rnnx_export.graph.passes.names import finish
from rnnx_export.graph.passes.recurrent import constant, expand_recurrent
from support.chunks import FEW, Some, some_of
from support.onnx_graphs import results

LAYERS: dict[str, Any] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN of relu": functools.partial(nn.RNN, nonlinearity="relu"),
}
DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.float16: ir.DataType.FLOAT16,
}


def model_of(layer: nn.RNNBase, lengths: bool) -> ir.Model:
    """Return a graph of the one node that stands for a layer when it was converted."""
    dtype = DTYPES[layer.weight_ih_l0.dtype]
    names = ["x", "h", "c"] if layer.mode == "LSTM" else ["x", "h"]
    shapes = [["n", "t", layer.input_size] if layer.batch_first else ["t", "n", layer.input_size]]
    shapes += [["d", "n", width] for width in (layer.proj_size or layer.hidden_size, layer.hidden_size)]
    inputs = [
        ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        for name, shape in zip(names, shapes, strict=False)
    ]
    counts = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["n"]))
    weights = []
    for place, array in enumerate(layer._flat_weights):
        tensor = ir.tensor(array.detach().numpy(), name=f"rnn.weight_{place}")
        weights.append(ir.Value(name=tensor.name, const_value=tensor))
    attributes = {
        "bias": int(layer.bias), "layers": layer.num_layers, "bidirectional": int(layer.bidirectional),
        "batch_first": int(layer.batch_first), "nonlinearity": getattr(layer, "nonlinearity", ""),
    }  # fmt: skip
    node = ir.Node(
        DOMAIN,
        "RNN" if layer.mode.startswith("RNN") else layer.mode,
        [inputs[0], counts if lengths else None, *inputs[1:], *weights],
        ir.convenience.convert_attributes(attributes),
        num_outputs=len(inputs),
    )
    for name, value in zip(("y", "h_end", "c_end"), node.outputs, strict=False):
        value.name, value.type = name, ir.TensorType(dtype)
    given_inputs = [*inputs, counts] if lengths else inputs
    graph = ir.Graph(given_inputs, node.outputs, nodes=[node], opset_imports={"": 18, DOMAIN: 1}, name="main")
    for value in weights:
        graph.register_initializer(value)
    return ir.Model(graph, ir_version=8)


def check(layer: nn.RNNBase, some: Some, *, lengths: bool) -> ir.Model:
    """Expand the layer, and hold outputs and final states to what the operator gives in PyTorch."""
    dtype = layer.weight_ih_l0.dtype
    batch, time, directions = some(1, 3), some(1, 4), 2 if layer.bidirectional else 1
    x = torch.randn((batch, time, layer.input_size) if layer.batch_first else (time, batch, layer.input_size))
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    states = [torch.randn(directions * layer.num_layers, batch, width) for width in widths]
    x, *states = (value.to(dtype) for value in (x, *states))
    counts = torch.tensor([some(0, time) for _ in range(batch)]) if lengths else None
    rest = (layer._flat_weights, layer.bias, layer.num_layers, layer.bidirectional, layer.batch_first, counts)
    name = "rnn" if layer.mode.startswith("RNN") else layer.mode.lower()
    extra = (layer.nonlinearity,) if name == "rnn" else ()
    with torch.no_grad():
        expected = getattr(torch.ops.rnnx, name)(x, *states, *rest, *extra)
    model = model_of(layer, lengths)
    expand_recurrent(model)
    finish(model, 18)  # names are each a value's own only behind this
    feeds = dict(zip(("x", "h", "c"), (value.numpy() for value in (x, *states)), strict=False))
    if counts is not None:
        feeds["lengths"] = counts.numpy()
    close = {torch.float16: 2e-3, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for got, wanted in zip(results(model, feeds), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=close, atol=close)
    assert all(node.domain != DOMAIN for node in model.graph.all_nodes())
    assert DOMAIN not in model.opset_imports
    return model


def layer_of(kind: str, some: Some, dtype: torch.dtype, **options: Any) -> nn.RNNBase:
    torch.manual_seed(some(0, 1000))
    return LAYERS[kind](
        some(1, 3), some(2, 3), some(1, 2), bias=bool(some(0, 1)), batch_first=bool(some(0, 1)),
        bidirectional=bool(some(0, 1)), dtype=dtype, **options,
    )  # fmt: skip


@pytest.mark.parametrize("lengths", [False, True], ids=["whole rows", "rows of their own lengths"])
@pytest.mark.parametrize("kind", LAYERS)
@FEW
@given(st.data())
def test_the_native_operator_computes_the_layer(kind: str, lengths: bool, data: st.DataObject) -> None:
    some = some_of(data)
    layer = layer_of(kind, some, torch.float32)
    model = check(layer, some, lengths=lengths)
    found = [node.op_type for node in model.graph.all_nodes()]
    assert found.count(kind.partition(" ")[0]) == layer.num_layers
    assert "Scan" not in found


@pytest.mark.parametrize("lengths", [False, True], ids=["whole rows", "rows of their own lengths"])
@pytest.mark.parametrize("kind", LAYERS)
@FEW
@given(st.data())
def test_a_scan_of_the_cell_computes_the_layer_where_the_operator_has_no_kernel(
    kind: str, lengths: bool, data: st.DataObject
) -> None:
    some = some_of(data)
    layer = layer_of(kind, some, torch.float64)
    model = check(layer, some, lengths=lengths)
    found = [node.op_type for node in model.graph]
    assert found.count("Scan") == layer.num_layers * (2 if layer.bidirectional else 1)
    assert kind.partition(" ")[0] not in found


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@FEW
@given(st.data())
def test_a_projection_is_part_of_the_cell(dtype: torch.dtype, data: st.DataObject) -> None:
    some = some_of(data)
    check(layer_of("LSTM", some, dtype, proj_size=1), some, lengths=bool(some(0, 1)))


@pytest.mark.parametrize("kind", LAYERS)
@FEW
@given(st.data())
def test_half_precision_is_computed_in_single_and_handed_out_as_half(kind: str, data: st.DataObject) -> None:
    some = some_of(data)
    model = check(layer_of(kind, some, torch.float16), some, lengths=False)
    assert {value.dtype for value in model.graph.outputs} == {ir.DataType.FLOAT16}


def test_weights_that_are_computed_are_refused() -> None:
    model = model_of(nn.GRU(2, 3), lengths=False)
    next(iter(model.graph.initializers.values())).const_value = None
    with pytest.raises(CaptureError, match="the weights of a GRU layer are computed while it runs"):
        expand_recurrent(model)


def test_what_the_module_was_called_stays_with_its_nodes() -> None:
    model = model_of(nn.LSTM(2, 3), lengths=False)
    next(iter(model.graph)).metadata_props["from"] = "encoder"
    expand_recurrent(model)
    assert {node.metadata_props["from"] for node in model.graph} == {"encoder"}


def test_a_constant_is_made_once_and_another_of_its_name_is_numbered() -> None:
    graph = ir.Graph([], [], nodes=[], name="main", opset_imports={"": 18})
    one = constant(graph, "one", np.array(1))
    assert constant(graph, "one", np.array(1)) is one
    others = [constant(graph, "one", array) for array in (np.array(2), np.array(1.0), np.array([1]))]
    assert [value.name for value in others] == ["one_2", "one_3", "one_4"]
    assert constant(graph, "one", np.array([1])) is others[2]
