"""A model whose every name and text is given, and texts that would be code if anything let them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec, Vocabulary
from rnnx.model.onnx_file import write_contract

SYMBOLS, WIDTH, UNITS = 5, 4, 3
# How many distinct names, and how many other texts, a model takes.
NAMES, TEXTS = 24, 8
# Values of the model that have names of their own.
INNER = ("x3", "is_none", "one", "none", "scaled")

PIECES = [
    *(
        "*/",
        "/*",
        "//",
        "*\\\n/",
        "*??/\n/",
        "??/",
        "\\\n",
        "\\",
        "\n#error x\n",
        "\r",
        "\u2028",
        "\0",
        '"',
        "'",
    ),
    *(
        "`",
        "@json@",
        "@title@",
        "@inputs@\n",
        "@",
        "⟦0⟧",
        "⟦99999⟧",
        "{0}",
        "{",
        "}",
        "%s%n",
        "$(touch x)",
        "${x}",
    ),
    *(
        "${x}",
        "#",
        "model_step",
        "MODEL_H",
        "model.h",
        "rnnx_tanh_f32(",
        "rnnx_exp_f32",
        ", odd_step)",
        "</pre>",
        "&lt;",
    ),
    *("<script>x</script>", "<img src=x onerror=y>", "-->", "]]>", "\x1b[2J", "\x9b2J", "\u202e", "\u2066"),
    *("\ufeff", "é", "e\u0301", "שלום", "名", "endif()", "]=]", "/**", "*)", '"""', "\x7f"),
]
WORDS = [
    # Keywords of C, C++, Go, Java, JavaScript and Rust; macros, types and functions of C; names of ours.
    *("int", "default", "class", "template", "func", "range", "package", "import", "fn", "match", "impl"),
    *("function", "await", "new", "NULL", "EOF", "NAN", "INFINITY", "linux", "errno", "I", "M_PI", "let"),
    *("memcpy", "memset", "expf", "sqrtf", "size_t", "uint8_t", "int64_t", "float_area", "kernels", "w"),
    *(
        "buffer_index",
        "position",
        "weights",
        "odd_step",
        "now",
        "next",
        "input",
        "inputs",
        "output",
        "outputs",
        "state",
    ),
    *("t", "row", "i0", "t0", "sum", "best", "main", "printf", "rnnx_row", "rnnx_slice", "x_batch", "s"),
    *("net", "net_step", "net_state", "net_kernels", "net_parameters", "model", "engine_call", "0", "9to5"),
    *("_", "work", "NET_BATCH", "INT8_MAX"),
]


def texts() -> st.SearchStrategy[str]:
    """Draw a text: pieces of code, words that languages know, or any Unicode that a file can hold."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    part = st.one_of(st.sampled_from(PIECES), st.sampled_from(WORDS), anything)
    joined = st.lists(part, max_size=4).map("".join)
    return st.one_of(joined, st.sampled_from(WORDS), st.sampled_from(PIECES).map(lambda p: p * 100))


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a model is given: distinct names that are not empty, other texts, and its symbols."""

    names: Sequence[str]
    texts: Sequence[str]
    symbols: Sequence[str]


@st.composite
def chosen(draw: Callable[..., Any]) -> Chosen:
    """Draw all names and texts of a model."""
    free = texts().filter(lambda text: text and text not in INNER)
    names = draw(st.lists(free, min_size=NAMES, max_size=NAMES, unique=True))
    others = draw(st.lists(texts(), min_size=TEXTS, max_size=TEXTS))
    letters = st.characters(exclude_categories=["Cs"])
    return Chosen(names, others, draw(st.lists(letters, min_size=SYMBOLS, max_size=SYMBOLS, unique=True)))


def harmless(prefix: str) -> Chosen:
    """Return names that are words."""
    names = [f"{prefix}{index}" for index in range(NAMES)]
    return Chosen(names, [f"{prefix}text{index}" for index in range(TEXTS)], "abcde")


def model(found: Chosen) -> bytes:
    """Return a model over symbols with two states, a length, a default and a constant of each kind."""
    name = iter(found.names)
    text = iter(found.texts)
    token, gain, lengths, logits, level = (next(name) for _ in range(5))
    _, _, cell_in, cell_out, sum_in, sum_out = (next(name) for _ in range(6))
    table, w, r, b, readout, axis, start = (next(name) for _ in range(7))
    x, h, count, column, kept = (next(name) for _ in range(5))
    nodes = [
        helper.make_node("Gather", [table, token], [x], name=next(text), doc_string=next(text)),
        helper.make_node("Unsqueeze", [x, axis], ["x3"]),
        helper.make_node("Cast", [lengths], [count], to=TensorProto.INT32),
        helper.make_node("RNN", ["x3", w, r, b, count, cell_in], ["", h], name=next(text), hidden_size=UNITS),
        helper.make_node("Equal", [count, "none"], ["is_none"]),
        helper.make_node("Unsqueeze", ["is_none", "one"], [column]),
        helper.make_node("Where", [column, cell_in, h], [cell_out], name=f"{next(text)}/a"),
        helper.make_node("Squeeze", [cell_out, axis], [kept]),
        helper.make_node("Mul", [sum_in, gain], ["scaled"], name="layer/" + found.texts[0]),
        helper.make_node("Add", ["scaled", kept], [sum_out]),
        helper.make_node("Tanh", [sum_out], [level]),
        helper.make_node("MatMul", [level, readout], [logits]),
    ]

    def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape, doc_string=found.texts[1])

    random = np.random.default_rng(0)
    sizes = {table: (SYMBOLS, WIDTH), w: (1, UNITS, WIDTH), r: (1, UNITS, UNITS), b: (1, 2 * UNITS)}
    sizes |= {readout: (UNITS, SYMBOLS), start: (2, 2)}  # the last is used by nobody
    arrays = {key: random.standard_normal(size).astype(np.float32) for key, size in sizes.items()}
    arrays |= {axis: np.array([0]), "one": np.array([1]), "none": np.array(0, np.int32)}
    takes = [info(token, ["batch"], TensorProto.INT64), info(gain, ["batch", 1])]
    takes += [info(lengths, ["batch"], TensorProto.INT64), info(cell_in, [1, "batch", UNITS])]
    takes += [info(sum_in, ["batch", UNITS])]
    gives = [info(logits, ["batch", SYMBOLS]), info(level, ["batch", UNITS])]
    gives += [info(cell_out, [1, "batch", UNITS]), info(sum_out, ["batch", UNITS])]
    tensors = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    graph = helper.make_graph(nodes, found.texts[2] or "g", takes, gives, tensors, doc_string=found.texts[3])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    made.doc_string, made.producer_name = found.texts[4], found.texts[5]
    return write_contract(made.SerializeToString(), _contract(found))


def _contract(found: Chosen) -> Contract:
    token, gain, lengths, logits, level = found.names[:5]
    first, second, cell_in, cell_out, sum_in, sum_out = found.names[5:11]
    return Contract(
        name=found.texts[6],
        producer={found.texts[7]: found.texts[6]},
        inputs=[
            InputSpec(name=token, dtype="int64", shape=["batch"]),
            InputSpec(name=gain, dtype="float32", shape=["batch", 1], default=0.5, range=(0, 1)),
            InputSpec(name=lengths, dtype="int64", shape=["batch"], role="length"),
        ],
        outputs=[
            OutputSpec(name=logits, dtype="float32", shape=["batch", SYMBOLS]),
            OutputSpec(name=level, dtype="float32", shape=["batch", UNITS]),
        ],
        states=[
            StateSpec(name=first, input=cell_in, output=cell_out, dtype="float32", shape=[1, "batch", UNITS]),
            StateSpec(
                name=second, input=sum_in, output=sum_out, dtype="float32", shape=["batch", UNITS],
                initial=[[1.0, 2.0, 3.0]],
            ),
        ],
        vocabulary=Vocabulary(
            input=token, output=logits, scores="logits", unit="codepoint", symbols=list(found.symbols)
        ),
        user={found.texts[0]: found.texts[1], "more": [found.texts[2]]},
    )  # fmt: skip
