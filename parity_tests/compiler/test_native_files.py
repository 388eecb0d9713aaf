"""What `rnnx compile` writes: C99 and C++ without a warning, safe in real time, exact about its bytes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import rnnx
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.onnx_file import write_contract
from rnnx_native.c_source.files import c_literal
from rnnx_native.compile import Compiled, compile_model
from support.native_folders import C99, STRICT, Network, build, exported, replay, write

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return write(model, tmp_path_factory.mktemp("c"), name="net", chunk=4)


PATHS: dict[str, list[str]] = {"vectors": [], "avx2": ["-DRNNX_LEVEL=1"], "portable": ["-DRNNX_PORTABLE"]}


@pytest.mark.parametrize(("level", "path"), [("-O3", "vectors"), ("-O0", "avx2"), ("-O3", "portable")])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_builds_without_a_warning_and_replays(
    made: Compiled, compiler: str, level: str, path: str, tool: Callable[[str], str]
) -> None:
    result = replay(made, build(made, tool(compiler), level, *C99, *PATHS[path]))
    assert (result.returncode, result.stdout.strip()[-6:]) == (0, "agrees"), result.stdout + result.stderr


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_builds_as_cplusplus(made: Compiled, compiler: str, tool: Callable[[str], str]) -> None:
    assert (
        replay(made, build(made, tool(compiler), "-x", "c++", "-std=c++11", "-O1", *STRICT)).returncode == 0
    )


@pytest.mark.parametrize("path", PATHS)
def test_sanitizers_find_nothing(made: Compiled, path: str, tool: Callable[[str], str]) -> None:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", *C99, *PATHS[path]]
    result = replay(made, build(made, tool("gcc"), *flags))
    assert result.returncode == 0, result.stderr[:2000]


def test_valgrind_finds_nothing(made: Compiled, tool: Callable[[str], str]) -> None:
    # Valgrind does not know AVX-512.
    program = build(made, tool("gcc"), "-O1", "-g", "-DRNNX_LEVEL=1", *C99)
    trace = made.folder / f"{made.name}.trace.safetensors"
    command = [tool("valgrind"), "--quiet", "--error-exitcode=9", str(program), str(trace)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:2000]


def test_the_example_and_the_project_build(made: Compiled, tool: Callable[[str], str]) -> None:
    result = subprocess.run(
        [build(made, tool("gcc"), "-O1", *C99, program="example")], capture_output=True, text=True
    )
    assert result.stdout.count("step") == 5
    text = (made.folder / "CMakeLists.txt").read_text()
    sources = {name for name in made.files if name.endswith(".c")}
    assert set(re.findall(r"(?:net\w*|example)\.c\b", text)) == sources


def test_the_replay_notices_a_wrong_number(model: Path, tmp_path: Path, tool: Callable[[str], str]) -> None:
    made = write(model, tmp_path / "c", name="net")
    source = made.folder / "net_weights.c"
    text = source.read_text()
    begin = text.index("{ /* out_weight" if "{ /* out_weight" in text else "{ /* ", text.index("tiles */"))
    first = re.compile(r"(-?\d+\.\d+(?:e-?\d+)?f)").search(text, begin)
    assert first is not None
    source.write_text(text[: first.start()] + "3.5f" + text[first.end() :])
    result = replay(made, build(made, tool("gcc"), "-O1"))
    assert result.returncode == 1
    assert "expected" in result.stdout
    assert "DIFFERS" in result.stdout


def test_a_trace_of_another_model_is_refused(
    made: Compiled, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    other = exported(tmp_path, seed=3)
    program = build(made, tool("gcc"), "-O1")
    trace = other.with_name("net3.trace.safetensors")
    result = subprocess.run([program, trace], capture_output=True, text=True, check=False)
    assert (result.returncode, "another model" in result.stderr) == (2, True)


def test_one_architecture_serves_other_weights(
    made: Compiled, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    other = write(exported(tmp_path, seed=3), tmp_path / "c", name="net", chunk=4)
    assert other.weight_bytes == made.weight_bytes
    program = build(made, tool("gcc"), "-O1")
    command = [program, other.folder / "net.trace.safetensors", other.folder / "net.weights"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "fewer bytes"),
        (lambda data: b"X" + data[1:], "not a file of this kind"),
        (lambda data: data[:40] + b"\0\0" + data[42:], "another architecture"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "not those that were written"),
        (lambda data: b"", "fewer bytes"),
    ],
)
def test_wrong_weights_are_refused(
    made: Compiled, tmp_path: Path, change: Any, message: str, tool: Callable[[str], str]
) -> None:
    program = build(made, tool("gcc"), "-O1")
    path = tmp_path / "changed.weights"
    path.write_bytes(change((made.folder / "net.weights").read_bytes()))
    result = replay(made, program, str(path))
    assert (result.returncode, message in result.stderr) == (2, True), result.stderr


def run_on_arm64(made: Compiled, tool: Callable[[str], str], *flags: str) -> subprocess.CompletedProcess[str]:
    program = build(made, tool("aarch64-linux-gnu-gcc"), "-static", "-O2", *C99, *flags)
    trace = made.folder / "net.trace.safetensors"
    return subprocess.run([tool("qemu-aarch64"), program, trace], capture_output=True, text=True)


def test_arm64_replays(made: Compiled, tool: Callable[[str], str]) -> None:
    for flags in ([], ["-DRNNX_PORTABLE"]):
        result = run_on_arm64(made, tool, *flags)
        assert result.returncode == 0, result.stdout + result.stderr


def test_windows_builds(made: Compiled, tool: Callable[[str], str]) -> None:
    build(made, tool("x86_64-w64-mingw32-gcc"), "-O1", *C99)


def contract_of(**names: str) -> Contract:
    return Contract(
        inputs=[InputSpec(name=names["input"], dtype="float32", shape=["batch", 2])],
        outputs=[OutputSpec(name=names["output"], dtype="float32", shape=["batch", 2])],
        states=[
            StateSpec(
                name=names["state"],
                input="in",
                output="out",
                dtype="float32",
                shape=["batch", 2],
                initial=[1.5, 2.5],
            )
        ],
    )


def plain_model(path: Path, operator: str = "Add", **names: str) -> Path:
    """Write a model of one operator: out = y = input OP in."""

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])

    nodes = [
        helper.make_node(operator, [names["input"], "in"], [names["output"]], name="encoder.cell/Node"),
        helper.make_node("Identity", [names["output"]], ["out"], name="copy"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value(names["input"]), value("in")], [value(names["output"]), value("out")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(write_contract(model.SerializeToString(), contract_of(**names)))
    return path


def test_any_names_become_valid_c(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Names may be keywords, hold any letters, or the word that stands for the model's own name."""
    names = {"input": "int", "output": "model.c", "state": 'model_état "*/ ??/'}
    made = compile_model(plain_model(tmp_path / "2-model.onnx", **names), tmp_path / "c")
    sources = [f"{made.name}.c", f"{made.name}_weights.c", "example.c"]
    command = [tool("gcc"), *C99, *sources, "-lm", "-o", "example"]
    subprocess.run(command, cwd=made.folder, check=True)
    result = subprocess.run([made.folder / "example"], capture_output=True, text=True)
    assert "step 0: model_c[0] = 1.5" in result.stdout


@pytest.mark.parametrize("operator", ["GridSample", "Unique"])
def test_what_c_does_not_have_is_refused_before_anything_is_written(operator: str, tmp_path: Path) -> None:
    model = plain_model(tmp_path / "m.onnx", operator, input="x", output="y", state="s")
    with pytest.raises(rnnx.RnnxError) as refusal:
        compile_model(model, tmp_path / "c")
    assert refusal.value.code == "cannot-compile"
    text = str(refusal.value)
    for part in (operator, "'encoder.cell/Node'", "module encoder.cell"):
        assert part in text
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("weights", "share", "error"), [("f16", 0.6, 5e-3), ("int8", 0.45, 0.1)])
def test_weights_of_fewer_bits_take_less_memory(
    model: Path,
    made: Compiled,
    tmp_path: Path,
    weights: str,
    share: float,
    error: float,
    tool: Callable[[str], str],
) -> None:
    small = write(model, tmp_path / "c", name="net", weights=weights)
    assert small.weight_bytes < share * made.weight_bytes
    assert small.cost is not None
    assert 0 < small.cost.largest < error
    worst = set()
    for flags in ([], ["-DRNNX_LEVEL=2"], ["-DRNNX_LEVEL=1"], ["-DRNNX_PORTABLE"]):
        result = replay(small, build(small, tool("gcc"), "-O1", *C99, *flags))
        assert result.returncode == 0, result.stdout + result.stderr
        worst.add(result.stdout.partition("max error ")[2].partition(":")[0])
    for flags in ([], ["-march=armv8.2-a+dotprod"]):
        result = run_on_arm64(small, tool, *flags)
        assert result.returncode == 0, result.stdout + result.stderr
        worst.add(result.stdout.partition("max error ")[2].partition(":")[0])
    assert weights != "int8" or len(worst) == 1, "sums of whole numbers are exact on all paths"
    with pytest.raises(rnnx.RnnxError, match="f32, f16, int8"):
        compile_model(model, tmp_path / "d", weights="f8")


def test_weights_that_cost_too_much_must_be_accepted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    from rnnx.tolerance import Bound

    monkeypatch.setattr("rnnx_native.quantisation_cost.allowed", lambda weights: Bound(1e-9, 1e-9))
    result = command("compile", model, "-o", tmp_path / "c", "--weights", "f16")
    assert (result.exit_code, "not-accepted" in result.stderr, "--accept" in result.stderr) == (2, True, True)
    assert not (tmp_path / "c").exists()
    result = command("compile", model, "-o", tmp_path / "c", "--weights", "f16", "--accept")
    assert result.exit_code == 0, result.stderr
    assert "f16 weights: largest error" in result.stdout


def test_a_weight_beyond_half_floats_is_refused(tmp_path: Path) -> None:
    network = Network(4)
    with torch.no_grad():
        network.out.weight[0, 0] = 1e6
    made = rnnx.export(network, tmp_path / "large.onnx", inputs={"x": "float32[batch, time, 5]"})
    with pytest.raises(rnnx.RnnxError, match="65504") as refusal:
        compile_model(made.path, tmp_path / "c", weights="f16")
    assert "module out" in str(refusal.value)
    assert not (tmp_path / "c").exists()


def test_text_becomes_a_c_literal() -> None:
    assert c_literal('a"\\?é\n') == '"a\\"\\\\\\?\\303\\251\\012"'


GOLDEN = REPOSITORY / "parity_tests/golden"


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("lstm", {}),
        ("lstm", {"batch": 3, "chunk": 1}),
        ("lstm", {"weights": "int8", "accept": True}),
        ("gru", {"chunk": 7}),
        ("half", {}),
        ("integer", {}),
        ("counter", {}),
        ("hops", {"chunk": 2}),
        ("scalars", {}),
    ],
)
def test_the_sizes_that_are_said_are_those_of_the_structures(
    source: str, options: dict[str, Any], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    made = compile_model(GOLDEN / f"{source}.onnx", tmp_path, **options)
    name = made.name
    macros = f"{name.upper()}_STATE_BYTES, {name.upper()}_WORK_BYTES, {name.upper()}_RNNX_VERSION"
    (tmp_path / "sizes.c").write_text(
        f'#include "{name}.h"\n#include <stdio.h>\nint main(void) {{\n  printf("%zu %zu %d %d %s\\n", '
        f"sizeof({name}_state), sizeof({name}_work), {macros});\n  return 0;\n}}\n"
    )
    subprocess.run([tool("gcc"), "sizes.c", "-o", "sizes"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.split()
    sizes = [str(made.state_bytes), str(made.scratch_bytes)]
    assert said == [*sizes, *sizes, rnnx.__version__]


def test_the_command(command: Any, model: Path, tmp_path: Path) -> None:
    result = command("compile", model, "-o", tmp_path / "c", "--name", "amp", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["state_bytes"] > facts["scratch_bytes"] > 0
    assert set(facts["files"]) == {
        path.relative_to(tmp_path / "c").as_posix() for path in (tmp_path / "c").rglob("*") if path.is_file()
    }
    assert {"amp.h", "amp.c", "amp_weights.c", "amp.weights", "amp_test.c", "amp.trace.safetensors"} <= set(
        facts["files"]
    )
    for arguments, code in [
        (("--batch", "0"), "usage"),
        (("--dim", "memory=3"), "unknown-dimension"),
    ]:
        refused = command("compile", model, "-o", tmp_path / "d", *arguments)
        assert (refused.exit_code, code in refused.stderr) == (2, True), refused.stderr
    assert not (tmp_path / "d").exists()
    (tmp_path / "file").write_text("")
    refused = command("compile", model, "-o", tmp_path / "file")
    assert "output-not-a-folder" in refused.stderr


def test_a_folder_that_cannot_be_written_whole_is_left_as_it_was(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    (folder / "net.h").mkdir(parents=True)  # a folder where a file must go
    with pytest.raises(rnnx.RnnxError):
        compile_model(model, folder, name="net")
    assert [path.name for path in folder.iterdir()] == ["net.h"]


def test_the_generated_code_shows_shapes_and_modules(made: Compiled) -> None:
    text = (made.folder / "net.c").read_text()
    for operator, module in (("LSTM", "lstm"), ("GRU", "gru"), ("RNN", "rnn"), ("Sigmoid", "the model")):
        assert re.search(rf"/\* {operator} of {module} \(.*\) -> \[", text), operator
    header = (made.folder / "net.h").read_text()
    struct = header[header.index("typedef struct net_parameters") : header.index("} net_parameters")]
    members = [line for line in struct.splitlines()[1:] if line.strip()]
    assert members
    assert all(re.fullmatch(r"  \w+ \w+\[\d+\]; /\* \[[\d, ]*\] \*/", line) for line in members)


def test_onnx_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(rnnx.RnnxError, match=r"rnnx\[native\]"):
        rnnx.load(model, "native")
    assert onnx is not None


NAMES = {"input": "x", "output": "y", "state": "s"}


@pytest.mark.parametrize("name", ["example", "test", "all", "math", "string"])
def test_names_that_c_and_cmake_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(rnnx.RnnxError, match="give another with --name") as refusal:
        compile_model(plain_model(tmp_path / "m.onnx", **NAMES), tmp_path / "c", name=name)
    assert refusal.value.code == "wrong-name"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("size", [{"batch": 1 << 17}, {"chunk": 10**20}])
def test_sizes_that_no_compiler_takes_are_refused(size: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(rnnx.RnnxError, match=r"as a number in 1\.\.65536"):
        compile_model(plain_model(tmp_path / "m.onnx", **NAMES), tmp_path / "c", **size)


def test_the_header_says_how_late_outputs_come(tmp_path: Path) -> None:
    compile_model(GOLDEN / "late.onnx", tmp_path)
    header = (tmp_path / "late.h").read_text()
    assert "float y[4]; /* [batch=1, 4], 2 steps late */" in header
    assert "float ended[2][1]; /* [batch=1], 1 says that the sequence is over */" in header
