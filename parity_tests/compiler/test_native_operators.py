"""Operators and attributes that no case has, beside ONNX's reference implementation or ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import rnnx
from rnnx.model.contract import Contract, InputSpec, OutputSpec
from rnnx.model.onnx_file import write_contract
from support.operators_as_c import check, node, real


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_of_one_argument(kind: str) -> None:
    anywhere = "Abs Neg Floor Ceil Round Sin Cos Atan Asinh Sinh Cosh Erf Sign Relu Softsign Softplus Exp Tan"
    anywhere += " Sigmoid Tanh Elu Selu Celu LeakyRelu HardSigmoid HardSwish Mish Gelu ThresholdedRelu IsNaN"
    anywhere += " Reciprocal Identity"
    inside = "Asin Acos Atanh"
    above = "Log Sqrt Acosh"
    nodes = [node(operator, ["x"]) for operator in anywhere.split()]
    nodes += [node(operator, ["half"]) for operator in inside.split()]
    nodes += [node(operator, ["large"]) for operator in above.split()]
    nodes.append(node("Gelu", ["x"], "GeluTanh", approximate="tanh"))
    nodes.append(node("Elu", ["x"], "EluTwo", alpha=2.0))
    nodes.append(node("Not", ["flag"]))
    # Streams refuse infinite inputs; a division makes some.
    nodes += [node("Div", ["one", "zero"], "made"), node("IsInf", ["made"], "Inf")]
    nodes += [node("IsInf", ["made"], "InfUp", detect_negative=0)]
    given = {"x": real(2, 7, kind=kind), "half": real(5, low=-0.9, high=0.9, kind=kind)}
    given |= {"large": real(5, low=1, high=9, kind=kind), "flag": np.array([True, False])}
    given |= {"one": np.array([1, -1, 2], kind), "zero": np.array([0, 0, 3], kind)}
    check(nodes, given, tolerance=3e-6)


def test_of_several_arguments() -> None:
    names = ("Add", "Sub", "Mul", "Div", "Less", "Greater", "Equal")
    nodes = [node(operator, ["a", "b"]) for operator in names]
    nodes += [node(operator, ["a", "b"]) for operator in ["LessOrEqual", "GreaterOrEqual"]]
    nodes += [node("PRelu", ["whole", "b"])]
    nodes += [node(operator, ["whole", "b", "c"]) for operator in ["Min", "Max", "Sum", "Mean"]]
    nodes += [node(operator, ["p", "q"]) for operator in ["And", "Or", "Xor"]]
    nodes += [node("Pow", ["up", "b"]), node("Clip", ["a", "low", "high"]), node("Where", ["p", "p3", "q3"])]
    nodes += [
        node("Clip", ["a", "", "high"], "ClipHigh"),
        node("Mod", ["i", "j"]),
        node("Mod", ["a", "d"], "Fmod", fmod=1),
    ]
    nodes += [
        node("Add", ["i", "j"], "AddInt"),
        node("Mul", ["i", "j"], "MulInt"),
        node("Sub", ["i", "j"], "SubInt"),
    ]
    nodes += [
        node("Cast", ["a"], "ToInt", to=TensorProto.INT64),
        node("Cast", ["i"], "ToFloat", to=TensorProto.FLOAT),
    ]
    nodes += [
        node("Cast", ["i"], "ToBool", to=TensorProto.BOOL),
        node("Neg", ["i"], "NegInt"),
        node("Abs", ["i"], "AbsInt"),
    ]
    given = {
        "a": real(2, 1, 3), "whole": real(2, 4, 3, seed=6), "b": real(4, 3, seed=1),
        "c": real(1, seed=2), "d": real(3, low=0.5, high=2),
        "up": real(2, 1, 3, low=0.1), "p": np.array([True, False, True]), "q": np.array([True, True, False]),
        "p3": real(3, seed=3), "q3": real(2, 3, seed=4), "i": np.array([7, -7, 0, 5]),
        "j": np.array([3, 3, -2, -3]),
    }  # fmt: skip
    check(nodes, given, {"low": np.array(-0.5, "f4"), "high": np.array(0.7, "f4")})


def test_reductions_and_orders() -> None:
    names = "ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceMax ReduceMin"
    names += " ReduceLogSumExp"
    nodes = [node(name, ["x", "axes"], keepdims=index % 2) for index, name in enumerate(names.split())]
    nodes += [node("ReduceLogSum", ["up", "axes"]), node("ReduceSum", ["x"], "All", keepdims=0)]
    nodes += [node("Softmax", ["x"], axis=1), node("LogSoftmax", ["x"], axis=-1)]
    nodes += [node("CumSum", ["x", "one"]), node("CumSum", ["x", "one"], "CumBack", reverse=1, exclusive=1)]
    nodes += [node("ArgMax", ["x"], axis=1), node("ArgMin", ["x"], axis=2, keepdims=0)]
    nodes += [
        node("TopK", ["x", "two"], ["Top", "TopAt"], axis=1),
        node("TopK", ["x", "two"], ["Low", "LowAt"], largest=0),
    ]
    nodes += [
        node("LayerNormalization", ["x", "scale", "bias"], "Layer"),
        node("InstanceNormalization", ["x", "s3", "b3"]),
    ]
    nodes += [node("BatchNormalization", ["x", "s3", "b3", "m3", "v3"])]
    constants = {
        "axes": np.array([0, 2]),
        "one": np.array(1),
        "two": np.array([2]),
        "scale": real(4),
        "bias": real(4, seed=1),
    }
    constants |= {"s3": real(3), "b3": real(3, seed=1), "m3": real(3, seed=2), "v3": real(3, low=0.5, seed=3)}
    check(nodes, {"x": real(2, 3, 4), "up": real(2, 3, 4, low=0.1)}, constants, tolerance=5e-6)


def test_shapes_and_indices() -> None:
    nodes = [
        node("Concat", ["x", "x"], axis=1), node("Expand", ["row", "wide"]), node("Tile", ["x", "twice"]),
        node("Pad", ["x", "pads", "fill"]), node("Pad", ["x", "pads"], "PadEdge", mode="edge"),
        node("Pad", ["x", "pads"], "PadReflect", mode="reflect"),
        node("Slice", ["x", "s0", "s1", "sa", "ss"]),
        node("Split", ["x", "parts"], ["S1", "S2"], axis=2), node("Transpose", ["x"], perm=[2, 0, 1]),
        node("Trilu", ["x"], "Upper", upper=1), node("Trilu", ["x", "minus"], "Lower", upper=0),
        node("Gather", ["x", "at"], axis=1), node("Gather", ["x", "known"], "GatherKnown", axis=2),
        node("GatherElements", ["x", "each"], axis=1), node("GatherND", ["x", "pairs"]),
        node("ScatterElements", ["x", "each", "each_value"], axis=1, reduction="add"),
        node("ScatterND", ["x", "pairs", "rows"]), node("OneHot", ["at", "depth", "ends"], axis=0),
        node("Einsum", ["x", "y"], equation="bij,bkj->bik"), node("Flatten", ["x"], axis=2),
        node("MatMul", ["x", "y_turned"]), node("Gemm", ["m", "k"], alpha=0.5, transB=1),
        node("Dropout", ["x"]),
        node("Gemm", ["m", "k", "c"], "GemmBias", beta=2.0, transB=1), node("Unsqueeze", ["x", "axis"]),
    ]  # fmt: skip
    constants = {
        "wide": np.array([2, 3, 4]), "twice": np.array([1, 2, 1]), "pads": np.array([0, 1, 1, 0, 2, 0]),
        "fill": np.array(7, "f4"), "s0": np.array([1, -1]), "s1": np.array([3, -4]), "sa": np.array([1, 2]),
        "ss": np.array([1, -2]), "parts": np.array([1, 3]), "minus": np.array(-1),
        "known": np.array([3, 0, -1]),
        "depth": np.array(3), "ends": np.array([0.5, 2], "f4"), "axis": np.array([1]),
    }  # fmt: skip
    given = {
        "x": real(2, 3, 4), "y": real(2, 5, 4, seed=1), "y_turned": real(2, 4, 5, seed=1), "row": real(1, 4),
        "at": np.array([2, 0, -1]), "each": np.array([[[0, 1, 2, 0]], [[1, 1, 0, 2]]]),
        "each_value": real(2, 1, 4, seed=3),
        "pairs": np.array([[0, 1], [1, 2]]), "rows": real(2, 4, seed=4), "m": real(3, 4),
        "k": real(5, 4, seed=5), "c": real(5),
    }  # fmt: skip
    check(nodes, given, constants)


T, B, F, H = 5, 2, 3, 20
STARTS = {"h": real(1, B, H, seed=7), "c": real(1, B, H, seed=8)}


def test_the_first_rows_of_what_was_joined() -> None:
    """What is known of the parts, one of them a constant, is no longer so of the first rows."""
    nodes = [
        node("Concat", ["x", "beside"], "Joined", axis=1),
        node("Slice", ["Joined", "begin", "end"], "Rows"),
        node("MatMul", ["Rows", "k"]),
        node("MatMul", ["Joined", "k"], "All"),
    ]
    constants = {
        "beside": real(4, 3, seed=1), "begin": np.array([0]), "end": np.array([2]), "k": real(8, 6, seed=2),
    }  # fmt: skip
    check(nodes, {"x": real(4, 5)}, constants)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
        ("RNN", {"clip": 0.3}),
        ("RNN", {"direction": "reverse"}),
        ("RNN", {"direction": "bidirectional"}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
        ("GRU", {"activations": ["HardSigmoid", "Softsign"]}),
        ("GRU", {"clip": 0.4, "linear_before_reset": 1}),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Relu"]}),
        (
            "LSTM",
            {
                "activations": ["Sigmoid", "ScaledTanh", "Softsign"],
                "activation_alpha": [1.5],
                "activation_beta": [0.5],
            },
        ),
        ("LSTM", {"peepholes": 1}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"direction": "bidirectional"}),
        ("LSTM", {"lengths": 1}),
        ("GRU", {"lengths": 1, "linear_before_reset": 1}),
        ("RNN", {"lengths": 1, "direction": "reverse"}),
    ],
)
def test_attributes_of_recurrent_operators(operator: str, attributes: dict[str, Any]) -> None:
    attributes = dict(attributes)
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[operator]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    constants = {"W": real(directions, gates * H, F), "R": real(directions, gates * H, H, seed=1) / 4}
    constants |= {"B": real(directions, 2 * gates * H, seed=2), "P": real(directions, 3 * H, seed=3)}
    constants |= {"h": real(directions, B, H, seed=7), "c": real(directions, B, H, seed=8)}
    lengths, peepholes = attributes.pop("lengths", 0), attributes.pop("peepholes", 0)
    takes = ["x", "W", "R", "B", "lengths" if lengths else "", "h"]
    gives = ["Y", "Yh"]
    if operator == "LSTM":
        takes, gives = [*takes, "c", *(["P"] if peepholes else [])], [*gives, "Yc"]
    given = {"x": real(T, B, F, seed=9)}
    if lengths:
        constants["lengths"] = np.array([5, 3], np.int32)
    used = {name: value for name, value in constants.items() if name in takes}
    check(
        [node(operator, takes, gives, hidden_size=H, **attributes)], given, used, runtime=True, tolerance=2e-5
    )


def test_clip_of_an_lstm_follows_the_standard() -> None:
    """ONNX Runtime clips otherwise, so the equations stand here."""
    w, r, b, x = (
        real(1, 4 * H, F),
        real(1, 4 * H, H, seed=1) / 4,
        real(1, 8 * H, seed=2),
        real(1, B, F, seed=9),
    )
    h, c, bound = STARTS["h"], STARTS["c"], 0.3
    gates = x[0] @ w[0].T + h[0] @ r[0].T + b[0, : 4 * H] + b[0, 4 * H :]
    i, o, f, g = np.split(np.clip(gates, -bound, bound), 4, 1)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    cell = sigmoid(f) * c[0] + sigmoid(i) * np.tanh(g)
    want = sigmoid(o) * np.tanh(cell)
    contract = Contract(
        inputs=[InputSpec(name="x", dtype="float32", shape=[1, B, F])],
        outputs=[OutputSpec(name="Yh", dtype="float32", shape=[1, B, H])],
        states=[],
    )
    constants = {"W": w, "R": r, "B": b, "h": h, "c": c}
    graph = helper.make_graph(
        [node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["", "Yh"], hidden_size=H, clip=bound)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, B, F])],
        [helper.make_tensor_value_info("Yh", TensorProto.FLOAT, [1, B, H])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = rnnx.load(write_contract(model.SerializeToString(), contract), "native")
    np.testing.assert_allclose(session.stream().step(x)["Yh"][0], want, 2e-6, 2e-6)
