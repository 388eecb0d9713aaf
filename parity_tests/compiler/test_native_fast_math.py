"""Compiled C computes the same under -ffast-math and -Ofast, or does not compile."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, load_model_from_string
from onnx.reference import ReferenceEvaluator

from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.onnx_file import write_contract
from rnnx_native.compile import Compiled, compile_model
from support.native_folders import C99, STRICT, build, exported, replay, write

BOUNDLESS = "-fno-finite-math-only"  # what GCC on x86 asks for
FAST = [
    f"gcc -O2 -ffast-math {BOUNDLESS}",
    f"gcc -Ofast {BOUNDLESS}",
    "gcc -O3 -funsafe-math-optimizations",
    "clang -O2 -ffast-math",
    "clang -Ofast",
    f"clang -Ofast {BOUNDLESS}",
    "clang -O3 -funsafe-math-optimizations",
    "clang -O2 -ffinite-math-only",
]
PATHS = {"portable": ["-DRNNX_PORTABLE"], "vectors": []}
ULPS = {"Exp": 2.0, "Tanh": 2.0, "Sigmoid": 2.5}
WIDTH = 64
# Of each tensor one entry that is not finite, and zeros of both signs.
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1.5, 0.25]

DRIVER = """
#include "odd.h"
#include <stdio.h>
int main(void) {
  static odd_state s;
  static odd_input input;
  static odd_output output;
  odd_init(&s, &odd_default_weights);
  while (fread(&input, sizeof input, 1, stdin) == 1) {
    odd_step(&s, &input, &output);
    if (fwrite(&output, sizeof output, 1, stdout) != 1) return 1;
  }
  return 0;
}
"""


def odd_model() -> bytes:
    """Return a step model whose outputs show what fast math takes away; its state is the largest x so far.

    The outputs: entries of x that are NaN, infinite, their extremes, bounds, the sign of zero, sums that are
    exact only in their order, softmax behind a mask of infinities, and the three activations.
    """
    numbers = {"one": 1.0, "big": 2.0**26, "low": -1.0, "high": 1.0}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    parts: list[tuple[str, list[str], dict[str, Any]]] = [
        ("IsNaN", ["x"], {}),
        ("IsInf", ["x"], {}),
        ("Max", ["x", "low"], {}),
        ("Min", ["x", "low"], {}),
        ("Clip", ["x", "low", "high"], {}),
        ("Relu", ["x"], {}),
        ("Reciprocal", ["x"], {}),
        ("Neg", ["x"], {}),
        ("Sign", ["finite"], {}),
        ("Softmax", ["masked"], {"axis": 1}),
        ("LogSoftmax", ["masked"], {"axis": 1}),
        *((name, ["x"], {}) for name in ULPS),
    ]
    nodes = [
        helper.make_node("IsNaN", ["x"], ["odd"]),
        helper.make_node("Where", ["odd", "one", "x"], ["finite"]),
        helper.make_node("Clip", ["finite", "low", "high"], ["bounded"]),
        helper.make_node("Relu", ["bounded"], ["positive"]),
        helper.make_node("Log", ["positive"], ["masked"]),  # log 0 is minus infinity
        helper.make_node("Add", ["bounded", "big"], ["shifted"]),
        helper.make_node("Sub", ["shifted", "big"], ["rounded"]),
        helper.make_node("ReduceMax", ["x", "axes"], ["largest"], keepdims=1),
        helper.make_node("Max", ["m.in", "finite"], ["m.out"]),
    ]
    names = ["rounded", "largest", "m"]
    nodes.append(helper.make_node("Identity", ["m.out"], ["m"]))
    for op, inputs, attributes in parts:
        bits = op in ("IsNaN", "IsInf")
        target = f"y_{op}"
        nodes.append(helper.make_node(op, inputs, [f"{target}.bits" if bits else target], **attributes))
        if bits:
            nodes.append(helper.make_node("Cast", [f"{target}.bits"], [target], to=TensorProto.FLOAT))
        names.append(target)

    def info(name: str) -> Any:
        width = 1 if name == "largest" else WIDTH
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    graph = helper.make_graph(
        nodes,
        "odd",
        [info("x"), info("m.in")],
        [info(name) for name in (*names, "m.out")],
        [*constants, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model)
    shape = ["batch", WIDTH]
    contract = Contract(
        inputs=[InputSpec(name="x", dtype="float32", shape=shape)],
        outputs=[
            OutputSpec(name=name, dtype="float32", shape=["batch", 1] if name == "largest" else shape)
            for name in names
        ],
        states=[
            StateSpec(name="m", input="m.in", output="m.out", dtype="float32", shape=shape, initial="-inf")
        ],
    )
    return write_contract(model.SerializeToString(), contract)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd.onnx").write_bytes(odd_model())
    made = compile_model(folder / "odd.onnx", folder / "c")
    (made.folder / "odd_test.c").write_text(DRIVER)
    return made


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("network")
    return write(exported(folder), folder / "c", name="net", chunk=4)


@pytest.fixture(scope="module")
def given() -> np.ndarray:
    """Return x [steps, WIDTH]: odd values at every place, and numbers of all sizes that matter."""
    random = np.random.default_rng(0)
    steps = [np.roll(np.resize(np.array(ODD, np.float32), WIDTH), shift) for shift in range(8)]
    steps += [random.uniform(-width, width, WIDTH).astype(np.float32) for width in (1e-3, 1, 5, 20, 80) * 8]
    return np.stack(steps)


@pytest.fixture(scope="module")
def wanted(given: np.ndarray) -> dict[str, np.ndarray]:
    """Return each output [steps, entries], from onnx's own reference implementation."""
    model = load_model_from_string(odd_model())
    names = [output.name for output in model.graph.output]
    run, state = ReferenceEvaluator(model), np.full((1, WIDTH), -np.inf, np.float32)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with np.errstate(all="ignore"):
        for x in given:
            results = dict(zip(names, run.run(None, {"x": x[None], "m.in": state}), strict=True))
            state = results["m.out"]
            for name in names:
                rows[name].append(results[name][0])
    return {name: np.stack(values) for name, values in rows.items()}


def command(text: str, tool: Callable[[str], str]) -> list[str]:
    """Return a compiler's command whose first word is where it is."""
    name, *flags = text.split()
    return [tool(name), *flags]


def ulps(got: np.ndarray, x: np.ndarray, name: str) -> float:
    """Return the largest error in units of the last place, where the exact value is a normal number."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exact = {"Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda v: 1 / (1 + np.exp(-v))}[name](wide)
        normal = np.isfinite(x) & (np.abs(exact) > 2e-38)
        spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        return float((np.abs(got - exact) / spacing)[normal].max())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("compiler", FAST)
def test_numbers_are_those_of_the_standard(
    odd: Compiled,
    given: np.ndarray,
    wanted: dict[str, np.ndarray],
    compiler: str,
    path: str,
    tool: Callable[[str], str],
) -> None:
    program = build(odd, *command(compiler, tool), *C99, *PATHS[path])
    assert_numbers([str(program)], given, wanted)


@pytest.mark.parametrize("path", PATHS)
def test_numbers_are_those_of_the_standard_on_arm64(
    odd: Compiled, given: np.ndarray, wanted: dict[str, np.ndarray], path: str, tool: Callable[[str], str]
) -> None:
    program = build(odd, tool("aarch64-linux-gnu-gcc"), "-static", "-Ofast", *C99, *PATHS[path])
    assert_numbers([tool("qemu-aarch64"), str(program)], given, wanted)


def assert_numbers(program: list[str], given: np.ndarray, wanted: dict[str, np.ndarray]) -> None:
    """Hold every output of a program to the reference's."""
    output = subprocess.run(program, input=given.tobytes(), capture_output=True, check=True).stdout
    sizes = {name: values.shape[1] for name, values in wanted.items() if name != "m.out"}
    rows = np.frombuffer(output, np.float32).reshape(len(given), sum(sizes.values()))
    place = 0
    for name, size in sizes.items():
        got, want = rows[:, place : place + size], wanted[name]
        place += size
        operator = name.removeprefix("y_")
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=name)
        if operator in ULPS:
            assert ulps(got, given, operator) <= ULPS[operator], name
        if operator in ("Reciprocal", "Neg", "Clip"):
            signs = ~np.isnan(want)
            assert (np.signbit(got) == np.signbit(want))[signs].all(), name


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("compiler", FAST)
def test_recurrent_layers_replay(
    network: Compiled, compiler: str, path: str, tool: Callable[[str], str]
) -> None:
    result = replay(network, build(network, *command(compiler, tool), *C99, *PATHS[path]))
    assert (result.returncode, result.stdout.strip()[-6:]) == (0, "agrees"), result.stdout + result.stderr
    assert float(result.stdout.rpartition("max error ")[2].partition(":")[0]) < 1e-6


@pytest.mark.parametrize("compiler", [f"g++ -Ofast {BOUNDLESS}", "clang++ -Ofast"])
def test_recurrent_layers_replay_as_cplusplus(
    network: Compiled, compiler: str, tool: Callable[[str], str]
) -> None:
    words = command(compiler, tool)
    made = build(network, *words, "-x", "c++", "-std=c++11", "-DRNNX_PORTABLE", *STRICT)
    assert replay(network, made).returncode == 0


@pytest.fixture(scope="module")
def preamble(network: Compiled) -> str:
    """Return what the generated files say to compilers before they include anything."""
    text = (network.folder / "net.c").read_text()
    begin, end = text.index("/* Numbers as C99 has them"), text.index("#include")
    assert text[begin:end] in (network.folder / "net_test.c").read_text()
    return text[begin:end]


ROUNDED = "float go(float x) { const float shifted = x + 12582912.0f; return shifted - 12582912.0f; }\n"


@pytest.mark.parametrize("target", ["wasm32", "thumbv7em-none-eabi"])
def test_where_clang_cannot_take_the_flags_back_it_says_so(
    preamble: str, tmp_path: Path, target: str, tool: Callable[[str], str]
) -> None:
    (tmp_path / "k.c").write_text(preamble + ROUNDED)

    def compiled(*flags: str) -> subprocess.CompletedProcess[str]:
        words = [tool("clang"), f"--target={target}", "-S", "-emit-llvm", *flags, "k.c", "-o", "k.ll"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    for flags in ("-O2", "-O2 -funsafe-math-optimizations", f"-Ofast {BOUNDLESS}"):
        result = compiled(*flags.split(), *STRICT)
        assert (result.returncode, result.stderr) == (0, ""), flags
        assert "fadd" in (tmp_path / "k.ll").read_text(), "the sum is folded away"
    result = compiled("-Ofast")
    # Newer clang can do it for more targets: then the sum must be there.
    if result.returncode:
        assert BOUNDLESS in result.stderr
    else:
        assert "fadd" in (tmp_path / "k.ll").read_text()


@pytest.mark.parametrize("flags", [[], ["-U__GNUC__"]], ids=["gcc", "another"])
def test_other_compilers_refuse_finite_math_plainly(
    preamble: str, tmp_path: Path, flags: list[str], tool: Callable[[str], str]
) -> None:
    (tmp_path / "k.c").write_text(preamble + ROUNDED)
    for level, refused in (("-O2", False), ("-Ofast", True), ("-ffast-math", True)):
        words = [tool("gcc"), level, *flags, "-E", "k.c"]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (result.returncode != 0) == refused, result.stderr
        assert (f"compile this file with {BOUNDLESS}" in result.stderr) == refused


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_project_builds_right_inside_one_of_fast_math(
    network: Compiled, tmp_path: Path, compiler: str, tool: Callable[[str], str]
) -> None:
    cmake = tool("cmake")
    flags = [f"-DCMAKE_C_COMPILER={tool(compiler)}", "-DCMAKE_C_FLAGS=-ffast-math -DRNNX_PORTABLE"]
    for words in (["-S", str(network.folder), "-B", str(tmp_path), *flags], ["--build", str(tmp_path)]):
        result = subprocess.run([cmake, *words], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    trace = network.folder / "net.trace.safetensors"
    result = subprocess.run([tmp_path / "net_test", trace], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
