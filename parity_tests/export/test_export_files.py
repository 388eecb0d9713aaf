"""What lies in an exported file: a graph any runtime opens, the contract's names, nothing of this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import rnnx
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model
from rnnx_export.api import Exported
from support.plain_torch import CASES, build

# One of each kind: operators, Scan, hops, lengths, buffers, free dimensions, whole sequences, step models.
NAMES = [
    "lstm_2", "gru_bidirectional", "rnn_tanh_bfloat16", "gru_float64", "packed_lstm", "layer_norm_lstm",
    "conv_lstm", "loop_cell_from_nothing", "ring_buffer", "state_nested", "shared_layer_twice", "tcn",
    "gru_between_convolutions", "audio_hops", "attention_decoder", "flattened_output", "step_given_time",
    "constant_flag",
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, exported: Callable[[str], Path]) -> Exported:
    path = exported(request.param)
    return Exported(
        path, path.with_name("model.trace.safetensors"), read_contract(read_model(path)), notes=[]
    )


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def free_names(graph: onnx.GraphProto) -> set[str]:
    """Return the values that a subgraph takes from the graphs around it."""
    own = {value.name for value in (*graph.input, *graph.initializer)} | {
        n for node in graph.node for n in node.output
    }
    wanted = {name for node in graph.node for name in used(node)} | {value.name for value in graph.output}
    return wanted - own


def used(node: onnx.NodeProto) -> set[str]:
    inner = {
        name
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for name in free_names(attribute.g)
    }
    return {name for name in node.input if name} | inner


def symbols(contract: Contract) -> set[str]:
    entries = (*contract.inputs, *contract.outputs, *contract.states)
    return {str(dimension) for entry in entries for dimension in entry.shape if isinstance(dimension, str)}


def test_the_file_is_valid_and_old_runtimes_open_it(made: Exported) -> None:
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version <= 10
    assert not model.functions


def test_nothing_of_this_machine_is_in_the_files(made: Exported) -> None:
    for path in (made.path, made.trace):
        data = path.read_bytes()
        for text in (
            b"stack_trace",
            b"pkg.torch",
            b".py",
            b"/work",
            b"/home",
            b"/tmp",
            b"site-packages",
            b"rnnx_export",
        ):
            if text == b".py" and made.contract.whole_only:
                continue  # the reason names the user's own file and line
            assert text not in data, (
                f"{text!r} in {path.name}: {data[max(0, data.find(text) - 60) :][:160]!r}"
            )
    model = onnx.load(made.path)
    for graph in graphs(model.graph):
        assert not graph.doc_string
        for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
            assert not entry.doc_string
            assert not entry.metadata_props
    assert [entry.key for entry in model.metadata_props] == ["rnnx.contract"]


def test_only_the_contract_names_dimensions(made: Exported) -> None:
    model = onnx.load(made.path)
    allowed = symbols(made.contract)
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            names = {dimension.dim_param for dimension in value.type.tensor_type.shape.dim} - {""}
            assert names <= allowed, f"{value.name}: {names - allowed}"
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    entries = {entry.name: entry.shape for entry in (*made.contract.inputs, *made.contract.outputs)}
    entries |= {name: state.shape for state in made.contract.states for name in (state.input, state.output)}
    assert shapes == {name: list(shape) for name, shape in entries.items()}


def test_inputs_and_outputs_are_the_contracts_in_order(made: Exported) -> None:
    graph, contract = onnx.load(made.path).graph, made.contract
    assert [value.name for value in graph.input] == [
        *(spec.name for spec in contract.inputs), *(state.input for state in contract.states)
    ]  # fmt: skip
    assert [value.name for value in graph.output] == [
        *(spec.name for spec in contract.outputs), *(state.output for state in contract.states)
    ]  # fmt: skip


def test_nothing_is_left_over(made: Exported) -> None:
    graph = onnx.load(made.path).graph
    every = [name for node in graph.node for name in used(node)]
    ends = {value.name for value in graph.output}
    unused = {tensor.name for tensor in graph.initializer} - set(every)
    assert not unused, "weights that nothing takes"
    for node in graph.node:
        assert any(name in ends or name in every for name in node.output), f"{node.name} does nothing"
    for node in graph.node:
        if node.op_type == "Identity":
            assert node.output[0] in ends, f"{node.name} is an identity inside"
    for first in graph.node:
        for second in graph.node:
            chained = first.op_type == second.op_type == "Cast" and second.input[0] == first.output[0]
            assert not chained, f"{first.name} then {second.name}"


def test_every_state_goes_in_and_comes_out(made: Exported) -> None:
    """No state is handed out that was not taken in: what comes out depends on what went in."""
    graph = onnx.load(made.path).graph
    reached = {state.input: {state.input} for state in made.contract.states}
    for names in reached.values():
        for node in graph.node:
            if names & used(node):
                names.update(node.output)
    ends = {spec.name for spec in made.contract.outputs} | {state.output for state in made.contract.states}
    for state in made.contract.states:
        assert reached[state.input] & ends, f"{state.name} goes in and changes nothing"


def test_names_are_stable_and_unique(made: Exported) -> None:
    model = onnx.load(made.path)
    names = [node.name for graph in graphs(model.graph) for node in graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    values = [name for graph in graphs(model.graph) for node in graph.node for name in node.output if name]
    assert len(set(values)) == len(values)
    for name in (*names, *values):
        assert not re.search(r"^val_\d+$|^(s|u)\d+$|_\d{6,}|0x", name), name


@pytest.mark.parametrize(
    ("name", "node", "weight"),
    [
        ("lstm_2", "rnn/LSTM", "out.bias"),
        ("wavenet", "gates.2/Conv", "skips.3.bias"),
        ("gru_between_convolutions", "gru/GRU", "conv_in.bias"),
        ("layer_norm_lstm", "cell.ln_c/LayerNormalization", "cell.ln_c.weight"),
    ],
)
def test_nodes_and_weights_are_named_by_module_path(
    name: str, node: str, weight: str, tmp_path: Path
) -> None:
    case = CASES[name]
    model = onnx.load(rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments).path)
    nodes = {entry.name for graph in graphs(model.graph) for entry in graph.node}
    weights = {entry.name for graph in graphs(model.graph) for entry in graph.initializer}
    assert node in nodes, nodes
    assert weight in weights, weights


def test_a_later_operator_set_is_used_when_asked_for(tmp_path: Path) -> None:
    case = CASES["gru"]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments, opset=21)
    assert [(entry.domain, entry.version) for entry in onnx.load(made.path).opset_import] == [("", 21)]


def test_a_small_model_is_a_small_file(tmp_path: Path) -> None:
    """Weights, and not much else."""
    case = CASES["lstm"]
    module: Any = build(case)
    made = rnnx.export(module, tmp_path / "model.onnx", **case.arguments)
    weights = sum(4 * parameter.numel() for parameter in module.parameters())
    assert made.path.stat().st_size < weights + 6_000
    assert len(onnx.load(made.path).graph.node) <= 10
