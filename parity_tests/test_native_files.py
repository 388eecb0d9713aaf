"""What `rnnx compile` writes: C99 and C++ without a warning, safe in real time, exact about its bytes."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import rnnx
from native_folders import C99, STRICT, build, replay, write
from rnnx.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model_file import write_contract
from rnnx_native.compile import Compiled, compile_model
from rnnx_native.write import c_literal

REPOSITORY = Path(__file__).resolve().parents[1]


class Network(nn.Module):
    """An LSTM, a GRU and a readout: enough for every kernel."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, width, batch_first=True)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.rnn = nn.RNN(width, width, batch_first=True)
        self.out = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.gru(self.lstm(x)[0])[0])[0]).sigmoid()


def exported(folder: Path, seed: int = 0, width: int = 20) -> Path:
    torch.manual_seed(seed)
    path = folder / f"net{seed}.onnx"
    rnnx.export(Network(width), path, inputs={"x": "float32[batch, time, 5]"})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return write(model, tmp_path_factory.mktemp("c"), name="net", chunk=4)


PATHS = {"vectors": [], "avx2": ["-DRNNX_LEVEL=1"], "portable": ["-DRNNX_PORTABLE"]}


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
    assert set(re.findall(r"net\w*\.c\b", text)) == {name for name in made.files if name.endswith(".c")}


def test_the_replay_notices_a_wrong_number(model: Path, tmp_path: Path, tool: Callable[[str], str]) -> None:
    made = write(model, tmp_path / "c", name="net")
    source = made.folder / "net_weights.c"
    text = source.read_text()
    begin = text.index("{ /* out_weight" if "{ /* out_weight" in text else "{ /* ", text.index("panels */"))
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


@pytest.fixture(scope="module")
def lib(made: Compiled, tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> ctypes.CDLL:
    path, compiler = tmp_path_factory.mktemp("library") / "net.so", tool("gcc")
    sources = [f"{made.name}.c", f"{made.name}_weights.c"]
    command = [compiler, "-std=c99", "-O2", "-fPIC", "-shared", *sources, "-lm", "-o", str(path)]
    subprocess.run(command, cwd=made.folder, check=True)
    found = ctypes.CDLL(str(path))
    found.net_save.restype = ctypes.c_size_t
    return found


class Net:
    """The C API on a state of its own, from Python."""

    def __init__(self, lib: ctypes.CDLL, sizes: dict[str, int]) -> None:
        self.lib = lib
        self.state = (ctypes.c_char * sizes["state"])()
        lib.net_init(self.state, ctypes.byref(ctypes.c_char.in_dll(lib, "net_default_weights")))

    def run(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        y = np.zeros((len(x), 3), np.float32)
        self.lib.net_run(self.state, x.ctypes, y.ctypes, ctypes.c_size_t(len(x)))
        return y

    def save(self) -> bytes:
        data = ctypes.create_string_buffer(4096)
        size = self.lib.net_save(self.state, data, ctypes.c_size_t(4096))
        return data.raw[:size]

    def load(self, data: bytes) -> int:
        return int(self.lib.net_load(self.state, data, ctypes.c_size_t(len(data))))


@pytest.fixture(scope="module")
def sizes(made: Compiled, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "sizes.c").write_text(
        '#include "net.h"\n#include <stdio.h>\nint main(void) { printf("{\\"state\\": %d, \\"many\\": %d}",'
        " (int)sizeof(net_state), (int)sizeof(net_many)); return 0; }\n"
    )
    compiler = shutil.which("gcc") or "cc"
    subprocess.run([compiler, f"-I{made.folder}", "sizes.c", "-o", "sizes"], cwd=folder, check=True)
    found: dict[str, int] = json.loads(
        subprocess.run([folder / "sizes"], capture_output=True, check=True).stdout
    )
    return found


def test_snapshots_are_pythons_byte_for_byte(lib: ctypes.CDLL, model: Path, sizes: dict[str, int]) -> None:
    net, session = Net(lib, sizes), rnnx.load(model)
    x = np.random.default_rng(0).standard_normal((30, 5), np.float32)
    stream = session.stream()
    assert net.save() == stream.snapshot()  # at their start all states are equal
    net.run(x[:13])
    assert stream.restore(net.save()) is None
    assert stream.position == 13
    assert net.save() == stream.snapshot()
    np.testing.assert_allclose(net.run(x[13:]), stream.run(x[None, 13:])["y"][0], atol=2e-6)
    saved = stream.snapshot()
    net.run(x)
    assert net.load(saved) == 0
    assert net.save() == saved
    assert Net(lib, sizes).load(saved) == 0


def test_wrong_snapshots_leave_the_state_as_it_was(lib: ctypes.CDLL, sizes: dict[str, int]) -> None:
    net = Net(lib, sizes)
    net.run(np.ones((3, 5), np.float32))
    saved = net.save()
    for change, code in [
        (lambda data: data[:200], 1),
        (lambda data: data.replace(b"rnnx-snapshot", b"rnnx-something"), 2),
        (lambda data: data.replace(b'"version":"1"', b'"version":"2"'), 2),
        (lambda data: data.replace(b"sha256:", b"sha257:"), 3),
        (lambda data: data.replace(b'"position":"3"', b'"position":"x"'), 2),
        (lambda data: data.replace(b"state.lstm.h", b"state.lstm.x"), 3),
        (lambda data: data.replace(b"F32", b"F16", 1), 3),
        (lambda data: data.replace(b"[1,1,20]", b"[1,2,20]", 1), 3),
        (lambda data: data[:-4], 3),
        (lambda data: b"", 1),
    ]:
        changed = change(saved)
        assert changed != saved
        assert net.load(changed) == code
        assert net.save() == saved


def test_a_snapshot_survives_any_damage_without_reading_outside(
    made: Compiled, sizes: dict[str, int], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Bytes are changed at random; the sanitizer stops the program if anything else is read."""
    (tmp_path / "damage.c").write_text(
        """
#include "net.h"
#include <stdlib.h>
#include <string.h>
int main(void) {
  static net_state s;
  unsigned char good[4096];
  size_t size, round, i;
  net_init(&s, &net_default_weights);
  size = net_save(&s, good, sizeof good);
  srand(1);
  for (round = 0; round < 20000; round++) {
    size_t cut = round % 3 ? size : (size_t)rand() % (size + 1);
    unsigned char *copy = (unsigned char *)malloc(cut + 1);
    memcpy(copy, good, cut);
    for (i = 0; i < 3 && cut; i++) copy[(size_t)rand() % (cut < 400 ? cut : 400)] = (unsigned char)rand();
    net_load(&s, copy, cut);
    free(copy);
  }
  return 0;
}
"""
    )
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{made.folder}"]
    sources = [tmp_path / "damage.c", made.folder / "net.c", made.folder / "net_weights.c"]
    subprocess.run([tool("gcc"), *flags, *sources, "-lm", "-o", tmp_path / "damage"], check=True)
    assert subprocess.run([tmp_path / "damage"], capture_output=True).returncode == 0


@pytest.mark.parametrize("count", [1, 8, 9, 16, 21, 40])
def test_many_streams_give_what_each_gives_alone(lib: ctypes.CDLL, sizes: dict[str, int], count: int) -> None:
    together = (ctypes.c_char * (sizes["state"] * count))()
    room = (ctypes.c_char * sizes["many"])()
    weights = ctypes.byref(ctypes.c_char.in_dll(lib, "net_default_weights"))
    base = ctypes.addressof(together)
    for row in range(count):
        lib.net_init(ctypes.c_void_p(base + row * sizes["state"]), weights)
    x = np.random.default_rng(1).standard_normal((6, count, 5), np.float32)
    alone = np.stack([Net(lib, sizes).run(np.ascontiguousarray(x[:, row])) for row in range(count)], 1)
    for step in range(6):
        y = np.zeros((count, 3), np.float32)
        inputs = np.ascontiguousarray(x[step])
        lib.net_step_many(together, inputs.ctypes, y.ctypes, ctypes.c_size_t(count), room)
        np.testing.assert_allclose(y, alone[step], atol=2e-6)
    assert lib.net_error  # the function is there; what it says is tested with wrong weights


def test_a_step_calls_nothing_but_mathematics(
    made: Compiled, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """A file that names no such function makes no allocation, lock or system call, and writes no global."""
    assert symbols(made.folder / "net.c", made, tmp_path, tool) == ([], [])
    text = (made.folder / "net.c").read_text()
    worse = tmp_path / "worse.c"
    worse.write_text(
        text.replace(
            "void net_step(net_state *s, const net_input *input, net_output *output) {",
            "#include <stdlib.h>\nint net_count;\n"
            "void net_step(net_state *s, const net_input *input, net_output *output) {\n"
            "  net_count += (int)((uintptr_t)malloc(8) >> 4);",
        )
    )
    foreign, written = symbols(worse, made, tmp_path, tool)
    assert (foreign, written) == (["malloc"], ["net_count"])


MATHEMATICS = {"memcpy", "memset", "memcmp", "memmove", "strlen", "strchr"}
MATHEMATICS |= {
    f"{name}{suffix}" for name in ("exp", "log", "tanh", "sqrt", "log1p", "expm1") for suffix in ("", "f")
}
CPU = {"__cpu_model", "__cpu_indicator_init", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def symbols(
    source: Path, made: Compiled, folder: Path, tool: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Return the functions that an object takes from elsewhere, but for mathematics, and its variables."""
    target = folder / "object.o"
    # Tables of addresses are constants only where the linker need not fill them in.
    command = [tool("gcc"), "-O2", "-fno-pic", f"-I{made.folder}", "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    lines = [
        line.split()
        for line in subprocess.run([tool("nm"), target], capture_output=True, text=True).stdout.splitlines()
    ]
    foreign = [line[-1] for line in lines if line[-2] == "U" and line[-1] not in MATHEMATICS | CPU]
    return sorted(foreign), sorted(line[-1] for line in lines if line[-2] in "BbDdCc" and "." not in line[-1])


def test_a_step_makes_no_system_call(made: Compiled, tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Linux kills a process that makes any in its strictest mode."""
    for body, code in (("", 0), ("getppid();", -9)):
        (tmp_path / "strict.c").write_text(
            f"""
#define _GNU_SOURCE
#include "net.h"
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {{
  static net_state s;
  static net_input inputs[9];
  static net_output outputs[9];
  unsigned char bytes[4096];
  net_init(&s, &net_default_weights);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) return 7;
  net_step(&s, inputs, outputs);
  net_run(&s, inputs, outputs, 9);
  net_load(&s, bytes, net_save(&s, bytes, sizeof bytes));
  net_reset(&s);
  {body}
  syscall(SYS_exit, 0);
  return 0;
}}
"""
        )
        sources = [tmp_path / "strict.c", made.folder / "net.c", made.folder / "net_weights.c"]
        command = [tool("gcc"), "-O2", f"-I{made.folder}", *sources, "-lm", "-o", tmp_path / "strict"]
        subprocess.run(command, check=True)
        assert subprocess.run([tmp_path / "strict"]).returncode == code


def test_arm64_replays(made: Compiled, tool: Callable[[str], str]) -> None:
    for flags in ([], ["-DRNNX_PORTABLE"]):
        program = build(made, tool("aarch64-linux-gnu-gcc"), "-static", "-O2", *C99, *flags)
        trace = made.folder / "net.trace.safetensors"
        result = subprocess.run([tool("qemu-aarch64"), program, trace], capture_output=True, text=True)
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
    sources = [f"{made.name}.c", f"{made.name}_weights.c", f"{made.name}_example.c"]
    command = [tool("gcc"), *C99, *sources, "-lm", "-o", "example"]
    subprocess.run(command, cwd=made.folder, check=True)
    result = subprocess.run([made.folder / "example"], capture_output=True, text=True)
    assert "step 0: model_c[0] = 1.5" in result.stdout


@pytest.mark.parametrize("operator", ["BitShift", "Unique"])
def test_what_c_does_not_have_is_refused_before_anything_is_written(operator: str, tmp_path: Path) -> None:
    model = plain_model(tmp_path / "m.onnx", operator, input="x", output="y", state="s")
    with pytest.raises(rnnx.RnnxError) as refusal:
        compile_model(model, tmp_path / "c")
    assert refusal.value.code == "cannot-compile"
    text = str(refusal.value)
    for part in (operator, "'encoder.cell/Node'", "module encoder.cell"):
        assert part in text
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("path", PATHS)
def test_half_float_weights_take_half_the_memory(
    model: Path, made: Compiled, tmp_path: Path, path: str, tool: Callable[[str], str]
) -> None:
    small = write(model, tmp_path / "c", name="net", weights="f16")
    assert small.weight_bytes < 0.6 * made.weight_bytes
    assert small.cost is not None
    assert 0 < small.cost.largest < 5e-3
    result = replay(small, build(small, tool("gcc"), "-O1", *C99, *PATHS[path]))
    assert result.returncode == 0, result.stdout + result.stderr
    with pytest.raises(rnnx.RnnxError, match="f32, f16"):
        compile_model(model, tmp_path / "d", weights="f8")


def test_weights_that_cost_too_much_must_be_accepted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    from rnnx.tolerance import Bound

    monkeypatch.setattr("rnnx_native.precision.allowed", lambda weights: Bound(1e-9, 1e-9))
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


def test_the_command(command: Any, model: Path, tmp_path: Path) -> None:
    result = command("compile", model, "-o", tmp_path / "c", "--name", "amp", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert set(facts["files"]) == {path.name for path in (tmp_path / "c").iterdir()}
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
