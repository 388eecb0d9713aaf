"""`rnnx inspect`, and what it says about files that are not what they should be."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import Result

from cases.leak import leak_contract, leak_graph, leak_model
from rnnx.cli.inspect import report
from rnnx.errors import ModelError, RnnxError
from rnnx.model import contract as contracts
from rnnx.model import protobuf
from rnnx.model.contract import InputSpec, OutputSpec, StateSpec, Vocabulary
from rnnx.model.inspection import inspect_model

LEAK = leak_model()


def leak_state(**changes: Any) -> StateSpec:
    """Return the leak's state with fields replaced."""
    return msgspec.structs.replace(leak_contract().states[0], **changes)


def with_text(text: str) -> bytes:
    """Return the leak with any text as its contract."""
    pair = protobuf.encode_bytes(1, contracts.METADATA_KEY.encode()) + protobuf.encode_bytes(2, text.encode())
    return leak_graph() + protobuf.encode_bytes(14, pair)


def with_fields(**changes: Any) -> bytes:
    """Return the leak with fields of the contract's JSON replaced, or added."""
    return with_text(json.dumps(json.loads(contracts.to_json(leak_contract())) | changes))


def test_names_from_a_file_cannot_command_the_terminal(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    hostile = "\x1b[2Jgone\x07\u202e\n\x85"
    model = tmp_path / "hostile.onnx"
    model.write_bytes(with_fields(name=hostile, whole_only=hostile, user={hostile: 1}))
    shown = command("inspect", model).stdout
    assert not set(shown.replace("\n", "")) & {"\x1b", "\x07", "\u202e", "\x85"}
    assert shown.count("\\x1b[2Jgone\\x07\\u202e") == 3
    assert json.loads(command("inspect", model, "--json").stdout)["name"] == hostile, "JSON holds it as it is"


def test_report_shows_what_it_takes_gives_and_carries(command: Callable[..., Result], leak: Path) -> None:
    result = command("inspect", leak)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == f"{leak} leak"
    for line in (
        "x float32[batch, time, 1]",
        "y float32[batch, time, 1]",
        "sum float32[batch, 1] starts as 2 sum.in -> sum.out",
        f"size {leak.stat().st_size:,} bytes, 1 parameters",
        "operators Add 1, Identity 1, Mul 1, Scan 1",
        "format IR 8, operator sets ONNX 17",
        "runs step by step or in chunks, any batch",
        "against torch 2.15.0",
        "compared 200 steps at batches 1, 3, tolerance float32",
        "way scan",
        "holds yes: the file has the id it was proved with",
    ):
        assert line in lines, line


def test_report_of_a_file_changed_since_its_proof_says_so() -> None:
    half = b"\x00\x00\x00\x3f"
    assert LEAK.count(half) == 1
    found = inspect_model(LEAK.replace(half, b"\x00\x00\x40\x3f"))
    assert not found.is_as_proved
    assert "holds     NO: the file has changed; it was proved as sha256:" in report(found)
    assert found.model.id not in report(found).partition("proof\n")[2]


def test_report_of_a_file_without_proof_says_so() -> None:
    found = inspect_model(leak_model(leak_contract(proof=None)))
    assert not found.is_as_proved
    assert "nobody has compared this file" in report(found)


def test_report_shows_every_field_there_is() -> None:
    contract = leak_contract(
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch", "time", 1]),
            InputSpec(name="gain", dtype="float32", shape=["batch"], default=1.5),
            InputSpec(name="lengths", dtype="int64", shape=["batch"], role="length"),
        ],
        states=[
            leak_state(name="a", shape=["batch", 2], initial=[[1.0, 2.0]]),
            leak_state(name="b", shape=["batch"], initial="-inf"),
        ],
        steps_per_second=62.5,
        whole_only="layer 'back' reads from the end",
        vocabulary=Vocabulary(input="x", output="y", symbols=list("helo!")),
        user={"licence": "MIT"},
    )
    found = inspect_model(LEAK)
    text = report(type(found)(model=found.model, contract=contract, proved_id=""))
    for part in (
        "optional, 1.5 unless given",
        "valid steps per row, all unless given",
        "starts as given values (1 x 2)",
        "starts as -inf",
        "62.5 steps per second",
        "only whole sequences: layer 'back' reads from the end",
        "5 symbols: 'helo!'",
        "licence",
    ):
        assert part in text, part


def test_model_without_states_says_that_it_carries_nothing() -> None:
    found = inspect_model(LEAK)
    contract = leak_contract(states=[], outputs=[OutputSpec(name="y", dtype="float32", shape=["batch"])])
    assert "none: each call stands for itself" in report(type(found)(found.model, contract, ""))


def test_json_is_the_contract_itself(command: Callable[..., Result], leak: Path) -> None:
    result = command("inspect", leak, "--json")
    assert result.exit_code == 0
    assert contracts.from_json(result.stdout) == inspect_model(leak).contract
    assert list(json.loads(result.stdout))[:3] == ["format", "version", "requires"]


def test_inspecting_needs_neither_onnx_nor_onnxruntime_nor_torch(leak: Path) -> None:
    program = (
        "import sys\nfrom rnnx.cli import app\n"
        "for name in ('torch', 'onnx', 'onnxruntime'):\n    sys.modules[name] = None\n"
        f"app(['inspect', {str(leak)!r}])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


STATE = {"name": "sum", "input": "sum.in", "output": "sum.out", "dtype": "float32", "shape": ["batch", 1]}
SYMBOLS = {"input": "x", "output": "y", "scores": "logits", "unit": "codepoint", "symbols": ["a"]}
BAD = {
    "text": (b"once upon a time there was no model here, only words\n" * 20, "not-onnx"),
    "empty": (b"", "not-onnx"),
    "zeros": (bytes(4096), "not-onnx"),
    "safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"b":"c"}} ', "not-onnx"),
    "no contract": (leak_graph(), "no-contract"),
    "later version": (with_fields(version=2, inputs="meaning something else"), "contract-newer"),
    "unknown requirement": (with_fields(requires=["loops"], states=7), "contract-requires"),
    "not JSON": (with_text("{"), "contract-invalid"),
    "JSON of something else": (with_text('{"format": "other", "version": 1}'), "contract-invalid"),
    "no version": (with_text('{"format": "rnnx"}'), "contract-invalid"),
    "version 0": (with_fields(version=0), "contract-invalid"),
    "wrong type": (with_fields(inputs=[{"name": "x", "dtype": "float99", "shape": []}]), "contract-invalid"),
    "null as a number": (
        with_fields(states=[{**STATE, "initial": [None]}]),
        "contract-invalid",
    ),
    "JSON too deep": (with_text("[" * 9999 + "]" * 9999), "contract-invalid"),
    "symbols that are no integers": (
        with_fields(vocabulary=SYMBOLS),
        "contract-invalid",
    ),
    "nothing carried": (with_fields(states=[]), "contract-graph"),
    "another output": (
        with_fields(outputs=[{"name": "z", "dtype": "float32", "shape": ["batch", "time", 1]}]),
        "contract-graph",
    ),
    "another dtype": (
        with_fields(inputs=[{"name": "x", "dtype": "float64", "shape": ["batch", "time", 1]}]),
        "contract-graph",
    ),
    "another shape": (
        with_fields(inputs=[{"name": "x", "dtype": "float32", "shape": ["batch", "time", 2]}]),
        "contract-graph",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file_is_one_line_with_its_code_and_exit_2(
    what: str, command: Callable[..., Result], tmp_path: Path
) -> None:
    data, code = BAD[what]
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    result = command("inspect", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"rnnx: error[{code}]: expected ")
    assert result.stderr.count("\n") == 1
    for part in ("; found ", "; fix: "):
        assert part in result.stderr


@pytest.mark.parametrize("tenth", range(10))
def test_file_cut_short_at_every_tenth_is_no_onnx_model(
    tenth: int, command: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "short.onnx"
    path.write_bytes(LEAK[: len(LEAK) * tenth // 10])
    result = command("inspect", path)
    assert result.exit_code == 2
    assert result.stderr.startswith("rnnx: error[not-onnx]: ")


def test_file_cut_short_anywhere_is_refused() -> None:
    for size in range(len(LEAK)):
        with pytest.raises(RnnxError) as caught:
            inspect_model(LEAK[:size])
        # Cut right before the metadata it is a whole model, only without a contract.
        assert caught.value.code == ("no-contract" if size == len(leak_graph()) else "not-onnx"), size


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(LEAK) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_file_is_refused_with_a_code_or_read_but_never_crashes(damage: list[tuple[int, int]]) -> None:
    data = bytearray(LEAK)
    for place, value in damage:
        data[place] = value
    with contextlib.suppress(ModelError):
        report(inspect_model(bytes(data)))


@pytest.mark.parametrize(
    ("make", "code"),
    [(lambda path: None, "file-missing"), (lambda path: path.mkdir(), "cannot-read")],
    ids=["missing", "folder"],
)
def test_path_that_is_no_file(
    make: Callable[[Path], None], code: str, command: Callable[..., Result], tmp_path: Path
) -> None:
    make(tmp_path / "model.onnx")
    result = command("inspect", tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"rnnx: error[{code}]: ")


@pytest.mark.skipif(os.name != "posix", reason="not run: pseudo terminals of POSIX")
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_only_on_a_terminal_that_wants_them(
    no_color: str, coloured: bool, leak: Path, command: Callable[..., Result]
) -> None:
    import pty

    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    line = [sys.executable, "-m", "rnnx.cli", "inspect", str(leak)]
    ours, theirs = pty.openpty()
    subprocess.run(line, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert (b"\x1b[" in shown) == coloured
    piped = subprocess.run(line, stdout=subprocess.PIPE, env=environment, check=True).stdout
    assert b"\x1b[" not in piped
