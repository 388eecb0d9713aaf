"""Faults as people make them when they carry a network over by hand, each put into a good exported model.

A fault knows the module it sits in, and what the report must say about it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from rnnx.model.onnx_file import read_contract, read_model, write_contract

X = {"x": "float32[batch, time, 5]"}


class Stack(nn.Module):
    """A linear layer, layer norm, two layers of LSTM, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.norm = nn.Linear(5, 16), nn.LayerNorm(16)
        self.lstm = nn.LSTM(16, 12, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(self.norm(self.enc(x)))
        result: torch.Tensor = self.head(y)
        return result


class Gru(nn.Module):
    """A causal convolution and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 6, 3, padding=2)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = self.conv(x.transpose(1, 2))[:, :, :-2]
        y, _ = self.gru(torch.tanh(past.transpose(1, 2)))
        result: torch.Tensor = self.out(y)
        return result


class Loop(nn.Module):
    """A cell in a Python loop, exported as a Scan."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(5, 7), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, ys = None, []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            ys.append(self.out(h))
        return torch.stack(ys, 1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"stack": Stack, "gru": Gru, "loop": Loop}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        network: which network it is put into.
        spoil: makes it, in place.
        module: path of the module it sits in.
        says: part of what the report says about it.
    """

    network: str
    spoil: Callable[[onnx.ModelProto], None]
    module: str
    says: str


FAULTS: dict[str, Fault] = {}


def fault(
    network: str, module: str, says: str
) -> Callable[[Callable[[onnx.ModelProto], None]], Callable[[onnx.ModelProto], None]]:
    """Register a fault under its function's name."""

    def register(spoil: Callable[[onnx.ModelProto], None]) -> Callable[[onnx.ModelProto], None]:
        FAULTS[spoil.__name__] = Fault(network, spoil, module, says)
        return spoil

    return register


def spoiled(data: bytes, spoil: Callable[[onnx.ModelProto], None]) -> bytes:
    """Return a model with a fault in it; its contract says the same as before, unless that is the fault."""
    model = onnx.load_model_from_string(data)
    spoil(model)
    return model.SerializeToString()


def change(model: onnx.ModelProto, name: str, edit: Callable[[Any], Any]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    value = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def find(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in nodes(model.graph) if node.name == name)


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += nodes(attribute.g)
    return found


def weight_of(model: onnx.ModelProto, node: str, index: int = 1) -> str:
    return find(model, node).input[index]


def put_before(
    model: onnx.ModelProto, reader: str, made: Callable[[str, str], Sequence[onnx.NodeProto]], index: int = 0
) -> None:
    """Put nodes between a node and its input: `made` gets the names of what they read and give."""
    place = next(i for i, node in enumerate(model.graph.node) if node.name == reader)
    node = model.graph.node[place]
    source = node.input[index]
    fresh = made(source, "odd")
    node.input[index] = "odd"
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[:place], *fresh, *rest[place:]])


def constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def edit_states(model: onnx.ModelProto, edit: Callable[[list[Any]], list[Any]]) -> None:
    import msgspec

    data = model.SerializeToString()
    contract = read_contract(read_model(data))
    contract = msgspec.structs.replace(contract, states=edit(list(contract.states)))
    model.ParseFromString(write_contract(data, contract))


# What is wrong with weights.


@fault("stack", "lstm", "lstm.l1.R differs in")
def gates_swapped(model: onnx.ModelProto) -> None:
    """ONNX orders the gates i o f c, PyTorch i f g o."""
    n = 12
    order = [*range(n), *range(2 * n, 4 * n), *range(n, 2 * n)]
    change(model, "lstm.l1.R", lambda r: r[:, order])


@fault("stack", "enc", "enc.bias differs in 16 of 16")
def bias_dropped(model: onnx.ModelProto) -> None:
    change(model, "enc.bias", np.zeros_like)


@fault("stack", "lstm", "lstm.l0.B differs in 48 of 96")
def recurrent_bias_dropped(model: onnx.ModelProto) -> None:
    def drop(bias: Any) -> Any:
        bias[:, 48:] = 0
        return bias

    change(model, "lstm.l0.B", drop)


@fault("stack", "lstm", "lstm.l1.R differs")
def layers_given_the_same_weight(model: onnx.ModelProto) -> None:
    first = next(t for t in model.graph.initializer if t.name == "lstm.l0.R")
    change(model, "lstm.l1.R", lambda _: numpy_helper.to_array(first))


@fault("stack", "enc", "differs in")
def weight_rounded_to_float16(model: onnx.ModelProto) -> None:
    change(model, weight_of(model, "enc/MatMul"), lambda w: w.astype(np.float16).astype(np.float32))


@fault("gru", "gru", "differs in")
def recurrent_matrix_transposed(model: onnx.ModelProto) -> None:
    def turn(weights: Any) -> Any:
        return weights.reshape(3, 8, 8).transpose(0, 2, 1).reshape(weights.shape)

    change(model, weight_of(model, "gru/GRU", 2), turn)


@fault("stack", "head.2", "differs in 1 of 24")
def one_bit_flipped(model: onnx.ModelProto) -> None:
    def flip(weights: Any) -> Any:
        weights.reshape(-1).view(np.uint32)[5] ^= 1 << 21
        return weights

    change(model, weight_of(model, "head.2/MatMul"), flip)


# What is wrong with states.


@fault("stack", "lstm", "reads")
def layer_states_swapped(model: onnx.ModelProto) -> None:
    for index in (5, 6):
        one, two = find(model, "lstm/LSTM"), find(model, "lstm/LSTM_2")
        one.input[index], two.input[index] = two.input[index], one.input[index]


@fault("stack", "lstm", "reads")
def h_and_c_swapped(model: onnx.ModelProto) -> None:
    node = find(model, "lstm/LSTM")
    node.input[5], node.input[6] = node.input[6], node.input[5]


@fault("stack", "lstm", "computes Identity, the network Concat")
def state_not_carried(model: onnx.ModelProto) -> None:
    node = find(model, "lstm/Concat_2")
    node.output[0] = "lost"
    model.graph.node.append(helper.make_node("Identity", ["lstm.c_in"], ["lstm.c_out"]))


@fault("stack", "lstm", "state lstm.c starts as 0.01, the network as 0")
def initial_state_wrong(model: onnx.ModelProto) -> None:
    import msgspec

    edit_states(model, lambda states: [*states[:-1], msgspec.structs.replace(states[-1], initial=0.01)])


@fault("stack", "lstm", "'lstm.c_out' in the contract, 'lstm.h_out' by the network")
def states_paired_crosswise(model: onnx.ModelProto) -> None:
    import msgspec

    def cross(states: list[Any]) -> list[Any]:
        h, c = states
        return [msgspec.structs.replace(h, output=c.output), msgspec.structs.replace(c, output=h.output)]

    edit_states(model, cross)


@fault("stack", "lstm", "the network has no such Cast there")
def state_kept_in_float16(model: onnx.ModelProto) -> None:
    node = find(model, "lstm/Concat")
    node.output[0] = "wide"
    model.graph.node.append(helper.make_node("Cast", ["wide"], ["half"], to=onnx.TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["half"], ["lstm.h_out"], to=onnx.TensorProto.FLOAT))


@fault("loop", "cell", "the network has no such Mul there")
def state_leaks(model: onnx.ModelProto) -> None:
    """The new state is a little smaller than it should be, within the loop."""
    body = next(a.g for a in model.graph.node[0].attribute if a.name == "body")
    node = next(node for node in body.node if node.name == "cell/Add_4")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.9995), "leak"))
    at = list(body.node).index(node)
    first = node.input[0]
    node.input[0] = "leaked"
    body.node.insert(at, helper.make_node("Mul", [first, "leak"], ["leaked"], name="cell/leak"))


@fault("gru", "conv", "")
def past_frames_off_by_one(model: onnx.ModelProto) -> None:
    """The frames that a convolution keeps are those of one step before."""
    contract = read_contract(read_model(model.SerializeToString()))
    past = next(state for state in contract.states if "past" in state.name)
    node = next(node for node in model.graph.node if past.output in node.output)
    node.output[list(node.output).index(past.output)] = "newest"
    constant(model, "late:starts", np.array([0], np.int64))
    constant(model, "late:ends", np.array([1], np.int64))
    constant(model, "late:axes", np.array([2], np.int64))
    first = ["newest", "late:starts", "late:ends", "late:axes"]
    model.graph.node.append(helper.make_node("Slice", first, ["late"], name="conv/late"))
    model.graph.node.append(
        helper.make_node("Concat", ["late", "late"], [past.output], name="conv/twice", axis=2)
    )


# What is wrong with operators.


@fault("stack", "norm", "epsilon is 0.00")
def layer_norm_epsilon_changed(model: onnx.ModelProto) -> None:
    set_attribute(find(model, "norm/LayerNormalization"), "epsilon", 1e-3)


@fault("stack", "head.1", "")
def tanh_approximated(model: onnx.ModelProto) -> None:
    """Tanh as x (27 + x^2) / (27 + 9 x^2)."""
    node = find(model, "head.1/Tanh")
    source, target, place = node.input[0], node.output[0], list(model.graph.node).index(node)
    constant(model, "27", np.float32(27))
    constant(model, "9", np.float32(9))
    parts = [
        helper.make_node("Mul", [source, source], ["xx"], name="head.1/square"),
        helper.make_node("Add", ["xx", "27"], ["top"], name="head.1/top"),
        helper.make_node("Mul", ["xx", "9"], ["xx9"], name="head.1/nine"),
        helper.make_node("Add", ["xx9", "27"], ["bottom"], name="head.1/bottom"),
        helper.make_node("Div", ["top", "bottom"], ["share"], name="head.1/share"),
        helper.make_node("Mul", [source, "share"], [target], name="head.1/approximate"),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[:place], *parts, *rest[place + 1 :]])


@fault("stack", "head.1", "computes Relu, the network Tanh")
def another_activation(model: onnx.ModelProto) -> None:
    find(model, "head.1/Tanh").op_type = "Relu"


@fault("gru", "gru", "linear_before_reset is 0, the network's 1")
def reset_gate_applied_elsewhere(model: onnx.ModelProto) -> None:
    set_attribute(find(model, "gru/GRU"), "linear_before_reset", 0)


@fault("stack", "norm", "the network has no such RandomUniformLike there")
def dropout_left_on(model: onnx.ModelProto) -> None:
    constant(model, "rate", np.float32(0.3))
    constant(model, "kept", np.float32(0.7))

    def drop(source: str, odd: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("RandomUniformLike", [source], ["noise"], name="norm/noise", seed=1.0),
            helper.make_node("Greater", ["noise", "rate"], ["stays"], name="norm/stays"),
            helper.make_node("Cast", ["stays"], ["mask"], name="norm/mask", to=onnx.TensorProto.FLOAT),
            helper.make_node("Div", ["mask", "kept"], ["scaled"], name="norm/scaled"),
            helper.make_node("Mul", [source, "scaled"], [odd], name="norm/dropped"),
        ]

    put_before(model, "lstm/Transpose", drop)


# What is wrong with time and batch. None shows in a single step of a single row.


def _moved_in_time(
    model: onnx.ModelProto, first: tuple[int, int], second: tuple[int, int], name: str
) -> None:
    far = 1 << 60
    for index, (start, end) in enumerate((first, second)):
        constant(model, f"start{index}", np.array([start], np.int64))
        constant(model, f"end{index}", np.array([end if end else far], np.int64))
    constant(model, "time", np.array([1], np.int64))
    put_before(
        model,
        "norm/LayerNormalization",
        lambda source, odd: [
            helper.make_node("Slice", [source, "start0", "end0", "time"], ["one"], name=f"norm/{name}_1"),
            helper.make_node("Slice", [source, "start1", "end1", "time"], ["two"], name=f"norm/{name}_2"),
            helper.make_node("Concat", ["one", "two"], [odd], name=f"norm/{name}", axis=1),
        ],
    )


@fault("stack", "norm", "the network has no such")
def time_off_by_one(model: onnx.ModelProto) -> None:
    _moved_in_time(model, (0, 1), (0, -1), "late")


@fault("stack", "norm", "the network has no such")
def look_ahead_of_one_step(model: onnx.ModelProto) -> None:
    _moved_in_time(model, (1, 0), (-1, 0), "early")


@fault("stack", "norm", "the network has no such Slice there")
def batch_rows_mixed(model: onnx.ModelProto) -> None:
    for name, value in (("from", -1), ("to", -(1 << 60)), ("rows", 0), ("back", -1)):
        constant(model, name, np.array([value], np.int64))
    put_before(
        model,
        "lstm/Transpose",
        lambda source, odd: [
            helper.make_node("Slice", [source, "from", "to", "rows", "back"], [odd], name="norm/mixed")
        ],
    )
