"""`error[internal]` means a fault of rnnx: what is wrong with a file, path or compiler has its own code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import Result

import rnnx
from cases import onnx_models
from cases.leak import Edit, edited, edited_leak, leak_model
from conftest import REPOSITORY
from rnnx import scaffold, trial
from rnnx.cli.group import as_rnnx_error
from rnnx.errors import FileError, ModelError, ProviderError, RnnxError
from rnnx.limits import bounded
from rnnx_native import build_cache
from rnnx_native.compile import compile_model


def node_of(model: Any, operator: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == operator)


def weight_of(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def put_before_output(model: Any, *nodes: Any) -> None:
    """Let nodes that read `y_` give y."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["y_" if name == "y" else name for name in names]
    model.graph.node.extend(nodes)


def set_weight(model: Any, name: str, value: np.ndarray[Any, Any]) -> None:
    weight_of(model, name).CopyFrom(numpy_helper.from_array(value, name))


def no_attribute(model: Any) -> None:
    del node_of(model, "Transpose").attribute[:]
    node_of(model, "LSTM").attribute[0].name = "hidden"


DAMAGED: dict[str, tuple[Callable[[], bytes], Edit, str]] = {
    "an attribute that the operator does not have": (onnx_models.lstm, no_attribute, "hidden"),
    "an attribute of another type": (
        onnx_models.lstm,
        lambda model: node_of(model, "Transpose").attribute[0].CopyFrom(helper.make_attribute("perm", "x")),
        "Transpose",
    ),
    "a permutation of other axes": (
        onnx_models.lstm,
        lambda model: (
            node_of(model, "Transpose").attribute[0].CopyFrom(helper.make_attribute("perm", [3, 1]))
        ),
        "Transpose",
    ),
    "text that is no UTF-8": (
        onnx_models.lstm,
        lambda model: node_of(model, "LSTM").attribute.append(
            helper.make_attribute("direction", b"\xff\xfe")
        ),
        "direction",
    ),
    "weights of another number of units": (
        onnx_models.lstm,
        lambda model: set_weight(model, "r", np.zeros((1, 32, 4), np.float32)),
        "LSTM",
    ),
    "weights of a rank too few": (
        onnx_models.lstm,
        lambda model: set_weight(model, "w", np.zeros(3, np.float32)),
        "LSTM",
    ),
    "a weight with fewer values than its shape": (
        onnx_models.lstm,
        lambda model: weight_of(model, "b").dims.append(7),
        "'b'",
    ),
    "a weight of a type that does not exist": (
        onnx_models.lstm,
        lambda model: setattr(weight_of(model, "b"), "data_type", 99),
        "'b'",
    ),
    "a node with too few inputs": (
        onnx_models.accumulator,
        lambda model: node_of(model, "Add").input.pop(),
        "Add",
    ),
    "an input that nothing gives": (
        onnx_models.accumulator,
        lambda model: node_of(model, "Add").input.__setitem__(1, "nobody"),
        "'nobody'",
    ),
    "an output that nothing gives": (
        onnx_models.accumulator,
        lambda model: node_of(model, "Gather").output.__setitem__(0, "elsewhere"),
        "none",
    ),
    "a value that is given twice": (
        onnx_models.accumulator,
        lambda model: model.graph.node.append(helper.make_node("Neg", ["x"], ["sums"])),
        "'sums' twice",
    ),
    "a sum of two types": (
        onnx_models.accumulator,
        lambda model: put_before_output(
            model,
            helper.make_node("Cast", ["y_"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["y_", "real"], ["y"]),
        ),
        "Add",
    ),
    "no version of ONNX's own operators": (
        onnx_models.accumulator,
        lambda model: setattr(model.opset_import[0], "domain", "elsewhere"),
        "imports none",
    ),
    "a version of ONNX's own operators below all": (
        onnx_models.accumulator,
        lambda model: setattr(model.opset_import[0], "version", -(1 << 63)),
        "operator set -9223372036854775808",
    ),
    "a Split of more outputs than it says": (
        onnx_models.accumulator,
        lambda model: put_before_output(model, helper.make_node("Split", ["y_"], ["y", "z"], num_outputs=1)),
        "num_outputs is 1, and it has 2",
    ),
    "a loop without a body": (leak_model, lambda model: node_of(model, "Scan").attribute.pop(0), "Scan"),
    "the mask of a Dropout": (
        onnx_models.gru,
        lambda model: put_before_output(model, helper.make_node("Dropout", ["y_"], ["y", "mask"])),
        "'mask'",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_graph_cannot_be_compiled_and_the_message_says_where(name: str, tmp_path: Path) -> None:
    make, edit, said = DAMAGED[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(edited(make(), edit))
    for use in (lambda: compile_model(path, tmp_path / "c"), lambda: rnnx.load(path, provider="native")):
        with pytest.raises(ModelError) as caught:
            use()
        assert caught.value.code == "cannot-compile"
        assert said in caught.value.found
    assert not (tmp_path / "c").exists()


def test_a_constant_of_a_kilobyte_that_stands_for_a_terabyte_is_refused(tmp_path: Path) -> None:
    def expand(model: Any) -> None:
        size = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "size")
        model.graph.initializer.append(size)
        put_before_output(
            model,
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"]),
            helper.make_node("Cast", ["zero"], ["none"], to=TensorProto.INT64),
            helper.make_node("Squeeze", ["none"], ["nothing"]),
            helper.make_node("Add", ["y_", "nothing"], ["y"]),
        )

    path = tmp_path / "net.onnx"
    path.write_bytes(edited(onnx_models.accumulator(), expand))
    with bounded(1 << 30), pytest.raises(RnnxError) as caught:
        compile_model(path, tmp_path / "c")
    assert (caught.value.code, caught.value.found) == ("out-of-memory", str(4 << 40))


def test_nodes_of_one_name_are_not_taken_for_each_other() -> None:
    """A product and its bias become one node; the names of nodes say nothing about which."""

    def add(model: Any) -> None:
        for name, value in (("w", [[2.0]]), ("b", [1.0])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        nodes = [
            ("MatMul", ["y_", "w"], "product"),
            ("Add", ["product", "b"], "sum"),
            ("Add", ["sum", "y_"], "y"),
        ]
        put_before_output(model, *(helper.make_node(op, given, [made], "same") for op, given, made in nodes))

    x = np.ones((1, 3, 1), np.float32)
    plain = rnnx.load(leak_model()).stream().run(x)["y"]
    got = rnnx.load(edited_leak(add), provider="native").stream().run(x)["y"]
    np.testing.assert_allclose(got, 3 * plain + 1, rtol=1e-6)


@pytest.mark.parametrize("start", [{}, [{}], [[None]], [{"a": 1}, 2], ["x"]])
def test_a_start_that_is_no_number_is_no_contract(start: Any) -> None:
    def replace(model: Any) -> None:
        contract = json.loads(model.metadata_props[0].value)
        contract["states"][0]["initial"] = start
        model.metadata_props[0].value = json.dumps(contract)

    with pytest.raises(ModelError) as caught:
        rnnx.load(edited_leak(replace))
    assert caught.value.code == "contract-invalid"


@pytest.mark.parametrize("words", ['gcc "', "'", "no-such-compiler"])
def test_a_compiler_that_cannot_be_named_is_missing(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", words)
    with pytest.raises(ProviderError) as caught:
        build_cache.compiler()
    assert caught.value.code == "compiler-missing"


@pytest.mark.parametrize("content", ["#!/no/such/interpreter\n", "no program"])
def test_a_compiler_that_cannot_start_is_missing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cc"
    program.write_text(content)
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    with pytest.raises(ProviderError) as caught:
        build_cache.compiler()
    assert (caught.value.code, str(program) in caught.value.found) == ("compiler-missing", True)


def test_a_compiler_that_vanishes_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says its version once, and is gone when it is to compile."""
    program = tmp_path / "cc"
    program.write_text('#!/bin/sh\necho one\nrm -f "$0"\n')
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ProviderError) as caught:
        build_cache.kept(["x"], lambda: {"x.c": b""}, {"x.so": ["x.c"]})
    assert caught.value.code == "compiler-missing"


@pytest.mark.parametrize("target", ["loop", "loop/app"])
def test_a_link_that_leads_to_itself_is_named(
    target: str, tmp_path: Path, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(leak_model())
    Path("loop").symlink_to("loop")
    with pytest.raises(FileError):
        scaffold.embed("c", "net.onnx", target)
    for words in (
        ["embed", "c", "net.onnx", "-o", target],
        ["compile", "net.onnx", "-o", target],
        ["inspect", target],
        ["run", "net.onnx", "--input", target, "--output", "y.npy"],
    ):
        result = command(*words)
        assert result.exit_code == 2
        assert "error[internal]" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "net.onnx"]


def test_a_file_name_that_is_no_utf8_is_a_file_name(tmp_path: Path, command: Callable[..., Result]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/net\xff.onnx"))
    try:
        path.write_bytes(leak_model())
    except OSError:
        pytest.skip("not run: this file system takes UTF-8 alone")
    for words in (
        ["inspect", path],
        ["compile", path, "-o", tmp_path / "c"],
        ["embed", "c", path, "-o", tmp_path / "e"],
    ):
        assert command(*words).exit_code == 0


def test_letters_that_standard_output_does_not_have_are_named() -> None:
    told = as_rnnx_error(UnicodeEncodeError("ascii", "a\u20ac", 1, 2, "no"))
    assert (told.code, told.found) == ("cannot-write-output", "'\\u20ac'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_standard_output_only_where_something_was_printed(unbuffered: str) -> None:
    code = "import sys; from rnnx.cli import app; app(['doctor', '--json'])"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, "standard output" in done.stderr) == (2, True)
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        told = as_rnnx_error(error)
    assert isinstance(told, FileError)
    assert (told.code, "standard output" in str(told)) == ("cannot-write", False)


@pytest.mark.parametrize(
    ("name", "outcome", "code"), [("gru.onnx", "works", ""), ("faults/text.onnx", "refused", "not-onnx")]
)
def test_doctor_tries_a_file(name: str, outcome: str, code: str, command: Callable[..., Result]) -> None:
    path = REPOSITORY / "parity_tests" / "golden" / name
    result = command("doctor", "--try", path, "--json")
    found = json.loads(result.stdout)
    assert (found["outcome"], found["code"], found["provider"]) == (outcome, code, "cpu")
    assert result.exit_code == (outcome != "works")
    assert outcome in command("doctor", "--try", path).stdout


@pytest.mark.parametrize(
    ("script", "outcome", "code"),
    [
        ("kill -SEGV $$", "ended", "SIGSEGV"),
        ("kill -ABRT $$", "ended", "SIGABRT"),
        ("echo bad >&2; exit 3", "ended", "exit-3"),
        ("echo '{}'", "ended", "exit-0"),
        ("sleep 30", "endless", "timeout"),
    ],
)
def test_what_ends_the_child_ends_the_child_alone(
    script: str, outcome: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\nexec 2>&1; {script}\n" if "2>" not in script else f"#!/bin/sh\n{script}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(program))
    found = trial.try_model(tmp_path / "net.onnx", seconds=1.0)
    assert (found.outcome, found.code) == (outcome, code)


def test_the_child_imports_nothing_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(leak_model())
    for name in ("json", "rnnx", "numpy"):
        Path(f"{name}.py").write_text("raise SystemExit('imported')")
    assert trial.try_model("net.onnx").outcome == "works"


def test_doctor_refuses_a_provider_without_a_file(command: Callable[..., Result]) -> None:
    result = command("doctor", "--provider", "cpu")
    assert (result.exit_code, "error[arguments]" in result.stderr) == (2, True)


@pytest.mark.parametrize("spoiled", [b"valid", b"Identity"])
def test_a_name_that_is_no_text_is_no_bare_exception(spoiled: bytes, tmp_path: Path) -> None:
    """Names of values inside the graph, and of operators, are read by more than one reader."""
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_models.masked_steps().replace(spoiled, b"\xff" * len(spoiled)))
    for read in (rnnx.load, lambda source: compile_model(source, tmp_path / "c")):
        with contextlib.suppress(RnnxError):
            read(path)
